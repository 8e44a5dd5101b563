"""What people see while a sweep runs: how far it is, how long it takes, how good it is, and each warning once."""

from __future__ import annotations

import io
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from journals import trial
from rich.console import Console, Group

from orchestrator.cluster import machine
from orchestrator.display import live_view, progress
from orchestrator.display.live_view import LONGEST, SPARKS, SweepView, pace, sparkline
from orchestrator.display.text import duration
from orchestrator.plan import plan
from orchestrator.plan.forecast import expected_epochs
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.events import Event, SearchClosed, SweepStarted, TrialEpoch, TrialFeatures
from orchestrator.record.facts import Spec
from orchestrator.record.state import SweepState, fold
from orchestrator.search.trial_queue import NextTrial


class Told:
    """A sweep told event by event, and what its view writes."""

    def __init__(self, folder: Path, width: int = 100, **options: Any) -> None:
        self.planned = plan.make(
            Request(SweepOptions(dataset="digits", results=folder, **options)), [machine.Resources(2, 0)]
        )
        self.state = SweepState()
        self.out = io.StringIO()
        self.view = SweepView(self.state, self.planned, Console(file=self.out, width=width, markup=False))
        self.tell(SweepStarted(Spec(plan=self.planned.to_dict(), slots=2)))

    def tell(self, event: Event) -> None:
        event = replace(event, n=self.state.next_n, t=time.time() - 60.0 + self.state.next_n)
        fold(self.state, event)
        self.view.observe(event)

    def run(
        self, number: int, score: float, due: NextTrial | None = None, params: dict[str, Any] | None = None
    ) -> None:
        config = self.planned.space.base.to_dict()
        for event in trial(number, [score], config=config, due=due, params=params or {}):
            self.tell(event)

    def drawn(self) -> str:
        console = self.view._console
        with console.capture() as capture:
            console.print(self.view._render())
        return capture.get()


@pytest.mark.parametrize("width", [30, 80, 200])
def test_it_fits_the_terminal(tmp_path: Path, width: int) -> None:
    told = Told(tmp_path, width)
    for number in range(4):
        told.run(number, 0.5 + number / 10)
    assert max(map(len, told.drawn().splitlines())) <= width


def test_under_a_time_limit_what_is_left_of_it_is_said(tmp_path: Path) -> None:
    """Nobody knows how many trials there will be; once it was always two more, and some seconds."""
    told = Told(tmp_path, 200, trials=6)
    told.view._planned = replace(told.planned, open_ended=True)
    told.view._deadline = time.monotonic() + 3630
    for number in range(3):
        told.run(number, 0.5)
    drawn = told.drawn()
    assert "3 trials ended (3 completed)" in drawn
    assert f"about {duration(3630)} left" in drawn
    told.tell(SearchClosed(10.0, 10.0, 2))
    drawn = told.drawn()
    assert "3/8 trials ended" in drawn
    assert f"about {duration(3630)} left" not in drawn


def test_how_far_and_how_good_it_is(tmp_path: Path) -> None:
    told = Told(tmp_path, 200, trials=6)
    for number, score in enumerate((0.5, 0.9, 0.7)):
        told.run(number, score)
    drawn = told.drawn()
    assert "3/8 trials ended" in drawn  # six, and two runs that confirm
    assert "best 0.9000 (trial 1)" in drawn
    assert f"3 of {expected_epochs(told.planned)[0]:g} epochs, " in drawn
    assert "left" in drawn
    told.run(6, 0.8, NextTrial("", 0, {}, 1))
    assert "trial 6, trial 1 again, completed" in told.out.getvalue()


def test_the_stages_of_a_search(tmp_path: Path) -> None:
    """Heads end in seconds: what is left is not known from them, but from a whole net that has ended."""
    (tmp_path / "space.yaml").write_text(
        "search: {freeze: 'choice(true, false)', lr: 'log(1e-3, 1)'}\n"
        "stages: [{share: 1, set: {freeze: true}}, {share: 1, set: {freeze: false}}]\n"
    )
    told = Told(tmp_path, 200, space=tmp_path / "space.yaml", trials=4, confirm=0)
    for number, freeze in enumerate((True, True, False)):
        drawn = told.drawn()
        assert "left" not in drawn
        told.run(number, 0.5, params={"freeze": freeze})
    drawn = told.drawn()
    assert "stage 2 of 2" in drawn
    assert "about 1 s left" in drawn, "one trial of 1.95 s, in two slots"


@pytest.mark.parametrize(
    ("epochs_per_s", "text"),
    [
        (12.34, "12 epochs/s"),
        (1.0, "1 epoch/s"),
        (0.05, "3 epochs/min"),
        (0.002, "7.2 epochs/h"),
        (1e-5, "0.036 epochs/h"),
    ],
)
def test_a_pace_is_never_nothing(epochs_per_s: float, text: str) -> None:
    assert pace(epochs_per_s) == text


