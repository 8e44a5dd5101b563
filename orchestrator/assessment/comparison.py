"""A recipe's arms and metrics, with the paper's beside them: `comparison.parquet` and `comparison.md`.

A metric of an arm is the mean over its final runs that ran to their end, with the deviation between their seeds.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from orchestrator.record import parquet
from orchestrator.record.decoding import from_json
from orchestrator.record.facts import RowCounts
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState, TrialRecord
from search_spaces import recipes
from trainables.config import FIELDS
from trainables.epoch_metrics import FINAL_METRICS, score_name
from trainables.errors import counted
from trainables.files import replace_file

PARTS = ("train", "validation", "test", "external")  # between which there are gaps
OF_THE_MACHINE = ("threads", "seed", "precision", "memory_format")
OF_EXTERNAL = (
    "train_accuracy",
    "external_accuracy",
    "train_test_gap",
    "train_validation_gap",
    "test_external_gap",
    "validation_external_gap",
    "train_external_gap",
)
COUNTS = ("epochs", "best_epoch")

COMPARISON = pa.schema(
    [
        pa.field("arm", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("mean", pa.float64()),
        pa.field("std", pa.float64()),
        pa.field("runs", pa.int64()),
        pa.field("paper", pa.float64()),
        pa.field("as_published", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Cell:
    """One metric of one arm. `std` is that of a sample, None of fewer than two runs; `mean` is None if undefined."""

    arm: str
    metric: str
    mean: float | None
    std: float | None
    runs: int
    paper: float | None

    def __str__(self) -> str:
        if self.mean is None:
            return "–"
        if self.metric in COUNTS:
            return f"{self.mean:g}"
        spread = "" if self.std is None else f" ± {_short(self.std, self.mean)}"
        return f"{_short(self.mean, self.mean)}{spread}"


@dataclass(frozen=True)
class Comparison:
    """The arms of a recipe side by side. `differences` say in which way it was not run as published."""

    paper: str
    cells: tuple[Cell, ...]
    shown: tuple[str, ...]  # metrics, the most important ones first
    differences: tuple[str, ...]
    heads: tuple[str, ...]  # arms that are trained on features

    def arms(self) -> list[str]:
        return list(dict.fromkeys(cell.arm for cell in self.cells))

    def columns(self) -> list[str]:
        """Return the metrics that get a column: those that any arm, or the paper, has."""
        there = {cell.metric for cell in self.cells if cell.mean is not None or cell.paper is not None}
        return [name for name in self.shown if name in there]

    def cell(self, arm: str, metric: str) -> Cell | None:
        return next((cell for cell in self.cells if (cell.arm, cell.metric) == (arm, metric)), None)

    def rows(self) -> list[list[str]]:
        """Return a row for each arm: its name, its runs, and each column's metric with the paper's in brackets."""
        return [[arm, str(self.runs(arm)), *(self._cell(arm, name) for name in self.columns())] for arm in self.arms()]

    def heading(self) -> list[str]:
        return ["arm", "runs", *self.columns()]

    def note(self) -> str:
        """Describe the numbers, and in which way they are not the paper's experiment."""
        lines = ["Mean ± deviation between seeds; seconds and memory are this machine's."]
        if any(cell.paper is not None for cell in self.cells):
            lines.append(f"In brackets: what {self.paper} reports.")
        if self.differences:
            lines.append(f"The paper's is another experiment: here {'; '.join(self.differences)}.")
        if self.heads:
            lines.append(f"Seconds of {', '.join(self.heads)} are the head's: features of a frozen base are made once.")
        idle = [arm for arm in self.arms() if not self.runs(arm)]
        if idle:
            lines.append(f"No run of {', '.join(idle)} came to its end.")
        return " ".join(lines)

    def markdown(self) -> str:
        lines = [self.heading(), ["---"] * len(self.heading()), *self.rows()]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{table}\n\n{self.note()}\n"

    def runs(self, arm: str) -> int:
        """Return how many runs of `arm` have completed."""
        return max(cell.runs for cell in self.cells if cell.arm == arm)

    def _cell(self, arm: str, metric: str) -> str:
        cell = self.cell(arm, metric)
        if cell is None:
            return ""
        if cell.paper is None:
            return str(cell)
        return f"{cell} ({cell.paper:g})" if metric in COUNTS else f"{cell} ({_short(cell.paper, cell.paper)})"


