"""Every sampler with every scheduler: all trials end, none runs twice, and a killed search goes on as it would have."""

from __future__ import annotations

import math
import os
import statistics
from pathlib import Path

import pytest
from simulation import CALM, Chaos, Setup, Simulation, outcome

from orchestrator.record.events import TrialEnded, TrialEpoch
from orchestrator.record.journal import read
from orchestrator.record.state import replay
from orchestrator.search import window
from orchestrator.search.promotion import Rounds
from orchestrator.search.samplers import POPULATION, SAMPLERS
from orchestrator.search.schedulers import SCHEDULERS, stop_rule
from orchestrator.search.study import JournalStudy
from search_spaces.distributions import Distribution
from search_spaces.space import SearchSpace, choice, integer, log, uniform
from trainables.config import TrialConfig

TRIALS = 15  # more than TPE and the Gaussian process draw at random, and than a generation has
ROUGH = Chaos(kill=0.02, lose=0.05, late=0.5, signal=0.01)
STEPPED: dict[str, Distribution] = {"dropout": uniform(0.0, 0.4, 0.1), "batch_size": integer(16, 48, 16)}
SPACE = SearchSpace(
    TrialConfig(model="resnet8", max_epochs=5, precision="float32", memory_format="contiguous", threads=1),
    {"optimizer": choice("sgd", "adamw"), "lr": log(0.01, 1.0), "momentum": uniform(0.5, 0.9), **STEPPED},
    conditions={"momentum": {"optimizer": ("sgd",)}},
    starts=({"optimizer": "adamw", "lr": 0.02},),
)
GRID = SearchSpace(SPACE.base, {"optimizer": choice("sgd", "adamw"), **STEPPED})


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out flushes, as in tests/test_simulation.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_is_the_same_whatever_happens_to_it(tmp_path: Path, sampler: str, scheduler: str) -> None:
    space = GRID if sampler == "grid" else SPACE
    rule = stop_rule(scheduler, space, 1, 3, Rounds((TRIALS,)))
    found = []
    for number, chaos in enumerate((CALM, ROUGH)):
        (folder := tmp_path / str(number)).mkdir()
        simulation = Simulation(folder, Setup(TRIALS, sampler, 3, rule=rule, space=space), chaos, seed=5)
        simulation.run()
        events, damaged = read(simulation.path)
        assert not damaged
        state = replay(events)
        assert len(state.trials) == state.finished == TRIALS
        assert not state.paused
        assert len({space.settings(trial.params) for trial in state.trials.values()}) == TRIALS
        found.append(outcome(list(events)))
    lost = [number for number, trial in found[1].items() if trial[-1][1] == "lost"]
    if not lost:
        assert found[0] == found[1]


@pytest.mark.parametrize("sampler", [name for name, entry in SAMPLERS.items() if entry.learns])
def test_a_sampler_that_learns_finds_the_good_part_of_a_space(sampler: str) -> None:
    """Of a smooth function of two fields, which it learns from complete trials alone, at the first rung."""
    space = SearchSpace(TrialConfig(max_epochs=9), {"lr": log(1e-4, 1.0), "dropout": uniform(0.0, 0.9)})
    gains = []
    for seed in range(4):
        study, scores = JournalStudy(space, sampler, seed, trials=4 * POPULATION, learned_at=1), []
        for number in range(4 * POPULATION):
            proposal = study.propose(number)
            assert proposal is not None
            rate, dropout = proposal.params["lr"], proposal.params["dropout"]
            scores.append(1 - abs(math.log10(rate) + 1) / 3 - abs(dropout - 0.2))
            study.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": scores[-1]}))
        gains.append(statistics.fmean(scores[-POPULATION:]) - statistics.fmean(scores[:POPULATION]))
    assert statistics.fmean(gains) > 0.15


@pytest.mark.parametrize("sampler", [name for name, entry in SAMPLERS.items() if entry.learns])
def test_a_sampler_that_learns_avoids_what_cannot_train(sampler: str) -> None:
    space = SearchSpace(TrialConfig(max_epochs=9), {"lr": log(1e-4, 1.0), "dropout": uniform(0.0, 0.9)})
    study = JournalStudy(space, sampler, 1, trials=60, learned_at=1)
    diverged = []
    for number in range(60):
        proposal = study.propose(number)
        assert proposal is not None
        diverged.append(proposal.params["lr"] > 0.1)
        if diverged[-1]:
            study.observe(TrialEnded(number, 0, "diverged", "not_finite"))
        else:  # the nearer to the cliff the better
            study.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": 0.9 + proposal.params["lr"]}))
    assert sum(diverged[-30:]) <= 12


@pytest.mark.parametrize("sampler", [name for name, entry in SAMPLERS.items() if entry.learns])
def test_a_sampler_looks_at_the_best_and_the_newest_of_many(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "NEWEST", 8)
    monkeypatch.setattr(window, "BEST", 4)
    space = SearchSpace(TrialConfig(max_epochs=9), {"lr": log(1e-4, 1.0), "dropout": uniform(0.0, 0.9)})
    study = JournalStudy(space, sampler, 0, trials=40, learned_at=1)
    for number in range(40):
        assert study.propose(number) is not None
        study.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": (number * 7 % 40) / 40}))
    seen = [trial.number for trial in study._window.get_trials()]
    best = sorted(range(40), key=lambda number: -(number * 7 % 40))[:4]
    assert seen == sorted({*best, *range(32, 40)})
