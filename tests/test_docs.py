"""The documentation: links lead somewhere, and its commands work as written."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Command
from PIL import Image

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])
README = (ROOT / "README.md").read_text()
CIFAR10 = {"cifar10", "improved-resnet50", "resnet50-balance"}  # data set, and recipes that take it


def commands(page: str = README) -> list[str]:
    """Return the lines of a page's shell blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


SWEEPS = [line for line in commands() if "orchestrator.sweep" in line and "--resume" not in line]
README_LINES = 127  # a newcomer reads it in five minutes: all else is in docs/


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with noise: `cifar10` in the layout of its Parquet files, and `pets` in class folders."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "cifar10").mkdir()
    random = np.random.default_rng(0)
    for part, rows in (("train", 300), ("test", 100)):
        images = [{"bytes": png(random), "path": None} for _ in range(rows)]
        pq.write_table(pa.table({"img": images, "label": np.arange(rows) % 10}), folder / "cifar10" / f"{part}.parquet")
    for kind in ("cat", "dog"):
        (folder / "pets" / kind).mkdir(parents=True)
        for number in range(40):
            (folder / "pets" / kind / f"{number}.png").write_bytes(png(random))
    return folder


def offline(line: str) -> str:
    """Return a command without weights that would be downloaded: dry runs need them, too."""
    return re.sub(r"weights([= ])imagenet", r"weights\1none", line)


def png(random: np.random.Generator) -> bytes:
    Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file := BytesIO(), "PNG")
    return file.getvalue()


@pytest.mark.parametrize("line", SWEEPS)
def test_sweeps_of_the_readme_can_be_planned(line: str, command: Command, files: Path, tmp_path: Path) -> None:
    """As written but for `--dry-run`, and with files in the place of a download, or random weights."""
    arguments = shlex.split(offline(line))[2:]
    downloaded = ["--data-dir", files / "cifar10"] if CIFAR10 & set(arguments) else []
    done = command(*arguments, "--dry-run", "--results", tmp_path, *downloaded, cwd=files)
    assert done.code == 0, done.err
    assert " × at most " in done.err


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= README_LINES


def test_tables_of_benchmarks_are_those_of_the_evidence(command: Command) -> None:
    done = command("benchmarks.table", "--check")
    assert done.code == 0, f"run python -m benchmarks.table --write {done.err}"


def test_options_in_the_docs_exist() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "orchestrator.sweep", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    options = set(re.findall(r"--[a-z-]+", text))
    sweeps = [line for page in PAGES for line in commands(page.read_text()) if "orchestrator.sweep" in line]
    ours = {option for line in sweeps for option in re.findall(r"(?<![\w-])--[a-z-]+", line)}
    assert ours <= options


def test_messages_in_troubleshooting_are_given() -> None:
    """Every message that is quoted stands in the code, so that a changed one is found here."""
    rows = (ROOT / "docs" / "troubleshooting.md").read_text().splitlines()
    quoted = {text for row in rows if row.startswith("|") for text in re.findall(r'"([^"]+)"', row.split("|")[1])}
    packages = ("orchestrator", "search_spaces", "trainables")
    literals = [text for name in packages for path in (ROOT / name).rglob("*.py") for text in texts(path)]
    assert len(quoted) > 30
    assert {text for text in quoted if not any(text in literal for literal in literals)} == set()


def texts(path: Path) -> list[str]:
    """Return the strings that the code of a file makes, with a gap for each value in them; docstrings are none."""
    tree = ast.parse(path.read_text())
    described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described:
            found.append(node.value)
    return found


@pytest.mark.slow
def test_make_sweep(environment: dict[str, str], tmp_path: Path) -> None:
    """The first command of the README, with a quick sweep into a folder of this test."""
    assert commands()[0] == "make sweep"
    if not (Path(sys.prefix) / "installed").exists():
        pytest.skip("this environment was not made by make, which would install into it")
    done = subprocess.run(
        ["make", "sweep", f"ARGS=--quick --results {tmp_path}", f"VENV={sys.prefix}"],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*/leaderboard.parquet"))) == 1


def test_one_trial_as_the_page_has_it(command: Command) -> None:
    line = next(line for line in commands((ROOT / "docs" / "python.md").read_text()) if "-m trainables" in line)
    done = command(*shlex.split(line)[2:], "--quick")
    assert done.code == 0, done.err
