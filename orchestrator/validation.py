"""What is wrong with the options of a sweep, as far as it can be seen before anything is loaded."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Collection, Container
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchestrator.cluster.machine import Nodes
from orchestrator.loggers import trackers
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan, check_share, seconds
from orchestrator.plan.request import Request
from search_spaces import recipes
from trainables import datasets
from trainables.epoch_metrics import METRICS
from trainables.errors import ConfigError, did_you_mean
from trainables.model_names import is_built_in
from trainables.models import factories
from trainables.storage import SCHEMES

if TYPE_CHECKING:
    from trainables.splits import SearchData

SAMPLERS = ("tpe", "random", "grid")
SCHEDULERS = ("asha", "hyperband", "median", "none")


def check(options: SweepOptions, nodes: Nodes | None) -> Request:
    """Return the parsed `options` once nothing is seen to be wrong with them; `nodes` is None where not known yet.

    Raises:
        ConfigError: naming every wrong value at once.
    """
    request = Request(options)
    columns = datasets.Columns(options.image_column, options.label_column)
    problems = _check_recipe(request)
    if options.resume is None and not problems:
        problems = datasets.check(request.dataset, options.data_dir, columns)
    problems += _check_name("--on-bad-image", options.on_bad_image, datasets.BAD_IMAGE_POLICIES)
    problems += _check_name("--sampler", options.sampler, SAMPLERS)
    problems += _check_name("--scheduler", options.scheduler, SCHEDULERS)
    problems += _check_metric(options.metric)
    least = {
        "trials": 1,
        "max_epochs": 1,
        "grace": 1,
        "concurrency": 1,
        "cpus_per_trial": 1,
        "confirm": 0,
        "confirm_seeds": 1,
        "stored_side": 8,
        "subset": 2,
        "seed": 0,
    }
    for name, low in least.items():
        value = getattr(options, name)
        if isinstance(value, int) and value < low:
            problems.append(f"--{name.replace('_', '-')} {value}: at least {low} is needed")
    if not 1 < options.factor < math.inf:
        problems.append(f"--factor {options.factor:g}: above 1 is needed, usual are 2 to 4")
    if options.time_budget is not None and seconds(options.time_budget) is None:
        problems.append(f"--time-budget {options.time_budget!r} is not a time (allowed: 90s, 30m, 2h, 1h30m)")
    if options.on_end is not None and not options.on_end.strip():
        problems.append("--on-end: nothing follows it; give a shell command")
    problems += _check_address(options.address)
    problems += check_share(options, nodes) if nodes else []
    problems += _check_folder(options)
    problems += _check_storage(options.storage)
    problems += trackers.check(request.trackers, None if options.resume else options.name)
    for name, example in (("set", "lr=0.1"), ("search", "lr=log(1e-4,1e-1)"), ("log", "tensorboard")):
        if () in getattr(options, name):
            problems.append(f"--{name}: nothing follows it; for example --{name} {example}")
    problems += _check_resume(options)
    problems += _check_space(request, nodes)
    try:
        fixed, searched = request.changes
        problems += _check_split(options, fixed.get("split", "core"), searched)
    except ConfigError as error:
        problems += error.problems
    if not problems and options.resume is None:
        models = dict.fromkeys(str(name) for space in request.possible_spaces() for name in space.values("model"))
        problems += [problem for name in models for problem in factories.problems(name)]
    if problems:
        raise ConfigError(*problems)
    return request


def _check_name(option: str, value: str, allowed: Collection[str]) -> list[str]:
    if value in allowed:
        return []
    return [f"{option} {value}: unknown{did_you_mean(value, allowed)} (allowed: {', '.join(allowed)})"]


def _check_recipe(request: Request) -> list[str]:
    """Whether the recipe and its arms are there, and nothing is asked that needs a recipe."""
    options = request.options
    if options.recipe is None:
        given = [name for name in ("arms", "external_test") if getattr(options, name) != getattr(SweepOptions, name)]
        needs = f"needs a recipe; name one by --recipe ({', '.join(recipes.RECIPES)})"
        unused = (
            f"--confirm-seeds {options.confirm_seeds}: nothing is run again with --confirm 0; leave one of them out"
        )
        wrong = [unused] if options.confirm == 0 and options.confirm_seeds is not None else []
        return wrong + ([] if options.resume else [f"--{name.replace('_', '-')} {needs}" for name in given])
    problems = _check_name("--recipe", options.recipe, recipes.RECIPES)
    if problems:
        return problems
    if options.confirm is not None:
        problems.append(f"--confirm {options.confirm}: a recipe's arms are all run again; see --confirm-seeds")
    assert request.recipe is not None  # noqa: S101 - it is named
    arms = tuple(request.recipe.spaces(request.dataset, quick=options.quick))
    for arm in options.arms:
        problems += _check_name("--arms", arm, arms)
    if len(set(options.arms)) < len(options.arms):
        problems.append(f"--arms {' '.join(options.arms)}: name each once")
    if options.trials is not None and not options.search and options.resume is None:
        problems.append(
            f"--trials {options.trials}: nothing is searched in {options.recipe}; give --search FIELD=DIST as well, or "
            "--confirm-seeds for the number of runs of each arm"
        )
    return problems + (datasets.check_external(options.external_test) if options.external_test else [])


def _check_space(request: Request, nodes: Nodes | None) -> list[str]:
    """What is wrong with the file of --space, or with its being there."""
    options = request.options
    if options.space is None:
        return []
    if options.recipe is not None:
        return [f"--space {options.space}: a recipe's arms are its spaces; search them by --search, or leave one out"]
    if options.quick and options.space.suffix != ".py":
        return ["--quick: a YAML space has no laptop form; give --trials, --max-epochs and --subset instead"]
    try:
        space = request.base_spaces(gpu=any(node.gpus for node in nodes or ()))[""]
    except ConfigError as error:
        return error.problems
    return [f"{options.space}: {problem}" for problem in _check_split(options, space.base.split, space.distributions)]


def _check_split(options: SweepOptions, split: str, searched: Container[str]) -> list[str]:
    """Whether the rows that trials are scored on are left alone."""
    if "split" in searched:
        return ["split cannot be searched: scores on different rows cannot be compared; search train_fraction"]
    if split != "core" and options.recipe is None and options.resume is None:
        return [
            f"split={split}: a sweep scores all trials on one core and keeps the test set sealed; a paper's "
            "split goes with --recipe, or with a single trial, python -m trainables"
        ]
    return []


def _check_metric(metric: str) -> list[str]:
    name, _, mode = metric.partition(":")
    if name not in METRICS:
        return _check_name("--metric", name, tuple(METRICS))
    if mode and mode != METRICS[name]:
        return [f"--metric {metric}: {name} has a direction of its own, {METRICS[name]}; leave ':{mode}' out"]
    return []


def _check_address(address: str) -> list[str]:
    if address.startswith("ray://"):
        return [
            f"--address {address}: under Ray Client Tune would run on the head node, out of this folder; "
            "give the head's HOST:PORT (usually port 6379) from a node of the cluster, or submit the sweep: "
            "ray job submit --working-dir . -- python -m orchestrator.sweep … --address auto"
        ]
    if address in ("local", "auto") or re.fullmatch(r"[^:\s]+:\d{1,5}", address):
        return []
    return [f"--address {address}: allowed are local, auto and HOST:PORT"]


def _check_folder(options: SweepOptions) -> list[str]:
    folder = options.results.absolute()
    if options.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", options.name):
        return [f"--name {options.name!r}: letters, digits, '.', '_' and '-' are allowed, at most 100, no '.' first"]
    if options.name is not None and _is_begun(folder / options.name):
        return [f"--name {options.name}: {folder / options.name} exists; go on with it by --resume {options.name}"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return []
    except OSError as error:
        return [f"--results {options.results} cannot be written ({error.strerror}); choose another folder or make room"]


def _check_storage(uri: str | None) -> list[str]:
    """Whether checkpoints could go there, as far as that can be told without asking a bucket."""
    if uri is None:
        return []
    scheme, separator, _ = uri.partition("://")
    if separator:
        if scheme not in SCHEMES or not urlsplit(uri).netloc:
            return [f"--storage {uri}: allowed are a folder, {' and '.join(f'{s}://BUCKET/PATH' for s in SCHEMES)}"]
        if "@" in urlsplit(uri).netloc:
            return [f"--storage {scheme}://…: credentials belong in the environment, not in the URI"]
        return []
    try:
        folder = Path(uri).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return []
    except OSError as error:
        return [f"--storage {uri} cannot be written ({error.strerror}); choose another folder or make room"]


def _is_begun(folder: Path) -> bool:
    """Whether a sweep has a line in its journal there, or something else has taken the name."""
    journal = folder / "journal.jsonl"
    if journal.is_file():
        return b"\n" in journal.read_bytes()
    killed_at_once = folder.is_dir() and {path.name for path in folder.iterdir()} <= {"sweep.lock"}
    return folder.exists() and not killed_at_once


def _check_resume(options: SweepOptions) -> list[str]:
    if options.resume is None:
        return []
    if not (options.results / options.resume / "journal.jsonl").is_file():
        there = sorted(path.parent.name for path in options.results.glob("*/journal.jsonl"))
        return [
            f"--resume {options.resume}: no such sweep in {options.results} (there are: {', '.join(there) or 'none'})"
        ]
    return []


TRIED_DROPOUT = 0.1  # any that is not 0


def check_foreign(planned: Plan, data: SearchData) -> None:
    """Try every model that is not built in on two images of the size that trials will see.

    Raises:
        ConfigError: naming every one that cannot be made, or makes no logits of them.
    """
    device, problems = "cuda" if planned.slot_gpus else "cpu", []
    for space in planned.arms.values():
        for params in space.branches(("model", "weights", "stem", "freeze", "head_width")):
            config = space.config(params)
            if is_built_in(config.model):
                continue
            from trainables.batches import image_size
            from trainables.models import build

            if "dropout" in space.distributions:
                config = config.replace(dropout=config.dropout or TRIED_DROPOUT)
            try:
                size = image_size(config, data.images.shape[1:3], device)
                build.build(config, len(data.classes), size, initialized=False)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
