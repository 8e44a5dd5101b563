"""The gate: what is wrong with the options of a sweep, as far as it shows before anything heavy is loaded."""

from __future__ import annotations

import math
import re
import sys
import tempfile
from collections.abc import Collection, Container, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.cluster.machine import Nodes
from orchestrator.loggers import trackers
from orchestrator.plan import final_runs, slot_range, time_budget
from orchestrator.plan.option_types import LEAST, check_blanks, check_types
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.aims import check_target
from orchestrator.record.paths import SweepFolder, sweeps_in
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.schedulers import SCHEDULERS, unused
from search_spaces import recipes
from search_spaces.situation import PRESETS
from search_spaces.starts import STARTS
from trainables import datasets, user_metrics
from trainables.command_line import flag_of
from trainables.datasets.colors import check_background
from trainables.datasets.reading import check_parts
from trainables.errors import ConfigError, listed, shown, suggestion
from trainables.models import factories
from trainables.storage import SCHEMES

REGISTRIES: Mapping[str, Collection[str]] = {
    "on_bad_image": datasets.BAD_IMAGE_POLICIES,
    "on_unlabelled": datasets.UNLABELLED_POLICIES,
    "preset": PRESETS,
    "sampler": SAMPLERS,
    "scheduler": SCHEDULERS,
    "starts": STARTS,
}
"""Options whose value is a name, and the names."""
EXAMPLES = {
    "classes": "cat dog",
    "set": "lr=0.1",
    "search": "lr=log(1e-4,1e-1)",
    "try_": "lr=0.1",
    "also": "parameters:min",
    "constraint": '"parameters<5e6"',
    "warm_start": "results/NAME",
    "log": "tensorboard",
}
"""Options that may be repeated, and something that can follow each."""


def check(options: SweepOptions, nodes: Nodes | None) -> Request:
    """Return the parsed `options` if nothing is wrong with them; `nodes` is None if they are not known yet.

    Raises:
        ConfigError: naming every wrong value at once.
    """
    if problems := check_types(options) or check_blanks(options):
        raise ConfigError(*problems)
    request = Request(options)
    problems = [
        *_check_command(options),
        *(_check_recipe(request) or _check_dataset(request)),
        *(
            problem
            for name, names in REGISTRIES.items()
            for problem in _check_name(name, getattr(options, name), names)
        ),
        *_check_preset(options),
        *user_metrics.problems(options.metric),
        *final_runs.check(options),
        *_check_numbers(options),
        *_check_texts(options),
        *check_background(options.background),
        *_check_address(options.address),
        *(slot_range.check(options) or (slot_range.check_share(options, nodes) if nodes else [])),
        *_check_folder(options),
        *_check_profile(options.profile),
        *_check_storage(options.storage),
        *trackers.check(request.trackers, None if options.resume else options.name),
        *_check_resume(options),
        *_check_aims(request),
        *_check_warm_start(request),
        *_check_space(request, nodes),
        *_check_changes(request),
    ]
    if problems := problems or _check_models(request):
        raise ConfigError(*problems)
    return request


def _check_command(options: SweepOptions) -> list[str]:
    """Return a message if Ray, which reads the command of its driver, cannot be started by this one."""
    foreign = [text for text in sys.orig_argv if not options.dry_run and re.search("[\udc80-\udcff]", text)]
    return [
        f"{shown(text)}: Ray cannot be started by a command with bytes that are no UTF-8; rename the file or "
        "folder, or give a link to it (ln -s)"
        for text in foreign
    ]


def _check_dataset(request: Request) -> list[str]:
    """Return why the data cannot be read; with wrong `--parts`, which are reported by themselves, nobody knows."""
    options = request.options
    unknown = options.resume is not None or (options.parts is not None and check_parts(options.parts))
    return [] if unknown else datasets.check(request.dataset, options.reading)


def _check_name(name: str, value: str, names: Collection[str]) -> list[str]:
    """Return a message if the value of an option is no name of these; only `--arms` takes several."""
    allowed = "" if name == "arms" else listed(names)
    return [f"{flag_of(name)} {value}: unknown{suggestion(value, names, allowed)}"] if value not in names else []


def _check_preset(options: SweepOptions) -> list[str]:
    """Return a message if `--quick` and another preset are given."""
    if not options.quick or options.preset == "quick":
        return []
    return [f"--quick is --preset quick, and --preset {options.preset} is given: leave one out"]


