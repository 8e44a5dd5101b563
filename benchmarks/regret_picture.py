"""A picture of what searches have found after so many epochs, drawn from the evidence of `search_comparison`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

NAME = "regret.svg"
WIDTH, HEIGHT = 900, 420  # pixels
LEFT, RIGHT, TOP, BOTTOM = 60, 770, 30, 370  # the edges of the axes
LEAST = 0.1  # points: what is below is drawn there
TICKS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
LABEL = 15  # pixels between two names, at least
COLORS = {
    "stock": "#555555",
    "stock, our rungs": "#8d7b68",
    "random": "#b9b9b9",
    "random asha": "#7fb2dd",
    "stopping": "#9a9a9a",
    "asha": "#2f7fc1",
    "start": "#2c8c4a",
    "memory": "#c8502e",
    "memories": "#8a4fb0",
    "misled": "#c79a1b",
}
STYLE = "text{font:12px sans-serif;fill:#333}.n{text-anchor:end}.t{text-anchor:middle}.g{stroke:#ddd}.a{stroke:#555}"

Curve = list[tuple[int, float]]  # epochs, mean regret in points


def picture(runs: Iterable[Mapping[str, Any]], slots: int = 4) -> str:
    """Return an SVG image: a line for each method with so many slots, the regret on a logarithmic scale."""
    curves = {
        run["method"]: [(int(at), max(regret, LEAST)) for at, regret in run["mean_regret"].items()]
        for run in runs
        if run["slots"] == slots
    }
    last = max(at for curve in curves.values() for at, _ in curve)
    most = max(regret for curve in curves.values() for _, regret in curve)
    parts = "\n".join([*_axes(last, most), *_lines(curves, last, most)])
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{parts}\n</svg>\n'


def _axes(last: int, most: float) -> Iterator[str]:
    """Yield both axes with their names and ticks."""
    for tick in (tick for tick in TICKS if tick <= most):
        yield f'<path class="g" d="M{LEFT} {_y(tick, most):.1f}H{RIGHT}"/>'
        yield f'<text class="n" x="{LEFT - 6}" y="{_y(tick, most) + 4:.1f}">{tick:g}</text>'
    step = 10 ** math.floor(math.log10(last))
    step = step if last / step >= 4 else step // 5 or 1
    for tick in range(0, last + 1, step):
        yield f'<text class="t" x="{_x(tick, last):.1f}" y="{BOTTOM + 18}">{tick}</text>'
    yield f'<path class="a" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none"/>'
    yield f'<text x="{LEFT - 50}" y="{TOP - 12}">mean regret, points</text>'
    yield f'<text class="t" x="{(LEFT + RIGHT) / 2:.0f}" y="{BOTTOM + 38}">epochs trained</text>'


def _lines(curves: Mapping[str, Curve], last: int, most: float) -> Iterator[str]:
    """Yield each method's line, and its name at the end of it."""
    ends = _spread([(_y(curve[-1][1], most), name) for name, curve in curves.items()])
    for name, curve in curves.items():
        color = COLORS.get(name, "#000")
        path = "L".join(f"{_x(at, last):.1f} {_y(regret, most):.1f}" for at, regret in curve)
        yield f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>'
        yield f'<text x="{RIGHT + 8}" y="{ends[name] + 4:.1f}" style="fill:{color}">{escape(name)}</text>'


def _spread(places: Sequence[tuple[float, str]]) -> dict[str, float]:
    """Return the heights of names, those of lines that end together one below the other."""
    found: dict[str, float] = {}
    below = -math.inf
    for y, name in sorted(places):
        below = found[name] = max(y, below + LABEL)
    return found


def _x(epochs: float, last: int) -> float:
    return LEFT + (RIGHT - LEFT) * epochs / last


def _y(regret: float, most: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * math.log(regret / LEAST) / math.log(most / LEAST)
