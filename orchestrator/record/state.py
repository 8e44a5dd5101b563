"""What a sweep has come to, as plain data, and the one function that changes it.

Everything else (study, rungs, numbering, tables, live view) is derived from this state, live and on resume alike.

Events, with what they carry beside `v, n, t, event, trial, attempt`:

    sweep_started   spec                            what was asked, and every auto as it was resolved
    trial_proposed  params, config                  the searched values, and the whole configuration;
                    arm, final, index, confirms     of a recipe: see `TrialRecord`
    trial_attempt                                   the trial was handed to Ray
    trial_epoch     metrics, worker (with the first of an attempt)
    trial_ended     status, stop_reason, error, worker (if no epoch was told before), figures (of a final run)
    attempt_lost    error                           worker or node died; the trial waits for another attempt
    test_opened     runs, opening                   the seal is opened for the winner's runs, the how many-th time
    test_measured   figures                         of one of these runs (`trial`), on the test set
    sweep_resumed   spec                            as it is now; whatever was running then waits
    sweep_ended     reason                          finished | sweep_budget | signal | failed; running trials wait
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from trainables.config import format_key
from trainables.epoch_metrics import better

Event = dict[str, Any]


@dataclass
class TrialRecord:
    """What the journal says of one trial."""

    number: int
    params: dict[str, Any]
    config: dict[str, Any]
    proposed_at: float
    arm: str = ""  # of the recipe; an ordinary sweep has one arm, without a name
    index: int = 0  # among the searched trials of its arm; of a final run, which of the seeds it has
    final: bool = False  # run for its figures: in full, with a seed that all arms share, unknown to the sampler
    confirms: int | None = None  # the searched trial whose settings a final run has, if any were searched
    attempt: int = -1  # the current one; -1 before the first
    running: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    losses: int = 0  # attempts lost since the command began
    epochs: list[dict[str, Any]] = field(default_factory=list)
    worker: dict[str, Any] = field(default_factory=dict)
    score: float | None = None
    best_epoch: int | None = None
    end: dict[str, Any] | None = None
    final_metrics: dict[str, dict[str, Any]] = field(default_factory=dict)  # of a final run: part of the data → metrics

    @property
    def last_epoch(self) -> int:
        return self.epochs[-1]["epoch"] if self.epochs else 0

    @property
    def best(self) -> dict[str, Any]:
        """What was measured at the epoch of the score; empty before there is one."""
        return next((epoch for epoch in self.epochs if epoch["epoch"] == self.best_epoch), {})

    def peak(self, name: str) -> float | None:
        """The highest that any epoch measured of `name`, if any did."""
        return max((epoch[name] for epoch in self.epochs if epoch.get(name) is not None), default=None)

    @property
    def status(self) -> str:
        """completed | stopped | diverged | failed | interrupted | running."""
        if self.end is not None:
            return str(self.end["status"])
        return "running" if self.running else "interrupted"

    def score_with(self, metrics: dict[str, Any]) -> float | None:
        """The running best of the trial's metric once `metrics` are counted in, or what it last was."""
        value = metrics[self.config["metric"]]
        last = self.config["selection"] == "last"
        return value if last or better(self.config["metric"], value, self.score) else self.score


@dataclass
class ArmState:
    """How far one arm's search and final runs are. An ordinary sweep has one arm, without a name."""

    proposed: int = 0  # searched trials
    finished: int = 0  # of those, ended
    finals: set[tuple[int | None, int]] = field(default_factory=set)  # the final runs proposed: confirms, index
    scores: dict[int, dict[int, float | None]] = field(default_factory=dict)  # epoch → searched trial → score there


@dataclass
class SweepState:
    """The folded journal: plain data, equal for equal events."""

    spec: dict[str, Any] = field(default_factory=dict)
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    running: dict[int, int] = field(default_factory=dict)  # trial → its current attempt
    waiting: list[int] = field(default_factory=list)  # trials due for a (further) attempt, in order
    arms: dict[str, ArmState] = field(default_factory=dict)
    formats: dict[str, dict[str, str]] = field(default_factory=dict)  # form key → precision and memory format
    finished: int = 0  # trials that have ended
    next_trial: int = 0  # above every number that was ever given to a trial
    next_n: int = 0
    first_proposal: float | None = None
    idle_s: float = 0.0  # since the first proposal, between two commands
    active_s: float = 0.0  # from the first proposal to the last end of a trial, without the time between commands
    last_t: float | None = None
    ended: str | None = None  # the reason, once the sweep has ended
    openings: int = 0  # of the test set
    opened: set[int] = field(default_factory=set)  # the runs that it was opened for

    def arm(self, name: str) -> ArmState:
        """How far arm `name` is."""
        return self.arms.setdefault(name, ArmState())

    def record(self) -> dict[str, Any]:
        """What was asked, and every auto as it was resolved: `sweep.json`, and the metadata of the tables."""
        return {**self.spec, "formats": self.formats}