def _check_recipe(request: Request) -> list[str]:
    """Return what is wrong with the recipe and its arms, or with options that need a recipe."""
    options = request.options
    if options.recipe is None:
        return _check_without_recipe(options)
    problems = _check_name("recipe", options.recipe, recipes.RECIPES)
    if problems:
        return problems
    if options.folds != SweepOptions.folds:
        problems.append(f"--folds {options.folds}: a recipe's arms are scored on the rows of its paper; leave it out")
    if options.confirm is not None:
        problems.append(f"--confirm {options.confirm}: a recipe's arms are all run again; see --confirm-seeds")
    assert request.recipe is not None  # noqa: S101 - it is named
    arms = tuple(request.recipe.spaces(request.dataset, quick=options.preset == "quick"))
    for arm in options.arms:
        problems += _check_name("arms", arm, arms)
    if len(set(options.arms)) < len(options.arms):
        problems.append(f"--arms {' '.join(options.arms)}: name each arm once")
    if options.trials is not None and not options.search and options.resume is None:
        problems.append(
            f"--trials {options.trials}: nothing is searched in {options.recipe}; give --search FIELD=DIST as well, or "
            "--confirm-seeds for the number of runs of each arm"
        )
    return problems + (datasets.check_external(options.external_test) if options.external_test else [])


def _check_without_recipe(options: SweepOptions) -> list[str]:
    problems = []
    if options.confirm == 0 and options.confirm_seeds is not None:
        problems.append(
            f"--confirm-seeds {options.confirm_seeds}: nothing is run again with --confirm 0; leave one of them out"
        )
    if options.resume is None:
        needs = f"needs a recipe; name one by --recipe ({', '.join(recipes.RECIPES)})"
        given = [name for name in ("arms", "external_test") if getattr(options, name) != getattr(SweepOptions, name)]
        problems += [f"{flag_of(name)} {needs}" for name in given]
    return problems


def _check_numbers(options: SweepOptions) -> list[str]:
    problems = []
    for name, least in LEAST.items():
        value = getattr(options, name)
        if isinstance(value, int) and value < least:
            problems.append(f"{flag_of(name)} {value}: at least {least} is needed")
    if not 1 < options.factor < math.inf:
        problems.append(f"--factor {options.factor:g}: a number above 1 is needed, usually 2 to 4")
    given = {name: v for name in ("grace", "factor") if (v := getattr(options, name)) != getattr(SweepOptions, name)}
    return problems + unused(options.scheduler, given)


def _check_texts(options: SweepOptions) -> list[str]:
    problems = []
    if options.gpu_hours is not None and not 0 < options.gpu_hours < math.inf:
        problems.append(f"--gpu-hours {options.gpu_hours:g}: a number above 0 is needed")
    problems += [] if options.resume else check_target(options.metric, options.target_score)  # else known later
    if options.time_budget is not None and time_budget.parsed(options.time_budget) is None:
        problems.append(f"--time-budget {options.time_budget!r} is not a time (allowed: 90s, 30m, 2h, 1h30m)")
    if options.on_end is not None and not options.on_end.strip():
        problems.append("--on-end: nothing follows it; give a shell command")
    problems += [] if options.parts is None else check_parts(options.parts)
    for name, example in EXAMPLES.items():
        if () in getattr(options, name):
            problems.append(f"{flag_of(name)}: nothing follows it; for example {flag_of(name)} {example}")
    return problems


def _check_aims(request: Request) -> list[str]:
    """Return what is wrong with `--also` and `--constraint`."""
    problems = list[str]()
    for name in ("aims", "constraints"):
        try:
            getattr(request, name)
        except ConfigError as error:
            problems += error.problems
    given = [name for name in ("also", "constraint") if request.options.recipe and getattr(request.options, name)]
    return problems + [f"--{name}: a recipe's arms have the metrics of its paper; leave it out" for name in given]


def _check_warm_start(request: Request) -> list[str]:
    """Return what is wrong with the sweeps that `--warm-start` names."""
    if not request.warm_start or request.options.resume is not None:
        return []
    from orchestrator.leaderboard import memory  # reads tables

    return memory.check(request.warm_start, request.options.results)


def _check_changes(request: Request) -> list[str]:
    """Return what is wrong with `--set` and `--search`."""
    try:
        fixed, searched = request.changes
        problems = [] if request.options.resume else _check_weights(request)
    except ConfigError as error:
        return error.problems
    return problems + _check_split(request.options, fixed.get("split", "core"), searched)


