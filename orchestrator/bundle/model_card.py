"""The model card: the contents of a bundle's other files, in prose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.assessment import baseline, intervals
from orchestrator.assessment.confirmation import Confirmation
from orchestrator.assessment.ensemble import LEVEL
from orchestrator.assessment.intervals import Interval
from orchestrator.bundle.documents import (
    KINDS,
    SEARCHED,
    Calibration,
    Data,
    Description,
    Metrics,
    PartMetrics,
    Preprocessing,
)
from trainables.config import FIELDS
from trainables.epoch_metrics import FINAL_METRICS, TEMPERATURES
from trainables.errors import counted
from trainables.model_names import is_built_in, is_user_model
from trainables.models.factories import INSTALL_TIMM

SHOWN_CLASSES = 20
PARTS = {
    "train": "training set",
    "validation": "validation set",
    "test": "test set",
    "external": "external test set",
}


def model_card(
    description: Description,
    labels: Sequence[str],
    preprocessing: Preprocessing,
    metrics: Metrics,
    confirmation: Confirmation | None = None,
) -> str:
    """Return the card in Markdown, made of the contents of a bundle's JSON files and of the winner's confirmation."""
    sections = {
        "Use": _use(description.model),
        "Data": _data(description.data, labels, preprocessing),
        "Score": _score(description, metrics, confirmation),
        "Initial weights": initial_weights_text(description),
        "Settings": _settings(description.config),
        "Limits": _limits(labels, preprocessing, metrics.calibration),
    }
    title = f"# {description.model} for {description.data.name or 'images'}"
    scored = description.trial if description.twin is None else description.twin
    whose = f" of run {scored}" if _is_other(description) else ""
    first = (
        f"Classifies images into {len(labels)} classes. Trial {description.trial} of the sweep {description.sweep}, "
        f"`{metrics.metric}` {_number(metrics.score)}{whose}. It is {KINDS[description.kind or SEARCHED]}."
    )
    return "\n\n".join([title, first, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def _is_other(description: Description) -> bool:
    """Return whether the scores are another model's: that of a refit's twin, or of one of an ensemble's members."""
    return description.twin is not None or bool(description.members)


def _use(model: str) -> str:
    trust, option = (f", trust={model!r}", f" --trust {model}") if is_user_model(model) else ("", "")
    return f"""```python
from orchestrator import bundle

model = bundle.load("best"{trust})  # this folder
predictions = model.predict(["one.jpg", "two.png"])
print(predictions.labels, predictions.probabilities)
```

or `python -m orchestrator.predict best PICTURES…{option}`. `model.module` is the plain torch module. The weights are
safetensors; loading compares every file with its SHA-256 in `config.json`.{_code(model)}"""


def _code(model: str) -> str:
    """Return a sentence about the code that the model needs besides this project, if any."""
    if is_user_model(model):
        return f" The code, `{model}`, is not in this folder; it must be importable, and is imported if named as above."
    return "" if is_built_in(model) else f" The model is one of timm's: `{INSTALL_TIMM}`."


SEEN = {
    "crop": "the center square",
    "pad": "the whole, padded to a square",
    "squash": "the whole, squashed to a square",
}
"""Values of `fit` → what the model sees of an image."""


def _data(data: Data, labels: Sequence[str], preprocessing: Preprocessing) -> str:
    kind, side = "gray" if preprocessing.channels == 1 else "RGB", preprocessing.image_size
    more = " …" if len(labels) > SHOWN_CLASSES else ""
    lines = [
        f"* {data.name or 'images'}: trained on {counted(data.train_rows, 'row')}, scored on {data.scored_rows:,}"
        + (f"; {counted(data.test_rows, 'test row')}" if data.test_rows else ""),
        f"* images: {kind}; the model is given {SEEN[preprocessing.fit]}, at {side} × {side} pixels",
        f"* classes: {', '.join(labels[:SHOWN_CLASSES])}{more}",
    ]
    if data.data_fingerprint:
        lines.append(f"* fingerprint of the rows: `{data.data_fingerprint[:16]}`")
    return "\n".join(lines)


