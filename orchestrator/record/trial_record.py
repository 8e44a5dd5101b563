"""The facts about one trial, as the journal's events fold to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from orchestrator.record.epochs import Epochs
from orchestrator.record.events import AttemptLost, TrialEpoch
from orchestrator.record.facts import Measured, Worker
from trainables.epoch_metrics import better, column


class End(NamedTuple):
    """The end of a trial."""

    status: str  # completed | stopped | diverged | failed
    stop_reason: str
    error: str | None = None
    fault: str | None = None  # whose, if it ended by a failure; older versions did not record it


@dataclass
class TrialRecord:
    """The journal's facts about one trial."""

    number: int
    params: dict[str, Any]  # the searched values
    config: dict[str, Any]  # the whole configuration
    proposed_at: float
    arm: str = ""  # of the recipe; an ordinary sweep has one arm, without a name
    index: int = 0  # among the searched trials of its arm; of a final run, which of the seeds it has
    final: bool = False  # run for its metrics: in full, with a seed that all arms share, unknown to the sampler
    confirms: int | None = None  # the searched trial whose settings a final run has, if any were searched
    refit: bool = False  # a final run on all rows but the test set's, after the confirmation: it has no score
    attempt: int = -1  # the current one; -1 before the first
    running: bool = False
    gpus: float | None = None  # of the slot of its attempt; None: as the plan has it
    paused: bool = False  # at a rung
    started_at: float | None = None
    ended_at: float | None = None
    lost: list[AttemptLost] = field(default_factory=list)  # since its last progress, or since the command began
    alone: bool = False  # its attempts have their GPU for themselves, as it was out of memory beside others
    micro_batch: int = 0  # rows that its attempts compute at a time, as it was out of memory; 0: as it is configured
    epochs: Epochs = field(default_factory=Epochs)  # metrics, and `attempt`, `score` and `ended_at`
    furthest: int = 0  # the last epoch that any attempt has reached
    features: tuple[int, int] = (0, 0)  # rows whose features were known at the last report, and of how many
    features_s: float = 0.0  # that its workers computed features
    worker: Worker = field(default_factory=Worker)  # of the latest attempt that got as far as a result
    unsaved: str | None = None  # why its newest state could not be saved, if it could not
    summed: float = 0.0  # the values of the metric in all epochs
    defined: int = 0  # epochs in which it has a value
    score: float | None = None
    best_epoch: int | None = None
    end: End | None = None
    final_metrics: dict[str, Measured] = field(default_factory=dict)  # of a final run: part of the data → metrics

    @property
    def losses(self) -> int:
        """The number of attempts lost since its last progress that count among those that a trial may lose."""
        return sum(event.charged for event in self.lost)

    @property
    def failures(self) -> list[AttemptLost]:
        """The attempts lost since its last progress that another place might have spared it."""
        return [event for event in self.lost if event.happened != "out_of_memory"]

    @property
    def metric(self) -> str:
        """The metric that the score is of."""
        return str(self.config["metric"])

    @property
    def seed(self) -> int:
        """The seed of its weights, order and augmentation."""
        return int(self.config["seed"])

    @property
    def last_epoch(self) -> int:
        """The number of the last epoch that was run; 0 before the first."""
        return self.epochs.number

    @property
    def mean(self) -> float | None:
        """The mean of the metric over all epochs; None if it is undefined in all of them."""
        return self.summed / self.defined if self.defined else None

    @property
    def scores(self) -> dict[int, float | None]:
        """The score after each epoch, by the epoch's number."""
        numbers = (int(number) for number in self.epochs.numbers("epoch"))
        return dict(zip(numbers, self.epochs.column("score"), strict=True))

    @property
    def best(self) -> dict[str, Any]:
        """The metrics of the epoch of the score, with what was confused after it; empty before there is one."""
        place = None if self.best_epoch is None else self.epochs.place(self.best_epoch)
        return {} if place is None else self.epochs.complete(place, self.number)

    def peak(self, name: str) -> float | None:
        """Return the highest value of metric `name` in any epoch; None if none has it."""
        return max(self.epochs.numbers(name), default=None)

    def total(self, name: str) -> float:
        """Return the sum of metric `name`, such as seconds, over all epochs."""
        return float(sum(self.epochs.numbers(name)))

    @property
    def worked_s(self) -> float:
        """The seconds of training, evaluation and features."""
        return self.total("train_s") + self.total("eval_s") + self.features_s

    @property
    def status(self) -> str:
        """completed | stopped | diverged | failed | interrupted | paused | running."""
        if self.end is not None:
            return self.end.status
        if self.paused:
            return "paused"
        return "running" if self.running else "interrupted"

    @property
    def error(self) -> str | None:
        """The error by which it ended, if it did by one."""
        return None if self.end is None else self.end.error

    def score_with(self, metrics: dict[str, Any]) -> float | None:
        """Return the running best of the trial's metric once `metrics` are counted in, or its last value."""
        value = metrics.get(column(self.metric))
        return value if self._takes(value) else self.score

    def count(self, event: TrialEpoch) -> float | None:
        """Take in the metrics of an epoch; return the score after it."""
        value = event.metrics.get(column(self.metric))
        if self._takes(value):
            self.score, self.best_epoch = value, event.epoch
        if value is not None:
            self.summed, self.defined = self.summed + value, self.defined + 1
        epoch = {**event.metrics, "attempt": event.attempt, "score": self.score, "ended_at": event.t}
        if event.beside is not None:
            epoch["beside"] = event.beside
        self.epochs.append(epoch)
        return self.score

    def up_to(self, epoch: int) -> TrialRecord:
        """Return the trial as it was after an epoch, but for its end and its worker, who may be a later one."""
        if epoch >= self.last_epoch:
            return self
        then = replace(self, epochs=Epochs(), summed=0.0, defined=0, score=None, best_epoch=None)
        for one in self.epochs:
            if one["epoch"] <= epoch:
                then.count(TrialEpoch(self.number, one["attempt"], one, t=one["ended_at"]))
        return then

    def _takes(self, value: float | None) -> bool:
        """Return whether a value of the metric becomes the score: the last one does, or only a better one."""
        return self.config["selection"] == "last" or better(self.metric, value, self.score)


def is_alone(trials: Mapping[int, TrialRecord], trial: TrialRecord) -> bool:
    """Return whether a trial's attempts have a GPU for themselves: it, or the one that it confirms, needs that."""
    confirmed = None if trial.confirms is None else trials.get(trial.confirms)
    return trial.alone or (confirmed is not None and confirmed.alone)
