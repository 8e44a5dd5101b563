"""What a user may ask of a sweep: the source of the command line. Values are checked in `orchestrator.plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg

from trainables import command_line

Flag = Annotated[bool, FlagCreatePairsOff]
Repeated = Annotated[tuple[tuple[str, ...] | str, ...], UseAppendAction]  # from Python, plain texts do


@dataclass(frozen=True)
class DataOptions:
    """What to learn from."""

    dataset: Annotated[str | None, Positional, arg(metavar="DATASET")] = None
    """digits, cifar10, fashion-mnist, cactus, ai-vs-human, fruits-360, or the path of a CSV, of a Parquet file, or
    of a folder of Parquet files or class folders. Default: the recipe's, else digits."""
    data_dir: Annotated[Path | None, arg(metavar="DIR")] = None
    """Where the data set's files are. Default: they are downloaded."""
    image_column: Annotated[str | None, arg(metavar="NAME")] = None
    """Of a CSV or of Parquet files: which column has the images. Default: found by name and type."""
    label_column: Annotated[str | None, arg(metavar="NAME")] = None
    """Likewise, the labels."""
    on_bad_image: Annotated[str, arg(metavar="fail|skip")] = "fail"
    """What to do about images that cannot be read; those skipped are listed in sweep.json."""
    stored_side: Annotated[int, arg(metavar="PIXELS")] = 320
    """Pictures of different sizes are stored as squares of at most so many pixels."""
    subset: Annotated[int | None, arg(metavar="N")] = None
    """Use only so many rows, every class in its share."""
    external_test: Annotated[Path | None, arg(metavar="DIR")] = None
    """Pictures from elsewhere, in class folders, that a recipe's models are tried on at their end."""


@dataclass(frozen=True)
class SearchOptions:
    """What is tried, and how."""

    recipe: Annotated[str | None, arg(metavar="NAME")] = None
    """A published system: resnet18-binary, resnet50-balance, cactus-features, improved-resnet50 or cnn-comparison.
    Its arms are compared; with --search, each is searched first."""
    arms: Annotated[tuple[str, ...], arg(metavar="NAME")] = ()
    """Some of the recipe's arms. Default: all."""
    quick: Flag = False
    """The laptop form: minutes on two cores."""
    trials: Annotated[int | None, arg(metavar="N")] = None
    """How many trials; of a recipe that is searched, of every arm. Default: the space's."""
    max_epochs: Annotated[int | None, arg(metavar="E")] = None
    """Epochs of a trial that is not stopped early. Default: the space's."""
    time_budget: Annotated[str | None, arg(metavar="TIME")] = None
    """End the sweep after this long, e.g. 30m or 1h30m; what was running can be resumed."""
    seed: Annotated[int, arg(metavar="S")] = 0
    """Of proposals, weights, order and augmentation."""
    set: Annotated[Repeated, arg(metavar="FIELD=VALUE")] = ()
    """Fix a field of the configuration, e.g. model=resnet50 optimizer=adamw."""
    search: Annotated[Repeated, arg(metavar="FIELD=DIST")] = ()
    """Search a field: log(LOW,HIGH), uniform(LOW,HIGH[,STEP]), int(LOW,HIGH[,STEP]) or choice(A,B,…), perhaps with
    "if OTHER=VALUE" behind it; or same(OTHER)."""
    space: Annotated[Path | None, arg(metavar="FILE")] = None
    """A space of one's own, .yaml or .py, in place of the data set's: see docs/spaces.md."""
    sampler: Annotated[str, arg(metavar="tpe|random|grid")] = "tpe"
    """Who proposes."""
    scheduler: Annotated[str, arg(metavar="asha|hyperband|median|none")] = "asha"
    """Who stops weak trials early."""
    grace: Annotated[int | None, arg(metavar="E")] = None
    """Epochs before a trial may be stopped. Default: max(1, max_epochs // 9)."""
    factor: Annotated[float, arg(metavar="F")] = 3
    """Of asha and hyperband: the best 1/factor of the trials pass a rung, and rungs are that far apart."""
    metric: Annotated[str, arg(metavar="NAME[:min|max]")] = "val_accuracy"
    """What is optimised; a trial's score is its running best."""


@dataclass(frozen=True)
class ConfirmationOptions:
    """What the best is worth, on other seeds and on the sealed test set."""

    confirm: Annotated[int | None, arg(metavar="K")] = None
    """Run the best K trials again, in full, with other seeds; then open the test set for the winner. 0: do not.
    Default: 3, or as many as a third of the trials pays for."""
    confirm_seeds: Annotated[int | None, arg(metavar="S")] = None
    """How many seeds, the same for all of them; of a recipe, for all of its arms. Default: 3; 2 with --quick."""


@dataclass(frozen=True)
class MachineOptions:
    """Where it runs."""

    address: Annotated[str, arg(metavar="local|auto|HOST:PORT")] = "local"
    """Where to run: on this machine, or on a running Ray cluster."""
    cpus_per_trial: Annotated[int | Literal["auto"], arg(metavar="N|auto")] = "auto"
    """CPUs, and threads, of a trial."""
    gpus_per_trial: Annotated[float | Literal["auto"], arg(metavar="F|auto")] = "auto"
    """GPUs of a trial; a fraction shares one."""
    concurrency: Annotated[int | Literal["auto"], arg(metavar="N|auto")] = "auto"
    """Trials at a time, at most. auto: as many as there is room for."""


@dataclass(frozen=True)
class OutputOptions:
    """Where it goes, and what is told."""

    results: Annotated[Path, arg(metavar="DIR")] = Path("results")
    """The folder of all sweeps."""
    name: Annotated[str | None, arg(metavar="NAME")] = None
    """Of this sweep. Default: the data set and the time."""
    resume: Annotated[str | None, arg(metavar="NAME")] = None
    """Go on with a sweep that was interrupted; with --trials, go on beyond its end."""
    storage: Annotated[str | None, arg(metavar="URI")] = None
    """Where checkpoints go: a folder, s3://BUCKET/PATH or gs://BUCKET/PATH. Default: the sweep's own folder."""
    log: Annotated[Repeated, arg(metavar="TRACKER")] = ()
    """Have these follow the sweep, a run a trial: tensorboard, mlflow, wandb, optuna=URL. See docs/logging.md."""
    on_end: Annotated[str | None, arg(metavar="COMMAND")] = None
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
    """The command line as options; its help says `about` and shows them in the groups that they are declared in.

    Args:
        without: groups that are not offered, and keep their defaults.
    """
    offered = [base for base in reversed(SweepOptions.__bases__) if base not in without]
    groups = {base.__name__.removesuffix("Options").lower(): base for base in offered}
    command: type[Any] = make_dataclass("Command", groups.items())
    found = command_line.parse(command, prog, arguments, description=cleandoc(about), config=(OmitArgPrefixes,))
    given = vars(found).values()
    return SweepOptions(**{field.name: getattr(group, field.name) for group in given for field in fields(group)})
