"""The winner as files: weights, configuration, labels, preprocessing, metrics, a model card. Needs no Ray.

    from orchestrator import bundle

    model = bundle.load("results/NAME/best")
    found = model.predict(["one.jpg", "two.png"])
    print(found.labels, found.probabilities)

`config.json` has the SHA-256 of every other file. Weights are safetensors; no pickle is ever opened.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.numpy import save as pack

from orchestrator.bundle.model_card import model_card
from orchestrator.record import former_schemas
from orchestrator.record.kept_weights import Weights
from orchestrator.record.ranking import UNRANKED
from orchestrator.record.state import TrialRecord
from trainables.config import TrialConfig
from trainables.errors import ConfigError, InputError
from trainables.files import replace_file
from trainables.model_names import is_user_model
from trainables.models import factories
from trainables.splits import SearchData, TrialRows, trial_rows

if TYPE_CHECKING:
    from orchestrator.bundle.classifier import Classifier

SCHEMA_VERSION = 4
OLDEST = 3  # schema that is still read
CONFIG, MODEL, CARD = "config.json", "model.safetensors", "README.md"
FILES = (MODEL, "labels.json", "preprocessing.json", "metrics.json", CARD)  # beside config.json, which has their hashes
ORIGIN = ("sweep", "trial", "data", "versions")  # of `config.json`: where the model comes from


class BundleError(InputError):
    """A bundle that cannot be used; each problem names the file."""


def write(
    candidates: Iterable[TrialRecord],
    data: SearchData,
    find: Callable[[TrialRecord], Weights | None],
    folder: Path,
    record: Mapping[str, Any] | None = None,
    confirmation: Mapping[str, Any] | None = None,
) -> TrialRecord | None:
    """Make `folder` the bundle of the first of `candidates` whose weights `find` finds, and return that trial.

    None, and no bundle, if there is none: of trials that were stopped the weights are not kept.

    Args:
        record: of the sweep, as `SweepState.record` gives it: the card names data and versions.
        confirmation: what is known of a confirmed winner beyond this run, plain JSON values, for `metrics.json`.

    Raises:
        OSError: the disk did not take it.
    """
    sound = (trial for trial in candidates if trial.score is not None and trial.status not in UNRANKED)
    found = ((trial, find(trial)) for trial in sound)
    trial, weights = next(((t, w) for t, w in found if w), (None, None))
    if trial is None or weights is None:
        return None
    fresh = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, content in _contents(trial, weights, data, record or {}, confirmation).items():
        replace_file(fresh / name, content)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return trial


def load(path: str | Path, device: str | None = None, trust: str | None = None) -> Classifier:
    """The model in the bundle `path`, in evaluation mode, with its preprocessing.

    Args:
        device: cpu or cuda. Default: the GPU, if torch has one.
        trust: the `package.module:factory` that makes the model, if one of somebody's own does: a bundle names its
            code, and nothing is imported that the caller has not named as well.

    Raises:
        BundleError: a file is missing, altered, of a newer version, or not what its name says; or the model's code is
            not trusted, or not here.
    """
    return read(path).classifier(device, trust)


def read(path: str | Path) -> Bundle:
    """The files in the bundle `path`, every one as it was written. Imports no torch.

    Raises:
        BundleError: as `load`.
    """
    folder = Path(path).expanduser()
    config = _read_config(folder)
    hashes, contents, problems = config["files"], {}, []
    for name in FILES:
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            problems.append(f"{folder / name} cannot be read: {error.strerror}")
            continue
        digest = _digest(contents[name])
        if digest != hashes.get(name):
            problems.append(
                f"{folder / name} is not what was written: its SHA-256 begins {digest[:8]}, "
                f"{CONFIG} says {str(hashes.get(name))[:8]}; copy the bundle again"
            )
    if problems:
        raise BundleError(*problems)
    described = {name: json.loads(contents[name]) for name in FILES if name.endswith(".json")}
    if config["schema_version"] < SCHEMA_VERSION:
        described["metrics.json"] = former_schemas.bundle_metrics(described["metrics.json"])
    try:
        settings = TrialConfig.from_dict(config["config"])
    except ConfigError as error:
        raise BundleError(*(f"{folder / CONFIG}: {problem}" for problem in error.problems)) from error
    return Bundle(
        folder=folder,
        config=settings,
        image_size=config["image_size"],
        labels=tuple(described["labels.json"]),
        origin={name: config.get(name) for name in ORIGIN},
        preprocessing=described["preprocessing.json"],
        metrics=described["metrics.json"],
        weights=contents[MODEL],
    )


@dataclass(frozen=True)
class Bundle:
    """What the files of a bundle hold."""

    folder: Path
    config: TrialConfig  # in concrete form: no auto is left
    image_size: int  # pixels, the smaller side of what the model is given
    labels: tuple[str, ...]
    origin: dict[str, Any]  # sweep, trial, data and versions
    preprocessing: dict[str, Any]
    metrics: dict[str, Any]
    weights: bytes  # safetensors

    @property
    def temperature(self) -> float | None:
        """What logits are divided by before the softmax; None of a model that has none."""
        calibration = self.metrics["calibration"]
        return None if calibration is None else float(calibration["temperature"])

    def code_problems(self, trust: str | None = None) -> list[str]:
        """Why the code that makes the model cannot be had, as far as it is not built in; it is imported if trusted."""
        model = self.config.model
        if is_user_model(model) and model != trust:
            return [
                f"{self.folder / CONFIG}: the model is made by {model}, code that is not in the bundle; if you have it "
                f"and trust it, say so: bundle.load(…, trust={model!r}), or --trust {model}"
            ]
        return factories.problems(model)

    def classifier(self, device: str | None = None, trust: str | None = None) -> Classifier:
        """The model, on `device`; see `load` for `trust`. Raises BundleError if the weights are not its own."""
        if problems := self.code_problems(trust):
            raise BundleError(*problems)
        from orchestrator.bundle.classifier import Classifier
        from trainables.errors import WeightsError

        described = (self.config, self.image_size, self.labels, self.preprocessing, self.temperature)
        try:
            return Classifier.of(*described, self.weights, device)
        except (ConfigError, WeightsError) as error:
            raise BundleError(f"{self.folder / MODEL} does not fit {self.config.model}: {error}") from error


def is_whole(folder: Path) -> bool:
    """Whether the bundle's files are those that were written, in this version's way."""
    try:
        read(folder)
    except BundleError:
        return False
    return True


def _read_config(folder: Path) -> dict[str, Any]:
    """`config.json`, if it is one that `read` knows."""
    path = folder / CONFIG
    if not path.is_file():
        inner = (folder / "best" / CONFIG).is_file()
        fix = "it is a sweep's folder; the bundle is in it: best/" if inner else "name one, as results/NAME/best"
        raise BundleError(f"{folder} is no bundle: no {CONFIG} there ({fix})")
    try:
        config = dict(json.loads(path.read_bytes()))
        version = int(config["schema_version"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BundleError(f"{path} is damaged, or not a bundle's: {error}") from error
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{path} is of schema {version}, and this version reads {SCHEMA_VERSION}: update sweep-orchestrator"
        )
    if version < OLDEST:
        raise BundleError(f"{path} is of schema {version}, which is too old: make it again by --resume of its sweep")
    kinds = {"config": dict, "files": dict, "image_size": int}
    if wrong := [name for name, kind in kinds.items() if not isinstance(config.get(name), kind)]:
        raise BundleError(f"{path} is damaged: {', '.join(wrong)} missing, or not what it should be")
    return config


def _contents(
    trial: TrialRecord,
    weights: Weights,
    data: SearchData,
    record: Mapping[str, Any],
    confirmation: Mapping[str, Any] | None,
) -> dict[str, bytes]:
    """The bundle's files, by name."""
    height, width, channels = data.images.shape[1:]
    rows = trial_rows(data, TrialConfig.from_dict(trial.config))
    size = trial.worker.get("image_size", min(height, width))
    plan, split = record.get("plan", {}), record.get("split", {})
    config: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "sweep": plan.get("name"),
        "trial": trial.number,
        "config": {**trial.config, **trial.worker["format"], "image_size": size},
        "classes": len(data.classes),
        "image_size": size,
        "data": {
            "name": Path(plan.get("dataset", "")).name,
            "train_rows": len(rows.train),
            "scored_rows": len(rows.scored),
            **{name: split.get(name) for name in ("test_rows", "data_fingerprint", "test_fingerprint")},
        },
        "versions": record.get("versions", {}),
    }
    described: dict[str, Any] = {
        "labels.json": list(data.classes),
        "preprocessing.json": {
            "height": height,
            "width": width,
            "channels": channels,
            "scale": 1 / 255,
            "image_size": size,
            "evaluation_crop": trial.config["evaluation_crop"],
            "normalization": trial.config["normalization"],
            "mean": [float(value) for value in rows.mean],
            "std": [float(value) for value in rows.std],
        },
        "metrics.json": _metrics(trial, data.classes, rows, weights.calibration, confirmation),
    }
    card = model_card(config, data.classes, described["preprocessing.json"], described["metrics.json"])
    files = {name: _json(found) for name, found in described.items()}
    files |= {MODEL: pack(weights.tensors), CARD: card.encode()}
    return {**files, CONFIG: _json({**config, "files": {name: _digest(content) for name, content in files.items()}})}