def _check_weights(request: Request) -> list[str]:
    """Return why there are no pretrained nets where the options say; for a recipe that is none, nobody knows."""
    if request.options.recipe not in (None, *recipes.RECIPES):
        return []
    try:
        request.situation(gpu=False)
    except ConfigError as error:
        return error.problems
    return []


def _check_space(request: Request, nodes: Nodes | None) -> list[str]:
    """Return what is wrong with the file of `--space`, or why it cannot be given."""
    options = request.options
    if options.space is None:
        return []
    if options.recipe is not None:
        return [f"--space {options.space}: a recipe's arms are its spaces; search them by --search, or leave one out"]
    if options.preset != SweepOptions.preset and options.space.suffix != ".py":
        given = f"--preset {options.preset}"
        return [f"{given}: a YAML space has no presets; give --trials, --max-epochs and --subset instead"]
    try:
        space = request.base_spaces(gpu=any(node.gpus for node in nodes or ()))[""]
    except ConfigError as error:
        return error.problems
    return [f"{options.space}: {problem}" for problem in _check_split(options, space.base.split, space.distributions)]


def _check_split(options: SweepOptions, split: str, searched: Container[str]) -> list[str]:
    """Return a message if trials would be scored on rows other than the fixed validation set."""
    if "split" in searched:
        return ["split cannot be searched: scores on different rows cannot be compared; search train_fraction"]
    if split != "core" and options.recipe is None and options.resume is None:
        return [
            f"split={split}: a sweep scores all trials on one validation set and keeps the test set sealed; a paper's "
            "split needs --recipe, or a single trial: python -m trainables"
        ]
    return []


def _check_models(request: Request) -> list[str]:
    """Return why models cannot be built, as far as their names show."""
    if request.options.resume is not None:
        return []
    models = dict.fromkeys(str(name) for space in request.possible_spaces() for name in space.values("model"))
    return [problem for name in models for problem in factories.problems(name)]


def _check_address(address: str) -> list[str]:
    if address.startswith("ray://"):
        return [
            f"--address {address}: under Ray Client Tune would run on the head node, outside this folder; "
            "give the head's HOST:PORT (usually port 6379) from a node of the cluster, or submit the sweep: "
            "ray job submit --working-dir . -- python -m orchestrator.sweep … --address auto"
        ]
    if address in ("local", "auto") or re.fullmatch(r"[^:\s]+:\d{1,5}", address):
        return []
    return [f"--address {address}: allowed are local, auto and HOST:PORT, such as 10.0.0.1:6379"]


def _check_folder(options: SweepOptions) -> list[str]:
    """Return why the folder of a new sweep cannot be created."""
    if options.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", options.name):
        return [
            f"--name {options.name!r}: at most 100 letters, digits, '.', '_' and '-' are allowed, "
            "beginning with a letter or a digit"
        ]
    folder = options.results.absolute() / (options.name or "")
    if options.name is not None and SweepFolder(folder).is_begun():
        return [f"--name {options.name}: {folder} exists; go on with it by --resume {options.name}"]
    return _check_writable("--results", str(options.results))


def _check_profile(path: Path | None) -> list[str]:
    """Return why the profile cannot be written."""
    if path is None:
        return []
    return (
        [f"--profile {path}: is a folder; name a file"]
        if path.is_dir()
        else _check_writable("--profile", str(path.parent))
    )


def _check_storage(uri: str | None) -> list[str]:
    """Return why checkpoints cannot be stored at `uri`, as far as it shows without a request to a bucket."""
    if uri is None:
        return []
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return _check_writable("--storage", uri)
    if scheme not in SCHEMES or not urlsplit(uri).netloc:
        return [f"--storage {uri}: allowed are a folder, {' and '.join(f'{s}://BUCKET/PATH' for s in SCHEMES)}"]
    if "@" in urlsplit(uri).netloc:
        return [f"--storage {scheme}://…: credentials belong in the environment, not in the URI"]
    return []


def _check_writable(option: str, folder: str) -> list[str]:
    """Return a message if files cannot be created in `folder`, which is created if it does not exist."""
    path = Path(folder).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return []
    except OSError as error:
        return [f"{option} {folder} cannot be written ({error.strerror}); choose another folder or free disk space"]


def _check_resume(options: SweepOptions) -> list[str]:
    """Return a message if there is no sweep to go on with."""
    if options.resume is None or (options.results / options.resume).exists():
        return []
    names = sweeps_in(options.results)
    nearest = suggestion(options.resume, names) if names else ", which holds no sweep"
    return [f"--resume {options.resume}: no such sweep in {options.results}{nearest}; --results names another folder"]
