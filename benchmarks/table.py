"""The pages' tables of benchmarks, written from the evidence files: run it after a benchmark, so that they agree.

    python -m benchmarks.table --write      put them into docs/performance.md and README.md, between their marks

Without options the table of all figures is printed; `--check` ends with 1 if a page has another table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import FlagCreatePairsOff

from benchmarks.record import EVIDENCE, ROOT, BenchmarkError
from trainables.files import replace_file

BEGIN, END = "<!-- table -->", "<!-- end of table -->"
HEAD = ["| benchmark | target | measured (n, median, min–max) | hardware |", "|---|---|---|---|"]
DECISIVE_HEAD = ["| measured | median (min–max) | n |", "|---|---|---|"]
DECISIVE = {
    ("digits_sweep", "command to leaderboard"): "Default sweep of digits, from command to leaderboard",
    ("digits_sweep", "best validation accuracy"): "Its best validation accuracy",
    ("cifar10_resnet18", "test accuracy"): "Test accuracy of one ResNet-18 after 5 epochs on CIFAR-10, from scratch",
    ("against_plain_ray_cifar10", "wall time an epoch, ours / plain Ray Tune"): (
        "Wall time per epoch, divided by that of an equal sweep in plain Ray Tune"
    ),
    ("resume", "--resume to the first new epoch"): "From `--resume`, after a SIGKILL, to the first new epoch",
    ("sealed_scores", "test scores inside the 95 % prediction interval, of 40"): (
        "Sweeps of 40 whose test score lay in its 95 % prediction interval"
    ),
}
"""The figures by which a user decides: benchmark and name → their description in the README."""

Evidence = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """Print, check or write the tables of benchmarks."""

    evidence: Path = EVIDENCE
    """The folder of evidence files."""
    pages: Path = ROOT
    """The folder of README.md and docs/performance.md."""
    write: FlagCreatePairsOff[bool] = False
    """Write the tables into the pages."""
    check: FlagCreatePairsOff[bool] = False
    """End with 1 if a page has another table."""


def main() -> int:
    options = tyro.cli(Options)
    evidence = [json.loads(path.read_text()) for path in sorted(options.evidence.glob("*.json"))]
    if not (options.write or options.check):
        print(all_figures(evidence))
        return 0
    tables: dict[str, Callable[[list[Evidence]], str]] = {
        "README.md": decisive_figures,
        "docs/performance.md": all_figures,
    }
    for page, table in tables.items():
        text = (options.pages / page).read_text()
        fresh = replaced(text, table(evidence))
        if options.check and fresh != text:
            return 1
        if options.write:
            replace_file(options.pages / page, fresh.encode())
    return 0


def all_figures(evidence: list[Evidence]) -> str:
    """Return the table of all figures that have a target, by file name; the others are in the evidence."""
    rows = [row(content, figure) for content in evidence for figure in content["figures"] if figure["target"]]
    return "\n".join([*HEAD, *rows])


def decisive_figures(evidence: list[Evidence]) -> str:
    """Return the README's table, in the order of `DECISIVE`.

    Raises:
        KeyError: the evidence lacks one of them.
    """
    figures = {(content["benchmark"], figure["name"]): figure for content in evidence for figure in content["figures"]}
    rows = [f"| {text} | {spread(figures[key])} | {figures[key]['n']} |" for key, text in DECISIVE.items()]
    return "\n".join([*DECISIVE_HEAD, *rows])


def spread(figure: Mapping[str, Any]) -> str:
    """Return a figure's median with its unit, and its range if it has one."""
    median = f"{figure['median']:.3g} {figure['unit']}".strip()
    return median if figure["n"] == 1 else f"{median} ({figure['min']:.3g}–{figure['max']:.3g})"


def row(content: Evidence, figure: Mapping[str, Any]) -> str:
    """Return one figure's row, with the mean as well if that is what it is judged by."""
    unit = f" {figure['unit']}" if figure["unit"] else ""
    measured = f"n = {figure['n']}, {figure['median']:.4g}{unit}, {figure['min']:.4g}–{figure['max']:.4g}"
    if figure["judged_by"] == "mean":
        measured += f", mean {figure['mean']:.4g}"
    verdict = {None: "", True: "", False: " (missed)"}[figure["holds"]]
    target = f"{figure['judged_by']} {figure['target']}{unit}{verdict}"
    return f"| {content['benchmark']}: {figure['name']} | {target} | {measured} | {hardware(content)} |"


def hardware(content: Evidence) -> str:
    """Return the CPU, and what of it the run used."""
    used = content["hardware"]
    return f"{used['cpu']}, {used['cpus']} cores, torch {content['versions']['torch']}"


def replaced(text: str, table: str) -> str:
    """Return `text` with the part between its marks replaced.

    Raises:
        BenchmarkError: the marks are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BenchmarkError(f"no {BEGIN} … {END} in the page")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
