"""One trial in this process, without Ray and without a sweep: for a debugger, and for a first look at a data set.

    python -m trainables digits --set lr=0.5 optimizer=adamw

Data and split are those of a sweep over the same data set. Heavy modules are imported where they are needed, so that
wrong input is reported before torch is loaded.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction

from trainables import datasets, hardware, user_metrics
from trainables.command_line import (
    DONE,
    FAILED,
    INTERRUPTED,
    Flag,
    check_blanks,
    complain,
    is_setting,
    option,
    parse,
    set_fields,
    show,
    write,
)
from trainables.config import TrialConfig, check_values
from trainables.datasets import BAD_IMAGE_POLICIES, DATASET_HELP
from trainables.epoch_metrics import FINAL_METRICS, RESERVED, EpochMetrics, column, function_of, is_user_metric
from trainables.errors import ConfigError, Diverged, counted, suggestion
from trainables.field_texts import parse_fields
from trainables.model_names import is_user_model
from trainables.models import factories

if TYPE_CHECKING:
    from trainables.splits import SearchData

QUICK_EPOCHS, QUICK_ROWS = 2, 2_000
CONFIGS = ("config.json", "best/config.json")
"""Where a bundle and a sweep's folder have the configuration."""


@dataclass(frozen=True)
class TrialOptions:
    """Train one model on an image data set, in this process: no sweep, no Ray.

    Examples:
      python -m trainables digits
      python -m trainables cifar10 --quick --set model=resnet18 lr=0.05
      python -m trainables digits --config results/digits-20260102-030405/best/config.json
    """

    dataset: Annotated[str, Positional, option("DATASET", f"The data set: {DATASET_HELP}.")]
    set: Annotated[tuple[tuple[str, ...], ...], UseAppendAction, option("FIELD=VALUE")] = ()
    """Fix fields of the configuration, such as model=resnet50 optimizer=adamw. docs/fields.md lists all fields."""
    config: Annotated[Path | None, option("FILE")] = None
    """JSON file of a configuration to begin with, such as a bundle's config.json. Default: one for the image size."""
    data_dir: Annotated[Path | None, option("DIR")] = None
    """Folder of the data set's files, or of a CSV's pictures. Default: a download, or the folder of the CSV."""
    on_bad_image: Annotated[
        str,
        option("|".join(BAD_IMAGE_POLICIES), "What to do if images cannot be read: refuse the data set, or skip them."),
    ] = "fail"
    subset: Annotated[int | None, option("N")] = None
    """Use only N rows, stratified by class. Default: all rows."""
    quick: Flag = False
    """Train for two epochs on at most 2,000 rows, unless --set max_epochs or --subset says otherwise."""
    json: Flag = False
    """Print configuration, score, epochs and final metrics as one JSON object on standard output."""


def run(options: TrialOptions) -> dict[str, Any]:
    """Train the trial, with a line an epoch on standard error; return what `--json` prints.

    Raises:
        ConfigError, DatasetError: naming every wrong value.
        Diverged: the loss is no longer finite.
    """
    fields = wanted_fields(options)
    dataset = datasets.load(options.dataset, datasets.Reading(options.data_dir, on_bad_image=options.on_bad_image))
    from trainables.splits import search_data
    from trainables.trial_rows import SEALED

    rows = len(dataset.labels) - len(dataset.duplicates)
    subset = options.subset or (min(rows, QUICK_ROWS) if options.quick else None)
    data = search_data(dataset, subset, opened=fields.get("split", "core") not in SEALED)
    config = suited_to(fields.get("image_size") or min(data.images.shape[1:3])).replace(**fields)
    if problems := user_metrics.problems_with(config.metric, len(data.classes)):
        raise ConfigError(*problems)
    return _train(config, data)


def wanted_fields(options: TrialOptions) -> dict[str, Any]:
    """Return the fields that the file, `--quick` and `--set` give; the later of these takes precedence.

    Raises:
        ConfigError: naming everything that is wrong with the options, as far as it shows without the data.
    """
    problems = datasets.check(options.dataset, datasets.Reading(options.data_dir))
    policy = options.on_bad_image
    if policy not in BAD_IMAGE_POLICIES:
        problems.append(f"--on-bad-image {policy}: unknown{suggestion(policy, BAD_IMAGE_POLICIES)}")
    if options.subset is not None and options.subset < 2:
        problems.append(f"--subset {options.subset}: at least 2 is needed")
    fixed, unreadable = parse_fields(chain(*options.set), "--set FIELD=VALUE, e.g. --set model=resnet50")
    problems += unreadable
    if joined := check_blanks("set", chain(*options.set), is_setting):
        raise ConfigError(*problems, *joined)
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
            f"--config {options.config} would run code, {model}: if you trust it, allow it with --set model={model}"
        )
    metric = fields.get("metric", TrialConfig.metric)
    if is_user_metric(metric) and "metric" not in fixed:
        problems.append(
            f"--config {options.config} would run code, {function_of(metric)}: if you trust it, allow it with --set "
            f"metric={metric}"
        )
    problems += factories.problems(model) if not problems else []
    problems += user_metrics.problems(metric) if not problems else []
    if problems:
        raise ConfigError(*problems)
    return fields