def _metrics(
    trial: TrialRecord,
    classes: tuple[str, ...],
    rows: TrialRows,
    calibration: Mapping[str, float | None] | None,
    confirmation: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the winner is worth: of each part of the data that it was measured on."""
    scored = "test" if rows.scored_is_test else "validation"
    best = trial.best
    parts: dict[str, dict[str, Any]] = {
        part: {name: value for name, value in measured.items() if name != "correct"}
        for part, measured in trial.final_metrics.items()
    }
    if not parts:  # a trial that was only searched: its best epoch
        measured = {name.removeprefix("val_"): value for name, value in best.items() if name.startswith("val_")}
        parts[scored] = {"rows": len(rows.scored), **measured, **(calibration or {})}
    for measured in parts.values():
        measured["classes"] = _per_class(classes, measured.get("confusion"))
    return {
        "confirmed": confirmation is not None,
        "metric": trial.config["metric"],
        "score": trial.score,
        "best_epoch": best,
        "calibration": _calibration(calibration, scored, parts),
        "parts": parts,
        "confirmation": confirmation,
    }


def _calibration(
    found: Mapping[str, float | None] | None, fitted_on: str, parts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The temperature, and the errors without and with it: on the test set where the model was measured there."""
    if found is None or found["temperature"] is None:
        return None
    judged_on = "test" if parts.get("test", {}).get("tempered_error") is not None else fitted_on
    errors = parts["test"] if judged_on == "test" else found
    return {
        "temperature": found["temperature"],
        "fitted_on": fitted_on,
        "judged_on": judged_on,
        **{name: errors[name] for name in ("calibration_error", "tempered_error")},
    }


def _per_class(classes: tuple[str, ...], confusion: list[list[int]] | None) -> list[dict[str, Any]] | None:
    """Rows, precision, recall and F1 of each class; None where undefined, or where there is no confusion matrix."""
    if confusion is None:
        return None
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    found = []
    for number, (name, row) in enumerate(zip(classes, confusion, strict=True)):
        correct, rows, told = row[number], sum(row), predicted[number]
        found.append(
            {
                "label": name,
                "rows": rows,
                "precision": correct / told if told else None,
                "recall": correct / rows if rows else None,
                "f1": 2 * correct / (rows + told) if rows + told else None,
            }
        )
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode()
