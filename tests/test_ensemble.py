"""Ensemble: the winner's models of all seeds are averaged, stored in one bundle, and computed by every command."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
import tiny
import torch
from safetensors.numpy import load as unpack
from test_refit import RUNS, refitting

from orchestrator.assessment import refits
from orchestrator.assessment.candidates import Candidate, Confirmed
from orchestrator.assessment.confirmation import Confirmation, confirmation_of
from orchestrator.assessment.ensemble import Ensemble
from orchestrator.bundle import bundle
from orchestrator.bundle.contents import Choice
from orchestrator.bundle.documents import ENSEMBLE
from orchestrator.cluster import machine
from orchestrator.plan.options import SweepOptions
from orchestrator.record import events
from orchestrator.record.epochs import Epochs
from orchestrator.record.events import EnsembleMeasured
from orchestrator.record.facts import Measured
from orchestrator.record.kept_weights import Calibration, Weights
from orchestrator.record.state import End, TrialRecord, fold
from orchestrator.validation import check
from trainables.calibration import log_probabilities, mean_probabilities
from trainables.errors import ConfigError
from trainables.evaluation import predict
from trainables.loop import prepared, train

SEEDS = 3
TEMPERATURE = 0.8  # of the mean


@dataclass(frozen=True)
class Made:
    """An ensemble's bundle, and the validation rows' logits and temperature of each member."""

    folder: Path
    logits: list[torch.Tensor]
    temperatures: list[float | None]

    @property
    def mean(self) -> torch.Tensor:
        """The probabilities that the bundle should compute."""
        mean = mean_probabilities(self.logits, self.temperatures)
        return (log_probabilities(mean) / TEMPERATURE).softmax(1)


def run(number: int, config: Any, found: dict[int, Weights]) -> tuple[TrialRecord, torch.Tensor, float | None]:
    """Train a confirmation run of trial 0, and add its weights to `found`."""
    data, state = tiny.start(config)
    data = prepared(data, state)
    epochs = [epoch.to_dict() for epoch in train(data, state)]
    tensors = {name: tensor.numpy().copy() for name, tensor in state.kept_weights().items()}
    assert state.calibration is not None
    found[number] = Weights(tensors, Calibration(**state.calibration))
    trial = TrialRecord(number, {}, config.to_dict(), 0.0, index=number - 1, final=True, confirms=0)
    trial.epochs = Epochs(epochs)
    trial.score, trial.best_epoch = state.score, state.best_epoch
    trial.worker = replace(bundles.worker(config), image_size=data.image_size)
    trial.end = End("completed", "budget")
    state.model.load_state_dict(state.kept_weights())
    logits, _ = predict(config, data.batches, data.scored_rows, state.kept.network)
    return trial, logits, state.calibration["temperature"]


def make(folder: Path, tested: bool = True, **fields: Any) -> Made:
    """Write the bundle of an ensemble of tiny models with these fields; its runs were tested, maybe not itself."""
    found: dict[int, Weights] = {}
    configs = [tiny.config(seed=seed, **fields) for seed in range(SEEDS)]
    runs, logits, temperatures = zip(*(run(n, c, found) for n, c in enumerate(configs, start=1)), strict=True)
    winner = Confirmed(replace(runs[0], number=0), runs)
    metrics = {"rows": 24, "accuracy": 0.875, "confusion": [[8, 0, 0], [1, 7, 0], [0, 2, 6]]}
    fitted = {"calibration_error": 0.1, "temperature": TEMPERATURE, "tempered_error": 0.05}
    parts = {part: Measured.of(metrics | fitted) for part in ("validation", "test")[: 1 + tested]}
    for each in runs:
        each.final_metrics = {"test": Measured.of(metrics | {"accuracy": 0.25})}
    ensemble = Ensemble(runs, parts)
    confirmation = Confirmation(winner, winner, (Candidate(winner, None),), None, 1, (), ensemble)
    choice = Choice(ENSEMBLE, ensemble.runs)
    data = tiny.search_data()
    written = bundle.write([choice], data, lambda trial: found[trial.number], folder, bundles.SPEC, confirmation)
    assert written == choice
    return Made(folder, list(logits), list(temperatures))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("ensemble") / "best")


def validation() -> list[Any]:
    data = tiny.search_data()
    return [data.images[row] for row in data.validation]


def test_it_computes_the_mean_of_its_members_probabilities(made: Made) -> None:
    model = bundle.load(made.folder, "cpu")
    assert len(model.others) == SEEDS - 1
    predictions = model.predict(validation())
    np.testing.assert_allclose(predictions.probabilities, made.mean.numpy(), atol=1e-6)
    assert predictions.labels == [tiny.CLASSES[number] for number in made.mean.argmax(1)]


def test_the_files_say_of_which_models(made: Made) -> None:
    there = bundle.read(made.folder)
    assert [member.trial for member in there.description.members] == [1, 2, 3]
    assert [member.temperature for member in there.description.members] == made.temperatures
    assert there.temperature == TEMPERATURE
    assert there.description.kind == "ensemble"
    assert {member.config["seed"] for member in there.description.members} == {0, 1, 2}
    assert there.metrics.parts["test"].metrics["accuracy"] == 0.875
    card = (made.folder / "README.md").read_text()
    assert "the mean of the calibrated probabilities of trials 1, 2, 3" in card


@pytest.mark.parametrize("tested", [True, False])
def test_no_metrics_of_one_member_are_given_as_the_mean_s(tested: bool, tmp_path: Path) -> None:
    folder = make(tmp_path / "best", tested).folder
    parts, card = bundle.read(folder).metrics.parts, (folder / "README.md").read_text()
    assert {name: part.metrics["accuracy"] for name, part in parts.items()} == dict.fromkeys(
        ("validation", "test")[: 1 + tested], 0.875
    )
    score = bundle.read(folder).metrics.score
    assert f"`val_accuracy` {score:.4f} of run 1. It is the mean" in card
    assert ("It was not tested" in card) != tested
    assert ("the test set's are its own" in card) == tested
    assert "0.2500" not in card


def test_a_frozen_base_is_stored_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = make(tmp_path / "best", freeze=True, max_epochs=2)
    tensors = unpack((made.folder / "model.safetensors").read_bytes())
    counts = [sum(name.startswith(f"{number}.") for name in tensors) for number in range(SEEDS)]
    shared = [len(member.shared) for member in bundle.read(made.folder).description.members]
    assert [a + b for a, b in zip(counts, shared, strict=True)] == [counts[0]] * SEEDS
    found = bundle.load(made.folder, "cpu").predict(validation()).probabilities
    np.testing.assert_allclose(found, made.mean.numpy(), atol=1e-6)


def test_equal_members_are_stored_once(tmp_path: Path) -> None:
    from orchestrator.bundle.contents import Source

    epochs = Epochs([{"epoch": 1, "val_accuracy": 0.5}])
    trial = TrialRecord(1, {}, tiny.config().to_dict(), 0.0, epochs=epochs, score=0.5, best_epoch=1)
    weights = Weights({"a": np.arange(3), "b": np.zeros(2)})
    other = Weights({"a": np.arange(3), "b": np.ones(2)})
    runs, data = (trial, replace(trial, number=2)), tiny.search_data()
    source = Source(Choice(ENSEMBLE, runs), (weights, other), runs, (weights, other), data, bundles.SPEC, None)
    assert sorted(unpack(source.files()["model.safetensors"])) == ["0.a", "0.b", "1.b"]


def test_the_file_for_trainables_has_the_first_member_s_configuration(made: Made) -> None:
    from trainables.__main__ import read_config

    assert read_config(made.folder / "config.json")["seed"] == 0


def test_one_onnx_graph_has_all_members(made: Made) -> None:
    pytest.importorskip("onnxruntime")
    from orchestrator.bundle import onnx_model

    model = bundle.load(made.folder, "cpu")
    content = onnx_model.encode(model, {})
    assert onnx_model.difference(content, model) < 1e-4
    larger = replace(model.others[0], preprocessing=replace(model.preprocessing, image_size=16))
    larger = replace(larger, config=larger.config.replace(image_size=16))
    with pytest.raises(ConfigError, match="different sizes"):
        onnx_model.encode(replace(model, others=(larger,)), {})


def test_pictures_are_explained_by_all_members(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    from orchestrator.bundle.explanation import Overlays

    model, images = bundle.load(made.folder, "cpu"), np.stack(validation()[:2])
    first, *others = model.others
    model = replace(model, others=(replace(first, config=first.config.replace(micro_batch=1)), *others))
    Overlays(model, tmp_path / "maps").write(["one", "two"], images, np.array([0, 1]))
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["one.png", "two.png"]


# The sweep


def test_every_seed_is_refitted_for_an_ensemble(tmp_path: Path) -> None:
    state, planned = refitting(tmp_path)
    planned = replace(planned, ensemble="seeds")
    assert planned.queue().total() == 2 + 6 + 3
    queue, seeds = refits.queue(planned), []
    while (due := queue.next(state)) is not None:
        seeds.append(due.index)
        number = state.next_trial
        fold(state, due.proposal(number, {}, planned.config(number, due, {}).to_dict()))
        state.waiting.clear()
    assert seeds == [0, 1, 2]


def test_the_ensemble_is_of_the_winner_s_runs_where_there_are_no_refits(tmp_path: Path) -> None:
    state, planned = refitting(tmp_path)
    without, found = (confirmation_of(state, replace(planned, ensemble=name)) for name in ("none", "seeds"))
    assert found is not None
    assert without is not None
    assert without.ensemble is None
    assert found.ensemble is not None
    assert [run.score for run in found.ensemble.runs] == [0.93, 0.92, 0.94]  # the median run first
    assert RUNS[1] == [0.93, 0.92, 0.94]
    event = EnsembleMeasured(found.ensemble.numbers, "test", Measured(rows=10, metrics={"accuracy": 0.9}))
    fold(state, events.parse({"n": 99, "t": 0.0, **json.loads(json.dumps(event.content()))}))
    again = confirmation_of(state, replace(planned, ensemble="seeds"))
    assert again is not None
    assert again.to_dict()["ensemble"]["test_accuracy"] == 0.9


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"ensemble": "seed"}, "did you mean seeds"),
        ({"ensemble": "seeds", "confirm": 0}, "--ensemble seeds: it needs a confirmed winner"),
        ({"ensemble": "seeds", "recipe": "improved-resnet50"}, "--ensemble seeds: a recipe's arms"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(asked: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        check(SweepOptions(results=tmp_path, **asked), [machine.Resources(2, 0)])
