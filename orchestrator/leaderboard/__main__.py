"""The leaderboard command: shows, merges, filters, compares and exports sweeps, or runs a trial again from its record.

    python -m orchestrator.leaderboard results/NAME

The main path is `look`. A sweep that runs can be looked at: nothing of it is changed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from trainables.command_line import DONE, FAILED, INTERRUPTED, Flag, complain, flag_of, option, parse, show, write
from trainables.errors import ConfigError, InputError, counted

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.leaderboard.boards import Board

SHOWN = 10  # trials, unless --top says otherwise
NEEDED = {"front": "--also", "feasible": "--constraint"}
"""Columns that are empty without an option, and the option."""


@dataclass(frozen=True)
class LeaderboardOptions:
    """Show, filter, merge, compare and export the leaderboards of sweeps, or run one of their trials again.

    Exit codes:
      0    done
      1    the replayed trial differs from its record
      2    the command was wrong
      130  interrupted

    Examples:
      python -m orchestrator.leaderboard results/NAME --top 20
      python -m orchestrator.leaderboard results --where "config.model == 'resnet18' and lr < 0.1" --sort val_f1
      python -m orchestrator.leaderboard results/ONE results/OTHER --compare
      python -m orchestrator.leaderboard s3://bucket/results --export sqlite:///sweeps.db
      python -m orchestrator.leaderboard results/NAME --replay 7
    """

    paths: Annotated[
        tuple[str, ...],
        Positional,
        option(
            "PATH…",
            "Folders of sweeps, folders that hold such folders, or leaderboard.parquet files, on this machine or in a "
            "bucket, s3://BUCKET/PATH.",
        ),
    ]
    top: Annotated[int | None, option("N")] = None
    """Show or export only the first N trials. Default: the first 10 are shown, and all are exported."""
    sort: Annotated[
        str | None,
        option(
            "COLUMN[:asc|desc]",
            "Sort by this column. Default: rank; for several sweeps the score, if all trials were scored on the same "
            "rows.",
        ),
    ] = None
    where: Annotated[str | None, option("EXPRESSION")] = None
    """Only trials for which this is true, e.g. "status == 'completed' and lr < 0.1 and model in ('a', 'b')"."""
    columns: Annotated[str | None, option("A,B,…")] = None
    """Show or export only these columns. Default: fields that are searched or differ are shown, all are exported."""
    compare: Flag = False
    """Compare two sweeps: the options in which they differ, and their scores."""
    export: Annotated[str | None, option("FILE|URL")] = None
    """Write the trials to a .csv, .md, .json or .parquet file, or to an Optuna storage, e.g. sqlite:///sweeps.db."""
    replay: Annotated[int | None, option("TRIAL")] = None
    """Run this trial again from its record, in this process, and compare it with its history epoch by epoch."""
    data_dir: Annotated[Path | None, option("DIR")] = None
    """With --replay: folder of the data set's files. Default: the folder that the sweep used."""
    trust: Annotated[str | None, option("MODULE:FUNCTION,…")] = None
    """With --replay: code of the trial's model or metric, if not built in; of both with a comma between them. It runs
    only if it is named here."""
    json: Flag = False
    """Print the result as one JSON object on the last line of standard output."""


def look(options: LeaderboardOptions) -> int:
    """Do what the options ask for, and return the exit code.

    Raises:
        ConfigError, RecordError, DatasetError: saying what is wrong.
    """
    if problems := _problems(options):
        raise ConfigError(*problems)
    from orchestrator.leaderboard import boards, selection
    from orchestrator.record.journal_lines import losses

    found, skipped = boards.find(options.paths)
    for sentence in skipped:
        show(f"skipped: {sentence}")
    for board in found:
        if lost := board.missing:
            verb = "is" if lost == 1 else "are"
            show(f"{board.place}: {counted(lost, 'event')} of its journal cannot be read and {verb} left out")
        for sentence in losses(board.damage):
            show(f"{board.place}: {sentence}")
    if options.replay is not None:
        return _replay(found, options)
    if options.compare:
        return _compare(found, options)
    table = selection.select(found, options.where, options.sort)
    if options.where is not None and not len(table):
        _explain(selection.without_values(selection.merged(found), options.where))
    if options.export is not None:
        _export(found, table, options)
    if options.json:
        _print_json(_described(found, skipped, table, options))
    elif options.export is None:
        _show(found, table, options)
    return DONE


def _explain(empty: Sequence[str]) -> None:
    """Show which columns of `--where` have no values at all, where no trial is selected."""
    for name in empty:
        needed = f": the sweep had no {NEEDED[name]}" if name in NEEDED else ""
        show(f"{name} is empty in all trials{needed}")


