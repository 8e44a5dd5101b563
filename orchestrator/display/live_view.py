"""The view of a running sweep: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import heapq
import math
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from orchestrator.assessment import baseline
from orchestrator.display.summary import trials_table
from orchestrator.display.text import counted, duration, ended_line, incident_line
from orchestrator.plan.forecast import expected_epochs
from orchestrator.plan.plan import Plan
from orchestrator.record.events import (
    AttemptLost,
    Event,
    PlaceReopened,
    PlaceSetAside,
    SearchClosed,
    TrialEnded,
    TrialEpoch,
)
from orchestrator.record.ranking import UNRANKED, best_trial, count_statuses, is_ranked, rank_key
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.search.stages import stage_of
from search_spaces.stage import quotas
from trainables.epoch_metrics import better

REFRESH_HZ = 4
FIRST_S, LAST_S, SHARE = 15.0, 600.0, 0.1  # between two plain lines, at least and at most: a share of the time so far
DRAWING = 0.02  # of the time, at most
BEST = 5  # trials shown below the running ones
SPARKS, LONGEST = "▁▂▃▄▅▆▇█", 24  # characters of a sparkline: by height, and how many at most


LIMITS = {
    "epoch_budget": "the other epochs of --epoch-budget are kept for the runs after it",
    "gpu_hours": "the other GPU-hours of --gpu-hours are kept for the runs after it",
    "target_score": "a trial has reached --target-score",
    "patience_trials": "--patience-trials have ended since the best one",
}
"""Reasons to close a search before its trials and its time are used up, as text."""


class SweepView:
    """Follows the journal, and draws the progress of the sweep."""

    def __init__(self, state: SweepState, planned: Plan, target: Console, deadline: float = math.inf) -> None:
        """Begin to follow a sweep; it is to end at `deadline`, in seconds of time.monotonic()."""
        self._state = state
        self._planned = planned
        self._searched, self._total = planned.queue().searched(), planned.queue().total()
        self._first = state.next_n
        self._console, self._deadline = target, deadline
        self._started_at = time.monotonic()
        self._rule = planned.stop_rule()
        low, high = expected_epochs(planned)
        self._expected = low / max(self._total, 1)  # of a trial, before one has ended
        self._due = low if low == high and not planned.open_ended else None  # epochs of the sweep, where they are known
        self._epochs = 0  # of this command
        self._since: float | None = None  # when the first of them began, in seconds since 1970
        self._best_scores: list[float] = []  # after each trial of this command that ended
        self._unsaved: str | None = None  # why states cannot be saved, as it was shown last
        self._live: Live | None = None
        self._drawn = Group()
        self._next_drawing = 0.0  # time.monotonic() seconds

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw while the context lasts: a table, or where there is no terminal a line now and then."""
        if self._console.quiet:
            yield
        elif self._console.is_terminal:
            with Live(
                get_renderable=self.drawing, console=self._console, refresh_per_second=REFRESH_HZ, transient=True
            ) as self._live:
                yield
            self._live = None
        else:
            with self._printing():
                yield

    @contextmanager
    def _printing(self) -> Iterator[None]:
        """Print a line about the progress now and then while the context lasts."""
        over = threading.Event()
        thread = threading.Thread(target=self._print_progress, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _print_progress(self, over: threading.Event) -> None:
        """Print a line about the progress, at growing intervals, until the event is set."""
        while not over.wait(min(max(SHARE * (time.monotonic() - self._started_at), FIRST_S), LAST_S)):
            with suppress(RuntimeError):  # a trial was proposed meanwhile; the next line comes soon
                self._console.print(self._summary())

    def observe(self, event: Event) -> None:
        """Follow one journal event that is folded already; events of earlier commands are not shown again."""
        if event.n < self._first:
            return
        if isinstance(event, TrialEpoch):
            self._epochs += 1
            self._since = self._since or event.t - sum(event.metrics.get(name) or 0.0 for name in ("train_s", "eval_s"))
        if isinstance(event, TrialEnded):
            self._count(self._state.trials[event.trial])
        if self._console.quiet:
            return
        self._warn(event)
        if self._live is not None:
            return
        if isinstance(event, TrialEnded):
            self._console.print(ended_line(self._state.trials[event.trial]))

    def _count(self, trial: TrialRecord) -> None:
        """Note the best score after `trial`, which has ended."""
        if trial.score is not None and is_ranked(trial):
            last = self._best_scores[-1] if self._best_scores else None
            improved = better(trial.metric, trial.score, last)
            self._best_scores.append(trial.score if improved or last is None else last)

    def _warn(self, event: Event) -> None:
        """Print what a user should know, above the live table."""
        if isinstance(event, AttemptLost | PlaceSetAside | PlaceReopened):
            self._console.print(incident_line(event), soft_wrap=True)
        if isinstance(event, SearchClosed) and event.reason != "time_budget":
            self._console.print(f"the search ends: {LIMITS[event.reason]}")
        elif isinstance(event, SearchClosed):
            self._console.print(
                f"the search ends: {duration(event.left)} of the time budget are kept for {counted(event.runs, 'run')} "
                f"after it, which take about {duration(event.needed)}"
            )
        if isinstance(event, TrialEpoch | TrialEnded) and event.unsaved not in (None, self._unsaved):
            self._unsaved = event.unsaved
            self._console.print(
                f"trial {event.trial} cannot save its state ({self._unsaved}): it goes on, but would begin again "
                "if its worker were lost"
            )

    def drawing(self) -> Group:
        """Return the table as it is now, or as it was lately: of ten thousand trials it costs 30 ms."""
        started = time.monotonic()
        if started >= self._next_drawing:
            with suppress(RuntimeError):  # a trial was proposed meanwhile; the next drawing comes soon
                self._drawn = self._render()
            done = time.monotonic()
            self._next_drawing = done + (done - started) / DRAWING
        return self._drawn

    def _render(self) -> Group:
        width = self._console.width
        settings = list(self._planned.space.distributions)
        running = [self._state.trials[number] for number in sorted(self._state.running)]
        bar = ProgressBar(total=self._total, completed=self._state.finished, width=min(width, 60))
        return Group(
            Padding(bar, 0), self._summary(), trials_table([*running, *self._best_ended(BEST)], settings, width)
        )

    def _best_ended(self, count: int) -> list[TrialRecord]:
        """Return the best trials that have ended; running ones stand above them."""
        ended = (trial for trial in self._state.trials.values() if is_ranked(trial) and trial.status != "running")
        return heapq.nsmallest(count, ended, key=rank_key(self._state))

    def _summary(self) -> Text:
        statuses = [f"{n} {status}" for status, n in count_statuses(self._state).items() if n]
        if again := sum(trial.confirms is not None for trial in list(self._state.trials.values())):
            statuses.append(f"{again} to confirm")
        count = counted(max(self._total, len(self._state.trials)), "trial")
        ended = f"{self._state.finished} trials" if self._searches_on() else f"{self._state.finished}/{count}"
        parts = [f"{ended} ended" + (f" ({', '.join(statuses)})" if statuses else "")]
        if stage := self._stage():
            parts.append(stage)
        if self._since is not None:
            known = "" if self._due is None else f"{self._done()} of {counted(int(self._due), 'epoch')}, "
            parts.append(known + pace(self._epochs / max(time.time() - self._since, 1e-3)))
        if waiting := self._waiting():
            parts.append(waiting)
        left = self.seconds_left(time.time())
        if left is not None:
            parts.append(f"about {duration(left)} left")
        best = best_trial(self._state)
        if best is not None:
            still = ", running" if best.status == "running" else ""
            line = sparkline(self._best_scores) if self._live is not None and self._console.encoding == "utf-8" else ""
            parts.append(f"best {best.score:.4f} (trial {best.number}{still}) {line}".rstrip())
        if best is not None and (beside := baseline.text(self._state.spec.split, best.metric)):
            parts.append(beside)
        return Text(" · ".join(parts))

    def _stage(self) -> str:
        """Describe the stage of the newest searched trial; nothing if the search has none or is over."""
        space, trials = self._planned.space, [trial for trial in list(self._state.trials.values()) if not trial.final]
        if not self._planned.stages or not trials or len(trials) < len(self._state.trials):
            return ""
        return f"stage {stage_of(space, trials[-1].params) + 1} of {len(space.stages)}"

    def _waiting(self) -> str:
        """Describe what is done before the trials that run have an epoch, which may take minutes."""
        trials = [self._state.trials[number] for number in list(self._state.running)]
        if not trials:
            return "workers are starting" if not self._epochs else ""
        without = [trial for trial in trials if not trial.epochs]
        computing = {
            str(trial.config["model"]): trial.features for trial in sorted(without, key=_known) if _known(trial)
        }
        if computing:  # workers that compute the same share the work: the one that was heard last knows most
            known = (
                f"{model} {rows:,} of {counted(all_rows, 'picture')}" for model, (rows, all_rows) in computing.items()
            )
            return f"computing features: {', '.join(known)}"
        if not without or (self._epochs and len(without) < len(trials)):
            return ""
        some = "1 trial is" if len(without) == 1 else f"{len(without)} trials are"
        frozen = any(trial.config.get("freeze") for trial in without)
        return f"{some} {'preparing features of a frozen base' if frozen else 'in the first epoch'}"

    def _searches_on(self) -> bool:
        """Return whether a limit will end the search, and has not yet: nobody knows its number of trials."""
        return self._planned.open_ended and self._state.closed is None

    def seconds_left(self, now: float) -> float | None:
        """Estimate the seconds that the sweep still takes; None before its first epoch.

        It is what is left of the time, if that alone ends the search, and no more in any case; else what the remaining
        epochs take at this command's pace, since the first epoch began: before, workers start. A search with stages has
        an epoch of another kind in each: there is none before a trial of each has ended.

        Args:
            now: the time, in seconds since 1970.
        """
        if self._since is None:
            return None
        most = max(self._deadline - time.monotonic(), 0.0)
        if self._searches_on() and math.isfinite(most):
            return most
        epochs_s = self._epochs_left_s(now)
        return None if epochs_s is None else min(epochs_s, most)

    def _epochs_left_s(self, now: float) -> float | None:
        """Estimate the seconds that the remaining epochs take; None where nothing is known of some."""
        assert self._since is not None  # noqa: S101 - the caller has seen an epoch
        seconds = now - self._since
        if self._planned.stages:
            return self._seconds_left_in_stages()
        trials = list(self._state.trials.values())
        if self._due is not None:
            return max(self._due - self._done(), 0.0) * seconds / self._epochs
        ended = [trial for trial in trials if trial.end is not None]
        searched = [len(trial.epochs) for trial in ended if not trial.final]
        longest = max(space.base.max_epochs for space in self._planned.arms.values())
        usual = statistics.fmean(searched) if searched else self._expected
        finals = self._total - self._searched - (len(ended) - len(searched))
        begun = sum(self._state.trials[number].last_epoch for number in list(self._state.running))
        due = (self._searched - len(searched)) * usual + finals * longest - begun
        return max(due, 0.0) * seconds / self._epochs

    def _done(self) -> int:
        """Return how many of the sweep's epochs are behind it; those that a trial could not run count, too."""
        trials = list(self._state.trials.values())
        return sum(self._goal(trial) if trial.status in UNRANKED else trial.last_epoch for trial in trials)

    def _goal(self, trial: TrialRecord) -> int:
        """Return the epoch to which a trial was to train when it ended: the next rung, or its last one."""
        return self._rule.pauses_at(trial) or int(trial.config["max_epochs"])

    def _seconds_left_in_stages(self) -> float | None:
        """Estimate the seconds of what is left from the trials of each stage that ended; None if one had none."""
        space, slots = self._planned.space, max(self._state.spec.slots or 1, 1)
        seconds: dict[int, list[float]] = {number: [] for number in range(len(space.stages))}
        trials = [trial for trial in list(self._state.trials.values()) if trial.end is not None]
        for trial in trials:
            if not trial.final and trial.epochs:
                seconds[stage_of(space, trial.params)].append(trial.total("train_s") + trial.total("eval_s"))
        shares = quotas(space.stages, self._planned.trials)
        left = {number: share - len(seconds[number]) for number, share in enumerate(shares)}
        if any(left[number] > 0 and not seconds[number] for number in left):
            return None
        searched = sum(left[number] * statistics.fmean(seconds[number]) for number in left if left[number] > 0)
        best = best_trial(self._state)
        run = 0.0 if best is None else (best.total("train_s") + best.total("eval_s")) / max(len(best.epochs), 1)
        finals = self._total - self._searched - sum(trial.final for trial in trials)
        return (searched + finals * run * space.base.max_epochs) / slots


def _known(trial: TrialRecord) -> int:
    """Return the number of rows whose features a trial's worker knows."""
    return trial.features[0]


def pace(epochs_per_s: float) -> str:
    """Return epochs per second, per minute or per hour, whichever is a number above 1 first."""
    units = {"s": 1, "min": 60, "h": 3600}
    unit = next((unit for unit, seconds in units.items() if epochs_per_s * seconds >= 1), "h")
    number = f"{epochs_per_s * units[unit]:.2g}"
    return f"{number} epoch{'' if number == '1' else 's'}/{unit}"


def sparkline(values: Sequence[float]) -> str:
    """Draw how `values` went in at most `LONGEST` characters, the last value in the last one."""
    if not values:
        return ""
    shown = values[:: -math.ceil(len(values) / LONGEST)][::-1]
    low, span = min(shown), max(shown) - min(shown)
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1)) if span else 0] for value in shown)
