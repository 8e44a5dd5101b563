"""The options of a sweep, from which its command line is made. Values are checked in `orchestrator.validation`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from orchestrator.loggers import trackers
from orchestrator.plan.aim_options import AimOptions
from orchestrator.plan.option_types import LEAST
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.schedulers import SCHEDULERS
from search_spaces.distributions import ALLOWED_DISTRIBUTIONS, OPTIONS
from search_spaces.recipes import RECIPES
from search_spaces.situation import PRESETS
from search_spaces.starts import STARTS
from trainables import command_line
from trainables.command_line import Flag, Repeated, option, set_fields
from trainables.datasets import BAD_IMAGE_POLICIES, DATASET_HELP, UNLABELLED_POLICIES, Reading
from trainables.datasets.reading import PARTS, TOO_FEW, parse_parts
from trainables.storage import SCHEMES


def _explained(entries: Mapping[str, str]) -> str:
    """Return a help text's list of names, each with its own line of help."""
    return "; ".join(f"{name} {text}" for name, text in entries.items())


def _policy(policies: Mapping[str, str], question: str) -> Any:
    """Return the annotation of an option whose value is one of `policies`."""
    return option("|".join(policies), " ".join([question, *(f"{name}: {text}." for name, text in policies.items())]))


@dataclass(frozen=True)
class DataOptions:
    """The images to learn from."""

    dataset: Annotated[
        str | None,
        Positional,
        option("DATASET", f"The data set: {DATASET_HELP}. Default: the recipe's data set, or digits."),
    ] = None
    data_dir: Annotated[Path | None, option("DIR")] = None
    """Folder of the data set's files, or of a table's pictures. Default: a download, or the folder of the table."""
    image_column: Annotated[str | None, option("NAME")] = None
    """Column of a CSV or Parquet file that holds the images. Default: found by name and type."""
    label_column: Annotated[str | None, option("NAME")] = None
    """Column of a CSV or Parquet file that holds the labels. Default: found by name and type."""
    parts: Annotated[
        str | None,
        option(
            "PART=NAME,…",
            f"Which folders, files or values of a split column are which part ({', '.join(PARTS)}), such as "
            "train=seg_train,test=seg_test. Default: found by name. See docs/your-data.md.",
        ),
    ] = None
    classes: Annotated[Repeated, option("NAME")] = ()
    """Use only these classes. Default: all classes."""
    min_rows: Annotated[int | Literal["drop"] | None, option("N|drop")] = None
    """Leave out classes with fewer than N pictures; drop: those with too few to be used. Default: refuse such data."""
    on_bad_image: Annotated[str, _policy(BAD_IMAGE_POLICIES, "What to do if images cannot be read.")] = "fail"
    on_unlabelled: Annotated[str, _policy(UNLABELLED_POLICIES, "What to do if images have no label.")] = "fail"
    background: Annotated[str, option("COLOR")] = "white"
    """Color that transparent pictures are put on: white, black, another name, or #RRGGBB."""
    stored_side: Annotated[int, option("PIXELS")] = 320
    """Pictures whose shorter side is longer are stored scaled down to that, in their own shape."""
    fit: Annotated[str | None, option("crop|pad|squash")] = None
    """How pictures become squares: by their center crop, with background around them, or squashed. Default: crop."""
    subset: Annotated[int | None, option("N")] = None
    """Use only N rows, stratified by class. Default: all rows, or the number that the search space names."""
    external_test: Annotated[Path | None, option("DIR")] = None
    """Class folders with pictures from elsewhere, on which a recipe's models are tested at the end."""