def fold(state: SweepState, event: Event) -> SweepState:
    """Advance `state` (in place: sweeps have 10⁵ events) by one event, and return it.

    Depends on its arguments alone. What an event presupposes may be missing, its line damaged: events of an unknown
    trial change nothing but the numbering, and all others what they can.
    """
    state.next_n = event["n"] + 1
    number = event.get("trial")
    if number is not None:
        state.next_trial = max(state.next_trial, number + 1)
    if event["event"] == "trial_proposed":
        _propose(state, event)
    elif number is None:
        _fold_sweep(state, event)
    elif event["event"] == "test_measured" and number in state.trials:
        state.trials[number].final_metrics["test"] = event["metrics"]
    elif number in state.trials and state.trials[number].end is None:
        _fold_trial(state, state.trials[number], event)
    state.last_t = event["t"]
    return state


def _propose(state: SweepState, event: Event) -> None:
    number, final = event["trial"], event.get("final", False)
    trial = TrialRecord(number, event["params"], event["config"], event["t"], event.get("arm", ""), final=final)
    trial.confirms = event.get("confirms")
    arm = state.arm(trial.arm)
    if final:
        trial.index = event["index"]
        arm.finals.add((trial.confirms, trial.index))
    else:
        trial.index = arm.proposed
        arm.proposed += 1
    state.trials[number] = trial
    state.waiting.append(number)
    if state.first_proposal is None:
        state.first_proposal = event["t"]


def _fold_sweep(state: SweepState, event: Event) -> None:
    kind = event["event"]
    if kind == "sweep_started":
        state.spec = event["spec"]
    elif kind == "test_opened":
        state.openings += 1
        state.opened.update(event["runs"])
    elif kind == "sweep_ended":
        state.ended = event["reason"]
        if state.running:
            _mark_active(state, event)
        _interrupt(state)
    elif kind == "sweep_resumed":
        if state.last_t is not None and state.first_proposal is not None:
            state.idle_s += max(event["t"] - state.last_t, 0.0)
        again = {name: event["spec"][name] for name in ("plan", "slots") if name in event["spec"]}
        resumed = [
            *state.spec.get("resumed", []),
            {n: v for n, v in event["spec"].items() if n not in ("plan", "split")},
        ]
        state.spec = {**state.spec, **again, "resumed": resumed}
        state.ended = None
        _interrupt(state)
        for number in state.waiting:
            state.trials[number].losses = 0  # what took the workers then may be mended


def _interrupt(state: SweepState) -> None:
    """Whatever was running waits, with what waited before, in the order of proposal."""
    for number in state.running:
        state.trials[number].running = False
    state.waiting = sorted({*state.waiting, *state.running})
    state.running = {}


def _fold_trial(state: SweepState, trial: TrialRecord, event: Event) -> None:
    kind = event["event"]
    if kind == "trial_attempt":
        trial.attempt, trial.running = event["attempt"], True
        trial.started_at = event["t"] if trial.started_at is None else trial.started_at
        state.running[trial.number] = trial.attempt
        _unqueue(state, trial.number)
    elif kind == "trial_epoch" and event["metrics"]["epoch"] > trial.last_epoch:
        _count_epoch(state, trial, event)
    elif kind == "attempt_lost" and trial.running:
        trial.losses += 1
        trial.running = False
        del state.running[trial.number]
        state.waiting.append(trial.number)
    elif kind == "trial_ended":
        _meet(state, trial, event)
        trial.end = {name: event[name] for name in ("status", "stop_reason", "error")}
        trial.final_metrics = dict(event.get("final_metrics", {}))
        trial.running, trial.ended_at = False, event["t"]
        state.running.pop(trial.number, None)
        _unqueue(state, trial.number)
        state.finished += 1
        state.arm(trial.arm).finished += not trial.final
        _mark_active(state, event)


def _mark_active(state: SweepState, event: Event) -> None:
    state.active_s = max(event["t"] - (state.first_proposal or 0.0) - state.idle_s, 0.0)


def _count_epoch(state: SweepState, trial: TrialRecord, event: Event) -> None:
    metrics = event["metrics"]
    score = trial.score_with(metrics)
    if score != trial.score or trial.config["selection"] == "last":
        trial.best_epoch = metrics["epoch"]
    trial.score = score
    _meet(state, trial, event)
    trial.epochs.append({**metrics, "attempt": event["attempt"], "score": score, "ended_at": event["t"]})
    if not trial.final:
        state.arm(trial.arm).scores.setdefault(metrics["epoch"], {})[trial.number] = score


def _meet(state: SweepState, trial: TrialRecord, event: Event) -> None:
    """Note what an attempt's first result says of its worker."""
    if "worker" in event:
        trial.worker = event["worker"]
        if "format" in trial.worker:
            state.formats.setdefault(format_key(trial.config), trial.worker["format"])


def _unqueue(state: SweepState, number: int) -> None:
    if number in state.waiting:
        state.waiting.remove(number)


def replay(events: Iterable[Event]) -> SweepState:
    """The state that `events` fold to."""
    state = SweepState()
    for event in events:
        fold(state, event)
    return state
