"""What people are shown of a data set before anything is trained: the plan, `sweep.json`, the doctor."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from orchestrator import sweep
from orchestrator.display import progress
from orchestrator.display.inventory import ClassCounts, described
from orchestrator.result import DryRun
from trainables.datasets.inventory import Inventory, LeftOut

SIXTEEN = Inventory(
    layout="class folders in the parts train/ and test/",
    parts={
        "train": {f"class {number}": 10 * number + 2 for number in range(16)},
        "test": {f"class {number}": number + 1 for number in range(1, 16)},
    },
    left_out=(LeftOut("not a picture", 9_600, ("a.txt", "b/c.ogg")), LeftOut("hidden file", 1, (".x.png",))),
    formats={"PNG": 700, "JPEG": 1_200},
    smallest=(32, 48),
    largest=(4_000, 3_000),
    notes=("1 animation: the first frame is used",),
)


def test_an_inventory_in_sentences() -> None:
    assert described(SIXTEEN) == [
        ("layout", "class folders in the parts train/ and test/"),
        ("classes", "16 classes of 2 to 152 rows in train, 0 to 16 rows in test"),
        ("pictures", "1,200 JPEG, 700 PNG; 32×48 to 4,000×3,000 pixels"),
        ("left out", "9,600, not a picture: a.txt, b/c.ogg, …"),
        ("left out", "1, hidden file: .x.png"),
        ("note", "1 animation: the first frame is used"),
    ]
    assert described(Inventory()) == []
    assert described(Inventory(parts={"all": {"a": 1, "b": 1}})) == [("classes", "2 classes of 1 row")]


def test_the_table_has_ten_classes_and_how_many_more() -> None:
    lines = ClassCounts.of(SIXTEEN).lines(50)
    assert lines[0].split() == ["class", "train", "test"]
    assert lines[1].split() == ["class", "0", "2", "0"]
    assert lines[10].split() == ["class", "9", "92", "10"]
    assert lines[11:] == ["… 6 more", "all 16    1,232   135"]
    assert max(map(len, lines)) <= 50


@pytest.mark.parametrize(
    "name", ["x" * 200, "日本語" * 30, "🐈" * 60, "two\nlines", "\x1b[31mred", "a\u202eb", "\udce9"]
)
def test_names_from_files_fit_and_change_nothing_on_the_terminal(name: str) -> None:
    inventory = Inventory(
        layout=name, parts={"all": {name: 1, "b": 2}}, left_out=(LeftOut(name, 2, (name,)),), notes=(name,)
    )
    lines = ClassCounts.of(inventory).lines(30)
    assert len(lines) == 4
    assert max(map(cell_len, lines)) <= 30
    assert not any(
        sign in text for sign in "\n\x1b\u202e\udce9" for text in (*lines, *(text for _, text in described(inventory)))
    )


def pictures(folder: Path) -> Path:
    """Write noise of two classes in two parts."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for kind in ("cat", "dog"):
            (folder / part / kind).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (20, 20 + number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / kind / f"{part}{number}.png")
    return folder


def test_the_plan_shows_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", lambda quiet: Console(file=out, width=50, markup=False))
    options = sweep.SweepOptions(
        dataset=str(pictures(tmp_path / "pets")), results=tmp_path, dry_run=True, stored_side=16
    )
    done = sweep.run(options)
    assert isinstance(done, DryRun)
    assert {part: dict(counts) for part, counts in done.inventory.parts.items()} == {
        "train": {"cat": 12, "dog": 12},
        "test": {"cat": 4, "dog": 4},
    }
    assert json.loads(json.dumps(done.to_dict()))["inventory"]["parts"]["test"] == {"cat": 4, "dog": 4}
    shown = [line.split() for line in out.getvalue().splitlines()]
    assert ["cat", "12", "4"] in shown
    assert ["all", "2", "24", "8"] in shown
    *table, forecast, sheet = out.getvalue().splitlines()
    assert forecast.startswith("time: about ")
    assert max(map(len, table)) <= 50
    assert str(done.contact_sheet) in sheet


@pytest.mark.slow
def test_the_doctor_shows_the_same(command: Command, tmp_path: Path) -> None:
    done = command("orchestrator.doctor", pictures(tmp_path / "pets"), "--json", "--stored-side", "16")
    found = [finding["what"] for finding in json.loads(done.out.splitlines()[-1])["findings"]]
    (classes,) = [what for what in found if what.startswith("classes: ")]
    assert classes.splitlines()[0] == "classes: 2 classes of 12 rows in train, 4 rows in test"
    assert classes.splitlines()[2].split() == ["cat", "12", "4"]
