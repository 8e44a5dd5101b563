"""What a user may ask of a sweep: the source of the command line. Values are checked in `orchestrator.plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from search_spaces.space import OPTIONS
from trainables import command_line
from trainables.command_line import Flag, Repeated, option, set_fields


@dataclass(frozen=True)
class DataOptions:
    """What to learn from."""

    dataset: Annotated[str | None, Positional, option("DATASET")] = None
    """digits, cifar10, fashion-mnist, cactus, ai-vs-human, fruits-360, or the path of a CSV, of a Parquet file, or
    of a folder of Parquet files or class folders. Default: the recipe's, else digits."""
    data_dir: Annotated[Path | None, option("DIR")] = None
    """Where the data set's files are. Default: they are downloaded."""
    image_column: Annotated[str | None, option("NAME")] = None
    """Of a CSV or of Parquet files: which column has the images. Default: found by name and type."""
    label_column: Annotated[str | None, option("NAME")] = None
    """Likewise, the labels."""
    on_bad_image: Annotated[str, option("fail|skip")] = "fail"
    """What to do about images that cannot be read; those skipped are listed in sweep.json."""
    stored_side: Annotated[int, option("PIXELS")] = 320
    """Pictures of different sizes are stored as squares of at most so many pixels."""
    subset: Annotated[int | None, option("N")] = None
    """Use only so many rows, every class in its share."""
    external_test: Annotated[Path | None, option("DIR")] = None
    """Pictures from elsewhere, in class folders, that a recipe's models are tried on at their end."""


@dataclass(frozen=True)
class SearchOptions:
    """What is tried, and how."""

    recipe: Annotated[str | None, option("NAME")] = None
    """A published system: resnet18-binary, resnet50-balance, cactus-features, improved-resnet50 or cnn-comparison.
    Its arms are compared; with --search, each is searched first."""
    arms: Annotated[tuple[str, ...], option("NAME")] = ()
    """Some of the recipe's arms. Default: all."""
    quick: Flag = False
    """The laptop form: minutes on two cores."""
    trials: Annotated[int | None, option("N")] = None
    """How many trials; of a recipe that is searched, of every arm. Default: the space's."""
    max_epochs: Annotated[int | None, option("E")] = None
    """Epochs of a trial that is not stopped early. Default: the space's."""
    time_budget: Annotated[str | None, option("TIME")] = None
    """End the sweep after this long, e.g. 30m or 1h30m; what was running can be resumed."""
    seed: Annotated[int, option("S")] = 0
    """Of proposals, weights, order and augmentation."""
    set: Annotated[Repeated, option("FIELD=VALUE")] = ()
    """Fix a field of the configuration, e.g. model=resnet50 optimizer=adamw."""
    search: Annotated[Repeated, option("FIELD=DIST")] = ()
    """Search a field: log(LOW,HIGH), uniform(LOW,HIGH[,STEP]), int(LOW,HIGH[,STEP]) or choice(A,B,…), perhaps with
    "if OTHER=VALUE" behind it; or same(OTHER)."""
    space: Annotated[Path | None, option("FILE")] = None
    """A space of one's own, .yaml or .py, in place of the data set's: see docs/spaces.md."""
    sampler: Annotated[str, option("tpe|random|grid")] = "tpe"
    """Who proposes."""
    scheduler: Annotated[str, option("asha|hyperband|median|none")] = "asha"
    """Who stops weak trials early."""
    grace: Annotated[int | None, option("E")] = None
    """Epochs before a trial may be stopped. Default: max(1, max_epochs // 9)."""
    factor: Annotated[float, option("F")] = 3
    """Of asha and hyperband: the best 1/factor of the trials pass a rung, and rungs are that far apart."""
    metric: Annotated[str, option("NAME[:min|max]")] = "val_accuracy"
    """What is optimised; a trial's score is its running best."""


