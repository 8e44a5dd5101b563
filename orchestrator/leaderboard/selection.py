"""The selection from one or more leaderboards: rows by `--where`, their order by `--sort`, columns by `--columns`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.leaderboard.boards import Board
from orchestrator.leaderboard.expression import Expression
from trainables.config import FIELDS, SYNONYMS
from trainables.epoch_metrics import METRICS, direction_of
from trainables.epoch_metrics import column as metric_column
from trainables.errors import ConfigError, did_you_mean, listed

OF_THE_PLAN = ("seed", "threads")  # fields that every trial has of its own, or from the plan
OF_A_FIELD = "config."  # before the names of the columns of fields
ORDERS = {"asc": "ascending", "desc": "descending"}


def select(boards: Sequence[Board], condition: str | None, sort: str | None) -> pa.Table:
    """Return the trials of all `boards` for which `condition` holds, in the order of `sort`, by default that of rank.

    Raises:
        ConfigError: there is no such column or order, or the condition cannot be parsed.
    """
    table, metric = merged(boards), boards[0].metric
    if condition is not None:
        table = where(table, condition)
    if sort is None and len(boards) > 1 and comparable(boards):
        sort = "score"
    return table if sort is None else ordered(table, sort, metric)


def settings(boards: Sequence[Board]) -> list[str]:
    """Return the columns of the settings in which the sweeps differ, and of those that any of them searches."""
    spaces = [space for board in boards for space in board.plan.arms.values()]
    searched = dict.fromkeys(name for space in spaces for name in space.distributions)
    fixed = (name for name in FIELDS if name not in OF_THE_PLAN and name not in searched)
    differing = [name for name in fixed if len({space.describe(name) for space in spaces}) > 1]
    return [f"config.{name}" for name in (*(differing if len(boards) > 1 else ()), *searched)]


def weighed(boards: Sequence[Board]) -> list[str]:
    """Return the columns of the aims beside the metric, and of what constraints bound."""
    plans = [board.plan for board in boards]
    aims = [aim.name for plan in plans for aim in plan.aims]
    return list(dict.fromkeys([*aims, *(bound.name for plan in plans for bound in plan.constraints)]))


def sweeps(boards: Sequence[Board], table: pa.Table) -> list[str]:
    """Return the sweep's name for every row of `table`, a selection from `boards`."""
    return list(table["sweep"].to_pylist()) if "sweep" in table.column_names else [boards[0].name] * len(table)


def merged(boards: Sequence[Board]) -> pa.Table:
    """Return one table of all `boards`; the first column is `sweep` where there are several."""
    if len(boards) == 1:
        return boards[0].table
    tables = [board.table.add_column(0, "sweep", pa.array([board.name] * len(board.table))) for board in boards]
    return pa.concat_tables([table.replace_schema_metadata() for table in tables], promote_options="default")


def comparable(boards: Sequence[Board]) -> bool:
    """Return whether all scores are of the same rows and the same metric."""
    return len({board.validation for board in boards}) == 1


def column(name: str, table: pa.Table) -> str:
    """Return the column that `name` stands for: `lr` is short for `config.lr`.

    Raises:
        ConfigError: there is no such column.
    """
    for candidate in (name, f"{OF_A_FIELD}{name}"):
        if candidate in table.column_names:
            return candidate
    fields = [n.removeprefix(OF_A_FIELD) for n in table.column_names if n.startswith(OF_A_FIELD)]
    others = [n for n in table.column_names if not n.startswith(OF_A_FIELD)]
    meant = SYNONYMS.get(name.removeprefix(OF_A_FIELD), name)
    nearest = did_you_mean(meant, [*table.column_names, *fields])
    raise ConfigError(
        f"{name}: there is no such column{nearest} (columns: all fields of docs/fields.md, such as lr; "
        f"{listed(others)}; see docs/formats.md)"
    )


def where(table: pa.Table, text: str) -> pa.Table:
    """Return the rows for which the expression `text` holds; it sees times as text, such as '2026-01-02T03:04:05'."""
    condition = Expression(text, lambda name: column(name, table))
    names = sorted(condition.columns)
    rows = with_texts(table.select(names)).to_pylist() if names else [{}] * len(table)
    return table.filter(pa.array([condition(row) for row in rows], pa.bool_()))


def without_values(table: pa.Table, text: str) -> list[str]:
    """Return the columns of the expression `text` in which no row has a value."""
    names = sorted(Expression(text, lambda name: column(name, table)).columns)
    return [name for name in names if table[name].null_count == len(table)]


def ordered(table: pa.Table, sort: str, metric: str) -> pa.Table:
    """Sort `table` by `COLUMN[:asc|desc]`, nulls last; by default the better scores and metrics come first.

    Raises:
        ConfigError: there is no such column or order.
    """
    name, _, order = sort.partition(":")
    name = column(name, table)
    if order and order not in ORDERS:
        raise ConfigError(f"--sort {sort}: allowed are COLUMN, COLUMN:asc and COLUMN:desc")
    of_score = name in ("score", "confirmed", metric_column(metric))
    better = direction_of(metric) if of_score else METRICS.get(name, "min")
    keys = [(name, ORDERS[order or {"max": "desc", "min": "asc"}[better]])]
    keys += [(other, "ascending") for other in ("sweep", "trial") if other in table.column_names and other != name]
    return table.take(pc.sort_indices(table, sort_keys=keys))


def chosen(table: pa.Table, names: str) -> pa.Table:
    """Return the columns of `table` that `names` lists, separated by commas."""
    return table.select(list(dict.fromkeys(column(name.strip(), table) for name in names.split(","))))


def with_texts(table: pa.Table) -> pa.Table:
    """Return `table` with times as text, in UTC."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(i, field.name, pc.strftime(table[field.name], format="%Y-%m-%dT%H:%M:%SZ"))
    return table
