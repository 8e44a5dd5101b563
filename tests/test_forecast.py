"""The forecast of a sweep's time: its epochs under the stop rule, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from test_stages import IN_TWO_STAGES

from orchestrator.cluster import machine
from orchestrator.display.text import span
from orchestrator.plan import costs, plan
from orchestrator.plan.forecast import START_S, Forecast, StageForecast, expected_epochs, forecast, usual_epochs
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request


def planned(results: Path, **options: Any) -> Plan:
    asked = {"dataset": "digits", "results": results, "trials": 24, "max_epochs": 9, "confirm": 2, "confirm_seeds": 3}
    return plan.make(Request(SweepOptions(**{**asked, **options})), [machine.Resources(2, 0)])


def test_the_stop_rule_decides_how_many_epochs_there_are(tmp_path: Path) -> None:
    finals = 2 * 3 * 9
    assert expected_epochs(planned(tmp_path, scheduler="none")) == (24 * 9 + finals, 24 * 9 + finals)
    exact = 24 * 1 + 8 * 2 + 3 * 6 + finals
    assert expected_epochs(planned(tmp_path)) == (exact, exact)
    stopping: dict[str, Any] = {"scheduler": "asha-stopping"}
    low, high = expected_epochs(planned(tmp_path, **stopping))
    assert exact < low < high < 24 * 9 + finals
    assert expected_epochs(planned(tmp_path, grace=8, **stopping))[0] > low
    assert expected_epochs(planned(tmp_path, trials=1, confirm=0)) == (9, 9)
    double = expected_epochs(planned(tmp_path, trials=2_000, confirm=0, **stopping))[0]
    few = expected_epochs(planned(tmp_path, trials=200, confirm=0, **stopping))[0]
    assert double == pytest.approx(10 * few, rel=0.01)


def test_steps_of_proposals_are_measured_here(tmp_path: Path) -> None:
    made = planned(tmp_path, trials=4, subset=200, set=("model=resnet8",))
    data, _ = made.split(made.load())
    found = forecast(made, data, 2)
    assert found is not None
    assert 1 <= found.measured <= 5  # a slow machine's time is up after one
    assert 0 < found.epoch_s < 20
    assert 0 < found.low_s <= found.high_s
    assert forecast(made, data, 1).high_s > forecast(made, data, 2).low_s  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "field", ["mixup=0.2", "cutmix=1", "logit_adjustment=1", "erasing=0.5", "evaluation_views=flip"]
)
def test_every_part_of_a_recipe_can_be_forecast(tmp_path: Path, field: str) -> None:
    made = planned(tmp_path, trials=4, subset=200, set=("model=resnet8", field))
    assert forecast(made, made.split(made.load())[0], 2) is not None


class Clock:
    """A clock that only the calls below move: each takes its seconds, of which `slow` come first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow: list[float], a_row: float) -> None:
        self.now, self.slow, self.a_row, self.asked = 0.0, slow, a_row, list[int]()
        monkeypatch.setattr("orchestrator.plan.costs.time.perf_counter", lambda: self.now)

    def steps_of(self, rows: int) -> Callable[[], object]:
        def step() -> None:
            self.asked.append(rows)
            self.now += self.slow.pop(0) if self.slow else self.a_row * rows

        return step


@pytest.mark.parametrize("slow", [[1.9], [1.9, 0.5], [0.3, 0.3], [2.1] * 4, [4.0, 2.1, 2.1]])
def test_slow_first_steps_are_not_multiplied(slow: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads start, and others use the processor: two threads took 1.9 s for a first step of 8 rows, then 2 ms."""
    clock = Clock(monkeypatch, slow, 0.0002)
    assert costs._of_rows(clock.steps_of, 128) == pytest.approx(128 * 0.0002)


@pytest.mark.parametrize("a_row", [0.002, 0.02, 0.3, 3.0])
def test_steps_that_take_long_are_measured_in_bounded_time(a_row: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, [], a_row)
    assert costs._of_rows(clock.steps_of, 512) == pytest.approx(512 * a_row)
    assert clock.now < max(costs.ENOUGH_S, 3.1 * costs.FEW * a_row)


STAGED = f"""
trials: 12
max_epochs: 6
set: {{batch_size: 32, precision: float32, image_size: 16, stem: small}}
{IN_TWO_STAGES}"""


def staged(results: Path, **options: Any) -> Plan:
    (results / "space.yaml").write_text(STAGED)
    return planned(results, **{"trials": None, "max_epochs": None, "space": results / "space.yaml", **options})


def test_stages_cost_differently(tmp_path: Path) -> None:
    made = staged(tmp_path, subset=400, confirm=0)
    data, _ = made.split(made.load())
    found = forecast(made, data, 2)
    assert found is not None
    heads, whole = found.stages
    assert (heads.trials, whole.trials) == (8, 4)
    assert heads.features_s > 0 == whole.features_s
    assert 0 < heads.epoch_s < whole.epoch_s
    assert found.low_s == pytest.approx(START_S + heads.low_s + whole.low_s)
    more = forecast(staged(tmp_path, subset=400, confirm=0, trials=24), data, 2)
    assert more is not None
    assert [stage.trials for stage in more.stages] == [16, 8]


def test_each_stage_has_its_own_epochs(tmp_path: Path) -> None:
    """Simulated alone, as the stop rule compares trials of a stage with each other; no stage's shares are others'."""
    made = staged(tmp_path, scheduler="none", confirm=0)
    assert expected_epochs(made) == (12 * 6, 12 * 6)
    made = staged(tmp_path, confirm=0)
    low, high = (
        sum(8 * a if n == 0 else 4 * a for n, a in enumerate(each))
        for each in zip(*(usual_epochs(made, number) for number in (0, 1)), strict=True)
    )
    assert expected_epochs(made) == pytest.approx((low, high))


@pytest.mark.slow
def test_the_forecast_of_stages_is_within_a_factor_of_two(command: Command, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(STAGED)
    asked = ("orchestrator.sweep", "digits", "--space", tmp_path / "space.yaml", "--results", tmp_path, "--folds", "1")
    dry = command(*asked, "--dry-run", "--json")
    assert dry.code == 0, dry.err
    started = time.monotonic()
    done = command(*asked, "--name", "staged")
    seconds = time.monotonic() - started
    assert done.code == 0, done.err
    expected = dry.result["forecast"]
    assert expected["low_s"] / 2 < seconds < 2 * expected["high_s"], (expected, seconds)


def test_what_cannot_be_measured_has_no_forecast(tmp_path: Path) -> None:
    made = planned(tmp_path, set=("model=timm:no_such_net",))
    data, _ = made.split(made.load())
    assert forecast(made, data, 2) is None


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(40, 80, "40 to 80 s"), (50, 180, "50 s to 3 min"), (720, 1500, "12 to 25 min"), (61, 61, "61 s")],
)
def test_a_range_of_times(low: float, high: float, text: str) -> None:
    assert span(low, high) == text


def test_a_forecast_is_plain_json() -> None:
    found = Forecast(1.0, 2.0, 0.5, 3, (StageForecast(4, 1.0, 2.0, 0.5, 0.25),)).to_dict()
    stage = {"trials": 4, "low_s": 1.0, "high_s": 2.0, "epoch_s": 0.5, "features_s": 0.25}
    assert found == {"low_s": 1.0, "high_s": 2.0, "epoch_s": 0.5, "measured": 3, "stages": [stage], "end_s": 0.0}