@dataclass(frozen=True)
class ConfirmationOptions:
    """What the best is worth, on other seeds and on the sealed test set."""

    confirm: Annotated[int | None, option("K")] = None
    """Run the best K trials again, in full, with other seeds; then open the test set for the winner. 0: do not.
    Default: 3, or as many as a third of the trials pays for."""
    confirm_seeds: Annotated[int | None, option("S")] = None
    """How many seeds, the same for all of them; of a recipe, for all of its arms. Default: 3; 2 with --quick."""


@dataclass(frozen=True)
class MachineOptions:
    """Where it runs."""

    address: Annotated[str, option("local|auto|HOST:PORT")] = "local"
    """Where to run: on this machine, or on a running Ray cluster."""
    cpus_per_trial: Annotated[int | Literal["auto"], option("N|auto")] = "auto"
    """CPUs, and threads, of a trial."""
    gpus_per_trial: Annotated[float | Literal["auto"], option("F|auto")] = "auto"
    """GPUs of a trial; a fraction shares one."""
    concurrency: Annotated[int | Literal["auto"], option("N|auto")] = "auto"
    """Trials at a time, at most. auto: as many as there is room for."""


@dataclass(frozen=True)
class OutputOptions:
    """Where it goes, and what is told."""

    results: Annotated[Path, option("DIR")] = Path("results")
    """The folder of all sweeps."""
    name: Annotated[str | None, option("NAME")] = None
    """Of this sweep. Default: the data set and the time."""
    resume: Annotated[str | None, option("NAME")] = None
    """Go on with a sweep that was interrupted; with --trials, go on beyond its end."""
    storage: Annotated[str | None, option("URI")] = None
    """Where checkpoints go: a folder, s3://BUCKET/PATH or gs://BUCKET/PATH. Default: the sweep's own folder."""
    log: Annotated[Repeated, option("TRACKER")] = ()
    """Have these follow the sweep, a run a trial: tensorboard, mlflow, wandb, optuna=URL. See docs/logging.md."""
    on_end: Annotated[str | None, option("COMMAND")] = None
    """A shell command to run when the sweep has ended; it gets the result as JSON on its standard input."""
    json: Flag = False
    """Print the result as one JSON object on the last line of standard output."""
    quiet: Flag = False
    """Print nothing but errors and the result."""


@dataclass(frozen=True)
class PlanOptions:
    """Whether it runs."""

    dry_run: Flag = False
    """Print the plan and stop."""


@dataclass(frozen=True)
class SweepOptions(PlanOptions, OutputOptions, MachineOptions, ConfirmationOptions, SearchOptions, DataOptions):
    """Find the best training settings for an image data set.

    For example:
      python -m orchestrator.sweep digits
      python -m orchestrator.sweep cifar10 --trials 8 --data-dir ~/data/cifar10
      python -m orchestrator.sweep cifar10 --set model=resnet50 --search "lr=log(1e-4,1e-1)"
      python -m orchestrator.sweep --recipe improved-resnet50 --quick --data-dir ~/data/cifar10
      python -m orchestrator.sweep --resume digits-20260102-030405
    """

    def __post_init__(self) -> None:
        for name in ("results", "data_dir", "external_test", "space"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(path).expanduser())


def parse(about: str, prog: str, arguments: Sequence[str] | None, *without: type[Any]) -> SweepOptions:
    """Return the command line as options; its help begins with `about` and shows them in the groups declared here.

    Args:
        without: groups that are not offered, and keep their defaults.
    """
    offered = [base for base in reversed(SweepOptions.__bases__) if base not in without]
    groups = {base.__name__.removesuffix("Options").lower(): base for base in offered}
    command: type[Any] = make_dataclass("Command", groups.items())
    parsed = vars(command_line.parse(command, prog, arguments, about, set_fields(OPTIONS))).values()
    return SweepOptions(**{field.name: getattr(group, field.name) for group in parsed for field in fields(group)})
