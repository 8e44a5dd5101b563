"""`make gpu` where there is no GPU, and its benchmarks in small on a CPU: it needs neither Ray nor Optuna."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks import gpu
from benchmarks.record import Figure, Record, Target
from trainables import devices

WITHOUT = """
import importlib.abc, sys
MISSING = "ray optuna tyro orjson simplejpeg plotly jinja2 pandas sklearn rich timm".split()
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
IMPORTED = (
    WITHOUT
    + """
sys.path[:0] = ["tests"]
import conftest, tiny, test_gpu
from benchmarks import gpu, loops, pack
from trainables import canary
raise SystemExit(gpu.main(["--evidence", sys.argv[1]]))
"""
)
ACTOR = (
    WITHOUT
    + """
sys.path[:0] = ["tests"]
import pathlib, pytest, test_gpu, torch
with pytest.MonkeyPatch.context() as patch:
    actors = test_gpu.actors.__wrapped__(patch)
    worker = test_gpu.actor(actors, pathlib.Path(sys.argv[1]))
    worker._device = "cpu"
    print(test_gpu.last_result(worker)["end"]["status"])
"""
)


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, cwd=ROOT, timeout=100
    )


@pytest.mark.slow  # imports torch in another process
@pytest.mark.skipif(devices.is_seen(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_in_a_sentence_and_needs_no_ray(tmp_path: Path) -> None:
    done = run(IMPORTED, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "There is no GPU here that torch can compute on (there is no sign of one): nothing was run.\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_actors_code_runs_without_ray(tmp_path: Path) -> None:
    done = run(ACTOR, tmp_path)
    assert done.stdout == "completed\n", done.stderr


@pytest.mark.slow
def test_both_loops_run(tmp_path: Path) -> None:
    record = Record("gpu", {})
    figures = gpu.loop_figures(record, "cpu", gpu.LOOP.replace(batch_size=8, threads=1), steps=2, blocks=1)
    assert [len(figure.values) for figure in figures] == [1, 1, 1]
    ratio, ours, loader = (figure.values[0] for figure in figures)
    assert ratio == pytest.approx(ours / loader)


@pytest.mark.slow
def test_processes_run_one_after_another_and_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    config, size, _, bound = gpu.PACKED["digits"]
    monkeypatch.setitem(gpu.PACKED, "digits", (config, size, 2, bound))
    record = Record("gpu", {})
    (figure,) = gpu.packed_figures(record, "cpu", "digits", rounds=2, steps=2)
    assert len(figure.values) == 2
    assert len(record.runs) == 3
    assert min(figure.values) > 0


gpu_heads = gpu.head_figures


def test_what_there_is_no_time_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that fails costs the others nothing, and the exit code says so."""
    monkeypatch.setattr(devices, "usable", lambda: (devices.Gpu("0", "NVIDIA H200", 2**37),))
    monkeypatch.setattr(gpu, "tests", lambda record, seconds: True)
    monkeypatch.setattr(gpu, "loop_figures", lambda *arguments, **named: [Figure("f", "", [6.0], Target(5, False))])
    monkeypatch.setattr(gpu, "packed_figures", lambda *arguments: 1 / 0)
    monkeypatch.setattr(gpu, "PACKED_S", 1e6)
    monkeypatch.setattr(gpu, "canary_figures", lambda record: 1 / 0)
    monkeypatch.setattr(gpu, "head_figures", lambda record, device: gpu_heads(record, "cpu", heads=3, most=1e6))
    monkeypatch.delenv("BENCHMARK_CIFAR10", raising=False)
    assert gpu.main(["--evidence", str(tmp_path)]) == 1
    written = json.loads((tmp_path / "gpu.json").read_text())
    notes = " ".join(written["notes"])
    assert "packed digits is left out" in notes
    assert "canary failed: ZeroDivisionError" in notes
    names = ["f", "3 heads: at once / one after another", "3 heads: at once / one alone"]
    assert [figure["name"] for figure in written["figures"]] == names
