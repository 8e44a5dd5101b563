"""What benchmarks make of their figures: intervals, pictures, sections of the page, and the short suite."""

from __future__ import annotations

import importlib
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tyro
from conftest import ROOT

from benchmarks import pictures, table
from benchmarks.record import EVIDENCE, Figure, Record, Target, median_interval
from benchmarks.suite import ENTRIES, Entry


def test_the_interval_of_a_median_lies_between_sorted_values() -> None:
    assert median_interval(range(5)) is None
    assert median_interval([5, 3, 1, 2, 4, 6]) == [1, 6]  # 97 %
    assert median_interval(range(9)) == [1, 7]  # 96 %; from the third to the seventh it is 82 %
    assert median_interval([1.0] * 1000) == [1.0, 1.0]


def test_values_are_drawn_in_parts_of_their_target() -> None:
    assert pictures.part(10, Target(20)) == 0.5
    assert pictures.part(10, Target(20, at_most=False)) == pictures.MOST
    assert pictures.part(25, Target(20, at_most=False)) == 0.8
    assert pictures.part(0, Target(20, at_most=False)) == pictures.MOST


def test_a_picture_has_a_dot_for_every_run_and_a_name_for_every_figure() -> None:
    time = Figure("seconds <of a run>", "s", [1.0, 2.0, 3.0, 1.5, 1.2, 1.1], Target(2.5)).to_dict()
    speed = Figure("images", "", [0.9, 1.1], Target(1.0, at_most=False)).to_dict()
    drawn = pictures.picture([("a: seconds <of a run>", time), ("b: images", speed)])
    assert drawn.count("<circle") == 8
    assert drawn.count('<circle class="x"') == 2, "3 s, and 0.9 of the images, do not hold"
    assert ">a: seconds &lt;of a run&gt;</text>" in drawn


def test_pictures_of_the_page_are_those_of_the_evidence(tmp_path: Path) -> None:
    pictures.draw(EVIDENCE, tmp_path)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    there = {path.name: path.read_text() for path in (ROOT / "docs" / "performance").iterdir()}
    assert drawn == there, "run python -m benchmarks.pictures"
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("performance.md", "search.md"))
    assert set(re.findall(r"\(performance/([\w-]+\.svg)\)", pages)) == set(drawn)


def test_every_figure_with_a_target_is_on_the_page() -> None:
    evidence = table.evidence_in(EVIDENCE)
    page = table.sections(evidence)
    for content in evidence:
        for figure in content["figures"]:
            assert not figure["target"] or f"| {content['benchmark']}: {figure['name']} |" in page


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entries_of_the_suite_are_commands(entry: Entry) -> None:
    options = importlib.import_module(f"benchmarks.{entry.name}").Options
    tyro.cli(options, args=[*shlex.split(entry.arguments), "--evidence", "somewhere"])


def test_the_suite_takes_twenty_minutes_at_most() -> None:
    assert sum(entry.minutes for entry in ENTRIES) <= 20


def test_a_long_benchmark_goes_on_from_its_lines(tmp_path: Path) -> None:
    made: list[int] = []

    def measure(seed: int) -> dict[str, Any]:
        made.append(seed)
        return {"score": 10 * seed}

    for seeds in ((0,), (0, 1), (1, 0)):
        record = Record("lines", {}, lines=tmp_path / "lines.jsonl")
        for seed in seeds:
            record.once({"part": "plain", "seed": seed}, partial(measure, seed))
        assert record.runs == [{"part": "plain", "seed": seed, "score": 10 * seed} for seed in seeds]
    assert made == [0, 1]
