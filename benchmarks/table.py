"""The README's table of benchmarks, from the evidence files: run it after a benchmark, so that the two agree.

    python -m benchmarks.table --write      put it into README.md, between its two marks

Without options the table is printed; `--check` ends with 1 if the README has another.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import FlagCreatePairsOff

from benchmarks.record import EVIDENCE, BenchmarkError
from trainables.files import replace_file

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
HEAD = ["| benchmark | target | figure (n, median, min–max) | hardware |", "|---|---|---|---|"]


@dataclass(frozen=True)
class Options:
    """The README's table of benchmarks."""

    evidence: Path = EVIDENCE
    readme: Path = README
    write: FlagCreatePairsOff[bool] = False
    check: FlagCreatePairsOff[bool] = False


def main() -> int:
    options = tyro.cli(Options)
    table = render(options.evidence)
    if not (options.write or options.check):
        print(table)
        return 0
    text = options.readme.read_text()
    fresh = replaced(text, table)
    if options.check:
        return 0 if fresh == text else 1
    replace_file(options.readme, fresh.encode())
    return 0


def render(folder: Path) -> str:
    """The table of all figures that have a target, by file name; the others are in the evidence."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    rows = [row(content, figure) for content in found for figure in content["figures"] if figure["target"]]
    return "\n".join([*HEAD, *rows])


def row(content: dict[str, Any], figure: dict[str, Any]) -> str:
    """One figure. What is judged by its mean or its largest value shows that too."""
    unit = f" {figure['unit']}" if figure["unit"] else ""
    told = f"n = {figure['n']}, {figure['median']:.4g}{unit}, {figure['min']:.4g}–{figure['max']:.4g}"
    if figure["judged_by"] == "mean":
        told += f", mean {figure['mean']:.4g}"
    verdict = {None: "", True: "", False: " (missed)"}[figure["holds"]]
    target = f"{figure['judged_by']} {figure['target']}{unit}{verdict}" if figure["target"] else ""
    return f"| {content['benchmark']}: {figure['name']} | {target} | {told} | {hardware(content)} |"


def hardware(content: dict[str, Any]) -> str:
    """CPU, and what of it the run used."""
    used = content["hardware"]
    return f"{used['cpu']}, {used['cpus']} cores, torch {content['versions']['torch']}"


def replaced(text: str, table: str) -> str:
    """`text` with what stands between the marks replaced.

    Raises:
        BenchmarkError: the marks are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BenchmarkError(f"no {BEGIN} … {END} in the README")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