def test_what_is_done_before_the_first_epoch_and_how_long_it_takes_from_then_on(tmp_path: Path) -> None:
    told = Told(tmp_path, 200, trials=6)
    assert "workers are starting" in told.drawn()
    config = told.planned.space.base.to_dict()
    proposed, attempt, *_ = trial(0, [], status=None, config={**config, "freeze": True}, params={})
    told.tell(proposed)
    told.tell(attempt)
    assert "1 trial is preparing features of a frozen base" in told.drawn()
    told.tell(TrialFeatures(0, 0, 640, 1_280, 3.5))
    assert f"computing features: {config['model']} 640 of 1,280 pictures" in told.drawn()
    assert "left" not in told.drawn()
    told.tell(TrialEpoch(0, 0, {"epoch": 1}))
    assert "features" not in told.drawn()
    assert "left" in told.drawn()  # though no trial has ended
    for event in trial(1, [], status=None, config=config, params={})[:2]:
        told.tell(event)
    assert "first epoch" not in told.drawn()  # others go on


def test_where_there_is_no_terminal_lines_come_without_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_view, "FIRST_S", 0.02)
    told = Told(tmp_path, 200)
    told.run(0, 0.5)
    with told.view.shown():
        time.sleep(0.2)
    lines = told.out.getvalue().splitlines()
    assert lines[0] == "trial 0 completed after epoch 1: score 0.5000"
    assert len(lines) > 2
    assert all("/30 trials ended (1 completed)" in line for line in lines[1:])
    shown = told.out.getvalue()
    time.sleep(0.1)
    assert told.out.getvalue() == shown  # none after the end


def test_a_warning_is_given_once(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.run(0, 0.5)
    for _ in range(2):
        told.tell(TrialEpoch(0, 0, {"epoch": 1}, unsaved="no space"))
    assert told.out.getvalue().count("cannot save its state") == 1


def test_what_was_before_a_resume_is_not_shown_again(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.view._first = told.state.next_n + 10
    told.run(0, 0.5)
    assert told.out.getvalue() == ""


def test_sparkline() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.3, 0.3]) == SPARKS[0] * 2
    assert sparkline([0.0, 0.5, 1.0]) == SPARKS[0] + SPARKS[4] + SPARKS[7]
    many = sparkline([value / 1000 for value in range(1000)])
    assert len(many) <= LONGEST
    assert many[-1] == SPARKS[7]


@pytest.mark.parametrize(
    ("opening", "models", "line"),
    [
        (1, 1, "the test set is opened: 1 row, 1 model of the winner"),
        (2, 3, "the test set is opened, for the 2nd time: 1 row, 3 models of the winner"),
        (11, 3, "the test set is opened, for the 11th time: 1 row, 3 models of the winner"),
        (23, 3, "the test set is opened, for the 23rd time: 1 row, 3 models of the winner"),
    ],
)
def test_an_opening_is_counted(opening: int, models: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.testing(progress.console(), opening, 1, models):
        pass
    assert capsys.readouterr().err.strip() == line


def test_a_running_trial_counts_in_the_best(tmp_path: Path) -> None:
    """It is marked as running: its score may still change what the best is."""
    told = Told(tmp_path, 200)
    told.run(0, 0.5)
    config = told.planned.space.base.to_dict()
    for event in trial(1, [0.75], status=None, config=config, params={}):
        told.tell(event)
    assert "best 0.7500 (trial 1, running)" in told.drawn()
    told.run(2, 0.9)
    assert "best 0.9000 (trial 2)" in told.drawn()


def test_a_long_sweep_is_drawn_while_trials_are_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drawing takes longer than Python's threads wait for one another."""
    monkeypatch.setattr(live_view, "DRAWING", 1e6)
    told = Told(tmp_path, trials=4_000)
    for number in range(2_000):
        told.run(number, 0.5)
    failed: list[BaseException] = []
    over = threading.Event()

    def draw() -> None:
        try:
            while not over.is_set():
                told.view.drawing()
        except RuntimeError as error:
            failed.append(error)

    before, thread = sys.getswitchinterval(), threading.Thread(target=draw)
    sys.setswitchinterval(1e-5)
    try:
        thread.start()
        for number in range(2_000, 2_300):
            told.run(number, 0.5)
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)
    assert not failed


def test_a_drawing_that_takes_long_is_made_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, drawn = Told(tmp_path), list[float]()

    def render() -> Group:
        time.sleep(0.02)
        drawn.append(time.monotonic())
        return Group()

    monkeypatch.setattr(told.view, "_render", render)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        told.view.drawing()
    assert len(drawn) == 1, "it has a fiftieth of the time"
