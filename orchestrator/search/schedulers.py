"""Schedulers: rules that end weak trials early, as functions of the folded journal.

Some stop a trial after an epoch: such a rule sees the state before the epoch and the score at it, so a replay that
reaches the same event decides the same. ASHA has trials pause at rungs, and the best ones go on. Each arm has its own
rungs, keyed by the trial's number; nothing is kept beside the journal. Where a search has stages, trials are compared
with those of their kind alone: a head on features learns faster than a whole net, and says nothing of what that net
will reach. To add a scheduler, add its entry to `SCHEDULERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.search import promotion
from orchestrator.search.promotion import Asha, Rounds
from orchestrator.search.stopping import AshaStopping, Median, NeverStop, stopping_rungs
from search_spaces.space import SearchSpace
from trainables.errors import counted, look_up

ONE_AFTER_ANOTHER = Rounds()
LEAST_FACTOR = 1.1  # with less there are dozens of rungs, and hardly any trial stops at one


class StopRule(Protocol):
    """A rule that ends trials after an epoch, or has them pause and go on."""

    @property
    def reason(self) -> str:
        """The stop reason of the trials that the rule ends."""
        ...

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        """Return whether `trial`, with `score` at `epoch`, ends there; `state` does not hold that epoch yet."""
        ...

    @property
    def learned_at(self) -> int | None:
        """The epoch whose score a sampler learns from, of trials that may end early; None: it learns from their end."""
        ...

    def planned_epochs(self, trials: int, config: Mapping[str, Any]) -> int | None:
        """Return how many epochs so many trials like `config` take; None if it is not known before."""
        ...

    def pauses_at(self, trial: TrialRecord) -> int | None:
        """Return the epoch at which the next attempt at a trial pauses; None if it does not."""
        ...

    def opens_round(self, index: int) -> bool:
        """Return whether paused trials that are due go on before the `index`-th trial of an arm is proposed."""
        ...

    def due(self, state: SweepState, arm: str, *, idle: bool) -> int | None:
        """Return the paused trial of an arm that should go on now; None if none should.

        Args:
            idle: the slot has nothing else to do.
        """
        ...

    def hopeless(self, state: SweepState, arm: str) -> list[int]:
        """Return the paused trials of an arm that cannot go on any more."""
        ...


@dataclass(frozen=True)
class Sparing:
    """A rule for the trials of a space that may be stopped early; all others run in full."""

    rule: StopRule
    space: SearchSpace

    @property
    def reason(self) -> str:
        """The stop reason of the rule."""
        return self.rule.reason

    @property
    def learned_at(self) -> int | None:
        """The epoch at which the rule has trials pause first, if it does."""
        return self.rule.learned_at

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        return self.space.stops(trial.config) and self.rule.stops(state, trial, epoch, score)

    def planned_epochs(self, trials: int, config: Mapping[str, Any]) -> int | None:
        spared = not self.space.stops(config)
        return trials * int(config["max_epochs"]) if spared else self.rule.planned_epochs(trials, config)

    def pauses_at(self, trial: TrialRecord) -> int | None:
        return self.rule.pauses_at(trial) if self.space.stops(trial.config) else None

    def opens_round(self, index: int) -> bool:
        return self.rule.opens_round(index)

    def due(self, state: SweepState, arm: str, *, idle: bool) -> int | None:
        return self.rule.due(state, arm, idle=idle)

    def hopeless(self, state: SweepState, arm: str) -> list[int]:
        return self.rule.hopeless(state, arm)


@dataclass(frozen=True)
class ByArm:
    """A rule for each arm of a recipe, or for the one arm of an ordinary sweep; final runs are never stopped."""

    rules: Mapping[str, StopRule]

    @property
    def reason(self) -> str:
        """The stop reason, which all rules share."""
        return next(iter(self.rules.values())).reason

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        return not trial.final and self.rules[trial.arm].stops(state, trial, epoch, score)

    def pauses_at(self, trial: TrialRecord) -> int | None:
        return None if trial.final else self.rules[trial.arm].pauses_at(trial)

    def opens_round(self, arm: str, index: int) -> bool:
        return self.rules[arm].opens_round(index)

    def due(self, state: SweepState, *, idle: bool) -> int | None:
        """Return the paused trial of any arm that should go on now; None if none should."""
        found = (rule.due(state, arm, idle=idle) for arm, rule in self.rules.items())
        return next((number for number in found if number is not None), None)

    def hopeless(self, state: SweepState) -> list[int]:
        """Return the paused trials of all arms that cannot go on any more."""
        return [number for arm, rule in self.rules.items() for number in rule.hopeless(state, arm)]


@dataclass(frozen=True)
class Scheduler:
    """A way to end weak trials early."""

    help: str
    make: Callable[[SearchSpace, int, float, Rounds], StopRule]  # from space, grace, factor and rounds
    described: str  # with {grace} and {factor}, after "stopped by"
    rungs: Callable[[int, int, float], tuple[int, ...]] | None = None  # from max_epochs, grace and factor

    def describe(self, grace: int, factor: float) -> str:
        """Return the rule and its settings as text."""
        return self.described.format(grace=grace, factor=f"{factor:g}")


SCHEDULERS = {
    "asha": Scheduler(
        "runs all trials to a first rung; a fixed number of the best go on to the next, and a few run in full",
        lambda space, grace, factor, rounds: Asha(space.base.max_epochs, grace, factor, rounds, space),
        "asha from epoch {grace} on, factor {factor}",
        promotion.rungs,
    ),
    "asha-stopping": Scheduler(
        "is Ray Tune's form of asha: a trial goes on past a rung if it is among the best 1/factor so far",
        lambda space, grace, factor, rounds: AshaStopping(space.base.max_epochs, grace, factor, kinds=space.kinds),
        "asha-stopping from epoch {grace} on, factor {factor}",
        stopping_rungs,
    ),
    "hyperband": Scheduler(
        "is asha-stopping in brackets of equal budgets that begin to stop at different epochs",
        lambda space, grace, factor, rounds: AshaStopping.hyperband(space.base.max_epochs, grace, factor, space.kinds),
        "hyperband from epoch {grace} on, factor {factor}",
        stopping_rungs,
    ),
    "median": Scheduler(
        "stops trials whose score is below the median of the others' means so far",
        lambda space, grace, factor, rounds: Median(grace, kinds=space.kinds),
        "median from epoch {grace} on",
    ),
    "none": Scheduler("stops no trial", lambda *settings: NeverStop(), "nothing"),
}
"""The schedulers that `--scheduler` names."""


def stop_rule(name: str, space: SearchSpace, grace: int, factor: float, rounds: Rounds = ONE_AFTER_ANOTHER) -> StopRule:
    """Return the rule of a scheduler for the trials of a space.

    Raises:
        ConfigError: there is no such scheduler.
    """
    rule = look_up(SCHEDULERS, name, "scheduler").make(space, grace, factor, rounds)
    return Sparing(rule, space) if space.unstopped else rule


def unused(name: str, settings: Mapping[str, float]) -> list[str]:
    """Return a message for each of `settings`, grace and factor, that a scheduler, if there is such a one, ignores."""
    described = SCHEDULERS[name].described if name in SCHEDULERS else "{grace} {factor}"
    return [
        f"--{setting} {value:g}: --scheduler {name} has no use for it; leave it out"
        for setting, value in settings.items()
        if f"{{{setting}}}" not in described
    ]


def check_settings(name: str, factor: float, grace: int, max_epochs: int) -> str | None:
    """Return why a scheduler can stop no trial, or not compare trials at rungs `factor` apart; None if it can.

    Raises:
        ConfigError: there is no such scheduler.
    """
    if grace >= max(max_epochs, 2):
        return (
            f"--grace {grace}: trials have {counted(max_epochs, 'epoch')} at most, so none would be stopped; "
            "give fewer, or --scheduler none"
        )
    at_rungs = look_up(SCHEDULERS, name, "scheduler").rungs
    if at_rungs is None:
        return None
    rungs = at_rungs(max_epochs, grace, max(factor, LEAST_FACTOR))
    if factor >= LEAST_FACTOR and len(set(rungs)) == len(rungs):
        return None
    return (
        f"--factor {factor:g}: rungs from epoch {grace} on, each {factor:g} times as late as the last, fall on the "
        "same epoch; use 2 to 4, or begin later by --grace"
    )
