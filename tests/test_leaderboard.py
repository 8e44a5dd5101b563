"""The leaderboard command: what it shows, selects, merges, compares and exports, and how it refuses."""

from __future__ import annotations

import json
import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command
from journals import trial, write_sweep
from optuna.trial import TrialState

from orchestrator.assessment import tables
from orchestrator.assessment.fraction_curve import Point, curve
from orchestrator.leaderboard import __main__ as leaderboard
from orchestrator.leaderboard import sweep_diff
from orchestrator.leaderboard.boards import find
from orchestrator.leaderboard.expression import Expression
from orchestrator.plan.options import SweepOptions
from orchestrator.record import parquet
from orchestrator.record.journal_lines import SCHEMA
from orchestrator.record.paths import SweepFolder
from trainables.config import FIELDS
from trainables.errors import ConfigError


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three trials at full budget, one stopped, one diverged, one failed, one that runs."""
    return write_sweep(
        tmp_path / "results" / "one",
        trial(0, [0.5, 0.8, 0.9], lr=0.05, train_fraction=0.5),
        trial(1, [0.6, 0.9, 0.95], lr=0.2, train_fraction=0.7),
        trial(2, [0.2], "stopped", "asha", lr=0.5),
        trial(3, [], "diverged", "not_finite", lr=0.9),
        trial(4, [], "failed", "error"),
        trial(5, [0.4, 0.7, 0.93], lr=0.1),
        trial(6, [0.3], None),
    )


@pytest.fixture
def look(capsys: pytest.CaptureFixture[str]) -> Any:
    """Give the command in this process: its code, what it wrote, what it said."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = leaderboard.main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return run


def shown(out: str) -> list[int]:
    """Return the trials of a table, in their order."""
    return [int(line.split()[0]) for line in out.splitlines() if line.split() and line.split()[0].isdigit()]


def numbers(look: Any, *arguments: str | Path) -> list[int]:
    code, out, err = look(*arguments, "--json")
    assert code == 0, err
    return [row["trial"] for row in json.loads(out)["trials"]]


def test_trials_are_shown_as_ranked_and_what_runs_is_there(sweep: Path, look: Any) -> None:
    code, out, _ = look(sweep)
    assert code == 0
    assert shown(out)[:7] == [1, 5, 0, 6, 2, 3, 4]
    assert "running" in out
    assert "3 completed, 1 running, 1 stopped, 1 diverged, 1 failed; scores are val_accuracy (max)" in out


@pytest.mark.parametrize("width", ["80", "200"])
def test_lines_fit_the_screen(sweep: Path, look: Any, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    _, out, _ = look(sweep)
    table = [line for line in out.splitlines() if line[:6].strip().isdigit()]
    assert max(map(len, table)) <= int(width)
    assert ("too narrow for" in out) == (width == "80")


def test_a_pipe_has_every_column_and_no_colour(sweep: Path, command: Command) -> None:
    done = command("orchestrator.leaderboard", sweep)
    assert done.code == 0
    assert "train_fraction" in done.out
    assert "\x1b" not in done.out


def test_top_and_columns(sweep: Path, look: Any) -> None:
    _, out, _ = look(sweep, "--top", "2", "--columns", "trial,lr,status")
    assert out.splitlines()[0].split() == ["trial", "lr", "status"]
    assert shown(out)[:2] == [1, 5]
    assert "2 of 7 are shown" in out


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("status == 'completed'", [1, 5, 0]),
        ("config.lr < 0.15 and score >= 0.9", [5, 0]),
        ("lr * 2 > 0.9 or trial == 0", [0, 2, 3]),
        ("status in ('failed', 'diverged') and not (trial < 4)", [4]),
        ("0.1 < lr <= 0.5", [1, 2]),
        ("score is None", [3, 4]),
        ("'broken' in error", [4]),
        ("error is not None and score > 0", []),
        ("started_at > '2020-01-01' and train_s / epochs == 1.75", [1, 5, 0, 6, 2]),
        ("score / 0 > 1", []),
        ("True", [1, 5, 0, 6, 2, 3, 4]),
    ],
)
def test_where(sweep: Path, look: Any, condition: str, expected: list[int]) -> None:
    assert numbers(look, sweep, "--where", condition) == expected


