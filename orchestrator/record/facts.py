"""What the events of a journal carry: the sweep's specification, a worker's description, metrics."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

from orchestrator.record.decoding import By, RecordError, from_json
from trainables import correct_predictions
from trainables.config import FIELD_TYPES
from trainables.epoch_metrics import METRICS, is_user_metric
from trainables.row_predictions import RowPredictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIG_FIELDS = ("model", "precision", "memory_format", "selection", "split", "metric", "threads", "seed", "max_epochs")
"""Fields of a trial's configuration that the record itself uses."""


def check_config(config: dict[str, Any]) -> None:
    """Raise RecordError unless a trial's configuration has the fields that the record itself uses, and right types.

    What values are allowed is checked by `TrialConfig`, where a trial is run again.
    """
    for name in CONFIG_FIELDS:
        if name not in config:
            raise RecordError(f"the configuration has no {name}")
    for name, kind in FIELD_TYPES.items():
        if name in config and type(config[name]) not in (kind, int if kind is float else kind):
            raise RecordError(f"{name}: {config[name]!r} is not of type {kind.__name__}")
    if (metric := config["metric"]) not in METRICS and not is_user_metric(metric):
        raise RecordError(f"metric: {metric!r} is unknown (allowed: {', '.join(METRICS)})")


def check_metrics(metrics: dict[str, Any]) -> None:
    """Raise RecordError unless the metrics of an epoch are those of `EpochMetrics`, or some of them."""
    if NUMBERS.issuperset(map(type, metrics.values())) and type(metrics.get("epoch")) is int:
        return  # as nearly all are; a sweep has a million epochs
    epoch = from_json(_Epoch, metrics)
    if not NUMBERS.issuperset([type(value) for name, value in metrics.items() if name not in NOT_NUMBERS]):
        raise RecordError("something that should be a number is not")
    if epoch.val_confusion:
        check_matrix(epoch.val_confusion)
    if epoch.val_confused and min(check_rows(epoch.val_confused)) < 3:
        raise RecordError("val_confused: a pair has fewer than three numbers")


@dataclass(frozen=True, slots=True)
class _Epoch:
    epoch: int
    stop_reason: str | None = None
    val_confusion: list[Any] | None = None
    val_confused: list[Any] | None = None


NUMBERS, TEXTS, WHOLE = frozenset((int, float, type(None))), frozenset((str, type(None))), frozenset((int,))
NOT_NUMBERS = frozenset(("val_confusion", "val_confused", "stop_reason"))


def check_matrix(matrix: Any) -> None:
    """Raise RecordError unless `matrix` is square, of numbers."""
    if check_rows(matrix) != {len(matrix)}:
        raise RecordError("a confusion matrix is not square")


def check_rows(rows: Any) -> set[int]:
    """Return the lengths of `rows`; raise RecordError unless they are lists of numbers."""
    try:
        sum(map(sum, rows))
        return set(map(len, rows))
    except TypeError as error:
        raise RecordError(f"something is not a list of numbers ({error})") from error


def check_split(split: dict[str, Any]) -> None:
    """Raise RecordError unless the description of a split has counts as numbers and fingerprints as texts."""
    for name, value in split.items():
        kinds = WHOLE if name.endswith("_rows") else TEXTS if name.endswith("_fingerprint") else {type(value)}
        if type(value) not in kinds:
            raise RecordError(f"{name} has a value of another type than it should have")


def check_hardware(hardware: dict[str, Any]) -> None:
    """Raise RecordError unless the description of the hardware names the CPU by a text."""
    if type(hardware.get("cpu")) not in TEXTS:
        raise RecordError("cpu is not a text")


def check_git(git: dict[str, Any]) -> None:
    """Raise RecordError unless the description of the code names its revision by a text."""
    if type(git.get("revision")) not in TEXTS:
        raise RecordError("revision is not a text")


def check_status(status: str) -> None:
    """Raise RecordError unless a trial can end so."""
    if status not in STATUSES:
        raise RecordError(f"{status!r} is not how a trial ends (allowed: {', '.join(STATUSES)})")


