"""The contents of a bundle's files, made of trials, their weights and the data that they were trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as pack

from orchestrator.assessment import baseline
from orchestrator.assessment.confirmation import Confirmation
from orchestrator.bundle import documents
from orchestrator.bundle.documents import Data, Description, InitialWeights, Member, Metrics, Preprocessing
from orchestrator.bundle.model_card import model_card
from orchestrator.record.decoding import from_json
from orchestrator.record.facts import Measured, Spec
from orchestrator.record.kept_weights import Calibration, Weights
from orchestrator.record.ranking import UNRANKED
from orchestrator.record.state import TrialRecord
from trainables.config import TrialConfig
from trainables.splits import SearchData
from trainables.trial_rows import TrialRows, trial_rows

SCHEMA_VERSION = 5
CONFIG, MODEL, CARD = "config.json", "model.safetensors", "README.md"
LABELS, PREPROCESSING, METRICS = "labels.json", "preprocessing.json", "metrics.json"
UNSEEN = ("test", "external")  # parts of the data that a refit has not seen either
FILES = (MODEL, LABELS, PREPROCESSING, METRICS, CARD)  # beside config.json, which has their hashes

Finder = Callable[[TrialRecord], Weights | None]
"""Finds the weights that a trial kept, wherever they are."""


@dataclass(frozen=True)
class Choice:
    """A model that a bundle may get, and its `kind`, one of `documents.KINDS`."""

    kind: str
    runs: tuple[TrialRecord, ...]  # the members of an ensemble, or one

    @property
    def trial(self) -> TrialRecord:
        """The first run."""
        return self.runs[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `final.json` has them."""
        trials = {"trial": self.trial.number, "trials": [run.number for run in self.runs]}
        return {"kind": self.kind, "why": documents.KINDS[self.kind], **trials}


def choices(trials: Iterable[TrialRecord], kind: str) -> list[Choice]:
    """Return the models of `trials` in their order, without trials that failed or have no score."""
    return [Choice(kind, (trial,)) for trial in trials if trial.score is not None and trial.status not in UNRANKED]


