"""The winner as files: weights, configuration, labels, preprocessing, metrics, a model card. Needs no Ray.

    from orchestrator import bundle

    model = bundle.load("results/NAME/best")
    predictions = model.predict(["one.jpg", "two.png"])
    print(predictions.labels, predictions.probabilities)

`config.json` has the SHA-256 of every other file. Weights are safetensors; no pickle is ever opened.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.assessment.confirmation import Confirmation
from orchestrator.bundle.contents import (
    CONFIG,
    FILES,
    LABELS,
    METRICS,
    MODEL,
    PREPROCESSING,
    SCHEMA_VERSION,
    Choice,
    Finder,
    Source,
    digest,
)
from orchestrator.bundle.documents import Description, Member, Metrics, Preprocessing
from orchestrator.record import former_schemas
from orchestrator.record.decoding import RecordError, from_json
from orchestrator.record.facts import Spec
from trainables.config import TrialConfig
from trainables.errors import ConfigError, InputError
from trainables.files import replace_file, replace_folder
from trainables.model_names import is_user_model
from trainables.models import factories
from trainables.splits import SearchData

if TYPE_CHECKING:
    from orchestrator.bundle.classifier import Classifier

OLDEST, RENAMED = 3, 4  # the oldest schema that is still read, and the one whose metrics have today's names
T = TypeVar("T")


class BundleError(InputError):
    """A bundle that cannot be used; each problem names the file."""


def write(
    choices: Iterable[Choice],
    data: SearchData,
    find: Finder,
    folder: Path,
    spec: Spec | None = None,
    confirmation: Confirmation | None = None,
) -> Choice | None:
    """Make `folder` the bundle of the first of `choices` whose weights `find` returns, and return that choice.

    Return None, and write nothing, if there is no such model: weights of stopped trials are not kept. Whenever the
    process is killed, `folder` has the former bundle or the new one.

    Args:
        spec: what the sweep was asked: the card names data and versions.
        confirmation: of the sweep, if the model is its confirmed winner's.

    Raises:
        OSError: the disk is full or cannot be written; the former bundle stays.
    """
    sources = (Source.find(choice, find, data, spec or Spec(), confirmation) for choice in choices)
    source = next((source for source in sources if source is not None), None)
    if source is None:
        return None
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, content in source.files().items():
            replace_file(temporary / name, content)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # half a bundle would take space from what is needed
    return source.choice


def load(path: str | Path, device: str | None = None, trust: str | None = None) -> Classifier:
    """Return the model in the bundle `path`, in evaluation mode, with its preprocessing.

    Args:
        device: cpu or cuda. Default: the GPU, if torch has one.
        trust: the `package.module:factory` that builds the model, if it is a user's: a bundle names its code, and
            nothing is imported that the caller has not named as well.

    Raises:
        BundleError: a file is missing, altered, damaged or of a newer version; or the model's code is not trusted, or
            not installed.
    """
    return read(path).classifier(device, trust)


def read(path: str | Path) -> Bundle:
    """Return what the files in the bundle `path` hold, after comparing each with its SHA-256. No torch is imported.

    Raises:
        BundleError: as `load`.
    """
    folder = Path(path).expanduser()
    description = _read_description(folder)
    hashes, contents, problems = description.files, {}, []
    for name in FILES:
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            problems.append(f"{folder / name} cannot be read: {error.strerror}")
            continue
        found = digest(contents[name])
        if found != hashes.get(name):
            problems.append(
                f"{folder / name} is not what was written: its SHA-256 begins with {found[:8]}, "
                f"by {CONFIG} with {str(hashes.get(name))[:8]}; copy the bundle again"
            )
    if problems and _read_description(folder) != description:  # a sweep has replaced it meanwhile
        return read(path)
    if problems:
        raise BundleError(*problems)
    former = description.schema_version < RENAMED
    labels, preprocessing, metrics = (json.loads(contents[name]) for name in (LABELS, PREPROCESSING, METRICS))
    try:
        config = TrialConfig.from_dict(description.config)
    except ConfigError as error:
        raise BundleError(*(f"{folder / CONFIG}: {problem}" for problem in error.problems)) from error
    return Bundle(
        folder=folder,
        config=config,
        description=description,
        labels=_decoded(tuple[str, ...], labels, folder / LABELS),
        preprocessing=_decoded(Preprocessing, preprocessing, folder / PREPROCESSING),
        metrics=_decoded(Metrics, former_schemas.bundle_metrics(metrics) if former else metrics, folder / METRICS),
        weights=contents[MODEL],
    )


@dataclass(frozen=True)
class Bundle:
    """The contents of a bundle's files."""

    folder: Path
    config: TrialConfig  # without any auto
    description: Description
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Metrics
    weights: bytes  # safetensors

    @property
    def temperature(self) -> float | None:
        """The number that logits are divided by before the softmax; None if none was fitted."""
        calibration = self.metrics.calibration
        return None if calibration is None else calibration.temperature

    def members(self) -> list[Member]:
        """Return the models whose mean the bundle computes, or the only one."""
        one = Member(trial=self.description.trial, config=self.description.config, temperature=self.temperature)
        return self.description.members or [one]

    def code_problems(self, trust: str | None = None) -> list[str]:
        """Return a message for each reason why the model cannot be built here; a user's code is imported if trusted."""
        model = self.config.model
        if is_user_model(model) and model != trust:
            return [
                f"{self.folder / CONFIG}: the model is built by {model}, code that is not in the bundle; if you have "
                f"it and trust it, name it: bundle.load(…, trust={model!r}), or --trust {model}"
            ]
        return factories.problems(model)

    def classifier(self, device: str | None = None, trust: str | None = None) -> Classifier:
        """Return the model on `device`; see `load` for `trust`. Raise BundleError if the weights do not fit it."""
        if problems := self.code_problems(trust):
            raise BundleError(*problems)
        from orchestrator.bundle.classifier import Classifier
        from trainables.errors import WeightsError

        try:
            return Classifier.of_members(
                self.members(), self.labels, self.preprocessing, self.temperature, self.weights, device
            )
        except (ConfigError, WeightsError) as error:
            raise BundleError(f"{self.folder / MODEL} does not fit {self.config.model}: {error}") from error


