"""One trial in this process, without Ray and without a sweep: for a debugger, and for a first look at a data set.

    python -m trainables digits --set lr=0.5 optimizer=adamw

Data and split are those of a sweep over the same data set. What is heavy is imported where it is needed, so that
wrong input is answered before torch is loaded.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from trainables import datasets, hardware
from trainables.command_line import DONE, FAILED, INTERRUPTED, complain, parse, say
from trainables.config import TrialConfig, check_values, parse_fields
from trainables.epoch_metrics import FINAL_METRICS, EpochMetrics
from trainables.errors import ConfigError, Diverged
from trainables.model_names import is_user_model
from trainables.models import factories

if TYPE_CHECKING:
    from trainables.splits import SearchData

QUICK_EPOCHS, QUICK_ROWS = 2, 2_000


@dataclass(frozen=True)
class TrialOptions:
    """Train one model on an image data set, in this process.

    Examples:
      python -m trainables digits
      python -m trainables cifar10 --quick --set model=resnet18 lr=0.05
      python -m trainables digits --config results/digits-20260102-030405/best/config.json
    """

    dataset: Annotated[str, Positional, arg(metavar="DATASET")]
    """digits, cifar10, fashion-mnist, cactus, ai-vs-human, fruits-360, or the path of a CSV, of a Parquet file, or
    of a folder of Parquet files or class folders."""
    set: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="FIELD=VALUE")] = ()
    """Fix a field of the configuration, e.g. model=resnet50 optimizer=adamw."""
    config: Path | None = None
    """Begin with the configuration in this JSON file, e.g. a bundle's config.json. Default: one for the image size."""
    data_dir: Path | None = None
    """Where the data set's files are. Default: they are downloaded."""
    on_bad_image: Annotated[str, arg(metavar="fail|skip")] = "fail"
    """Images that cannot be read: refuse the data set, or leave them out."""
    subset: int | None = None
    """Use only so many rows, every class in its share."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """Two epochs on at most 2,000 rows, unless told otherwise."""
    json: Annotated[bool, FlagCreatePairsOff] = False
    """Print configuration, score, epochs and figures as one JSON object on standard output."""


def run(options: TrialOptions) -> dict[str, Any]:
    """Train the trial that is asked for, a line an epoch on standard error; what `--json` prints.

    Raises:
        ConfigError, DatasetError: naming every wrong value.
        Diverged: the loss is not finite any more.
    """
    fields = wanted_fields(options)
    dataset = datasets.load(options.dataset, options.data_dir, on_bad_image=options.on_bad_image)
    from trainables.splits import search_data

    rows = len(dataset.labels) - len(dataset.duplicates)
    subset = options.subset or (min(rows, QUICK_ROWS) if options.quick else None)
    data = search_data(dataset, subset, opened=fields.get("split", "core") != "core")
    config = suited_to(fields.get("image_size") or min(data.images.shape[1:3])).replace(**fields)
    return _train(config, data)


def wanted_fields(options: TrialOptions) -> dict[str, Any]:
    """The fields that are given: by the file, by `--quick`, by `--set`, the later before the earlier.

    Raises:
        ConfigError: naming everything that is wrong with the options and can be seen without the data.
    """
    problems = datasets.check(options.dataset, options.data_dir)
    if options.on_bad_image not in datasets.BAD_IMAGE_POLICIES:
        allowed = ", ".join(datasets.BAD_IMAGE_POLICIES)
        problems.append(f"--on-bad-image {options.on_bad_image}: allowed are {allowed}")
    if options.subset is not None and options.subset < 2:
        problems.append(f"--subset {options.subset}: at least 2 is needed")
    fixed, unreadable = parse_fields(chain(*options.set), "--set FIELD=VALUE, e.g. --set model=resnet50")
    problems += unreadable
    fields: dict[str, Any] = {}
    if options.config is not None:
        try:
            fields = read_config(options.config)
        except ConfigError as error:
            problems += error.problems
    fields |= ({"max_epochs": QUICK_EPOCHS} if options.quick else {}) | fixed
    problems += check_values(fields)
    model = fields.get("model", TrialConfig.model)
    if is_user_model(str(model)) and "model" not in fixed:
        problems.append(
            f"--config {options.config} names code, {model}: if you trust it, say so by --set model={model}"
        )
    problems += factories.problems(model) if not problems else []
    if problems:
        raise ConfigError(*problems)
    return fields


def read_config(path: Path) -> dict[str, Any]:
    """The fields of `TrialConfig` in a JSON file, which has them itself or, as in a bundle, under "config".

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {path} cannot be read: {error}") from error
    fields = content.get("config", content) if isinstance(content, dict) else content
    if not isinstance(fields, dict):
        raise ConfigError(f"--config {path}: a JSON object of fields is needed, such as a bundle's config.json")
    return fields


def suited_to(image_size: int) -> TrialConfig:
    """A small model that takes images of `image_size` pixels, for minutes on a few CPUs."""
    model = "resnet8" if image_size < 16 else "resnet20" if image_size < 64 else "resnet18"
    return TrialConfig(model=model, schedule="one_cycle", warmup=0.2, batch_size=64, max_epochs=9)


def _train(config: TrialConfig, data: SearchData) -> dict[str, Any]:
    import torch

    from trainables import memory, precision
    from trainables.batches import Batches
    from trainables.errors import WeightsError
    from trainables.loop import TrialData, TrialState, final_metrics, prepared, train

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = config.replace(threads=config.threads or hardware.usable_cpus())
    torch.set_num_threads(config.threads)
    memory.keep_freed()
    try:
        trial = TrialData.select(config, data, Batches(data.images, data.labels, data.mean, data.std, device))
        config = precision.resolve(config, trial)
        state = TrialState.start(config, trial, device)
        trial = prepared(config, trial, state)
    except WeightsError as error:
        raise ConfigError(str(error)) from error
    say(
        f"{config.model} on {device.type}, {config.precision}, {config.memory_format}, {config.threads} threads: "
        f"{len(trial.train_rows):,} rows to train on, {len(trial.scored_rows):,} to score on"
    )
    epochs = []
    for epoch in train(config, trial, state):
        epochs.append(epoch.to_dict())
        say(_line(epoch, config))
    say(f"{config.selection} {config.metric} {_number(state.score)} in epoch {state.best_epoch}")
    measured = final_metrics(config, trial, state)
    for part, found in measured.items():
        say(_part_line(part, found))
    return {
        "config": config.to_dict(),
        "score": state.score,
        "best_epoch": state.best_epoch,
        "epochs": epochs,
        "final_metrics": measured,
    }


def _line(epoch: EpochMetrics, config: TrialConfig) -> str:
    names = dict.fromkeys(("train_loss", "val_loss", "val_accuracy", config.metric))
    final_metrics = "  ".join(f"{name} {_number(getattr(epoch, name))}" for name in names)
    return f"epoch {epoch.epoch}/{config.max_epochs}  {final_metrics}  {epoch.images_per_s:,.0f} images/s"


def _part_line(part: str, found: dict[str, Any]) -> str:
    """One part's figures; its confusion matrix is for `--json`."""
    final_metrics = "  ".join(f"{name} {_number(found[name])}" for name in FINAL_METRICS)
    return f"{part}: {found['rows']:,} rows in {found['seconds']:.1f} s  {final_metrics}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; its exit code."""
    options = parse(TrialOptions, "python -m trainables", arguments)
    try:
        result = run(options)
    except (ConfigError, datasets.DatasetError) as error:
        return complain(error.problems)
    except Diverged as error:
        say(f"diverged: {error}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
