"""The contact sheet: pictures of each class exactly as the net sees them, and what was read, on a page that is safe."""

from __future__ import annotations

import base64
import re
from html import unescape
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from orchestrator import sweep
from orchestrator.report import contact_sheet
from orchestrator.report.contact_sheet import PER_CLASS
from orchestrator.result import DryRun

HOSTILE = "<img src=x onerror=alert(1)>"
COLORS = {"cat": (255, 0, 0), "dog": (0, 0, 255), HOSTILE: (0, 255, 0)}


def pets(folder: Path, rows: int = 12) -> Path:
    """Write pictures of one color a class, with one pixel's row that tells them apart."""
    for kind, color in COLORS.items():
        (folder / kind).mkdir(parents=True)
        for number in range(rows):
            pixels = np.full((24, 24, 3), color, dtype=np.uint8)
            pixels[number, 12] = 255
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    return folder


def planned(folder: Path, **options: object) -> DryRun:
    done = sweep.run(sweep.SweepOptions(str(pets(folder / "pets")), results=folder / "r", dry_run=True, **options))  # type: ignore[arg-type]
    assert isinstance(done, DryRun)
    return done


def shown(page: str) -> dict[str, list[NDArray[np.uint8]]]:
    """Return the pictures of a page by their class."""
    found: dict[str, list[NDArray[np.uint8]]] = {}
    for content, name in re.findall(r'<img src="data:image/webp;base64,([^"]*)" alt="([^"]*)"', page):
        with Image.open(BytesIO(base64.b64decode(content))) as picture:
            found.setdefault(unescape(name), []).append(np.asarray(picture.convert("RGB")))
    return found


def test_the_pictures_are_what_the_net_sees(tmp_path: Path) -> None:
    done = planned(tmp_path, set=("image_size=24",))
    pictures = shown(done.contact_sheet.read_text())
    assert set(pictures) == set(COLORS)
    for kind, color in COLORS.items():
        assert 1 <= len(pictures[kind]) <= PER_CLASS
        marks = set()
        for picture in pictures[kind]:
            assert picture.shape == (24, 24, 3)
            assert tuple(picture[23, 0]) == color
            (mark,) = np.flatnonzero((picture[:, 12] == 255).all(axis=1))
            marks.add(int(mark))
        assert len(marks) == len(pictures[kind])  # different pictures


@pytest.mark.parametrize(("fit", "corner"), [("crop", (200, 0, 0)), ("squash", (200, 0, 0)), ("pad", (255, 255, 255))])
def test_wide_pictures_are_shown_as_the_plan_fits_them(fit: str, corner: tuple[int, ...], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for kind in ("one", "two"):
        (tmp_path / "wide" / kind).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((16, 48, 3), (200, 0, 0), dtype=np.uint8)
            pixels[8, :] = random.integers(0, 255, 3)
            Image.fromarray(pixels).save(tmp_path / "wide" / kind / f"{number}.png")
    options = sweep.SweepOptions(
        str(tmp_path / "wide"), results=tmp_path, dry_run=True, set=("image_size=16", f"fit={fit}")
    )
    done = sweep.run(options)
    assert isinstance(done, DryRun)
    pictures = shown(done.contact_sheet.read_text())["one"]
    assert {picture.shape for picture in pictures} == {(16, 16, 3)}
    assert {tuple(picture[0, 0]) for picture in pictures} == {corner}


def test_what_the_net_sees_follows_the_plan(tmp_path: Path) -> None:
    """Its image size, and its normalization, which is taken back."""
    for number, settings in enumerate((("image_size=16",), ("image_size=16", "normalization=imagenet"))):
        pictures = shown(planned(tmp_path / str(number), set=settings).contact_sheet.read_text())
        assert {picture.shape[0] for of_class in pictures.values() for picture in of_class} == {16}
        assert tuple(pictures["dog"][0][15, 0]) == COLORS["dog"]


def test_a_hostile_name_is_text(tmp_path: Path) -> None:
    page = planned(tmp_path).contact_sheet.read_text()
    assert HOSTILE not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_a_dry_run_leaves_the_sheet_alone(tmp_path: Path) -> None:
    """The sweep that is run next may have the name, and no folder stays of one that was not run."""
    done = planned(tmp_path, name="pets")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["contact.html", "contact.png"]
    with Image.open(tmp_path / "r" / "contact.png") as sheet:
        assert sheet.width > 3 * 72
        assert sheet.height > 3 * 72
    assert done.to_dict()["contact_sheet"] == str(tmp_path / "r" / "contact.html")


def test_many_classes_have_few_pictures_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(contact_sheet, "PICTURES", 4)
    monkeypatch.setattr(contact_sheet, "PICTURED", 2)
    page = planned(tmp_path).contact_sheet.read_text()
    assert {name: len(pictures) for name, pictures in shown(page).items()} == {HOSTILE: 2, "cat": 2}
    assert "Pictures are shown of the first 2 classes." in page
    assert "dog" in page
