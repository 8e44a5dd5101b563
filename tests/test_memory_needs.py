"""Slots are as many as memory holds; nets that a machine cannot hold are refused before a trial starts."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import ROOT
from test_plan import made

from orchestrator import sweep
from orchestrator.cluster.machine import WORKER_BYTES, Resources, Slot
from orchestrator.plan import memory_needs
from trainables import hardware
from trainables.errors import ConfigError
from trainables.splits import SearchData

GB = 1e9
CIFAR_NETS = (("model=choice(resnet20,resnet50)",),)


def with_memory(gb: float, cpus: int = 16) -> Resources:
    return Resources(cpus, 0, memory=gb * GB)


def photographs() -> SearchData:
    return tiny.search_data()


@pytest.mark.parametrize(("gb", "slots"), [(64, 16), (4, 8), (0.5, 1), (0.4, 1)])
def test_slots_are_as_many_as_memory_holds(gb: float, slots: int) -> None:
    assert with_memory(gb).capacity(Slot(1)) == slots
    assert with_memory(gb).is_tight(Slot(1)) == (slots < 16)


def test_few_slots_get_all_cpus(tmp_path: Path) -> None:
    planned = made(tmp_path, [with_memory(4)], trials=32)
    assert (planned.slot_cpus, planned.slots([with_memory(4)])) == (2, 8)


def test_more_slots_than_memory_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        made(tmp_path, [with_memory(4)], slots=16)
    assert "16 are asked for, and at most 8 fit at a time, 2 CPUs and 472 MB of memory each" in str(refused.value)


def test_a_net_that_does_not_fit_is_refused_with_what_would(tmp_path: Path) -> None:
    """A ResNet-50 has 23.5 million weights: with the best ones, gradients and momentum 376 MB beside torch's 472."""
    nodes = [with_memory(5)]
    planned = made(tmp_path, nodes, search=CIFAR_NETS, trials=32, preset="best")
    assert planned.slots(nodes) == 10 == int(5 * GB // WORKER_BYTES)
    with pytest.raises(ConfigError) as refused:
        memory_needs.check(planned, nodes, photographs())
    assert str(refused.value) == (
        "10 trials at a time, with 848 MB each at least for torch, resnet50 and what its training keeps, do not fit "
        "into the 5.0 GB that workers have here: use --slots 5, --preset quick, a smaller model (--set model=…) or a "
        "machine with more memory"
    )
    memory_needs.check(dataclasses.replace(planned, concurrency=5), nodes, photographs())
    memory_needs.check(planned, [with_memory(14)], photographs())
    few = made(tmp_path, nodes, search=CIFAR_NETS, trials=3, confirm=0, cpus_per_trial=1)
    memory_needs.check(few, nodes, photographs())  # no more run at a time than there are
    memory_needs.check(made(tmp_path, nodes, trials=32), nodes, photographs())  # small nets


def test_the_fix_is_one_that_helps(tmp_path: Path) -> None:
    """On several machines `--slots` is of all of them, and a sweep that is resumed has its preset and its nets."""
    nodes = [with_memory(5)] * 2
    planned = made(tmp_path, nodes, search=CIFAR_NETS, trials=64, preset="best")
    with pytest.raises(ConfigError, match=r"use --cpus-per-trial 4 or a machine with more memory$"):
        memory_needs.check(planned, nodes, photographs(), resumed=True)
    spread = made(tmp_path, nodes, search=CIFAR_NETS, trials=64, preset="best", cpus_per_trial=4)
    memory_needs.check(spread, nodes, photographs())


@pytest.mark.parametrize(
    ("fields", "copies"),
    [
        (("optimizer=sgd",), 4),
        (("optimizer=sgd", "momentum=0"), 3),
        (("optimizer=adam",), 5),
        (("optimizer=adamw", "ema=0.99"), 6),
        (("optimizer=sgd", "selection=last"), 3),
    ],
)
def test_what_is_counted_is_what_a_trial_keeps(tmp_path: Path, fields: tuple[str, ...], copies: int) -> None:
    planned = made(tmp_path, [with_memory(64)], set=(("model=resnet18", *fields),), confirm=0)
    config = planned.space.base
    weights = (memory_needs._bytes(config, photographs()) - WORKER_BYTES) / memory_needs.NUMBER_BYTES
    assert weights / copies == pytest.approx(11.2e6, rel=0.01)


def test_every_fold_has_a_net_of_its_own(tmp_path: Path) -> None:
    config = made(tmp_path, [with_memory(64)], set=(("model=resnet18",),), confirm=0).space.base
    whole = photographs()
    folded = dataclasses.replace(whole, folds=tuple(np.array_split(whole.validation, 3)))
    counted = [memory_needs._bytes(config, data) - WORKER_BYTES for data in (whole, folded)]
    assert counted[1] == 3 * counted[0]


def test_runs_after_the_search_are_none_beside_it(tmp_path: Path) -> None:
    """Five fit; one trial of the search runs, or the three runs that confirm it."""
    nodes = [with_memory(5)]
    for trials in (1, 4, 5):
        planned = made(tmp_path, nodes, search=CIFAR_NETS, trials=trials, cpus_per_trial=1, confirm=1)
        memory_needs.check(planned, nodes, photographs())


def test_one_trial_that_does_not_fit(tmp_path: Path) -> None:
    nodes = [with_memory(0.6)]
    planned = made(tmp_path, nodes, search=CIFAR_NETS, preset="quick")
    with pytest.raises(ConfigError, match=r"^1 trial at a time, .* here: use a smaller model \(--set model=…\) or a"):
        memory_needs.check(planned, nodes, photographs())


def test_small_nets_need_no_torch_here(tmp_path: Path) -> None:
    """The driver does without it, which starts a sweep a second sooner."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom orchestrator.cluster.machine import Resources\n"
        "from orchestrator.plan import memory_needs, plan\nfrom orchestrator.plan.options import SweepOptions\n"
        "from orchestrator.plan.request import Request\nnodes = [Resources(2, 0, memory=2e9)]\n"
        "made = plan.make(Request(SweepOptions('digits', results=Path(sys.argv[1]))), nodes)\n"
        "memory_needs.check(made, nodes, made.split(made.load())[0])\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)


def test_roomy_machines_build_no_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_needs, "_bytes", None)
    memory_needs.check(made(tmp_path, [with_memory(256)], search=CIFAR_NETS), [with_memory(256)], photographs())


@pytest.mark.parametrize(("text", "least"), [("max\n", None), (f"{2**30}\n", 2**30), (None, None)])
def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, text: str | None, least: int | None) -> None:
    def read(path: Path) -> str:
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert hardware.usable_memory() == (least or physical)


def test_the_command_refuses_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hardware, "usable_memory", lambda: 0.9 * GB)
    asked = ["digits", "--set", "model=resnet152", "--results", str(tmp_path), "--slots", "1", "--dry-run", "--quiet"]
    assert sweep.main(asked) == 2
    assert capsys.readouterr().err.startswith(
        "error: 1 trial at a time, with 1.4 GB each at least for torch, resnet152 "
    )
