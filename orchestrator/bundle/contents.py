"""The contents of a bundle's files, made of trials, their weights and the data that they were trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import save as pack

from orchestrator.assessment import baseline
from orchestrator.assessment.confirmation import Confirmation
from orchestrator.bundle import documents
from orchestrator.bundle.documents import Data, Description, Metrics, Preprocessing
from orchestrator.bundle.model_card import model_card
from orchestrator.record.decoding import from_json
from orchestrator.record.facts import Spec
from orchestrator.record.kept_weights import Weights
from orchestrator.record.ranking import UNRANKED
from orchestrator.record.state import TrialRecord
from trainables.config import TrialConfig
from trainables.splits import SearchData
from trainables.trial_rows import TrialRows, trial_rows

SCHEMA_VERSION = 4
CONFIG, MODEL, CARD = "config.json", "model.safetensors", "README.md"
LABELS, PREPROCESSING, METRICS = "labels.json", "preprocessing.json", "metrics.json"
FILES = (MODEL, LABELS, PREPROCESSING, METRICS, CARD)  # beside config.json, which has their hashes

Finder = Callable[[TrialRecord], Weights | None]
"""Finds the weights that a trial kept, wherever they are."""


@dataclass(frozen=True)
class Choice:
    """A model that a bundle may get, and its `kind`, one of `documents.KINDS`."""

    kind: str
    trial: TrialRecord

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `final.json` has them."""
        return {"kind": self.kind, "why": documents.KINDS[self.kind], "trial": self.trial.number}


def choices(trials: Iterable[TrialRecord], kind: str) -> list[Choice]:
    """Return the models of `trials` in their order, without trials that failed or have no score."""
    return [Choice(kind, trial) for trial in trials if trial.score is not None and trial.status not in UNRANKED]


@dataclass(frozen=True)
class Source:
    """A choice, and what else a bundle's files are made of.

    `scored` is the trial that has the scores: the model's or, if that is a refit, its twin's, whose weights are
    `scored_weights`.
    """

    choice: Choice
    weights: Weights
    scored: TrialRecord
    scored_weights: Weights
    data: SearchData
    spec: Spec
    confirmation: Confirmation | None

    @classmethod
    def find(
        cls, choice: Choice, find: Finder, data: SearchData, spec: Spec, confirmation: Confirmation | None
    ) -> Source | None:
        """Return the source for a choice; None if its weights are gone."""
        trial = choice.trial
        scored = trial if confirmation is None else confirmation.twin(trial)
        weights = find(trial)
        if weights is None:
            return None
        scored_weights = weights if scored is trial else find(scored) or Weights({})
        return cls(choice, weights, scored, scored_weights, data, spec, confirmation)

    def files(self) -> dict[str, bytes]:
        """Return the contents of the bundle's files, by name."""
        trial, data = self.choice.trial, self.data
        config = self._config()
        rows, scored_rows = (trial_rows(data, TrialConfig.from_dict(one.config)) for one in (trial, self.scored))
        description, preprocessing = self._description(rows, scored_rows), self._preprocessing(config, rows)
        metrics = documents.metrics(
            self.scored,
            data.classes,
            scored_rows,
            self.scored_weights.calibration,
            self.confirmation,
            None if self.scored is trial else trial.final_metrics.get("test"),
        )
        card = model_card(description, data.classes, preprocessing, from_json(Metrics, metrics), self.confirmation)
        files = {
            LABELS: _json(data.classes),
            PREPROCESSING: _json(asdict(preprocessing)),
            METRICS: _json(metrics),
            MODEL: pack(self.weights.tensors),
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
            config=self._config().to_dict(),
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

    def _config(self) -> TrialConfig:
        """Return the trial's configuration without an auto."""
        trial = self.choice.trial
        return TrialConfig.from_dict({**trial.worker.resolve(trial.config), "image_size": self._image_size()})

    def _image_size(self) -> int:
        return self.choice.trial.worker.image_size or min(self.data.images.shape[1:3])


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode()