def _score(description: Description, metrics: Metrics, confirmation: Confirmation | None) -> str:
    epoch, last = metrics.best_epoch.epoch, description.config["max_epochs"]
    text = f"`{metrics.metric}` {_number(metrics.score)} in epoch {epoch} of at most {last}"
    text += f" ({beside})" if (beside := baseline.words(description.data.commonest_share, metrics.metric)) else ""
    if description.twin is not None:
        text += (
            f". **These are scores of another model**: run {description.twin}, a twin with the same settings and seed "
            "that had not trained on the validation set. This one has, and so cannot be scored there; it was trained "
            f"on {counted(description.data.train_rows, 'row')}, and {_tested(metrics)}."
        )
    if description.members:
        text += ("" if description.twin is not None else f", of run {description.trial}.") + _mean(description, metrics)
    if confirmation is not None:
        text += f"{' ' if _is_other(description) else '. '}{_confirmed(confirmation, description, metrics)}"
    else:
        text += (
            ". **Not confirmed**: the settings and the epoch were chosen by this very number, so it is better than on "
            "new images."
        )
    text += _folds(description.data) if description.twin is None else ""
    return text + _measured(metrics.parts)


def _measured(parts: Mapping[str, PartMetrics]) -> str:
    """Return tables of the metrics by part of the data, and by class on the test set, if it was measured there."""
    if not parts:
        return ""
    every = dict.fromkeys((*FINAL_METRICS, *(name for part in parts.values() for name in part.metrics)))
    names = [name for name in every if any(part.metrics.get(name) is not None for part in parts.values())]
    table = _table(
        ["part", "rows", *names],
        [
            [part, f"{measured.rows:,}", *(_number(measured.metrics.get(name)) for name in names)]
            for part, measured in parts.items()
        ],
    )
    part, measured = ("test", parts["test"]) if "test" in parts else next(iter(parts.items()))
    if not measured.classes or len(measured.classes) > SHOWN_CLASSES:
        return f"\n\n{table}"
    rows = [
        [one.label, f"{one.rows:,}", _number(one.precision), _number(one.recall), _number(one.f1)]
        for one in measured.classes
    ]
    by_class = _table(["class", "rows", "precision", "recall", "f1"], rows)
    return f"\n\n{table}\n\nOn the {PARTS[part]}, by class:\n\n{by_class}"


def initial_weights_text(description: Description) -> str:
    """Return sentences about the weights that the model's training began with."""
    weights = description.initial_weights
    if weights is None:
        known = description.config.get("weights", "none") == "none"
        return "All were drawn at random." if known else "This bundle does not say where they came from."
    came = f"{counted(weights.loaded, 'tensor')} came from `{weights.source}` (SHA-256 `{weights.sha256[:16]}`)"
    drawn = f"; {counted(weights.drawn, 'tensor was', 'tensors were')} drawn at random" if weights.drawn else ""
    terms = "Their license is not known here: it is their publisher's, and may bind whoever passes this model on"
    if weights.license is not None:
        terms = f"Their license, as their publisher states it: {weights.license}"
    return f"{came}{drawn}. {terms}."


def _mean(description: Description, metrics: Metrics) -> str:
    """Return a sentence about an ensemble's members and metrics."""
    numbers = ", ".join(str(member.trial) for member in description.members)
    twins = "" if description.twin is None else " of their twins"
    known = {
        "validation": f"the validation set's metrics are those of the mean{twins}",
        "test": "the test set's are its own",
    }
    shown = "; ".join(text for part, text in known.items() if part in metrics.parts)
    return (
        f" This model is the mean of the calibrated probabilities of trials {numbers}, which takes "
        f"{len(description.members)} times as long as one."
        + (f" In the table, {shown}." if shown else "")
        + ("" if "test" in metrics.parts else " It was not tested.")
    )


def _tested(metrics: Metrics) -> str:
    """Return whether a refit was measured on the test set."""
    return "the metrics on the test set are its own" if "test" in metrics.parts else "was not tested"