def read_config(path: Path) -> dict[str, Any]:
    """Return the fields of `TrialConfig` in a JSON file, which has them at its top or, as in a bundle, under "config".

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    inside = [path / name for name in CONFIGS if (path / name).is_file()]
    example = (
        f"give {inside[0] if inside else 'the JSON file of a configuration, such as results/NAME/best/config.json'}"
    )
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"--config {path}: there is no such file; {example}") from error
    except OSError as error:
        why = "this is a folder" if path.is_dir() else f"it cannot be read ({error.strerror})"
        raise ConfigError(f"--config {path}: {why}; {example}") from error
    except ValueError as error:
        raise ConfigError(f"--config {path}: this is not JSON ({error}); {example}") from error
    fields = content.get("config", content) if isinstance(content, dict) else content
    if not isinstance(fields, dict):
        raise ConfigError(f"--config {path}: a JSON object of fields is needed, such as a bundle's config.json")
    return fields


def suited_to(image_size: int) -> TrialConfig:
    """Return a configuration with a small model for images of `image_size` pixels, for minutes on a few CPUs."""
    model = "resnet8" if image_size < 16 else "resnet20" if image_size < 64 else "resnet18"
    return TrialConfig(model=model, schedule="one_cycle", warmup=0.2, batch_size=64, max_epochs=9)


def _train(config: TrialConfig, data: SearchData) -> dict[str, Any]:
    """Train a model, with a line an epoch on standard error; return what `--json` prints."""
    import torch

    from trainables import memory, precision
    from trainables.batches import Batches
    from trainables.errors import WeightsError
    from trainables.loop import TrialData, TrialState, final_metrics, prepared, train

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = config.replace(threads=config.threads or hardware.usable_cpus())
    torch.set_num_threads(config.threads)
    memory.keep_freed()
    precision.prepare(device)
    try:
        trial = TrialData.select(config, data, Batches.of(data, device))
        config = precision.resolve(config, trial)
        state = TrialState.start(config, trial, device)
        trial = prepared(trial, state)
    except WeightsError as error:
        raise ConfigError(str(error)) from error
    if state.kept.filled is not None:
        show(f"weights: {state.kept.filled}")
    show(
        f"{config.model} on {device.type}, {config.precision}, {config.memory_format}, {config.threads} threads: "
        f"{counted(len(trial.train_rows), 'row')} to train on, {len(trial.scored_rows):,} to score on"
    )
    epochs = []
    for epoch in train(trial, state):
        epochs.append(epoch.to_dict())
        show(_line(epoch, config))
    if len(trial.scored_rows):
        show(f"{config.selection} {config.metric} {_number(state.score)} in epoch {state.best_epoch}")
    measured = final_metrics(trial, state)
    for part, metrics in measured.items():
        show(_part_line(part, metrics))
    return {
        "config": config.to_dict(),
        "weights": None if state.kept.filled is None else state.kept.filled.to_dict(),
        "score": state.score,
        "best_epoch": state.best_epoch,
        "epochs": epochs,
        "final_metrics": measured,
    }


def _line(epoch: EpochMetrics, config: TrialConfig) -> str:
    """Return an epoch's line for the terminal."""
    values = epoch.to_dict()
    scored = ("val_loss", "val_accuracy", column(config.metric)) if epoch.val_loss is not None else ()
    names = dict.fromkeys(("train_loss", *scored))
    numbers = "  ".join(f"{name} {_number(values[name])}" for name in names)
    return (
        f"epoch {epoch.epoch}/{config.stop_epoch or config.max_epochs}  {numbers}  {epoch.images_per_s:,.0f} images/s"
    )


def _part_line(part: str, metrics: dict[str, Any]) -> str:
    """Return the line of one part's final metrics; only `--json` prints its confusion matrix."""
    own = [name for name in metrics if name not in RESERVED]
    numbers = "  ".join(f"{name} {_number(metrics[name])}" for name in (*FINAL_METRICS, *own))
    return f"{part}: {counted(metrics['rows'], 'row')} in {metrics['seconds']:.1f} s  {numbers}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = parse(TrialOptions, "python -m trainables", arguments, fields=set_fields(), least={"subset": 2})
    try:
        result = run(options)
    except (ConfigError, datasets.DatasetError) as error:
        return complain(error.problems)
    except Diverged as error:
        show(f"diverged: {error}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    if options.json:
        write(json.dumps(result) + "\n")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
