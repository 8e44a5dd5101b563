"""The model card: what a bundle's other files say, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.assessment.confirmation import in_doubt
from trainables.config import FIELDS
from trainables.model_names import is_built_in, is_user_model
from trainables.models.factories import INSTALL_TIMM

SHOWN_CLASSES = 20
MEASURED = ("accuracy", "balanced_accuracy", "f1", "precision", "recall", "roc_auc", "loss")


def model_card(
    config: Mapping[str, Any], labels: Sequence[str], preprocessing: Mapping[str, Any], metrics: Mapping[str, Any]
) -> str:
    """Markdown, made of the contents of a bundle's JSON files."""
    sections = {
        "Use": _use(config["config"]["model"]),
        "Data": _data(config["data"], labels, preprocessing),
        "Score": _score(config, metrics),
        "Settings": _settings(config["config"]),
        "Limits": _limits(labels, preprocessing, metrics["calibration"]),
    }
    settings, data = config["config"], config["data"]
    title = f"# {settings['model']} for {data['name'] or 'images'}"
    first = (
        f"Tells {len(labels)} classes of images apart. Trial {config['trial']} of the sweep {config['sweep']}, "
        f"`{metrics['metric']}` {_number(metrics['score'])}."
    )
    return "\n\n".join([title, first, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def _use(model: str) -> str:
    trust, option = (f", trust={model!r}", f" --trust {model}") if is_user_model(model) else ("", "")
    return f"""```python
from orchestrator import bundle

model = bundle.load("best"{trust})  # this folder
found = model.predict(["one.jpg", "two.png"])
print(found.labels, found.probabilities)
```

or `python -m orchestrator.predict best PICTURES…{option}`. `model.module` is the plain torch module. The weights are
safetensors; loading compares every file with its SHA-256 in `config.json`.{_code(model)}"""


def _code(model: str) -> str:
    """What must be there besides this project."""
    if is_user_model(model):
        return f" The code, `{model}`, is not in this folder: it must be importable, and is imported if named as above."
    return "" if is_built_in(model) else f" The model is timm's: `{INSTALL_TIMM}`."


def _data(data: Mapping[str, Any], labels: Sequence[str], preprocessing: Mapping[str, Any]) -> str:
    kind = "grey" if preprocessing["channels"] == 1 else "RGB"
    more = " …" if len(labels) > SHOWN_CLASSES else ""
    lines = [
        f"* {data['name'] or 'images'}: trained on {data['train_rows']:,} rows, scored on {data['scored_rows']:,}"
        + (f"; {data['test_rows']:,} test rows" if data["test_rows"] else ""),
        f"* images: {preprocessing['width']} × {preprocessing['height']} pixels, {kind}; the model is given "
        f"{preprocessing['image_size']} pixels",
        f"* classes: {', '.join(labels[:SHOWN_CLASSES])}{more}",
    ]
    if data["data_fingerprint"]:
        lines.append(f"* fingerprint of the rows: `{data['data_fingerprint'][:16]}`")
    return "\n".join(lines)


def _score(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    epoch, last = metrics["best_epoch"]["epoch"], config["config"]["max_epochs"]
    said = f"`{metrics['metric']}` {_number(metrics['score'])} in epoch {epoch} of at most {last}"
    if metrics["confirmed"]:
        said += f". {_confirmed(metrics['metric'], metrics['confirmation'])}"
    else:
        said += (
            ". **Not confirmed**: the settings and the epoch were chosen by this very number, so it is more "
            "than new images will give."
        )
    parts = metrics["parts"]
    names = [name for name in MEASURED if any(measured.get(name) is not None for measured in parts.values())]
    table = _table(
        ["part", "rows", *names],
        [
            [part, f"{measured['rows']:,}", *(_number(measured.get(name)) for name in names)]
            for part, measured in parts.items()
        ],
    )
    part, measured = ("test", parts["test"]) if "test" in parts else next(iter(parts.items()))
    if not measured["classes"] or len(measured["classes"]) > SHOWN_CLASSES:
        return f"{said}\n\n{table}"
    columns = ("precision", "recall", "f1")
    rows = [
        [found["label"], f"{found['rows']:,}", *(_number(found[name]) for name in columns)]
        for found in measured["classes"]
    ]
    return f"{said}\n\n{table}\n\nOn {part}, by class:\n\n{_table(['class', 'rows', *columns], rows)}"


def _confirmed(metric: str, found: Mapping[str, Any]) -> str:
    """What runs with other seeds, and the test set, say of the settings; `found` as in `final.json`."""
    validation, test = found["validation"], found["test"]
    lines = [
        f"The search found the settings with {_number(found['search'])}; run again with {len(validation['scores'])} other "
        f"seeds: mean `{metric}` {_number(validation['mean'])}{_interval(validation['interval'], found['level'])}. "
        "This is the run with the median score."
    ]
    if test is not None:
        lines.append(
            f"On the {test['rows']:,} test rows, which no run had seen, this model's accuracy is "
            f"{_number(test['model_accuracy'])}{_interval(test['wilson'], found['level'])}."
        )
        if doubt := in_doubt(test):
            lines.append(doubt)
    return " ".join(lines)


def _interval(interval: Sequence[float] | None, level: float) -> str:
    return "" if interval is None else f" ({level:.0%} interval {_number(interval[0])} to {_number(interval[1])})"


def _settings(config: Mapping[str, Any]) -> str:
    """What differs from the defaults; in full in `config.json`."""
    changed = {name: value for name, value in config.items() if value != FIELDS[name].default}
    return _table(
        ["field", "value", "meaning"],
        [
            [name, f"{value:.4g}" if isinstance(value, float) else str(value), FIELDS[name].metadata["meaning"]]
            for name, value in changed.items()
        ],
    )


def _limits(labels: Sequence[str], preprocessing: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> str:
    size = f"{preprocessing['width']} × {preprocessing['height']}"
    return f"""* It knows these {len(labels)} classes; a picture of anything else gets one of them as well.
* Pictures of other sizes are scaled to {size} pixels and cut about the middle.
* Its figures hold for images that come about as those of the data did.
* {_calibrated(calibration)}"""


def _calibrated(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "Its probabilities are those of training, not calibrated."
    from trainables.calibration import TEMPERATURES  # here: reading a bundle, and refusing one, needs no torch

    names = {"validation": "validation set", "test": "test set"}
    fitted, judged, temperature = names[found["fitted_on"]], names[found["judged_on"]], found["temperature"]
    itself = ", which it was fitted to" if judged == fitted else ""
    bound = " (a bound: these rows have no best one within)" if temperature in TEMPERATURES else ""
    return (
        f"Its probabilities are calibrated by one temperature, {temperature:.3f}{bound}, fitted to the {fitted}: "
        f"on the {judged}{itself}, they are {_number(found['tempered_error'])} off the share of right answers, and "
        f"{_number(found['calibration_error'])} without (expected calibration error, 15 bins)."
    )


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