def _problems(options: LeaderboardOptions) -> list[str]:
    """Return a message for each thing that is wrong with the options alone."""
    from orchestrator.leaderboard import export

    problems = []
    if not options.paths:
        problems.append("nothing to show: give a sweep's folder, a folder of sweeps, or a leaderboard.parquet")
    if options.top is not None and options.top < 1:
        problems.append(f"--top {options.top}: at least 1 is needed")
    if options.export is not None:
        problems += export.check(options.export)
        if options.columns is not None and export.is_url(options.export):
            problems.append("--columns: an Optuna study has its own; leave it out")
    for name in ("data_dir", "trust"):
        if getattr(options, name) is not None and options.replay is None:
            problems.append(f"{flag_of(name)} belongs to --replay TRIAL")
    if options.data_dir is not None and not options.data_dir.expanduser().is_dir():
        problems.append(f"--data-dir {options.data_dir}: there is no such folder")
    for name in ("compare", "replay"):
        given = getattr(options, name)
        others = ("top", "sort", "where", "columns", "export", *(("compare",) if name == "replay" else ()))
        if given is not False and given is not None:
            beside = [f"--{other}" for other in others if getattr(options, other)]
            problems += [f"--{name} shows no list of trials: leave {', '.join(beside)} out"] if beside else []
    return problems


def _export(found: Sequence[Board], table: pa.Table, options: LeaderboardOptions) -> None:
    """Write the selected trials for other programs."""
    from orchestrator.display import progress
    from orchestrator.leaderboard import export, selection

    target, rows = str(options.export), _first(table, options.top)
    if export.is_url(target):
        trials = zip(selection.sweeps(found, rows), rows["trial"].to_pylist(), strict=True)
        with progress.decoding(progress.console()) as report:
            studies = export.to_optuna(found, list(trials), target, report)
        show(f"in {target}: {', '.join(studies) or 'no study, as nothing is searched in these trials'}")
        return
    columns = rows if options.columns is None else selection.chosen(rows, options.columns)
    export.to_file(columns, Path(target).expanduser())
    show(f"in {target}: {counted(len(rows), 'trial')}, {counted(columns.num_columns, 'column')}")


def _show(found: Sequence[Board], table: pa.Table, options: LeaderboardOptions) -> None:
    """Show the first trials and totals, and of a single sweep what is special to it."""
    from orchestrator.assessment.comparison import compare
    from orchestrator.display import aims, summary
    from orchestrator.leaderboard import selection, view

    console, first = view.console(), _first(table, options.top or SHOWN)
    if options.columns is not None:
        view.show_rows(selection.chosen(first, options.columns).to_pylist(), console, all_columns=True)
    else:
        view.show_trials(first.to_pylist(), [*selection.weighed(found), *selection.settings(found)], console)
    view.show_counts(found, table, len(first), console)
    if len(found) > 1:
        return
    board = found[0]
    if board.plan.recipe is not None and board.state is not None:
        summary.show_comparison(compare(board.state, board.plan), console)
    if board.state is not None and not board.long:
        aims.show_front(board.state, board.plan, console)
        if line := aims.unmet(board.state):
            console.print(line, soft_wrap=True)
    if board.plan.confirm and board.long:
        view.show_winner(board.table, console)
    elif board.plan.confirm and board.state is not None:
        summary.show_confirmation(board.confirmation, console, board.kept)
    for arm, bins in board.curves(table).items():
        view.show_curve(arm, bins, console)


def _described(
    found: Sequence[Board], skipped: Sequence[str], table: pa.Table, options: LeaderboardOptions
) -> dict[str, Any]:
    """Return plain JSON values, as `--json` prints them."""
    from orchestrator.leaderboard import selection

    first = _first(table, options.top)
    rows = first if options.columns is None else selection.chosen(first, options.columns)
    return {
        "sweeps": [
            {
                "sweep": board.name,
                "place": board.place,
                "metric": board.metric,
                "trials": board.counts(),
                "missing_events": board.missing,
                "train_fraction": {
                    arm: [asdict(one) for one in bins] for arm, bins in board.curves(board.table).items()
                },
            }
            for board in found
        ],
        "skipped": list(skipped),
        "comparable": selection.comparable(found),
        "selected": len(table),
        "trials": selection.with_texts(rows).to_pylist(),
        "export": options.export,
    }


def _replay(found: Sequence[Board], options: LeaderboardOptions) -> int:
    """Run a trial again, and return whether its results are those on record."""
    from orchestrator.leaderboard import rerun

    if len(found) > 1:
        raise ConfigError(f"--replay {options.replay}: give one sweep, not {len(found)}")
    tell = show if options.json else _tell
    data_dir = options.data_dir and options.data_dir.expanduser()
    done = rerun.replay(found[0], int(options.replay or 0), data_dir, options.trust, tell)
    for sentence in done.verdict():
        tell(sentence)
    if options.json:
        _print_json({"replay": done.to_dict()})
    return DONE if done.sound else FAILED


def _compare(found: Sequence[Board], options: LeaderboardOptions) -> int:
    """Show the differences between two sweeps."""
    from orchestrator.leaderboard import sweep_diff, view

    if len(found) != 2:
        raise ConfigError(f"--compare: give two sweeps, not {len(found)}")
    done = sweep_diff.diff(*found)
    if options.json:
        _print_json({"compare": done.to_dict()})
    else:
        view.show_diff(done, view.console())
    return DONE


def _first(table: pa.Table, count: int | None) -> pa.Table:
    return table if count is None else table.slice(0, count)


def _print_json(content: dict[str, Any]) -> None:
    write(json.dumps(content) + "\n")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = parse(LeaderboardOptions, "python -m orchestrator.leaderboard", arguments, least={"top": 1})
    try:
        return look(options)
    except InputError as error:
        return complain(error.problems)
    except OSError as error:
        return complain([str(error)])
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
