"""A first usable model while a sweep runs: `best/` has the best trial so far, and better ones replace it.

Nothing depends on it: whatever goes wrong costs this model alone, and the end of the sweep writes `best/` anyway.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orchestrator.bundle import bundle, contents
from orchestrator.bundle.documents import EARLY
from orchestrator.plan.context import SweepContext
from orchestrator.record.events import Event, TrialEnded
from orchestrator.record.kept_weights import KEPT
from orchestrator.record.ranking import is_ranked, rank_key
from orchestrator.record.state import TrialRecord
from trainables.files import restore_folder

AT_MOST_S, AT_MOST_SHARE = 10.0, 20  # seconds between two models, and between their ends in times of their cost


class EarlyModel:
    """Follows the journal and writes the bundle of each new best trial that has completed, in a thread of its own.

    A confirmed model of an earlier command stays until the sweep's end.
    """

    def __init__(self, context: SweepContext) -> None:
        self._context = context
        self._first = context.state.next_n
        self._written: int | None = None  # the trial whose model is there
        self._confirmed = False  # the model that is there is better founded than any that is not
        self._writing: threading.Thread | None = None
        self._due = 0.0
        self._failed = False
        with suppress(bundle.BundleError, OSError):
            restore_folder(context.folder.bundle)
            there = bundle.read(context.folder.bundle)
            self._written, self._confirmed = there.description.trial, there.metrics.confirmed

    def observe(self, event: Event) -> None:
        """Follow one journal event; begin to write if a trial has completed that is better than the one there."""
        ended = isinstance(event, TrialEnded) and event.n >= self._first
        if not ended or self._confirmed or self._failed or time.monotonic() < self._due or self._is_writing():
            return
        better = self._better()
        if better:
            self._writing = threading.Thread(target=self._write, args=(better,), daemon=True)
            self._writing.start()

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Wait at the end of the context until nothing is being written."""
        try:
            yield
        finally:
            if self._writing is not None:
                self._writing.join()

    def _is_writing(self) -> bool:
        return self._writing is not None and self._writing.is_alive()

    def _better(self) -> list[TrialRecord]:
        """Return the completed trials before the one that is there, the best first, as many as have weights."""
        state = self._context.state
        completed = (trial for trial in state.trials.values() if trial.status == "completed" and is_ranked(trial))
        ranked = sorted(completed, key=rank_key(state))
        numbers = [trial.number for trial in ranked]
        return ranked[: min(numbers.index(self._written), KEPT) if self._written in numbers else KEPT]

    def _write(self, better: list[TrialRecord]) -> None:
        context, started, first = self._context, time.monotonic(), self._written is None
        try:
            choices = contents.choices(better, EARLY)
            written = bundle.write(choices, context.data, context.weights, context.folder.bundle, context.state.spec)
        except Exception as error:  # nothing depends on this model
            self._failed = True
            context.console.print(
                f"no early model: {context.folder.bundle} could not be written ({type(error).__name__}: {error}); it "
                "is written at the sweep's end",
                soft_wrap=True,
            )
            return
        done = time.monotonic()
        self._due = done + max(AT_MOST_S, AT_MOST_SHARE * (done - started))
        if written is None:
            return
        trial = written.trial
        self._written = trial.number
        after = "; better ones replace it until the sweep ends" if first else ""
        context.console.print(
            f"{context.folder.bundle} has the model of trial {trial.number}, {trial.metric} {trial.score:.4f}, "
            f"not confirmed{after}",
            soft_wrap=True,
        )
