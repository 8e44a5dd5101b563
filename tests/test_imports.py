"""The folders' order: which may import which; no cycle, and nothing heavy before it is needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("trainables", "search_spaces", "orchestrator")
ROOMS = (  # each may import itself and those before it
    "trainables",
    "search_spaces",
    "orchestrator",  # its __init__.py, which is empty
    "orchestrator.cluster",
    "orchestrator.record",
    "orchestrator.search",
    "orchestrator.loggers",
    "orchestrator.plan",  # names samplers, schedulers and trackers
    "orchestrator.assessment",
    "orchestrator.bundle",
    "orchestrator.display",
    "orchestrator.report",
    "orchestrator.leaderboard",
    "orchestrator.validation",
    "orchestrator.doctor",
    "orchestrator.result",
    "orchestrator.conclusion",
    "orchestrator.predict",
    "orchestrator.onnx",
    "orchestrator.sweep",
    "orchestrator.__main__",
)
HEAVY = {"torch", "torchvision", "sklearn", "ray", "pandas"}


def modules() -> dict[str, Path]:
    found = {}
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> set[str]:
    """Return the project's modules that a file imports, at its top or within a function."""
    known, names = modules(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name in known}


def room(module: str) -> str:
    """Return the place of a module in `ROOMS`: its folder, or itself if it lies directly in a layer's folder."""
    parts = module.split(".")
    if parts[0] != "orchestrator":
        return parts[0]
    return ".".join(parts[:2])


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_one_way(module: str) -> None:
    known = {room(other): ROOMS.index(room(other)) for other in {module, *imported(modules()[module])}}
    above = {name for name, place in known.items() if place > known[room(module)]}
    assert not above, f"{module} imports {above}, which lie above it"


def test_every_room_has_a_place() -> None:
    assert {room(module) for module in modules()} == set(ROOMS)


def test_few_files_lie_directly_in_orchestrator() -> None:
    """Those are what a user runs, and what a sweep's main path is."""
    files = {path.name for path in (ROOT / "orchestrator").glob("*.py")} - {"__init__.py"}
    assert len(files) <= 7, files


def test_there_is_no_import_cycle() -> None:
    graph = {
        name: {other for other in imported(path) if other not in name.split(".")[0:1]} - {name}
        for name, path in modules().items()
    }
    # A package's own __init__ is loaded before its modules, whatever they import.
    graph = {name: {o for o in others if not name.startswith(f"{o}.")} for name, others in graph.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(
    "arguments",
    [
        ["orchestrator.sweep", "cifar11", "--set", "model=resnet19"],
        ["orchestrator.sweep", "--help"],
        ["orchestrator.leaderboard", "nowhere"],
        ["orchestrator.leaderboard", "--help"],
        ["orchestrator", "--help"],
        ["orchestrator", "leaderboard", "--help"],
        ["orchestrator.sweep", "--version"],
    ],
)
def test_wrong_input_and_help_load_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert not loaded & HEAVY


def test_a_worker_loads_what_its_trial_needs_and_no_more() -> None:
    """A sweep waits for what its first workers import: torch's compiler, scikit-learn and torchvision take seconds."""
    code = (
        "import sys, tiny, trainables.trainable\nfrom trainables.loop import train\n"
        "data, state = tiny.start(tiny.config(model='resnet8', optimizer='adamw', max_epochs=1))\n"
        "list(train(data, state))\n"
        "print({'torch', 'torch._dynamo', 'torchvision', 'sklearn', 'scipy', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "{'torch'}", done.stderr
