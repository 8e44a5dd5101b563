"""The end of a sweep on the terminal: its leaderboard, its confirmation, its files."""

from __future__ import annotations

import itertools
import shlex
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.assessment import baseline
from orchestrator.assessment.comparison import Comparison, compare
from orchestrator.assessment.confirmation import Confirmation, TestScores
from orchestrator.assessment.ensemble import LEVEL, Ensemble, refit_result
from orchestrator.assessment.rung_trust import rung_trust
from orchestrator.bundle import bundle
from orchestrator.bundle.documents import CONFIRMED, ENSEMBLE, KINDS, REFIT
from orchestrator.display.aims import show_front, unmet
from orchestrator.display.text import SHOWN, between, counted, failures, python, resume_command, short
from orchestrator.plan.plan import Plan
from orchestrator.record.paths import (
    BUNDLE,
    COMPARISON_PAGE,
    CONFIRMATION,
    HISTORY,
    LEADERBOARD,
    REPORT,
    SweepFolder,
)
from orchestrator.record.ranking import count_statuses, ranked, slot_use
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.record.supply import Supply
from trainables.model_names import is_user_model

FILES = {
    LEADERBOARD: "one row per trial",
    HISTORY: "one row per epoch",
    COMPARISON_PAGE: "arms and metrics",
    CONFIRMATION: "one row per confirmation run",
    BUNDLE: "a model to use",
    REPORT: "all results, to look at in a browser",
}


UNSEEN = "which were scored on rows that they did not train on"
TOP = 10  # trials shown at the end
FIXED_WIDTH = 36  # columns of trial, status, epoch and score


def trials_table(trials: list[TrialRecord], searched: list[str], width: int) -> Table:
    """Return a table with one row per trial and as many of its searched settings as `width` columns hold."""
    needed = (2 + max(len(name), *(len(short(t.config.get(name))) for t in trials), 0) for name in searched)
    ends = itertools.accumulate(needed, initial=FIXED_WIDTH)
    next(ends)
    searched = [name for name, end in zip(searched, ends, strict=True) if end <= width]
    table = Table(box=None, header_style="bold", padding=(0, 1))
    arms = any(trial.arm for trial in trials)
    for name, width in (("trial", 5), *([("arm", 0)] if arms else []), ("status", 11), ("epoch", 5), ("score", 6)):
        table.add_column(name, justify="left" if name in ("arm", "status") else "right", min_width=width)
    for name in searched:
        table.add_column(name, no_wrap=True)
    for trial in trials:
        score = "" if trial.score is None else f"{trial.score:.4f}"
        again = "" if trial.confirms is None else f", {trial.confirms} again"
        status = Text(f"{trial.status}{again}", style=SHOWN.get(trial.status, ""))
        epoch = f"{trial.last_epoch}/{trial.config['max_epochs']}"
        arm = [trial.arm] if arms else []
        table.add_row(str(trial.number), *arm, status, epoch, score, *(_setting(trial, name) for name in searched))
    return table


def _setting(trial: TrialRecord, name: str) -> str:
    """Return a searched setting as text; a dash if the trial's other settings left nothing to search."""
    return "–" if trial.params and name not in trial.params else short(trial.config.get(name))


def show_end(
    state: SweepState, planned: Plan, confirmed: Confirmation | None, files: SweepFolder, target: Console
) -> None:
    """Show the top ten or a recipe's comparison, where the files are, and the next command."""
    if state.ended == "signal":
        target.print("interrupted: what has ended is kept, and the command below goes on with the rest")
    if planned.recipe is not None:
        show_comparison(compare(state, planned), target)
    else:
        best = [trial for trial in ranked(state) if trial.confirms is None][:TOP]
        target.print(trials_table(best, list(planned.space.distributions), target.width))
        if beside := baseline.text(state.spec.split, planned.space.base.metric):
            target.print(f" {beside}")
        show_front(state, planned, target)
    if line := unmet(state):
        target.print(line, style="yellow", soft_wrap=True)
    if planned.confirm:
        target.print()
        kind = bundle.kind(files.bundle)
        show_confirmation(confirmed, target, kind)
        if planned.refit and confirmed is not None and kind == CONFIRMED:
            target.print(
                "there is no refit: it was not completed, or learned far less than the winner's runs; the model in "
                f"best/ is trial {confirmed.model.number}, which did not train on the validation set",
                soft_wrap=True,
            )
    target.print()
    use = slot_use(state)
    ended = ", ".join(f"{n} {status}" for status, n in count_statuses(state).items())
    target.print(f"{ended}; slots spent {use or 0:.0%} of their time in training and evaluation")
    if (rungs := rung_trust(state, planned)) is not None:
        target.print(str(rungs), soft_wrap=True)
    if supply := supply_line(state.supply):
        target.print(supply, soft_wrap=True)
    for line in failures(state):
        target.print(line, soft_wrap=True)
    for name, what in FILES.items():
        if (files.path / name).exists():
            whose = f": {KINDS[known]}" if name == BUNDLE and (known := bundle.kind(files.bundle)) in KINDS else ""
            target.print(f"  {files.path / name}  {what}{whose}", soft_wrap=True)
    following = shlex.join([python(), "-m", "orchestrator.leaderboard", str(files.path)])
    if state.ended in ("signal", "sweep_budget") or state.owed:
        following = resume_command(files)
    target.print(f"next: {following}", soft_wrap=True)
    if files.bundle.exists():
        labelling = shlex.join([python(), "-m", "orchestrator.predict", str(files.bundle)])
        model = bundle.model_name(files.bundle)
        trust = f" --trust {model}" if model is not None and is_user_model(model) else ""
        target.print(f"      {labelling} IMAGE …{trust}", soft_wrap=True)