def _folds(data: Data) -> str:
    """Return whose score it is, where the rows were scored in folds."""
    if data.folds == 1:
        return ""
    return (
        f" The rows were scored in folds by {data.folds} models, trained alike: each row by the one that had not "
        f"trained on it. This is the first of them, trained on {data.train_rows:,} of {data.scored_rows:,} rows; none "
        "was trained on all."
    )


def _confirmed(confirmation: Confirmation, description: Description, metrics: Metrics) -> str:
    """Return sentences about the confirmation runs and the test set."""
    other = _is_other(description)
    winner, test = confirmation.winner, confirmation.test
    mean = f"{_number(winner.mean)}{_interval(winner.interval())}"
    runs = counted(len(winner.scores), "run with another seed has", "runs with other seeds have")
    lines = [
        f"The search measured {_number(winner.trial.score)} with these settings; {runs} a mean "
        f"`{winner.trial.metric}` of {mean}. "
        f"{f'Run {confirmation.model.number}' if other else 'This'} is the run with the median score."
    ]
    if test is not None:
        whose = f"run {confirmation.model.number}'s" if other else "this model's"
        measured: dict[str, tuple[float, Interval | None]] = {"accuracy": (test.model_accuracy, test.wilson)}
        if winner.trial.metric != "val_accuracy" and test.model_score is not None:
            measured[f"`{winner.trial.metric}`"] = test.model_score, test.model_interval
        values = [f"{name} is {_number(value)}{_interval(of)}" for name, (value, of) in measured.items()]
        rows = counted(test.rows, "test row")
        lines.append(f"On the {rows}, which no run had seen, {whose} {' and its '.join(values)}.")
        if other and "test" in metrics.parts:
            own = metrics.parts["test"]
            wilson = intervals.of_share(own.metrics["accuracy"] or 0.0, own.rows, LEVEL)
            found = [f"accuracy is {_number(own.metrics['accuracy'])}{_interval(wilson)}"]
            value = own.metrics.get(winner.trial.metric.removeprefix("val_"))
            found += [f"`{winner.trial.metric}` is {_number(value)}"] if len(measured) > 1 else []
            lines.append(f"This model's {' and its '.join(found)}.")
        if doubt := test.doubt():
            lines.append(doubt)
    return " ".join(lines)


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f" ({LEVEL:.0%} interval {_number(interval.low)} to {_number(interval.high)})"


def _settings(config: Mapping[str, Any]) -> str:
    """Return a table of the fields that differ from the defaults; all are in `config.json`."""
    changed = {name: value for name, value in config.items() if value != FIELDS[name].default}
    return _table(
        ["field", "value", "meaning"],
        [
            [name, f"{value:.4g}" if isinstance(value, float) else str(value), FIELDS[name].metadata["meaning"]]
            for name, value in changed.items()
        ],
    )


def _limits(labels: Sequence[str], preprocessing: Preprocessing, calibration: Calibration | None) -> str:
    return f"""* It knows these {len(labels)} classes only; an image of anything else is labelled as one of them.
* It sees {SEEN[preprocessing.fit]} of an image, scaled to {preprocessing.image_size} pixels: smaller things are lost.
* Its metrics hold for images that were taken and prepared as those of the data.
* {_calibrated(calibration)}"""


def _calibrated(calibration: Calibration | None) -> str:
    if calibration is None:
        return "Its probabilities are not calibrated."
    fitted, judged = PARTS[calibration.fitted_on], PARTS[calibration.judged_on]
    temperature = calibration.temperature
    itself = ", which it was fitted to" if judged == fitted else ""
    bound = " (the end of the allowed range)" if temperature in TEMPERATURES else ""
    return (
        f"Its probabilities are calibrated by one temperature, {temperature:.3f}{bound}, fitted to the {fitted}: "
        f"on the {judged}{itself}, they differ from the share of correct predictions by "
        f"{_number(calibration.tempered_error)}, and without the temperature by "
        f"{_number(calibration.calibration_error)} (expected calibration error, 15 bins)."
    )


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
