"""Limits of a search: epochs, GPU-hours, a score to reach, patience. What follows the search is still run."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from journals import trial
from simulation import CALM, Chaos, Setup, Simulation

from orchestrator.cluster import machine
from orchestrator.plan import plan, time_budget
from orchestrator.plan.forecast import expected_epochs
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.events import Event, SweepStarted, TrialAttempt, TrialEpoch, TrialFeatures, TrialProposed
from orchestrator.record.facts import Spec
from orchestrator.record.journal import Journal
from orchestrator.record.ranking import best_trial
from orchestrator.record.state import SweepState
from orchestrator.search.limits import Limits, LimitWatch
from orchestrator.search.promotion import Asha, Rounds
from orchestrator.search.schedulers import StopRule
from orchestrator.search.stopping import NeverStop
from orchestrator.search.trial_queue import TrialQueue
from search_spaces.situation import UNREAD, Pictures
from search_spaces.space import SearchSpace, log
from trainables.config import TrialConfig
from trainables.errors import ConfigError

SPACE = SearchSpace(
    TrialConfig(model="resnet8", max_epochs=9, precision="float32", memory_format="contiguous", threads=1),
    {"lr": log(0.01, 0.2)},
)
PROMOTING = Asha(9, 1, 3, Rounds(), SPACE)
ROUGH = Chaos(kill=0.03, lose=0.05, late=0.5, signal=0.01)


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out flushes, as in tests/test_simulation.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def run(folder: Path, limits: Limits, rule: StopRule, chaos: Chaos = CALM, **options: Any) -> SweepState:
    setup = Setup(200, slots=2, seeds=2, rule=rule, space=SPACE, limits=limits, **options)
    return Simulation(folder, setup, chaos, 1).run().state


def trained(state: SweepState) -> int:
    return sum(trial.last_epoch for trial in state.trials.values())


@pytest.mark.parametrize("rule", [PROMOTING, NeverStop()], ids=["asha", "none"])
@pytest.mark.parametrize("chaos", [CALM, ROUGH], ids=["calm", "rough"])
def test_epochs(tmp_path: Path, rule: StopRule, chaos: Chaos) -> None:
    state = run(tmp_path, Limits(epochs=150), rule, chaos)
    assert 150 - 2 <= trained(state) <= 150 + 2 * 2, "each of two slots ends its epoch"
    assert not state.paused
    finals = [trial for trial in state.trials.values() if trial.final]
    assert [trial.status for trial in finals] == ["completed"] * 2
    assert {t.end.stop_reason for t in state.trials.values() if t.end} <= {"asha", "budget", "epoch_budget"}


def test_gpu_hours(tmp_path: Path) -> None:
    """An epoch takes 2 s of one GPU here."""
    state = run(tmp_path, Limits(gpu_hours=300 / 3600), PROMOTING)
    assert 300 / 2 - 2 <= trained(state) <= 300 / 2 + 4


def test_a_score_that_is_reached_ends_the_search(tmp_path: Path) -> None:
    state = run(tmp_path, Limits(target=0.9), NeverStop())
    best = best_trial(state)
    assert best is not None
    assert best.score is not None
    assert best.score >= 0.9
    assert len(state.trials) < 50
    assert sum(trial.final for trial in state.trials.values()) == 2


def test_patience_counts_the_trials_after_the_best(tmp_path: Path) -> None:
    state = run(tmp_path, Limits(patience=5), NeverStop())
    best = best_trial(state)
    assert best is not None
    searched = [trial for trial in state.trials.values() if not trial.final]
    assert 5 <= len(searched) - 1 - best.index <= 5 + 2


def test_the_first_limit_counts(tmp_path: Path) -> None:
    assert run(tmp_path, Limits(epochs=100, patience=150, target=2.0), PROMOTING).closed.reason == "epoch_budget"  # type: ignore[union-attr]


class Watched:
    """A sweep told event by event, with a watch from the start and one that a resumed command would have now."""

    def __init__(self, folder: Path, limits: Limits, queue: TrialQueue, *constraints: str) -> None:
        self.journal, self.limits, self.queue = Journal(folder / "journal.jsonl"), limits, queue
        self.journal.append(SweepStarted(Spec(plan={"name": "x", "constraint": list(constraints)}, slots=2)))
        self.live = self._watch()
        self.journal.subscribe(self.live.observe)

    def _watch(self) -> LimitWatch:
        return LimitWatch(self.journal, self.queue, self.limits, 1.0)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.journal.append(event)

    def run(self, number: int, scores: Sequence[float], status: str | None = "completed") -> None:
        params = {"lr": 0.1 + number / 1000}
        reason = {"diverged": "not_finite"}.get(status or "", "budget")
        self.tell(*trial(number, scores, status, reason, config=SPACE.config(params).to_dict(), params=params))

    @property
    def reached(self) -> str | None:
        """The limit that is reached, which is the same for both."""
        found = {self.live._reached(), self._watch()._reached()}
        assert len(found) == 1, "a resumed command decides otherwise"
        return found.pop()


QUEUE = TrialQueue({"": SPACE}, 50, seeds=2)
Watch = Callable[..., Watched]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Give what makes a watched sweep of limits, queue and constraints."""
    made: list[Watched] = []

    def of(limits: Limits, queue: TrialQueue = QUEUE, *constraints: str) -> Watched:
        made.append(Watched(tmp_path, limits, queue, *constraints))
        return made[-1]

    yield of
    for watched in made:
        watched.journal.close()