STATUSES = ("completed", "stopped", "diverged", "failed")
Status = Annotated[str, check_status]
Config = Annotated[dict[str, Any], check_config]
"""A trial's configuration: a value for every field of `TrialConfig`."""
Metrics = Annotated[dict[str, Any], check_metrics]
"""The metrics of an epoch, as `EpochMetrics.to_dict` gives them; older records have fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The metrics of a model on one part of the data, as `trainables.evaluation.measure` gives them."""

    rows: int
    metrics: dict[str, float | None]  # by name, those of `FINAL_METRICS` among them; None where undefined
    confusion: list[list[int]] | None = None  # row = label, column = prediction; of many classes older records have it
    correct: str | None = None  # which rows were labelled correctly, see `correct_predictions`
    predictions: str | None = None  # of every row, see `row_predictions`; older records have none
    reliability: list[list[float]] | None = None  # as `trainables.calibration.reliability`, by bin of the probability

    @classmethod
    def of(cls, value: Any) -> Measured:
        """Return the metrics that plain JSON values hold; raise RecordError if they are damaged."""
        known = from_json(_Measured, value)
        numbers = {name: number for name, number in value.items() if name not in vars(known)}
        if known.rows < 1:
            raise RecordError(f"rows: {known.rows} is not above 0")
        if known.confusion:
            check_matrix(known.confusion)
        metrics = from_json(dict[str, float | None], numbers)
        if known.reliability and check_rows(known.reliability) != {3}:
            raise RecordError("reliability: a bin does not have three numbers")
        measured = cls(**vars(known), metrics=metrics)
        measured.correct_rows()
        measured.row_predictions()
        return measured

    @property
    def accuracy(self) -> float | None:
        """The share of correct predictions."""
        return self.metrics.get("accuracy")

    def correct_rows(self) -> NDArray[np.bool_] | None:
        """Return which rows the model labelled correctly, bool [rows]; None if it is not known."""
        if self.correct is None:
            return None
        try:
            return correct_predictions.unpack(self.correct, self.rows)
        except (TypeError, ValueError) as error:
            raise RecordError(f"correct: {error}") from error

    def row_predictions(self) -> RowPredictions | None:
        """Return what the model predicted for every row; None if it is not known."""
        if self.predictions is None:
            return None
        try:
            return RowPredictions.unpack(self.predictions, self.rows)
        except (TypeError, ValueError) as error:
            raise RecordError(f"predictions: {error}") from error

    def cells(self) -> NDArray[np.int64] | None:
        """Return the confusion matrix's cells as `RowPredictions.cells` does; None if they are not known."""
        if self.confusion:
            return cells_of(self.confusion)
        rows = self.row_predictions()
        return None if rows is None else rows.cells()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `of` gives them back. What is not known is left out."""
        known = {name: value for name in NOT_METRICS if (value := getattr(self, name)) is not None}
        return {"rows": self.rows, **self.metrics, **known}


NOT_METRICS = ("confusion", "correct", "predictions", "reliability")
"""What is known of a part of the data beside its rows and its metrics, which are numbers."""


def cells_of(matrix: list[list[int]]) -> NDArray[np.int64]:
    """Return the cells of a confusion matrix that are not 0, int64 [K, 3], in order: label, prediction, count."""
    import numpy as np

    counts = np.array(matrix, dtype=np.int64)
    labels, predictions = counts.nonzero()
    return np.stack([labels, predictions, counts[labels, predictions]], axis=1)


@dataclass(frozen=True)
class _Measured:
    rows: int
    confusion: list[Any] | None = None
    correct: str | None = None
    predictions: str | None = None
    reliability: list[Any] | None = None


OnPart = Annotated[Measured, By(Measured.of)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """The numbers of rows in the record of a split, as `trainables.splits.describe` gives them."""

    search_rows: int = 0  # all but the test set's
    pool_rows: int = 0
    validation_rows: int = 0
    test_rows: int = 0
    official_test: bool = False  # the test set is the data set's, not drawn from its rows
    duplicate_rows: int = 0
    unreadable_rows: int = 0
    opened_rows: int = 0  # test rows that trials see
    external_rows: int = 0
    folds: int = 1  # in which every row is scored once; older sweeps have none


@dataclass(frozen=True, slots=True)
class Worker:
    """The process that runs an attempt; None where an older version did not record it."""

    node: str | None = None
    node_id: str | None = None  # Ray's, in hexadecimal digits
    device: str | None = None  # cpu, or the GPU's name
    cpu: str | None = None  # model
    parameters: int | None = None  # of the model
    train_rows: int | None = None  # different rows that are trained on
    image_size: int | None = None  # pixels, the smaller side of what the model is given
    positive_class: int | None = None  # of two classes the one that precision, recall and F1 are of
    threads: int | None = None
    micro_batch: int | None = None  # rows that are computed at a time in training; None: a whole batch
    format: dict[str, str] | None = None  # precision and memory format, without an auto
    weights: dict[str, Any] | None = None  # which tensors came from the initial weights, and their file; see `Filled`
    inputs: dict[str, str] | None = None  # first layers, interpolation and normalization, without an auto

    @property
    def kind(self) -> str | None:
        """The kind of device, for which a numeric format is chosen: the GPU's name, or the CPU's."""
        return self.cpu if self.device in (None, "cpu") else self.device

    def resolve(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a trial's configuration as this worker ran it, without an auto."""
        known = {name: getattr(self, name) for name in ("image_size", "micro_batch")}
        known = {name: value for name, value in known.items() if value is not None}
        return {**config, **(self.format or {}), **(self.inputs or {}), **known}