def compare(state: SweepState, planned: Plan) -> Comparison:
    """Compare the arms by the final training runs that `state`, a recipe's, has so far."""
    assert planned.recipe is not None  # noqa: S101 - the caller has seen that it is a recipe
    recipe = recipes.load(planned.recipe)
    published = recipe.arms(planned.dataset)
    shown = tuple(dict.fromkeys((*recipe.shown, *(OF_EXTERNAL if planned.external_test else ()))))
    heads = tuple(name for name, space in planned.arms.items() if space.base.freeze and not space.base.augments)
    cells: list[Cell] = []
    for arm in planned.arms:
        runs = [_figures(t) for t in state.trials.values() if t.arm == arm and t.final and t.status == "completed"]
        reported = published[arm].reported
        names = dict.fromkeys([*shown, *(name for run in runs for name in run), *reported])
        cells += [_cell(arm, name, runs, reported.get(name)) for name in names]
    return Comparison(
        recipe.paper, tuple(cells), shown, tuple(_differences(planned, from_json(RowCounts, state.spec.split))), heads
    )


def write(state: SweepState, planned: Plan, folder: SweepFolder) -> None:
    """Write both files into the sweep's folder, each completely or not at all.

    Raises:
        OSError: the disk did not take them.
    """
    found = compare(state, planned)
    rows = [{**vars(cell), "as_published": not found.differences} for cell in found.cells]
    parquet.write(parquet.make(rows, COMPARISON, state), folder.comparison)
    replace_file(folder.comparison_page, found.markdown().encode())


def _figures(trial: TrialRecord) -> dict[str, float | None]:
    """Return all metrics of one run, by name: `<part>_<metric>`, gaps, seconds and memory."""
    found: dict[str, float | None] = {
        f"{part}_{name}": measured.metrics[name]
        for part, measured in trial.final_metrics.items()
        for name in (*FINAL_METRICS, score_name(trial.metric))
        if name in measured.metrics
    }
    found |= {f"{part}_s": measured.metrics.get("seconds") for part, measured in trial.final_metrics.items()}
    for first, second in itertools.combinations(PARTS, 2):
        pair = [found.get(f"{part}_accuracy") for part in (first, second)]
        if pair[0] is not None and pair[1] is not None:
            found[f"{first}_{second}_gap"] = pair[0] - pair[1]
    return found | {
        "train_s": trial.total("train_s"),
        "epochs": float(trial.last_epoch),
        "best_epoch": None if trial.best_epoch is None else float(trial.best_epoch),
        **{name: trial.peak(name) for name in ("peak_memory_mb", "peak_gpu_mb")},
    }


def _cell(arm: str, name: str, runs: list[dict[str, float | None]], paper: float | None) -> Cell:
    """Return a metric's mean over runs; a metric that is undefined in any run has none."""
    values = [run.get(name) for run in runs]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Cell(arm, name, None, None, len(runs), paper)
    spread = statistics.stdev(known) if len(known) > 1 else None
    return Cell(arm, name, statistics.fmean(known), spread, len(runs), paper)


def _differences(planned: Plan, counts: RowCounts) -> list[str]:
    """Return in which ways the sweep is not the paper's experiment; arms that were left out do not count."""
    assert planned.recipe is not None  # noqa: S101 - as in `compare`
    recipe = recipes.load(planned.recipe)
    found = []
    if planned.dataset not in recipe.datasets:
        found.append(f"the data are {planned.dataset}")
    published = recipe.arms(planned.dataset)
    rows = counts.search_rows + counts.test_rows
    used = planned.subset if planned.subset is not None and planned.subset < counts.search_rows else None
    expected = recipe.datasets.get(planned.dataset)
    if used is not None:
        found.append(f"{used:,} of {counted(counts.search_rows, 'row')} used")
    elif rows != expected:
        found.append(
            f"{counted(rows, 'row')}, where the paper {f'has {expected:,}' if expected else 'does not say how many'}"
        )
    if planned.stored_side != SweepOptions.stored_side:
        found.append(f"pictures stored as squares of at most {planned.stored_side} pixels")
    for field in FIELDS:
        if field in OF_THE_MACHINE:
            continue
        changed = {
            f"{field}={_text(getattr(space.base, field))}"
            for name, space in planned.arms.items()
            if field in space.varied or getattr(space.base, field) != getattr(published[name].config, field)
        }
        if field in planned.space.varied:
            found.append(f"{field} searched")
        else:
            found += sorted(changed)
    return found


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(value: float, beside: float) -> str:
    """Return `value` with as many digits as suit a number of the size of `beside`."""
    digits = 4 if abs(beside) < 10 else max(0, 2 - math.floor(math.log10(abs(beside))) + 1)
    return f"{value:.{digits}f}"