@pytest.mark.parametrize(
    "condition",
    [
        "__import__('os').system('true')",
        "(lambda: 1)()",
        "score.__class__",
        "[x for x in (1, 2)]",
        "'a' * 10**9 == 'b'",
        "model * 9999999 == 1",
        "score <",
        "lrr < 1",
        "model < 1",
        "'x' in 5",
        "(" * 500 + "1" + ")" * 500,
        "not " * 700 + "True",
        "1" * 3000,
        "f'{score}'",
        "b'1' == 1",
        "\0",
        "",
    ],
)
def test_what_is_no_condition_is_refused_in_a_line(sweep: Path, look: Any, condition: str) -> None:
    code, out, err = look(sweep, "--where", condition)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            "learning_rate < 0.1",
            "learning_rate: there is no such column; did you mean lr? (columns: all fields of docs/",
        ),
        ("config.learning_rate < 1", "config.learning_rate: there is no such column; did you mean lr? (columns: "),
        ("lr < scroe", "scroe: there is no such column; did you mean score? (columns: "),
        ("status == completed", "; a text is put in quotes: 'completed'\n"),
        ("status in (completed, 'failed')", "; a text is put in quotes: 'completed'\n"),
        ("lr = 0.1", "--where lr = 0.1: = is written == (allowed: "),
        ("lr < 1 && !(score > 1)", "--where lr < 1 && !(score > 1): && is written and, ! is written not (allowed: "),
        ("(lr < 1) & (score > 1)", "--where (lr < 1) & (score > 1): & is written and (allowed: "),
        ("status == 'a=b' or", "--where status == 'a=b' or: invalid syntax (allowed: "),
    ],
)
def test_a_wrong_condition_is_refused_with_what_to_write(sweep: Path, look: Any, condition: str, message: str) -> None:
    code, _, err = look(sweep, "--where", condition)
    assert code == 2
    assert message in err
    assert " … weights_sha256" not in err, "the list of columns is complete, or says how many there are"


def test_other_names_of_a_field_are_suggested_for_columns_too(sweep: Path, look: Any) -> None:
    for option in ("--columns", "--sort"):
        assert "did you mean lr? (columns: " in look(sweep, option, "learning_rate")[2]


def test_a_column_that_is_empty_is_named_where_nothing_is_selected(sweep: Path, look: Any) -> None:
    code, out, err = look(sweep, "--where", "front and feasible")
    assert code == 0
    assert "no trials" in out
    assert err.splitlines() == [
        "feasible is empty in all trials: the sweep had no --constraint",
        "front is empty in all trials: the sweep had no --also",
    ]
    assert look(sweep, "--where", "confirmed > 0.5")[2] == "confirmed is empty in all trials\n"
    assert look(sweep, "--where", "score > 2")[2] == ""
    assert look(sweep, "--where", "front is None")[2] == ""


def test_a_file_that_is_no_table_is_refused_in_plain_words(look: Any, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("words")
    code, _, err = look(tmp_path / "README.md")
    assert code == 2
    assert f"{tmp_path / 'README.md'} is damaged, or is not a Parquet file; give a sweep's folder" in err
    assert "Arrow" not in err


def test_the_allowed_names_are_columns_alone() -> None:
    def resolve(name: str) -> str:
        if name not in ("a", "config.b"):
            raise ConfigError(name)
        return name

    assert Expression("a + config.b == 3", resolve)({"a": 1, "config.b": 2})
    with pytest.raises(ConfigError):
        Expression("a.b", resolve)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("lr", [0, 4, 5, 6, 1, 2, 3]),
        ("lr:desc", [3, 2, 1, 4, 5, 6, 0]),
        ("score:asc", [2, 6, 0, 5, 1, 3, 4]),
        ("val_f1", [1, 5, 0, 6, 2, 3, 4]),
        ("val_loss", [1, 5, 0, 6, 2, 3, 4]),
    ],
)
def test_sort_has_the_better_first_and_nulls_last(sweep: Path, look: Any, sort: str, expected: list[int]) -> None:
    assert numbers(look, sweep, "--sort", sort) == expected


def test_several_sweeps_are_merged_by_score(sweep: Path, look: Any) -> None:
    write_sweep(sweep.parent / "two", trial(0, [0.92]), trial(1, [0.97]))
    code, out, _ = look(sweep.parent, "--json", "--top", "3")
    result = json.loads(out)
    assert code == 0
    assert [(row["sweep"], row["trial"]) for row in result["trials"]] == [("two", 1), ("one", 1), ("one", 5)]
    assert [one["sweep"] for one in result["sweeps"]] == ["one", "two"]
    assert result["comparable"]


