"""Memory: the best settings of earlier sweeps are tried first, by their ranks alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command
from journals import folded

from orchestrator.assessment import tables
from orchestrator.cluster import machine
from orchestrator.leaderboard import memory
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request
from orchestrator.record import parquet
from orchestrator.record.decoding import RecordError
from orchestrator.record.events import SweepStarted, TrialAttempt, TrialEnded, TrialEpoch, TrialProposed
from orchestrator.record.facts import Spec
from orchestrator.record.state import SweepState
from orchestrator.validation import check
from trainables.errors import ConfigError

SPLIT = {"data_fingerprint": "pictures", "test_fingerprint": "sealed"}


def planned(results: Path, name: str = "new", **options: Any) -> Plan:
    asked: dict[str, Any] = {"dataset": "digits", "results": results, "name": name, "trials": 24, **options}
    return plan.make(Request(SweepOptions(**asked)), [machine.Resources(2, 0)])


def earlier(
    results: Path, name: str, scores: dict[float, float], split: dict[str, str] | None = None, **options: Any
) -> Path:
    """Write the leaderboard of a sweep whose trials have these scores, by learning rate, and return its folder."""
    made = planned(results, name, **options)
    state = folded(SweepStarted(Spec(plan=made.to_dict(), split=split or SPLIT)), state=SweepState())
    for number, (rate, score) in enumerate(scores.items()):
        params = {"lr": rate, "weight_decay": 1e-3, "dropout": 0.1, "label_smoothing": 0.05, "train_fraction": 0.9}
        fitting = {name: value for name, value in params.items() if name in made.space.distributions}
        config = made.space.config(fitting).to_dict()
        for event in (
            TrialProposed(number, fitting, config, index=number),
            TrialAttempt(number, 0),
            TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": score, "val_loss": 1 - score}),
            TrialEnded(number, 0, "completed", "budget"),
        ):
            folded(event, state=state)
    folder = results / name
    folder.mkdir(parents=True)
    parquet.write(tables.leaderboard(state, None), folder / "leaderboard.parquet")
    return folder


def rates(made: Plan) -> list[float]:
    return [start["lr"] for start in made.space.starts]


def test_the_best_settings_of_one_sweep_are_tried_first(tmp_path: Path) -> None:
    earlier(tmp_path, "old", {0.03: 0.2, 0.3: 0.9, 0.5: 0.8, 0.8: 0.7})
    made, notes = memory.remember(planned(tmp_path), ("auto",), tmp_path, SPLIT)
    assert rates(made) == [0.1, 0.3, 0.5, 0.8], "after the space's own; one in eight of 24 trials"
    assert notes == ("memory: the search begins with 3 settings more, of old",)
    assert Plan.from_dict(made.to_dict()) == made


def test_of_several_sweeps_those_are_taken_that_are_good_together(tmp_path: Path) -> None:
    """One is the best in the first sweep alone, one in the second, and one nearly as good in both."""
    earlier(tmp_path, "one", {0.03: 0.9, 0.1: 0.85, 0.4: 0.3, 0.6: 0.2, 0.9: 0.1})
    earlier(tmp_path, "two", {0.032: 0.1, 0.11: 0.85, 0.41: 0.3, 0.62: 0.2, 0.91: 0.9})
    made, _ = memory.remember(planned(tmp_path, trials=8), ("auto",), tmp_path, SPLIT)
    assert rates(made)[1:] in ([0.1], [0.11])
    made, _ = memory.remember(planned(tmp_path, trials=32), ("auto",), tmp_path, SPLIT)
    assert {0.03, 0.91} & set(rates(made))


def test_scores_of_other_sweeps_are_not_compared(tmp_path: Path) -> None:
    scores = {0.03: 0.2, 0.3: 0.9, 0.5: 0.8, 0.8: 0.7}
    earlier(tmp_path / "a", "old", scores)
    earlier(tmp_path / "b", "old", {rate: score / 100 for rate, score in scores.items()})
    first, second = (memory.remember(planned(tmp_path), ("auto",), tmp_path / part, SPLIT)[0] for part in "ab")
    assert rates(first) == rates(second)


def test_another_test_set_is_said(tmp_path: Path) -> None:
    earlier(tmp_path, "old", {0.3: 0.9}, split={"data_fingerprint": "others", "test_fingerprint": "other"})
    _, notes = memory.remember(planned(tmp_path), ("auto",), tmp_path, SPLIT)
    assert "old had another test set" in notes[1]


def test_what_the_space_does_not_have_is_left_out(tmp_path: Path) -> None:
    earlier(tmp_path, "old", {0.3: 0.9, 0.05: 0.8})
    narrow = planned(tmp_path, search=("lr=log(0.2,1)", "dropout=uniform(0.2,0.3)"))
    made, notes = memory.remember(narrow, ("auto",), tmp_path, SPLIT)
    assert "memory: dropout, lr: values that this search does not have are left out, and drawn instead" in notes
    assert [set(start) for start in made.space.starts[1:]] == [
        {"lr", "weight_decay", "label_smoothing", "train_fraction"},
        {"weight_decay", "label_smoothing", "train_fraction"},
    ]


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    new = planned(tmp_path)
    assert memory.remember(new, ("auto",), tmp_path, SPLIT) == (new, ("memory: there is no earlier sweep",))
    folder = earlier(tmp_path, "old", {0.3: 0.9}, metric="val_loss")
    made, notes = memory.remember(new, ("auto",), tmp_path, SPLIT)
    assert (made, len(notes)) == (new, 1)
    with pytest.raises(ConfigError, match="none has the metric val_accuracy"):
        memory.remember(new, (str(folder),), tmp_path, SPLIT)
    assert memory.remember(new, ("none",), tmp_path, SPLIT) == (new, ())
    assert memory.remember(new, (), tmp_path, SPLIT) == (new, ())


def test_a_damaged_sweep_that_was_named_is_refused(tmp_path: Path) -> None:
    (folder := tmp_path / "old").mkdir()
    (folder / "leaderboard.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(RecordError, match=r"--warm-start: .*damaged"):
        memory.remember(planned(tmp_path), (str(folder),), tmp_path, SPLIT)
    _, notes = memory.remember(planned(tmp_path), ("auto",), tmp_path, SPLIT)
    assert notes == ("memory: there is no earlier sweep",)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("results/nowhere", "there is no such file or folder"),
        ("tests", "tests"),
    ],
)
def test_wrong_places_are_refused_before_ray_starts(command: Command, tmp_path: Path, asked: str, problem: str) -> None:
    done = command("orchestrator.sweep", "digits", "--warm-start", asked, "--results", tmp_path)
    assert done.code == 2
    assert "--warm-start" in done.err
    assert problem in done.err


def test_a_sweep_begins_with_the_best_of_another(command: Command, tmp_path: Path) -> None:
    earlier(tmp_path, "old", {0.03: 0.2, 0.3: 0.9, 0.5: 0.8})
    done = command(
        *("orchestrator.sweep", "digits", "--results", tmp_path, "--warm-start", "auto", "--dry-run", "--json")
    )
    assert done.code == 0, done.err
    assert "memory: the search begins with 3 settings more, of old" in done.err
    assert "memory: old had another test set" in done.err
    assert [sample["lr"] for sample in done.result["samples"][:4]] == pytest.approx([0.1, 0.3, 0.5, 0.03])


def test_a_recipe_remembers_nothing(tmp_path: Path) -> None:
    made = replace(planned(tmp_path), recipe="some")
    assert memory.remember(made, ("auto",), tmp_path, SPLIT) == (made, ())


def test_settings_whose_model_a_constraint_forbids_are_left_out(tmp_path: Path) -> None:
    folder = earlier(tmp_path, "old", {0.1: 0.9, 0.2: 0.8, 0.3: 0.7})
    table = pq.read_table(folder / "leaderboard.parquet")
    sizes = pa.array([300_000, 80_000, None], pa.int64())
    place = table.column_names.index("parameters")
    parquet.write(table.set_column(place, "parameters", sizes), folder / "leaderboard.parquet")
    made, _ = memory.remember(planned(tmp_path, constraint="parameters<1e5"), ("auto",), tmp_path, SPLIT)
    assert rates(made)[1:] == [0.2, 0.3]


def test_files_that_cannot_be_learned_from_are_named_before_anything_starts(tmp_path: Path) -> None:
    newer = earlier(tmp_path, "newer", {0.1: 0.9})
    table = pq.read_table(newer / "leaderboard.parquet")
    metadata = {**table.schema.metadata, b"schema_version": b"99"}
    pq.write_table(table.replace_schema_metadata(metadata), newer / "leaderboard.parquet")
    (damaged := tmp_path / "damaged").mkdir()
    (damaged / "leaderboard.parquet").write_bytes(b"PAR1 no table")
    (empty := tmp_path / "empty").mkdir()
    asked = [str(newer), str(damaged), str(empty), str(tmp_path / "missing")]
    with pytest.raises(ConfigError) as error:
        check(SweepOptions("digits", results=tmp_path, warm_start=tuple(asked)), None)
    found = error.value.problems
    assert all(problem.startswith("--warm-start: ") for problem in found)
    for text, problem in zip(("has schema 99", "damaged", "not a sweep's folder", "no such file"), found, strict=True):
        assert text in problem