@dataclass(frozen=True)
class Source:
    """A choice, and what else a bundle's files are made of.

    `scored` are the trials that have the scores: the models' or, of a refit, its twin's, whose weights are
    `scored_weights`.
    """

    choice: Choice
    weights: tuple[Weights, ...]  # of each run
    scored_runs: tuple[TrialRecord, ...]
    scored_weights: tuple[Weights, ...]
    data: SearchData
    spec: Spec
    confirmation: Confirmation | None

    @classmethod
    def find(
        cls, choice: Choice, find: Finder, data: SearchData, spec: Spec, confirmation: Confirmation | None
    ) -> Source | None:
        """Return the source for a choice; None if its weights are gone."""
        weights = [find(run) for run in choice.runs]
        known = tuple(one for one in weights if one is not None)
        if len(known) < len(weights):
            return None
        scored = tuple(run if confirmation is None else confirmation.twin(run) for run in choice.runs)
        pairs = zip(scored, choice.runs, known, strict=True)
        scored_weights = tuple(one if twin is run else find(twin) or Weights({}) for twin, run, one in pairs)
        return cls(choice, known, scored, scored_weights, data, spec, confirmation)

    @property
    def scored(self) -> TrialRecord:
        """The trial that has the scores of the first run."""
        return self.scored_runs[0]

    def files(self) -> dict[str, bytes]:
        """Return the contents of the bundle's files, by name."""
        trial, data = self.choice.trial, self.data
        config = self._config(self.choice.trial)
        rows, scored_rows = (trial_rows(data, TrialConfig.from_dict(one.config)) for one in (trial, self.scored))
        description, preprocessing = self._description(rows, scored_rows), self._preprocessing(config, rows)
        metrics = documents.metrics(
            self.scored,
            data.classes,
            scored_rows,
            self._calibration(),
            self.confirmation,
            self._own_parts(),
        )
        card = model_card(description, data.classes, preprocessing, from_json(Metrics, metrics), self.confirmation)
        files = {
            LABELS: _json(data.classes),
            PREPROCESSING: _json(asdict(preprocessing)),
            METRICS: _json(metrics),
            MODEL: pack(self._tensors()),
            CARD: card.encode(),
        }
        hashes = {name: digest(content) for name, content in files.items()}
        return {**files, CONFIG: _json(asdict(replace(description, files=hashes)))}

    def _description(self, rows: TrialRows, scored_rows: TrialRows) -> Description:
        trial, data, spec = self.choice.trial, self.data, self.spec
        size = self._image_size()
        return Description(
            schema_version=SCHEMA_VERSION,
            sweep=spec.name,
            trial=trial.number,
            twin=None if self.scored is trial else self.scored.number,
            kind=self.choice.kind,
            config=self._config(trial).to_dict(),
            members=self._members(),
            classes=len(data.classes),
            image_size=size,
            data=Data(
                name=Path(spec.dataset or "").name,
                train_rows=len(rows.train),
                scored_rows=len(scored_rows.scored),
                folds=len(scored_rows.folds),
                **{name: spec.split.get(name) for name in ("test_rows", "data_fingerprint", "test_fingerprint")},
                commonest_share=baseline.share(spec.split),
            ),
            initial_weights=initial_weights(trial),
            versions=spec.versions,
            files={},
        )

    def _preprocessing(self, config: TrialConfig, rows: TrialRows) -> Preprocessing:
        height, width, channels = self.data.images.shape[1:]
        return Preprocessing(
            height=height,
            width=width,
            channels=channels,
            image_size=self._image_size(),
            evaluation_crop=config.evaluation_crop,
            interpolation=config.interpolation,
            normalization=config.normalization,
            mean=tuple(map(float, rows.mean)),
            std=tuple(map(float, rows.std)),
            stored_side=self.data.stored_side,
            fit=config.fit,
            background=self.data.background,
            evaluation_views=config.evaluation_views,
        )

    def _members(self) -> list[Member]:
        """Return the members of an ensemble."""
        if len(self.choice.runs) == 1:
            return []
        triples = zip(self.choice.runs, self.weights, self.scored_weights, strict=True)
        return [
            Member(
                trial=run.number,
                config=self._config(run).to_dict(),
                temperature=scored.temperature,
                shared=[] if number == 0 else [name for name in own.tensors if self._is_shared(name, own)],
            )
            for number, (run, own, scored) in enumerate(triples)
        ]

    def _tensors(self) -> dict[str, NDArray[Any]]:
        """Return all tensors by name, of an ensemble with the member's number before it; equal ones are there once."""
        first, *others = self.weights
        if not others:
            return first.tensors
        return {f"0.{name}": tensor for name, tensor in first.tensors.items()} | {
            f"{number}.{name}": tensor
            for number, one in enumerate(others, start=1)
            for name, tensor in one.tensors.items()
            if not self._is_shared(name, one)
        }

    def _is_shared(self, name: str, one: Weights) -> bool:
        """Return whether a member's tensor equals the first member's of that name, as those of a frozen base do."""
        theirs = self.weights[0].tensors.get(name)
        return theirs is not None and np.array_equal(theirs, one.tensors[name])

    def _own_parts(self) -> Mapping[str, Measured | None]:
        """Return the metrics of a refit or an ensemble that are not those of its twin, by part of the data.

        None are those of parts on which it was not measured, though its twin was.
        """
        ensemble = None if self.confirmation is None else self.confirmation.ensemble
        if ensemble is not None and ensemble.runs == self.choice.runs:
            return {part: ensemble.parts.get(part) for part in ("validation", *UNSEEN)}
        own = self.choice.trial
        return {} if self.scored is own else {part: own.final_metrics.get(part) for part in UNSEEN}

    def _calibration(self) -> Calibration | None:
        """Return the calibration on the scored rows: that of the twin or, of an ensemble, of the mean of the twins."""
        validated = self._own_parts().get("validation")
        if len(self.choice.runs) == 1:
            return self.scored_weights[0].calibration
        return None if validated is None else from_json(Calibration, validated.metrics)

    def _config(self, run: TrialRecord) -> TrialConfig:
        """Return a run's configuration without an auto."""
        return TrialConfig.from_dict({**run.worker.resolve(run.config), "image_size": self._image_size(run)})

    def _image_size(self, run: TrialRecord | None = None) -> int:
        return (run or self.choice.trial).worker.image_size or min(self.data.images.shape[1:3])


def initial_weights(trial: TrialRecord) -> InitialWeights | None:
    """Return the weights that a trial began with; None if all were drawn at random, or nobody noted them."""
    noted = trial.worker.weights
    if noted is None:
        return None
    from trainables.models.sources import license_of  # loads torch

    source, weights = str(noted["source"]), str(trial.config.get("weights", "none"))
    return InitialWeights(
        source=Path(source).name if Path(source).is_absolute() else source,
        sha256=str(noted["sha256"]),
        loaded=int(noted["loaded"]),
        drawn=int(noted["drawn"]),
        license=license_of(str(trial.config["model"]), weights),
    )


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode()
