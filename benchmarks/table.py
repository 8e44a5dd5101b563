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
        "Wall time per epoch on CIFAR-10, divided by that of an equal sweep in plain Ray Tune"
    ),
    ("resume", "--resume to the first new epoch"): "From `--resume`, after a SIGKILL, to the first new epoch",
    ("sealed_scores", "test scores inside the 95 % prediction interval, of 40"): (
        "Sweeps of 40 whose test score lay in its 95 % prediction interval"
    ),
}
"""The figures by which a user decides: benchmark and name → their description in the README."""

Evidence = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """Benchmarks that answer one question of the page, and what their picture is called."""

    title: str
    text: str
    names: tuple[str, ...]

    @property
    def picture(self) -> str:
        """The name of the picture's file."""
        return f"{self.title.lower().replace(' ', '-')}.svg"

    def of(self, evidence: list[Evidence]) -> list[Evidence]:
        """Return the evidence of these benchmarks, in their order, as far as it is there."""
        found = {content["benchmark"]: content for content in evidence}
        return [found[name] for name in self.names if name in found]


GROUPS = (
    Group(
        "Against others",
        "Ratios within a pair of runs of equal work. Of images a second more is better, of time less.",
        (
            "bare_loop_resnet20",
            "bare_loop_resnet18",
            "bare_loop_resnet50",
            "bare_loop_efficientnet_b0",
            "against_plain_ray_digits",
            "against_plain_ray_cifar10",
            "live_search_cifar10",
            "live_search_digits",
            "against_autogluon",
            "kept_memory",
            "predict",
            "decoding",
            "format_choice",
        ),
    ),
    Group(
        "A sweep from start to end",
        "Seconds as a user waits for them; `phases` in the evidence say where they went.",
        (
            "digits_sweep",
            "start_and_end",
            "slot_use",
            "forecast",
            "stamps",
            "stamps_scratch",
            "second_start",
            "resume",
            "cifar10_resnet18",
        ),
    ),
    Group(
        "The driver",
        "What one process does for all trials, whatever they train: its time, its memory, and what grows.",
        ("driver_cost", "many_slots", "proposals", "checkpoint_cost", "long_sweep", "report"),
    ),
    Group(
        "Work that is saved",
        "Training that is done once, or not at all.",
        ("cactus_features", "frozen_head", "fused_heads", "augmentation_share", "metrics_cost"),
    ),
    Group(
        "What a search finds",
        "Nothing is timed: searches on recorded or made curves, against random settings and other rules.",
        (
            "search_comparison",
            "search_comparison_dense",
            "sampler_comparison",
            "first_rung_digits",
            "first_rung_cifar10",
            "stop_rules",
            "infeasible",
            "racing",
        ),
    ),
    Group(
        "What scores are worth",
        "Nothing is timed: how often intervals hold the true value, and which way of splitting picks the better trial.",
        (
            "coverage",
            "metric_coverage",
            "uneven_coverage",
            "sealed_scores",
            "naive_split",
            "improved_resnet",
            "refit",
        ),
    ),
)
"""The sections of docs/performance.md. A benchmark that none of them names is in the last section."""


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
    evidence = evidence_in(options.evidence)
    if not (options.write or options.check):
        print(all_figures(evidence))
        return 0
    tables: dict[str, Callable[[list[Evidence]], str]] = {
        "README.md": decisive_figures,
        "docs/performance.md": sections,
    }
    for page, table in tables.items():
        text = (options.pages / page).read_text()
        fresh = replaced(text, table(evidence))
        if options.check and fresh != text:
            return 1
        if options.write:
            replace_file(options.pages / page, fresh.encode())
    return 0


def evidence_in(folder: Path) -> list[Evidence]:
    """Return the contents of the evidence files in a folder, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def sections(evidence: list[Evidence]) -> str:
    """Return the page's sections: of each group its heading, its picture and its table."""
    named = {name for group in GROUPS for name in group.names}
    rest = [content for content in evidence if content["benchmark"] not in named]
    parts = [
        f"## {group.title}\n\n{group.text}\n\n![each run in parts of its target](performance/{group.picture})\n\n"
        f"{all_figures(group.of(evidence))}"
        for group in GROUPS
    ]
    others = all_figures(rest)
    return "\n\n".join([*parts, *([f"## Others\n\n{others}"] if others.count("\n") > 1 else [])])


def all_figures(evidence: list[Evidence]) -> str:
    """Return the table of all figures that have a target; the others are in the evidence."""
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