@dataclass(frozen=True)
class SearchOptions:
    """The trials to run, and how their settings are chosen."""

    recipe: Annotated[
        str | None,
        option(
            "NAME",
            f"Run a published system: {', '.join(RECIPES)}. Its arms are compared; with --search, each arm is searched "
            "first. See docs/recipes.md.",
        ),
    ] = None
    arms: Annotated[tuple[str, ...], option("NAME")] = ()
    """Run only these arms of the recipe. Default: all arms."""
    preset: Annotated[str, option("|".join(PRESETS), f"How much to search: {_explained(PRESETS)}.")] = "good"
    quick: Flag = False
    """The same as --preset quick; of a recipe, run a small variant that takes minutes on two cores."""
    weights: Annotated[str | None, option("WHERE")] = None
    """Pretrained nets to begin with: a folder or a file (.safetensors, .pth), imagenet (downloads them), timm:NAME.TAG,
    hf-hub:ORG/NAME, or none. Default, for pictures of your own: those that were downloaded before."""
    trials: Annotated[int | None, option("N")] = None
    """Number of trials; for a recipe that is searched, of each arm. Default: the search space's number."""
    max_epochs: Annotated[int | None, option("E")] = None
    """Number of epochs of a trial that is not stopped early. Default: the search space's number."""
    time_budget: Annotated[str | None, option("TIME")] = None
    """End the sweep after this time, such as 90s, 30m or 1h30m; --resume continues it. Default: no limit."""
    epoch_budget: Annotated[int | None, option("N")] = None
    """Train N epochs in all, confirmation runs included; without --trials as many trials as fit. Default: no limit."""
    gpu_hours: Annotated[float | None, option("H")] = None
    """End the search so that the sweep trains for H GPU-hours in all. Default: no limit."""
    target_score: Annotated[float | None, option("S")] = None
    """End the search once a trial reaches this score; the best trials are confirmed then. Default: none."""
    patience_trials: Annotated[int | None, option("N")] = None
    """End the search once N trials after the best one have ended without a better score. Default: never."""
    seed: Annotated[int, option("S")] = 0
    """Seed for proposals, weight initialization, data order and augmentation."""
    set: Annotated[Repeated, option("FIELD=VALUE")] = ()
    """Fix fields of the configuration, such as model=resnet50 optimizer=adamw. docs/fields.md lists all fields."""
    search: Annotated[
        Repeated,
        option(
            "FIELD=DIST",
            f'Search fields, such as "lr=log(1e-4,1e-1)". DIST is one of {ALLOWED_DISTRIBUTIONS}; a condition may '
            'follow, "if OTHER=VALUE". See docs/spaces.md.',
        ),
    ] = ()
    space: Annotated[Path | None, option("FILE")] = None
    """Search the space in this .yaml or .py file instead of the data set's; see docs/spaces.md."""
    try_: Annotated[
        Repeated,
        option(
            '"FIELD=VALUE …"',
            'Settings to try first, such as "lr=0.1 dropout=0.2"; fields that are searched and left out are drawn.',
            name="try",
        ),
    ] = ()
    starts: Annotated[
        str,
        option("|".join(STARTS), f"Other settings to begin with: {_explained(STARTS)}. See docs/search.md."),
    ] = "space"
    warm_start: Annotated[
        Repeated,
        option(
            "PATH|auto|none",
            "Begin with the best settings of earlier sweeps, too: of these folders, or (auto) of all sweeps in "
            "--results. Default: none, so that the same command searches the same.",
        ),
    ] = ()
    sampler: Annotated[
        str,
        option(
            "|".join(SAMPLERS),
            f"How settings are proposed: {_explained({name: entry.help for name, entry in SAMPLERS.items()})}.",
        ),
    ] = "tpe"
    scheduler: Annotated[
        str,
        option(
            "|".join(SCHEDULERS),
            "How weak trials are stopped early: "
            f"{_explained({name: entry.help for name, entry in SCHEDULERS.items()})}.",
        ),
    ] = "asha"
    grace: Annotated[int | None, option("E")] = None
    """Number of epochs that a trial runs before it may be stopped. Default: a ninth of its epochs, at least 1."""
    factor: Annotated[float, option("F")] = 3
    """With asha and hyperband, the best 1/F of the trials pass a rung, and each rung is F times as late as the last."""
    folds: Annotated[int | Literal["auto"], option("K|auto")] = "auto"
    """Score trials on all rows by K-fold cross-validation, which trains K models a trial; 1: on a fixed validation set.
    auto: 5 if a validation set would be too small, else 1."""


ENSEMBLES = {
    "none": "is one model",
    "seeds": "is the mean of its models of all seeds, which takes as many times as long to predict",
}
"""Values of `--ensemble` → what is kept."""


@dataclass(frozen=True)
class ConfirmationOptions:
    """Confirmation runs of the best trials with other seeds, the winner's test on the sealed test set, its refit."""

    confirm: Annotated[
        int | None,
        option(
            "K",
            "Run the best K trials again, in full and with new seeds, and then open the test set for the winner; 0 "
            "leaves this out. Default: 3, or fewer if there are few trials, and the trial at the start point if it "
            "is among the best ten.",
        ),
    ] = None
    confirm_seeds: Annotated[int | None, option("S")] = None
    """Number of seeds for each of these trials, or for each arm of a recipe. Default: 3; by preset, quick 2, best 5."""
    refit: Flag = False
    """Train the winner once more, on all rows but the test set's. Default, for pictures of your own."""
    no_refit: Flag = False
    """Keep one of the winner's confirmation runs, which did not train on the validation set."""
    ensemble: Annotated[
        str | None,
        option(
            "|".join(ENSEMBLES),
            f"What is kept of the winner: {_explained(ENSEMBLES)}. Default: none; seeds for your own pictures with "
            "--preset best.",
        ),
    ] = None


@dataclass(frozen=True)
class MachineOptions:
    """The machines, and the share of them that each trial gets."""

    address: Annotated[
        str,
        option(
            "local|auto|HOST:PORT",
            "Where to run: local is this machine alone, auto the Ray cluster that it belongs to, HOST:PORT the Ray "
            "cluster with this head node. See docs/clusters.md.",
        ),
    ] = "local"
    cpus_per_trial: Annotated[int | Literal["auto"], option("N|auto")] = "auto"
    """CPUs of each trial, and so its threads; auto shares all CPUs evenly among the trials that run at a time."""
    gpus_per_trial: Annotated[float | Literal["auto"], option("F|auto")] = "auto"
    """GPUs of each trial, from 0 to 1, where a fraction shares one GPU; auto measures how many trials a GPU has
    memory and time for, if there are any GPUs; more --slots than GPUs share them. See docs/performance.md."""
    slots: Annotated[int | str, option("N|MIN..MAX|auto")] = "auto"
    """Trials that run at a time: N; or MIN to begin with and at most MAX, for which a cluster that grows is asked; auto
    is as many as fit. See docs/clusters.md."""