def supply_line(supply: Supply) -> str:
    """Return what a sweep had of a cluster and asked it for; nothing of a local sweep."""
    if not supply.asked_s and not supply.node_s:
        return ""
    had, asked = f"{supply.node_s / 3600:.2f} node-hours", f"{supply.asked_s / 3600:.2f}"
    return f"machines: {had}; {supply.slot_s / 3600:.2f} slot-hours there, {asked} asked for"


def show_confirmation(confirmed: Confirmation | None, target: Console, kind: str | None = None) -> None:
    """Show the confirmed trials, how sure their means are, the winner's test scores, and which model is kept.

    Args:
        kind: of the model in the bundle, one of `documents.KINDS`.
    """
    if confirmed is None:
        target.print("not confirmed: not all runs of the best trials have ended")
        return
    winner = confirmed.winner.trial.number
    if confirmed.worth is not None:
        target.print(str(confirmed.worth), soft_wrap=True)
    table = Table(box=None, header_style="bold", padding=(0, 1), title_justify="left")
    for name in ("trial", "runs", "search", "confirmed", f"{LEVEL:.0%} interval", ""):
        table.add_column(name, justify="right" if name in ("trial", "runs") else "left")
    for candidate in confirmed.candidates:
        trial, mean = candidate.confirmed.trial, f"{candidate.confirmed.mean:.4f}"
        note = "the winner" if trial.number == winner else "tied with the winner" if candidate.tied else ""
        note = "clearly behind on the same seeds: no more runs" if candidate.out else note
        score = "" if trial.score is None else f"{trial.score:.4f}"
        runs = str(len(candidate.confirmed.runs))
        table.add_row(str(trial.number), runs, score, mean, between(candidate.interval), note)
    target.print(table)
    if confirmed.smaller_than is not None:
        better = f"trial {confirmed.smaller_than}, which is better by less than its standard error"
        target.print(f"trial {winner} wins, a smaller model than that of {better}")
    leader = f"trial {confirmed.leader.trial.number}, which led the search"
    shrinkage = f"{leader}: {confirmed.search_to_confirmed:+.4f} when confirmed"
    if confirmed.confirmed_to_test is not None:
        before = "the folds" if confirmed.winner.folds > 1 else "the validation set"
        shrinkage += f"; the winner: {confirmed.confirmed_to_test:+.4f} from {before} to the test set"
    target.print(shrinkage)
    if confirmed.test is not None:
        model = f"trial {confirmed.model.number}" if kind in (REFIT, ENSEMBLE) else "the model in best/"
        _show_test(confirmed.test, confirmed.winner.trial.metric, model, target)
    if kind == REFIT and confirmed.refit is not None:
        _show_refit(confirmed.refit, target)
    if kind == ENSEMBLE and confirmed.ensemble is not None:
        _show_ensemble(confirmed.ensemble, target)


def _show_test(test: TestScores, metric: str, model: str, target: Console) -> None:
    expected = f", {test.as_expected()}" if test.as_expected() else ""
    if test.model_score is not None and (test.model_score, test.model_interval) != (test.model_accuracy, test.wilson):
        target.print(f"test set, {metric}: {test.model_score:.4f} {between(test.model_interval)}, of {model}")
    target.print(
        f"test set, {counted(test.rows, 'row')}: accuracy {test.accuracy.mean:.4f} in mean; of {model} "
        f"{test.model_accuracy:.4f} {between(test.wilson)}{expected} ({between(test.predicted)})"
    )
    if doubt := test.doubt():
        target.print(doubt, style="yellow", soft_wrap=True)


def _tested(result: dict[str, Any]) -> str:
    """Return what a refit or an ensemble reached on the test set."""
    if result["test_accuracy"] is None:
        return "not tested"
    return f"accuracy on the test set {result['test_accuracy']:.4f} {between(result['wilson'])}"


def _show_ensemble(ensemble: Ensemble, target: Console) -> None:
    """Show which models' mean is in `best/`, and what it reached."""
    refits = ", which were trained once more on all rows but the test set's" if ensemble.runs[0].refit else ""
    target.print(
        f"the model in best/ is the mean of trials {', '.join(map(str, ensemble.numbers))}{refits}: "
        f"{_tested(ensemble.to_dict())}. All other numbers are of single runs, {UNSEEN}",
        soft_wrap=True,
    )


def _show_refit(run: TrialRecord, target: Console) -> None:
    """Show which model is in `best/`, why, and whose the other numbers are."""
    result = refit_result(run)
    rows = counted(result["train_rows"], "row")
    target.print(
        f"the model in best/ is trial {run.number}, {_tested(result)}: the winner trained once more, on all {rows} "
        "but the test set's, so as to have learned from everything. All other numbers are of the winner's runs, "
        f"{UNSEEN}",
        soft_wrap=True,
    )


def show_comparison(found: Comparison, target: Console) -> None:
    """Show one row per arm with as many metrics as the terminal is wide, and explain the numbers in brackets."""
    table = Table(box=None, header_style="bold", padding=(0, 1))
    left, shown = target.width, []
    for column in zip(found.heading(), *found.rows(), strict=True):
        left -= max(map(len, column)) + 2
        if left >= 0:
            shown.append(column)
    for heading, *_ in shown:
        table.add_column(heading, no_wrap=True)
    for row in zip(*(cells for _, *cells in shown), strict=True):
        table.add_row(*row)
    target.print(table)
    more = len(found.heading()) - len(shown)
    if more:
        target.print(f"{counted(more, 'more column is', 'more columns are')} in {COMPARISON_PAGE}")
    target.print(found.note(), soft_wrap=True)