@dataclass(frozen=True, slots=True)
class Place:
    """The process that an attempt runs in, and where that is."""

    node: str | None = None  # its name
    node_id: str | None = None  # Ray's, in hexadecimal digits
    device: str | None = None  # the GPU by Ray's number or name, such as `GPU 0`; None on a CPU
    pid: int | None = None

    @property
    def where(self) -> tuple[str | None, str | None]:
        """The node's id, and the device on it."""
        return self.node_id, self.device

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.node or "an unknown node", self.device)))


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command that worked on a sweep: its slots, and where its results come from."""

    slots: int | None = None
    command: str | None = None
    hardware: Annotated[dict[str, Any], check_hardware] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)  # by package
    git: Annotated[dict[str, Any], check_git] = field(default_factory=dict)

    @property
    def cpu(self) -> str | None:
        """The model of the driver's CPU."""
        return self.hardware.get("cpu")

    @property
    def revision(self) -> str | None:
        """The revision of this project's code, if it ran in a checkout."""
        return self.git.get("revision")

    @property
    def dirty(self) -> bool | None:
        """True if the code had changes since that revision; None if it is not known."""
        return self.git.get("dirty")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` gives them back. What is not known is left out."""
        values = {f.name: getattr(self, f.name) for f in fields(Command)}
        return {name: value for name, value in values.items() if value not in (None, {})}


@dataclass(frozen=True, kw_only=True)
class Spec(Command):
    """The specification of a sweep: all that is asked, every auto as it was resolved, and the first command."""

    plan: dict[str, Any] = field(default_factory=dict)  # `plan.plan.Plan` as JSON
    split: Annotated[dict[str, Any], check_split] = field(default_factory=dict)  # as `trainables.splits.describe`
    inventory: dict[str, Any] = field(default_factory=dict)  # `Inventory.to_dict`; older sweeps have none
    resumed: list[Command] = field(default_factory=list)  # later commands

    @property
    def name(self) -> str | None:
        """The sweep's name."""
        return self.plan.get("name")

    @property
    def dataset(self) -> str | None:
        """The name or the path of the data set."""
        return self.plan.get("dataset")

    def after(self, again: Spec) -> Spec:
        """Return the specification once a further command, `again`, has resumed the sweep."""
        command = Command(**{f.name: getattr(again, f.name) for f in fields(Command)})
        return replace(
            self,
            plan=again.plan or self.plan,
            slots=self.slots if again.slots is None else again.slots,
            resumed=[*self.resumed, command],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `sweep.json` has them."""
        resumed = {"resumed": [command.to_dict() for command in self.resumed]} if self.resumed else {}
        inventory = {"inventory": self.inventory} if self.inventory else {}
        return {"plan": self.plan, "split": self.split, **inventory, **Command.to_dict(self), **resumed}