def test_patience_is_the_same_after_a_resume(watch: Watch) -> None:
    watched = watch(Limits(patience=7))
    for number in range(7):
        watched.run(number, [0.9 if number == 0 else 0.5])
        assert watched.reached is None
    watched.run(7, [0.5])
    assert watched.reached == "patience_trials"


def test_a_trial_that_breaks_a_constraint_later_reaches_no_target(watch: Watch) -> None:
    watched = watch(Limits(target=0.9), QUEUE, "train_s<4")
    watched.run(0, [0.5, 0.6, 0.95], None)
    assert watched.reached is None
    watched.run(1, [0.5, 0.95], None)
    assert watched.reached == "target_score"


def test_a_trial_that_diverged_is_not_waited_for(watch: Watch) -> None:
    watched = watch(Limits(patience=2))
    watched.run(0, [0.95], "diverged")
    watched.run(1, [0.6])
    watched.run(2, [0.5])
    assert watched.reached is None
    watched.run(3, [0.5])
    assert watched.reached == "patience_trials"


@pytest.mark.parametrize("limits", [Limits(target=0.9), Limits(epochs=5)])
def test_a_limit_counts_once_all_trials_are_proposed(watch: Watch, limits: Limits) -> None:
    watched = watch(limits, replace(QUEUE, trials=2, seeds=0))
    watched.run(0, [0.5, 0.6, 0.95], None)
    watched.run(1, [0.5, 0.6], None)
    assert watched.reached is not None
    watched.live.check()
    assert watched.journal.state.closed is not None


def test_features_are_hours_of_a_gpu(watch: Watch) -> None:
    watched = watch(Limits(gpu_hours=1))
    watched.run(0, [], None)
    watched.tell(TrialFeatures(0, 0, 100, 100, 3_600.0))
    watched.tell(TrialEpoch(0, 0, {"epoch": 1, "val_accuracy": 0.5, "train_s": 1.0, "eval_s": 0.0}))
    assert watched.reached == "gpu_hours"


