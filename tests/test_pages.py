"""The pages for one's own spaces, models and data: their files and commands work as they are written."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Command
from PIL import Image
from test_docs import PAGES as ALL_PAGES
from test_docs import commands, offline

from orchestrator import sweep

PAGES = ("spaces.md", "your-model.md", "your-data.md", "tutorial.md")
KINDS = ("cat", "dog")
QUICKLY = ("--trials", "2", "--max-epochs", "1", "--confirm", "0")


def lines(program: str, *pages: str) -> list[str]:
    """Return the commands of a program, each once."""
    found = (line for page in pages for line in commands((ROOT / "docs" / page).read_text()) if program in line)
    return list(dict.fromkeys(found))


def yaml_spaces() -> list[str]:
    """Return the YAML blocks of all pages but those of Kubernetes."""
    texts = (page.read_text() for page in ALL_PAGES)
    found = (block for text in texts for block in re.findall(r"```ya?ml\n(.*?)```", text, re.DOTALL))
    return [block for block in found if "apiVersion:" not in block]


def picture(random: np.random.Generator, kind: str) -> bytes:
    """Noise of some size, dark for cats and bright for dogs."""
    size = (*random.integers(20, 40, 2), 3)
    pixels = random.integers(0, 128, size) + 127 * KINDS.index(kind)
    Image.fromarray(pixels.astype(np.uint8)).save(file := BytesIO(), "PNG")
    return file.getvalue()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Iterator[Path]:
    """Yield a folder with the pages' files, and pets as a folder, in parts, as a CSV and as Parquet."""
    for page in PAGES:
        blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
        for name, content in blocks:
            (tmp_path / name).write_text(content)
    random, rows = np.random.default_rng(0), []
    for kind in KINDS:
        for number in range(40):
            encoded = picture(random, kind)
            part = "test" if number < 8 else "train"
            for path in (f"pets/{kind}/{number:03}.png", f"split-pets/{part}/{kind}/{number:03}.png"):
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_bytes(encoded)
            rows.append({"image": encoded, "label": kind, "file": f"{kind}/{number:03}.png"})
    pq.write_table(pa.Table.from_pylist(rows).select(["image", "label"]), tmp_path / "pets.parquet")
    (tmp_path / "pets.csv").write_text("file,kind\n" + "".join(f"{row['file']},{row['label']}\n" for row in rows))
    (tmp_path / "pictures").mkdir()
    for path in ("new.jpg", "digit.png", "pictures/new.png"):
        Image.open(BytesIO(picture(random, "dog"))).save(tmp_path / path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", environment["SWEEP_ORCHESTRATOR_CACHE"])
    yield tmp_path
    sys.modules.pop("nets", None)


@pytest.mark.parametrize("line", lines("orchestrator.sweep", *PAGES))
def test_every_sweep_can_be_planned(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "on-bad-image" in line:
        (here / "pets" / "cat" / "torn.jpg").write_bytes(b"no picture")
    arguments = shlex.split(offline(line))[3:]
    assert sweep.main([*arguments, "--dry-run"]) == 0
    told = " ".join(capsys.readouterr().err.split())  # long paths have lines wrapped
    assert "samples" in told
    assert ("1 unreadable image left out" in told) == ("on-bad-image" in line)
    if "my" in line:
        assert ("uniform(0.8, 0.99) if optimizer=sgd" in told) != ("optimizer=sgd" in line)


@pytest.mark.parametrize("text", yaml_spaces())
def test_every_yaml_space_can_be_planned(text: str, here: Path) -> None:
    (here / "space.yaml").write_text(text)
    assert sweep.main(["digits", "--space", "space.yaml", "--dry-run"]) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("page", "named"), [("spaces.md", None), ("your-model.md", "mine"), ("your-data.md", "pets")])
def test_what_a_page_does_can_be_done(page: str, named: str | None, here: Path, command: Command) -> None:
    """The first whole sweep, with few trials, and what is done with its winner."""
    whole = [line for line in lines("orchestrator.sweep", page) if "--dry-run" not in line]
    for line in (whole[0], *lines("orchestrator.doctor", page), *lines("orchestrator.predict", page)):
        more = QUICKLY if "sweep" in line else ()
        done = command(*shlex.split(offline(line))[2:], *more, cwd=here, timeout=300)
        assert done.code == 0, done.err
        if "predict" in line:
            assert "labelled" in done.err
    assert named is None or (here / "results" / named / "best" / "README.md").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_can_be_followed(here: Path, command: Command) -> None:
    """Every command of it, as written, in its order."""
    for line in commands((ROOT / "docs" / "tutorial.md").read_text()):
        done = command(*shlex.split(line)[2:], cwd=here, timeout=300)
        assert done.code == 0, done.err
    assert (here / "results" / "first" / "report.html").is_file()