def is_complete(folder: Path) -> bool:
    """Return whether all files of the bundle are there, as they were written, in a schema that is read."""
    try:
        read(folder)
    except BundleError:
        return False
    return True


def holds(folder: Path, choice: Choice) -> bool:
    """Return whether the bundle has the model `choice`, as far as its `config.json` says."""
    there = description(folder)
    runs = [] if there is None else [member.trial for member in there.members] or [there.trial]
    return runs == [run.number for run in choice.runs]


def set_aside(folder: Path, former: Path) -> bool:
    """Give a bundle the name `former`, whose content is removed; return whether there was one.

    Raises:
        OSError: the disk does not take it.
    """
    if not folder.exists():
        return False
    shutil.rmtree(former, ignore_errors=True)
    folder.rename(former)
    return True


def model_name(folder: Path) -> str | None:
    """Return the name of the model in a bundle; None if its `config.json` cannot be read."""
    there = description(folder)
    return None if there is None else there.model


def description(folder: Path) -> Description | None:
    """Return the contents of a bundle's `config.json`; None if it cannot be read."""
    try:
        return _read_description(folder)
    except BundleError:
        return None


def kind(folder: Path) -> str | None:
    """Return the kind of the model in a bundle, one of `documents.KINDS`; None if it is not known."""
    there = description(folder)
    return None if there is None else there.kind


def _read_description(folder: Path) -> Description:
    """Return the contents of `config.json`; raise BundleError if it is missing, damaged or of an unknown schema."""
    path = folder / CONFIG
    if not path.is_file():
        in_sweep = (folder / "best" / CONFIG).is_file()
        fix = "it is a sweep's folder; the bundle is in it: best/" if in_sweep else "name one, as results/NAME/best"
        raise BundleError(f"{folder} is no bundle: no {CONFIG} there ({fix})")
    try:
        config = dict(json.loads(path.read_bytes()))
        version = int(config["schema_version"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BundleError(f"{path} is damaged, or not that of a bundle: {error}") from error
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{path} is of schema {version}, and this version reads {SCHEMA_VERSION}: update sweep-orchestrator"
        )
    if version < OLDEST:
        raise BundleError(f"{path} is of schema {version}, which is too old: resume its sweep, which writes it anew")
    return _decoded(Description, config, path)


def _decoded(kind: type[T], document: Any, path: Path) -> T:
    """Return the contents of the file `path` as a `kind`; raise BundleError if they are something else."""
    try:
        return from_json(kind, document)
    except RecordError as error:
        raise BundleError(f"{path} is damaged: {'; '.join(error.problems)}") from error
