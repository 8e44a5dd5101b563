"""Leaderboards for other programs: a table as a file, a sweep as a study in an Optuna storage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from orchestrator import tables
from orchestrator.boards import Board
from orchestrator.selection import with_texts
from orchestrator.state import TrialRecord
from trainables.config import ConfigError
from trainables.files import replace_file

if TYPE_CHECKING:
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

FORMATS = (".csv", ".md", ".json", ".parquet")
TOLD = ("status", "stop_reason", "best_epoch", "epochs", "train_rows", "train_s", "eval_s", "device", "seed", "error")
"""Columns of the leaderboard that become user attributes of an Optuna trial."""


def check(target: str) -> list[str]:
    """A sentence for each reason why nothing can be exported to `target`, before anything is read."""
    if is_url(target):
        return []
    path = Path(target).expanduser()
    if path.suffix not in FORMATS:
        kinds = f"a file that ends in {', '.join(FORMATS)}, or the URL of an Optuna storage such as sqlite:///file.db"
        return [f"--export {target}: allowed are {kinds}"]
    if not path.absolute().parent.is_dir():
        return [f"--export {target}: there is no folder {path.parent}; make it first"]
    return []


def is_url(target: str) -> bool:
    return "://" in target


def to_file(table: pa.Table, path: Path) -> None:
    """`table` in the format that the file's suffix names, whole or not at all; raises OSError."""
    if path.suffix == ".parquet":
        tables.write(table, path)
        return
    rows = with_texts(table).to_pylist()
    if path.suffix == ".json":
        content = json.dumps(rows, indent=1)
    elif path.suffix == ".md":
        content = _markdown(table.column_names, rows)
    else:
        content = with_texts(table).to_pandas(types_mapper=_nullable).to_csv(index=False)
    replace_file(path, content.encode())


def _nullable(kind: pa.DataType) -> Any:
    """Whole numbers stay whole where some are missing."""
    import pandas as pd

    return {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get(kind)


def _markdown(names: list[str], rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
        return " ".join(text.split()).replace("|", "\\|")

    lines = [names, ["---"] * len(names), *([cell(row[name]) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_optuna(boards: Sequence[Board], trials: Sequence[tuple[str, int]], url: str) -> list[str]:
    """A study of every sweep, and of a recipe of every arm, that has some of `trials`; the names of the studies.

    States, searched values and scores at every epoch are those that the sweep's own study had; runs that confirm a
    trial, or of which nothing is searched, are in none.

    Args:
        trials: (sweep, number).

    Raises:
        ConfigError: a sweep has no journal, a study of that name is there, or the storage cannot be used.
    """
    lone = [board.place for board in boards if board.state is None]
    if lone:
        raise ConfigError(
            [f"--export {url}: {place} is a table alone; give the sweep's folder, for its journal" for place in lone]
        )
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wanted = set(trials)
    studies = [study for board in boards for study in _studies(board, wanted) if study[2]]
    names = [name for name, _, _ in studies]
    try:
        storage = optuna.storages.get_storage(url)
        there = set(optuna.get_all_study_names(storage)) & set(names)
        if there:
            mend = f"export to another database, or remove it: optuna delete-study --storage {url} --study-name"
            raise ConfigError(
                [f"--export {url}: there is a study {name} already; {mend} {name}" for name in sorted(there)]
            )
        for name, direction, frozen in studies:
            optuna.create_study(storage=storage, study_name=name, direction=direction).add_trials(frozen)
    except ConfigError:
        raise
    except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.OptunaError) as error:
        said = str(error).strip().splitlines()[0]
        raise ConfigError([f"--export {url}: the storage cannot be used: {said}"]) from error
    return names


def _studies(board: Board, wanted: set[tuple[str, int]]) -> Iterator[tuple[str, StudyDirection, list[FrozenTrial]]]:
    """Name, direction and trials of each arm's study: told what the journal says, as in the sweep itself."""
    from orchestrator.study import JournalStudy

    assert board.state is not None  # noqa: S101 - the caller has seen it
    planned, rows = board.plan, {row["trial"]: row for row in board.table.select(["trial", *TOLD]).to_pylist()}
    followed = {arm: JournalStudy(space, "random", 0, arm) for arm, space in planned.arms.items()}
    for event in board.events:
        for study in followed.values():
            study.observe(event)
    for arm, study in followed.items():
        own = [trial for trial in board.state.trials.values() if trial.arm == arm and not trial.final]
        pairs = zip(own, study.study.get_trials(deepcopy=False), strict=True)
        frozen = [
            _told(frozen, trial, rows[trial.number]) for trial, frozen in pairs if (board.name, trial.number) in wanted
        ]
        yield f"{board.name}/{arm}" if arm else board.name, study.study.direction, frozen


def _told(frozen: FrozenTrial, trial: TrialRecord, row: dict[str, Any]) -> FrozenTrial:
    """`frozen` with what the leaderboard says of it, at the times that the trial had."""
    from datetime import UTC, datetime

    from optuna.trial import TrialState

    for name, value in {"trial": trial.number, "score": trial.score, **row}.items():
        if value is not None:
            frozen.set_user_attr(name, value)
    started, ended = (
        datetime.fromtimestamp(at, UTC).astimezone().replace(tzinfo=None) if at else None
        for at in (trial.started_at or trial.proposed_at, trial.ended_at)
    )
    frozen.datetime_start = started
    if frozen.state.is_finished():
        frozen.datetime_complete = ended or started
    elif trial.status == "interrupted":  # nothing goes on with it in the copy
        frozen.state, frozen.datetime_complete = TrialState.FAIL, started
    return frozen