def test_settings_in_which_sweeps_differ_are_shown(
    sweep: Path, look: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # with weights, sweeps search another space: they differ in several fields
    weights = tmp_path / "lite0.safetensors"
    weights.touch()
    write_sweep(sweep.parent / "two", trial(0, [0.92]), set=("model=resnet20", f"weights={weights}"))
    _, out, _ = look(sweep.parent)
    heading, first = (line.split() for line in out.splitlines()[:2])
    assert heading[:7] == ["sweep", "trial", "status", "epochs", "score", "model", "weights"]
    assert "lr" in heading
    assert first[:7] == ["one", "1", "completed", "3", "0.9500", "resnet8", "none"]
    _, out, _ = look(sweep)
    assert not {"model", "weights", "seed"} & set(out.splitlines()[0].split())
    _, out, _ = look(sweep.parent, "--where", "model == 'resnet20'")
    assert out.splitlines()[1].split()[:7] == ["two", "0", "completed", "1", "0.9200", "resnet20", "lite0.safetensors"]


def test_scores_on_other_rows_are_not_mixed(sweep: Path, look: Any) -> None:
    write_sweep(
        sweep.parent / "two", trial(0, [0.99]), split={"data_fingerprint": "d", "validation_fingerprint": "other"}
    )
    _, out, _ = look(sweep, sweep.parent / "two")
    assert "cannot be compared" in out
    assert numbers(look, sweep, sweep.parent / "two")[:1] == [1]


def test_a_lone_table_shows_what_its_sweep_does(sweep: Path, look: Any, tmp_path: Path) -> None:
    board = find([str(sweep)])[0][0]
    parquet.write(board.table, tmp_path / "lone.parquet")
    assert look(tmp_path / "lone.parquet")[:2] == look(sweep)[:2]
    code, _, err = look(tmp_path / "lone.parquet", "--replay", "1")
    assert (code, "give" in err or "needs" in err) == (2, True)


# what is damaged or foreign


def foreign(folder: Path, sweep: Path) -> dict[str, Path]:
    """Things at which no sweep can be read."""
    journal = (sweep / "journal.jsonl").read_text()
    table = find([str(sweep)])[0][0].table
    pq.write_table(pa.table({"a": [1]}), folder / "foreign.parquet")
    pq.write_table(table.replace_schema_metadata({"schema_version": "99", "sweep": "{}"}), folder / "newer.parquet")
    pq.write_table(table.replace_schema_metadata({"schema_version": "1", "sweep": "[]"}), folder / "odd.parquet")
    whole = (folder / "newer.parquet").read_bytes()
    files = {
        "torn.parquet": whole[: len(whole) // 2],
        "text.parquet": b"this is text",
        "empty.parquet": b"",
        "garbage/journal.jsonl": b"\x00\xff garbage\n[1]\n" + b"[" * 100_000,
        "newer/journal.jsonl": journal.replace(f'"v": {SCHEMA}', f'"v": {SCHEMA + 1}').encode(),
        "halved/journal.jsonl": b'{"v": 3, "n": 0, "t": 1, "event": "trial_proposed", "trial": 0}\n',
        "planless/journal.jsonl": b'{"v": 3, "n": 0, "t": 1, "event": "sweep_started", "spec": {"plan": {}}}\n',
        "odd/journal.jsonl": b'{"v": 3, "n": 0, "t": 1, "event": "sweep_started", "spec": 5}\n',
        "former/journal.jsonl": b'{"v": 2, "n": 0, "t": 1, "event": "sweep_started", "spec": 5}\n',
        "table/leaderboard.parquet": b"PAR1",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "nothing").mkdir()
    (folder / "deep" / "deeper").mkdir(parents=True)
    return {str(path.name): path for path in folder.iterdir()}


def test_what_is_no_sweep_is_refused_alone_and_skipped_among_others(sweep: Path, look: Any, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    found = foreign(tmp_path / "foreign", sweep)
    for path in [*found.values(), tmp_path / "not-there"]:
        code, out, err = look(path)
        assert (code, out) == (2, ""), path
        assert str(path) in err
        code, out, err = look(path, sweep)
        assert code == 0, path
        assert err.startswith("skipped: ")
        assert shown(out)[0] == 1


def test_a_damaged_line_amid_a_journal_is_reported(sweep: Path, look: Any) -> None:
    journal = sweep / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    found = next(n for n, line in enumerate(lines) if b'"trial_epoch"' in line)
    journal.write_bytes(b"".join([*lines[:found], b"#" * 20 + b"\n", *lines[found + 1 :]]))
    code, out, err = look(sweep)
    assert (code, shown(out)[0]) == (0, 1)
    assert f"{sweep}: 1 event of its journal cannot be read" in err
    assert f"{sweep}: line {found + 1} of the journal is left out: it is damaged" in err
    assert json.loads(look(sweep, "--json")[1].splitlines()[-1])["sweeps"][0]["missing_events"] == 1


def test_damage_of_any_kind_ends_in_a_sentence(sweep: Path, look: Any, tmp_path: Path) -> None:
    """Bytes of a journal and of a table overwritten, cut off and repeated at random."""
    fate = random.Random(0)
    parquet.write(find([str(sweep)])[0][0].table, tmp_path / "leaderboard.parquet")
    (tmp_path / "j").mkdir()
    for source, target in (
        (sweep / "journal.jsonl", tmp_path / "j" / "journal.jsonl"),
        (tmp_path / "leaderboard.parquet", tmp_path / "t.parquet"),
    ):
        whole = source.read_bytes()
        for _ in range(40):
            content = bytearray(whole)
            for _ in range(fate.randint(1, 5)):
                at = fate.randrange(len(content))
                content[at : at + fate.randint(1, 30)] = fate.randbytes(fate.randint(0, 30))
            target.write_bytes(content[: fate.choice([len(content), fate.randrange(len(content))])])
            code, _, _ = look(target if target.suffix == ".parquet" else target.parent)
            assert code in (0, 2)


def test_the_tables_of_many_trials_are_written_in_few_pieces(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "long", *(trial(number, [0.5, 0.6]) for number in range(600)))
    state = find([str(folder)])[0][0].state
    assert state is not None
    tables.write_all(state, SweepFolder(folder), None)
    history, board = pq.ParquetFile(folder / "history.parquet"), pq.read_table(folder / "leaderboard.parquet")
    assert history.metadata.num_rows == 1_200
    assert history.num_row_groups <= 2, "each costs 40 kB of memory while it is written, and 5 kB of the file"
    assert history.read()["trial"].to_pylist() == [number for number in range(600) for _ in range(2)]
    assert board["rank"].to_pylist() == list(range(1, 601))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to show"),
        (("x", "--top", "0"), "--top 0"),
        (("x", "--export", "a.xlsx"), ".csv, .md, .json, .parquet"),
        (("x", "--export", "/nowhere/a.csv"), "no folder"),
        (("x", "--data-dir", "."), "--replay"),
        (("x", "--replay", "1", "--top", "3"), "leave --top out"),
        (("x", "--compare", "--where", "True"), "leave --where out"),
    ],
)
def test_wrong_options_are_named(look: Any, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = look(*arguments)
    assert code == 2
    assert said in err


# export


def test_files_hold_the_selected_trials(sweep: Path, look: Any, tmp_path: Path) -> None:
    for suffix in ("csv", "md", "json", "parquet"):
        done = look(sweep, "--where", "status == 'completed'", "--export", tmp_path / f"a.{suffix}")
        assert done[0] == 0, done
    with_csv = pd.read_csv(tmp_path / "a.csv")
    rows = json.loads((tmp_path / "a.json").read_text())
    again = pq.read_table(tmp_path / "a.parquet")
    assert with_csv["trial"].tolist() == [row["trial"] for row in rows] == again["trial"].to_pylist() == [1, 5, 0]
    assert with_csv["best_epoch"].dtype == int
    assert rows[0]["started_at"].endswith("Z")
    assert (tmp_path / "a.md").read_text().count("\n") == 5
    assert look(tmp_path / "a.parquet")[0] == 0


def test_an_optuna_storage_has_the_studies_that_the_sweeps_had(sweep: Path, look: Any, tmp_path: Path) -> None:
    write_sweep(sweep.parent / "two", trial(0, [0.99]))
    url = f"sqlite:///{tmp_path}/sweeps.db"
    code, _, err = look(sweep.parent, "--export", url)
    assert code == 0, err
    assert sorted(optuna.get_all_study_names(url)) == ["one", "two"]
    study = optuna.load_study(study_name="one", storage=url)
    states = [one.state for one in study.trials]
    C, P, F = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL  # noqa: N806
    assert states == [C, C, P, P, F, C]  # without the one that runs; what diverged is infeasible
    assert study.best_trial.user_attrs["trial"] == 1
    assert study.best_trial.intermediate_values == {1: 0.6, 2: 0.9, 3: 0.95}
    assert study.best_trial.params["lr"] == 0.2
    assert study.trials[2].user_attrs["stop_reason"] == "asha"
    code, _, err = look(sweep, "--export", url)
    assert code == 2
    assert "there is a study one already" in err
    assert "delete-study" in err


@pytest.mark.parametrize("url", ["sqlite:////nowhere/a.db", "postgresql://nobody/a", "nonsense://a"])
def test_a_storage_that_cannot_be_used_is_reported(sweep: Path, look: Any, url: str) -> None:
    code, _, err = look(sweep, "--export", url)
    assert code == 2
    assert url in err


# comparison


def test_two_sweeps_are_compared_by_what_was_asked_and_what_came_out(sweep: Path, look: Any) -> None:
    other = write_sweep(sweep.parent / "two", trial(0, [0.97]), set=(("optimizer=adamw",),), seed=3)
    code, out, _ = look(sweep, other, "--compare", "--json")
    found = json.loads(out)["compare"]
    assert code == 0
    changes = {change["setting"]: (change["first"], change["second"]) for change in found["changes"]}
    assert changes["optimizer"] == ("sgd", "adamw")
    assert changes["seed"] == ("0", "3")
    assert [outcome["score"] for outcome in found["outcomes"]] == [0.95, 0.97]
    assert found["same_validation_set"]
    assert changes.keys() <= {"optimizer", "seed", *FIELDS}
    code, out, _ = look(sweep, other, "--compare")
    assert "the same validation set" in out
    assert "adamw" in out
    assert look(sweep, "--compare")[0] == 2


def test_what_is_compared_has_the_name_of_an_option(sweep: Path) -> None:
    """What follows from options is left out: `rounds` is known to nobody who gives --trials."""
    (board,), _ = find([str(sweep)])
    options = {field.name for field in fields(SweepOptions)} | {"slots at the start"}
    for name in vars(board.plan):
        assert name in (*sweep_diff.ELSEWHERE, *sweep_diff.DERIVED) or sweep_diff.OPTIONS.get(name, name) in options


# what labels are worth


def point(fraction: float, score: float | None, status: str = "completed") -> Point:
    return Point(None, status, score, fraction, labels=round(1000 * fraction), train_s=10 * fraction)


def test_the_curve_is_of_trials_at_full_budget_and_counts_the_others() -> None:
    points = [point(f / 100, f / 200) for f in range(10, 100, 3)]
    points += [point(0.11, 0.01, "stopped"), point(0.99, 0.02, "stopped"), point(0.5, None, "diverged")]
    bins = curve(points, "val_accuracy")
    assert len(bins) == 5
    assert [one.completed for one in bins] == [6] * 5
    assert sum(one.trials for one in bins) == 32
    assert bins[0].trials == bins[-1].trials == 7
    assert [one.best for one in bins] == sorted(one.best for one in bins)
    assert bins[0].median == pytest.approx((16 + 19) / 400)
    assert bins[0].labels == pytest.approx(175, abs=1)
    assert bins[-1].high == 0.99


def test_few_fractions_have_a_bin_each_and_one_has_no_curve() -> None:
    points = [point(fraction, 0.5) for fraction in (0.1, 0.5, 1.0) for _ in range(9)]
    assert [(one.low, one.high, one.completed) for one in curve(points, "val_accuracy")] == [
        (0.1, 0.1, 9), (0.5, 0.5, 9), (1.0, 1.0, 9),
    ]  # fmt: skip
    assert curve([point(1.0, 0.5), point(1.0, 0.6), point(0.5, 0.4, "stopped")], "val_accuracy") == []
    assert curve([], "val_accuracy") == []


def test_smaller_is_better_where_the_metric_says_so() -> None:
    assert [one.best for one in curve([point(0.1, 3.0), point(0.1, 2.0), point(0.9, 1.0)], "val_loss")] == [2.0, 1.0]


def test_the_curve_is_shown_where_the_fraction_is_searched(sweep: Path, look: Any) -> None:
    assert "what labels are worth" in look(sweep)[1]
    fixed = write_sweep(sweep.parent / "fixed", trial(0, [0.9]), trial(1, [0.8]), set=(("train_fraction=1",),))
    assert "what labels are worth" not in look(fixed)[1]