@dataclass(frozen=True)
class OutputOptions:
    """The place of results, and what is shown."""

    results: Annotated[Path, option("DIR")] = Path("results")
    """Folder of all sweeps."""
    name: Annotated[str | None, option("NAME")] = None
    """Name of the sweep and of its folder. Default: the data set or recipe, and the time."""
    resume: Annotated[str | None, option("NAME|PATH")] = None
    """Continue the sweep of this name; with a larger --trials also beyond its end."""
    storage: Annotated[
        str | None,
        option(
            "URI",
            f"Where checkpoints are stored: a folder, {' or '.join(f'{scheme}://BUCKET/PATH' for scheme in SCHEMES)}. "
            "Default: the sweep's folder.",
        ),
    ] = None
    log: Annotated[
        Repeated,
        option(
            "TRACKER",
            f"Log the sweep to experiment trackers, with a run for each trial: {trackers.USAGE}. See docs/logging.md.",
        ),
    ] = ()
    on_end: Annotated[str | None, option("COMMAND")] = None
    """Shell command to run when the sweep has ended; it gets the result as JSON on its standard input."""
    profile: Annotated[Path | None, option("FILE")] = None
    """Write to FILE where the command's seconds went, for https://ui.perfetto.dev (Chrome's trace format)."""
    json: Flag = False
    """Print the result as one JSON object on the last line of standard output."""
    quiet: Flag = False
    """Show only errors and, with --json, the result."""


@dataclass(frozen=True)
class PlanOptions:
    """A look at the plan."""

    dry_run: Flag = False
    """Show the plan and the first proposals, and stop."""


REPEATED = ("set", "search", "try_", "also", "constraint", "warm_start", "log", "classes", "arms")
"""Options of several texts."""


@dataclass(frozen=True)
class SweepOptions(
    PlanOptions, OutputOptions, MachineOptions, ConfirmationOptions, AimOptions, SearchOptions, DataOptions
):
    """Find the best training settings for an image data set.

    Exit codes:
      0    done
      1    the sweep failed
      2    the command was wrong
      130  interrupted; --resume continues it

    Examples:
      python -m orchestrator.sweep digits
      python -m orchestrator.sweep cifar10 --trials 8
      python -m orchestrator.sweep cifar10 --set model=resnet50 --search "lr=log(1e-4,1e-1)"
      python -m orchestrator.sweep --recipe improved-resnet50 --quick
      python -m orchestrator.sweep --resume digits-20260102-030405

    docs/fields.md lists the fields for --set and --search.
    """

    def __post_init__(self) -> None:
        if self.quick and self.preset == SweepOptions.preset:
            object.__setattr__(self, "preset", "quick")
        for name in ("results", "data_dir", "external_test", "space", "profile"):
            if isinstance(path := getattr(self, name), str | Path):
                object.__setattr__(self, name, Path(path).expanduser())
        if self.resume and (folder := Path(self.resume).expanduser()).is_dir() and os.sep in self.resume:
            object.__setattr__(self, "results", folder.parent)  # a path, as a shell completes it
            object.__setattr__(self, "resume", folder.name)
        elif self.resume:
            object.__setattr__(self, "resume", self.resume.rstrip(os.sep))
        for name in REPEATED:  # from Python, a text alone and lists do
            if isinstance(texts := getattr(self, name), str | list):
                groups = [tuple(group) if isinstance(group, list) else group for group in texts]
                object.__setattr__(self, name, (texts,) if isinstance(texts, str) else tuple(groups))

    @property
    def reading(self) -> Reading:
        """The way in which the files of the data set are read."""
        given = {name: getattr(self, name) for name in Reading.__dataclass_fields__}
        least = TOO_FEW if self.min_rows == "drop" else self.min_rows
        classes = tuple(name for group in self.classes for name in ([group] if isinstance(group, str) else group))
        return Reading(**{**given, "parts": parse_parts(self.parts or ""), "classes": classes, "min_rows": least})


FORMER = {"concurrency": "--slots VALUE"}
"""Options that had another name → what to write now."""


def parse(about: str, prog: str, arguments: Sequence[str] | None, *without: type[Any]) -> SweepOptions:
    """Return the command line as options; its help begins with `about` and shows them in the groups declared here.

    Args:
        without: groups that are not offered, and keep their defaults.
    """
    offered = [base for base in reversed(SweepOptions.__bases__) if base not in without]
    groups = {base.__name__.removesuffix("Options").lower(): base for base in offered}
    command: type[Any] = make_dataclass("Command", groups.items())
    parsed = vars(command_line.parse(command, prog, arguments, about, set_fields(OPTIONS) | FORMER, LEAST)).values()
    return SweepOptions(**{field.name: getattr(group, field.name) for group in parsed for field in fields(group)})
