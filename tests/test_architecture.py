"""ARCHITECTURE.md: all places are on it, in the order in which they may import each other; the main path is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT
from test_imports import ROOMS, modules

PAGE = (ROOT / "ARCHITECTURE.md").read_text()
PLACES = re.findall(r"^\| `([\w./]+)` \|", PAGE, re.MULTILINE)

# From function to function; `calls` is what the first one's code has, where Tune or an iterator stands between them.
MAIN_PATH = (
    ("orchestrator/sweep.py", "run", "_search"),
    ("orchestrator/sweep.py", "_search", "tuning.run"),
    ("orchestrator/search/tuning.py", "image_trials", "tune.with_parameters"),
    ("trainables/trainable.py", "step", "self._running.advance"),
    ("trainables/trainable.py", "advance", "next"),
    ("trainables/trainable.py", "_prepare", "train"),
    ("trainables/loop.py", "train", "train_epoch"),
    ("trainables/loop.py", "train_epoch", "optimizer_step"),
    ("trainables/loop.py", "optimizer_step", "learner.scaler.step"),
)
CHAIN = (
    "`sweep.run` → `sweep._search` → `tuning.run` → (Tune) `ImageTrial.step` → `_Running.advance` → `loop.train` → "
    "`loop.train_epoch` → `loop.optimizer_step`"
)


def test_every_place_is_on_the_page() -> None:
    folders = {path.parent.relative_to(ROOT) for path in modules().values()}
    files = {path.relative_to(ROOT) for path in (ROOT / "orchestrator").glob("*.py") if path.name != "__init__.py"}
    assert sorted(PLACES) == sorted(
        [*(f"{folder}/" for folder in folders if str(folder) != "orchestrator"), *map(str, files)]
    )


def test_places_are_in_the_order_of_their_imports() -> None:
    rooms = [Path(place).with_suffix("").as_posix().replace("/", ".") for place in PLACES]
    assert [room for room in rooms if room in ROOMS] == [room for room in ROOMS if room != "orchestrator"]


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_path_on_the_page_exists(page: str) -> None:
    paths = {text for text in re.findall(r"`([\w./-]+/[\w./-]*)`", (ROOT / page).read_text()) if "NAME" not in text}
    paths -= {"pictures/", "tests/golden/schema-N/"}
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(("path", "name", "called"), MAIN_PATH)
def test_the_main_path_is_the_one_on_the_page(path: str, name: str, called: str) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    calls = {
        ast.unparse(node.func) for function in functions for node in ast.walk(function) if isinstance(node, ast.Call)
    }
    assert called in calls


def test_every_table_that_is_to_be_extended_exists() -> None:
    """CONTRIBUTING.md names them in capitals, in the row of the file that has them."""
    rows = [row for row in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if row.startswith("| ")]
    for row in rows:
        files = [ROOT / path for path in re.findall(r"`([\w./]+\.py)`", row) if (ROOT / path).is_file()]
        for name in set(re.findall(r"`([A-Z]+_?[A-Z_]+)`", row)) - {"RECIPE"}:  # which each recipe has
            assert any(re.search(rf"^{name}\b", file.read_text(), re.MULTILINE) for file in files), name


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/design.md"])
def test_pages_name_the_main_path(page: str) -> None:
    text = " ".join((ROOT / page).read_text().replace("> ", "").split())
    assert CHAIN in text
    assert CHAIN.count("→") == 7
    assert "even calls" in text
