"""Leaderboards for other programs: a table as a file, a sweep as a study in an Optuna storage."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.cluster.process_state import optuna_quiet
from orchestrator.leaderboard.boards import Board
from orchestrator.leaderboard.selection import with_texts
from orchestrator.record import parquet
from trainables.errors import ConfigError, InputError
from trainables.files import replace_file

FORMATS = (".csv", ".md", ".json", ".parquet")


def check(target: str) -> list[str]:
    """Return a message for each reason why nothing can be exported to `target`; called before anything is read."""
    if is_url(target):
        return []
    path = Path(target).expanduser()
    if path.suffix not in FORMATS:
        allowed = f"a file that ends in one of {', '.join(FORMATS)}, or the URL of an Optuna storage"
        return [f"--export {target}: give {allowed} such as sqlite:///file.db"]
    if not path.absolute().parent.is_dir():
        return [f"--export {target}: there is no folder {path.parent}; create it first"]
    return []


def is_url(target: str) -> bool:
    return "://" in target


def to_file(table: pa.Table, path: Path) -> None:
    """Write `table` in the format that the file's suffix names, completely or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    if path.suffix == ".parquet":
        parquet.write(table, path)
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
    """Return the pandas type that keeps whole numbers and booleans as they are where some values are missing."""
    import pandas as pd

    return {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get(kind)


def _markdown(names: list[str], rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
        return " ".join(text.split()).replace("|", "\\|")

    lines = [names, ["---"] * len(names), *([cell(row[name]) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@optuna_quiet()
def to_optuna(
    boards: Sequence[Board], trials: Sequence[tuple[str, int]], url: str, report: Callable[[str, int, int], None]
) -> list[str]:
    """Write a study per sweep, for a recipe one per arm, with those of `trials` that have ended; return their names.

    States, searched values and scores at every epoch are those that the sweep's study had, as with `--log optuna`.

    Args:
        trials: (sweep, number).
        report: called with the name of the step, the number of trials written and the number of all.

    Raises:
        ConfigError: a sweep has no journal, a study of that name exists, or the storage cannot be used.
    """
    tables = [board.place for board in boards if board.state is None]
    if tables:
        fix = "a study needs the journal: give the sweep's folder"
        raise ConfigError(*[f"--export {url}: {place} is a leaderboard alone; {fix}" for place in tables])
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    from orchestrator.loggers.optuna import OptunaStorage, study_name

    states = {board.name: board.state for board in boards if board.state is not None}
    selected = [(sweep, states[sweep].trials[number]) for sweep, number in sorted(trials)]
    ended = [(sweep, trial) for sweep, trial in selected if trial.end is not None and not trial.final]
    names = list(dict.fromkeys(study_name(sweep, trial.arm) for sweep, trial in ended))
    try:
        existing = set(optuna.get_all_study_names(optuna.storages.get_storage(url))) & set(names)
        if existing:
            delete = f"optuna delete-study --storage {url} --study-name"
            fix = f"export to another database, or delete the study for all who use the database: {delete}"
            raise ConfigError(
                *[f"--export {url}: there is a study {name} already; {fix} {name}" for name in sorted(existing)]
            )
        storages = {sweep: OptunaStorage(Path(sweep), state, url) for sweep, state in states.items()}
        for done, (sweep, trial) in enumerate(ended, start=1):
            storages[sweep].update(trial)
            report("exporting", done, len(ended))
    except InputError:
        raise
    except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.OptunaError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"--export {url}: the storage cannot be used: {reason}") from error
    return names
