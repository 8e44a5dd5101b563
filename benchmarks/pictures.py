"""A picture of each group of benchmarks, drawn from their evidence: every run as a dot, in parts of its target.

    python -m benchmarks.pictures                       into docs/performance/
    python -m benchmarks.pictures --evidence DIR --folder DIR

A row is a figure; a dot is a run, the bar its median's 95 % interval (of six runs and more), the tick the median. The
scale is logarithmic and the same for all rows: the figure in parts of its target, turned so that the target is at 1 and
everything to the left of it holds. A figure without a target is not drawn. Besides, what searches find is drawn over
the epochs that they train: see `regret_picture`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import tyro

from benchmarks import regret_picture
from benchmarks.record import EVIDENCE, ROOT, Target
from benchmarks.table import GROUPS, Group, evidence_in
from trainables.files import replace_file

NAMES, WIDTH, ROW, MARGIN = 430, 900, 20, 26  # pixels
LEAST, MOST = 1 / 8, 2.0  # of the scale, in parts of the target; what lies outside is drawn at its end
TICKS = (0.125, 0.25, 0.5, 1.0, 2.0)
STYLE = """text{font:12px sans-serif;fill:#333}.n{text-anchor:end}.t{text-anchor:middle;fill:#777}
.g{stroke:#ddd}.a{stroke:#555;stroke-width:1.5}.i{stroke:#9cc3e6;stroke-width:6}.m{stroke:#12518a;stroke-width:2}
.h{fill:#2f7fc1}.x{fill:#c8502e}"""


@dataclass(frozen=True)
class Options:
    """Draw the pictures of the benchmarks."""

    evidence: Path = EVIDENCE
    """The folder of evidence files."""
    folder: Path = ROOT / "docs" / "performance"
    """The folder of the pictures."""


def main() -> int:
    options = tyro.cli(Options)
    draw(options.evidence, options.folder)
    return 0


def draw(evidence: Path, folder: Path) -> None:
    """Draw the pictures of the evidence in one folder into another."""
    folder.mkdir(parents=True, exist_ok=True)
    found = evidence_in(evidence)
    for group in GROUPS:
        figures = drawn(group, found)
        if figures:
            replace_file(folder / group.picture, picture(figures).encode())
    for content in found:
        if content["benchmark"] == "search_comparison":
            replace_file(folder / regret_picture.NAME, regret_picture.picture(content["runs"]).encode())


def drawn(group: Group, evidence: list[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the figures of a group that have a target other than 0, each with its name."""
    return [
        (f"{content['benchmark']}: {figure['name']}", figure)
        for content in group.of(evidence)
        for figure in content["figures"]
        if figure["target"] and target_of(figure).bound > 0
    ]


def picture(figures: list[tuple[str, Mapping[str, Any]]]) -> str:
    """Return an SVG image of the figures, one below the other."""
    height = ROW * len(figures) + 2 * MARGIN
    rows = "\n".join(line for place, (name, figure) in enumerate(figures) for line in row(place, name, figure))
    axis = "\n".join(
        f'<path class="{"a" if tick == 1 else "g"}" d="M{x(tick):.1f} {MARGIN - 6}V{height - MARGIN}"/>'
        f'<text class="t" x="{x(tick):.1f}" y="{MARGIN - 10}">{"target" if tick == 1 else f"{tick:g} ×"}</text>'
        for tick in TICKS
    )
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{axis}\n{rows}\n</svg>\n'


def row(place: int, name: str, figure: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of a figure's row."""
    y, target = MARGIN + ROW * (place + 0.5), target_of(figure)
    yield f'<text class="n" x="{NAMES}" y="{y + 4:.0f}">{escape(shortened(name))}</text>'
    if figure.get("interval"):
        low, high = (x(part(value, target)) for value in figure["interval"])
        yield f'<path class="i" d="M{low:.1f} {y:.0f}H{high:.1f}"/>'
    for value in sorted(set(figure["values"]))[:: max(len(set(figure["values"])) // 40, 1)]:
        kind = "h" if part(value, target) <= 1 else "x"
        yield f'<circle class="{kind}" cx="{x(part(value, target)):.1f}" cy="{y:.0f}" r="3"/>'
    middle = x(part(figure["median"], target))
    yield f'<path class="m" d="M{middle:.1f} {y - 7:.0f}V{y + 7:.0f}"/>'


def target_of(figure: Mapping[str, Any]) -> Target:
    """Return the target of a figure of an evidence file."""
    sign, bound = str(figure["target"]).split()
    return Target(float(bound), at_most=sign == "≤")


def part(value: float, target: Target) -> float:
    """Return a value in parts of its target, so that it holds up to 1."""
    ratio = value / target.bound if target.at_most else target.bound / value if value > 0 else math.inf
    return min(max(ratio, LEAST), MOST)


def x(ratio: float) -> float:
    """Return the place of a ratio on the axis, in pixels."""
    share = math.log(ratio / LEAST) / math.log(MOST / LEAST)
    return NAMES + 12 + share * (WIDTH - NAMES - 30)


def shortened(name: str) -> str:
    """Return as much of a name as fits beside its row."""
    return name if len(name) <= 68 else f"{name[:67]}…"


if __name__ == "__main__":
    sys.exit(main())