@pytest.mark.parametrize(("gpus", "hours"), [(None, 2), (0.5, 1), (1.0, 2)])
def test_hours_are_of_the_share_that_a_trial_had(watch: Watch, gpus: float | None, hours: float) -> None:
    watched = watch(Limits(gpu_hours=hours), replace(QUEUE, seeds=0))
    watched.tell(TrialProposed(0, {}, SPACE.config({"lr": 0.1}).to_dict()), TrialAttempt(0, 0, gpus))
    watched.tell(TrialEpoch(0, 0, {"epoch": 1, "val_accuracy": 0.5, "train_s": 7_000.0, "eval_s": 0.0}))
    assert watched.reached is None
    watched.tell(TrialEpoch(0, 0, {"epoch": 2, "val_accuracy": 0.5, "train_s": 200.0, "eval_s": 0.0}))
    assert watched.reached == "gpu_hours"


def made(results: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> plan.Plan:
    monkeypatch.setattr(Pictures, "of", lambda data: UNREAD)
    request = Request(SweepOptions(**{"dataset": "digits", "results": results, **options}))
    nodes = [machine.Resources(2, 0)]
    return time_budget.planned_for(plan.make(request, nodes), request, nodes, None)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [80, 112, 300])
def test_a_budget_of_epochs_has_as_many_trials_as_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    planned = made(tmp_path, monkeypatch, epoch_budget=budget)
    assert most_epochs(planned) <= budget
    assert most_epochs(made(tmp_path, monkeypatch, trials=planned.trials + 1)) > budget


def most_epochs(planned: plan.Plan) -> float:
    """Return the epochs of a sweep whose start point is confirmed, too."""
    return expected_epochs(planned)[0] + planned.queue().perhaps() * planned.space.base.max_epochs


def fair_start(config: dict[str, Any], epoch: int) -> dict[str, Any]:
    """Return metrics by which a trial at the start point is better than four in five others."""
    luck = random.Random(repr(config["lr"])).random()
    reached = 0.5 + 0.01 * epoch + 0.1 * (0.8 if config["lr"] == 0.1 else luck)
    return {"epoch": epoch, "val_accuracy": reached, "val_loss": 1 - reached, "train_s": 2.0}


@pytest.mark.parametrize("budget", [80, 112, 160, 300])
def test_a_budget_of_epochs_leaves_trials_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """What is kept for the runs after the search was once that of one candidate more than planned with."""
    planned = made(tmp_path, monkeypatch, epoch_budget=budget)
    queue, rule = planned.queue(), planned.stop_rule().rules[""]
    setup = Setup(
        planned.trials, slots=2, seeds=queue.seeds, best=queue.best, confirm_start=queue.confirm_start,
        rule=rule, space=planned.space, limits=Limits(epochs=budget), learned=fair_start,
    )  # fmt: skip
    state = Simulation(tmp_path, setup, CALM, 1).run().state
    searched = [trial for trial in state.trials.values() if not trial.final]
    assert len(searched) == planned.trials
    assert "epoch_budget" not in {trial.end.stop_reason for trial in searched if trial.end}
    assert sum(trial.status == "completed" for trial in searched) == 3
    assert trained(state) <= budget


def test_a_budget_that_holds_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match="--epoch-budget 8: 1 trial and the runs that confirm the best take 27 epochs"
    ):
        made(tmp_path, monkeypatch, epoch_budget=8)
    with pytest.raises(ConfigError, match="--epoch-budget 130: 24 trials and the runs that confirm the best take 139"):
        made(tmp_path, monkeypatch, epoch_budget=130, trials=24)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--epoch-budget", "0"], "--epoch-budget 0: at least 1 is needed"),
        (["--patience-trials", "0"], "--patience-trials 0: at least 1 is needed"),
        (["--target-score", "nan"], "--target-score nan: a number is needed"),
        (["--gpu-hours", "-1"], "--gpu-hours -1: a number above 0 is needed"),
        (["--gpu-hours", "1", "--gpus-per-trial", "0"], "--gpu-hours 1: trials do not run on GPUs here"),
    ],
)
def test_wrong_limits_are_refused(command: Command, arguments: list[str], problem: str) -> None:
    done = command("orchestrator.sweep", "digits", *arguments, "--dry-run")
    assert done.code == 2
    assert problem in done.err
