"""The forecast of a sweep's time: its epochs under the stop rule, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import machine
from orchestrator.display.text import span
from orchestrator.plan import plan
from orchestrator.plan.forecast import Forecast, expected_epochs, forecast
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request


def planned(results: Path, **options: Any) -> Plan:
    asked = {"dataset": "digits", "results": results, "trials": 24, "max_epochs": 9, "confirm": 2, "confirm_seeds": 3}
    return plan.make(Request(SweepOptions(**{**asked, **options})), [machine.Resources(2, 0)])


def test_the_stop_rule_decides_how_many_epochs_there_are(tmp_path: Path) -> None:
    finals = 2 * 3 * 9
    assert expected_epochs(planned(tmp_path, scheduler="none")) == (24 * 9 + finals, 24 * 9 + finals)
    low, high = expected_epochs(planned(tmp_path))
    assert 24 + finals < low < high < 24 * 9 + finals
    assert expected_epochs(planned(tmp_path, grace=8))[0] > low
    assert expected_epochs(planned(tmp_path, trials=1, confirm=0)) == (9, 9)
    double = expected_epochs(planned(tmp_path, trials=2_000, confirm=0))[0]
    assert double == pytest.approx(10 * expected_epochs(planned(tmp_path, trials=200, confirm=0))[0], rel=0.01)


def test_steps_of_proposals_are_measured_here(tmp_path: Path) -> None:
    made = planned(tmp_path, trials=4, subset=200, set=("model=resnet8",))
    data, _ = made.split(made.load())
    found = forecast(made, data, 2, [{"lr": 0.1}, {"lr": 0.2}])
    assert found is not None
    assert found.measured in (1, 2)  # a slow machine's time is up after one
    assert 0 < found.epoch_s < 20
    assert 0 < found.low_s <= found.high_s
    assert forecast(made, data, 1, [{"lr": 0.1}]).high_s > forecast(made, data, 2, [{"lr": 0.1}]).low_s  # type: ignore[union-attr]


def test_what_cannot_be_measured_has_no_forecast(tmp_path: Path) -> None:
    made = planned(tmp_path, set=("model=resnet8",))
    data, _ = made.split(made.load())
    assert forecast(made, data, 2, [{"model": "no such model"}]) is None


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(40, 80, "40 to 80 s"), (50, 180, "50 s to 3 min"), (720, 1500, "12 to 25 min"), (61, 61, "61 s")],
)
def test_a_range_of_times(low: float, high: float, text: str) -> None:
    assert span(low, high) == text


def test_a_forecast_is_plain_json() -> None:
    assert Forecast(1.0, 2.0, 0.5, 3).to_dict() == {"low_s": 1.0, "high_s": 2.0, "epoch_s": 0.5, "measured": 3}
