"""Driver and worker killed with SIGKILL in every part of a search over pretrained nets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from chaos.conftest import Report, SweepMaker
from chaos.sweeps import CURVE, Sweep, check_kept, check_plain, check_witness, wait_for
from orchestrator.record.facts import Measured
from orchestrator.record.state import SweepState

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

SPACE = """
trials: 6
max_epochs: 3
subset: 400
set:
  batch_size: 32
  precision: float32
  memory_format: contiguous
  image_size: 8
  stem: small
  ema: 0.9
  mixup: 0.2
  erasing: 0.2
search:
  freeze: choice(true, false)
  model: choice(resnet8, resnet14)
  lr: log(1e-3, 0.3)
stages:
- {share: 1, set: {freeze: true}, each: [model]}
- share: 1
  set: {freeze: false}
  best: {model: 1}
"""
"""Heads on features, then whole nets with averaged weights; the winner is trained once more on all rows."""


@pytest.mark.usefixtures("long")
def test_killed_in_features_heads_fine_tuning_and_refit(sweeps: SweepMaker, tmp_path: Path, report: Report) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    asked = (
        "digits", "--space", str(tmp_path / "space.yaml"), "--folds", "1", "--name", "sweep", "--slots", "1",
        "--scheduler", "none", "--confirm", "1", "--confirm-seeds", "2", "--refit",
    )  # fmt: skip
    calm = sweeps("calm")
    check_plain(calm.start(*asked, quick=False).wait(), 0)
    expected = results(calm.state())
    sweep = sweeps("killed", epoch_s={"*": 0.5})
    before = []
    running = sweep.start(*asked, quick=False)
    moments = [("trial_attempt", 1), ("trial_epoch", 4), ("trial_epoch", 11), ("trial_epoch", 20), ("trial_epoch", 25)]
    for number, (kind, count) in enumerate(moments):
        wait_for(partial(reached, sweep, kind, count), running, 120)
        before.append(sweep.state())
        if number % 2:
            psutil.Process(sweep.witness()[-1]["pid"]).kill()  # the worker
        else:
            running.kill()
            running = sweep.resume()
    check_plain(running.wait(), 0)
    after = sweep.state()
    for state in before:
        check_kept(state, after)
    check_witness(sweep, after)
    assert results(after) == expected
    assert any(trial.refit for trial in after.trials.values())
    report(
        "driver or worker killed (SIGKILL) in features, heads, fine-tuning with averaged weights, and refit",
        len(moments),
        trials=len(after.trials),
        attempts=sum(trial.attempt + 1 for trial in after.trials.values()),
        curves_of_the_undisturbed_sweep="equal to the bit",
    )


def reached(sweep: Sweep, kind: str, count: int) -> bool:
    return sweep.count(kind) >= count


def results(state: SweepState) -> dict[int, object]:
    """Return of each trial its settings, its curve and what its model was measured by in the end."""
    found: dict[int, object] = {}
    for number, trial in state.trials.items():
        curve = [[epoch[name] for name in CURVE] for epoch in trial.epochs]
        found[number] = (trial.status, trial.config, curve, measured(trial.final_metrics or {}))
    return found


def measured(parts: dict[str, Measured]) -> dict[str, dict[str, Any]]:
    """Return the metrics of each part of the data but their seconds."""
    return {part: {k: v for k, v in one.metrics.items() if k != "seconds"} for part, one in parts.items()}
