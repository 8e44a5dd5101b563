"""Run a trial again from its record, in this process, without Ray, and compare its results with the record.

With the CPU model, versions and code that it ran with, a trial gives the same numbers to the last digit: all of its
randomness follows from its seed. Elsewhere kernels add in another order, and training makes much of a last digit, so a
tolerance holds there: see `beyond`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.leaderboard.boards import Board
from orchestrator.plan import resumption
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import absolute
from orchestrator.record import provenance
from orchestrator.record.events import Event, SweepResumed, SweepStarted, TrialEnded, TrialEpoch
from orchestrator.record.facts import Command
from orchestrator.record.state import TrialRecord
from trainables import datasets, user_metrics
from trainables.config import TrialConfig, format_key, format_of
from trainables.epoch_metrics import OF_THE_RUN, function_of, is_user_metric
from trainables.errors import ConfigError, Diverged, last_line
from trainables.model_names import is_user_model
from trainables.models import factories

if TYPE_CHECKING:
    from trainables.loop import TrialData, TrialState

COMPUTING = ("CPU", "device", "code", "weights", "torch", "torchvision", "numpy", "sweep-orchestrator")
"""What the last digits depend on; of everything else it is only reported that it differs."""

LOSS_LIMIT, ACCURACY_LIMIT = 0.3, 0.08  # of every epoch's train_loss, as a share of it, and train_accuracy
SCORE_LIMIT = 0.05  # of a trial that was not stopped early
TOLERANCE = (
    f"elsewhere train_loss may be off by {LOSS_LIMIT:.0%} and train_accuracy by {ACCURACY_LIMIT:g} "
    f"in an epoch, the score of a whole trial by {SCORE_LIMIT:g}; the scores of single epochs are shown, not judged"
)


@dataclass(frozen=True)
class Difference:
    """A value that differs from the record: a field of `EpochMetrics`, or a path such as
    `final_metrics.validation.loss`.
    """

    epoch: int
    metric: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        if isinstance(self.recorded, list):
            return f"{self.metric} is another one"
        return f"{self.metric} {_text(self.recorded)} was recorded, {_text(self.replayed)} is"


@dataclass(frozen=True)
class Elsewhere:
    """A fact of the place where the trial ran that is different here."""

    fact: str
    recorded: str | None
    here: str | None

    def __str__(self) -> str:
        return f"{self.fact} {self.recorded or 'not known'} was recorded, {self.here or 'not known'} is here"


@dataclass(frozen=True)
class Replay:
    """The result of a replay."""

    sweep: str
    trial: int
    status: str  # as recorded
    epochs: int  # that were compared
    score: float | None
    elsewhere: tuple[Elsewhere, ...]
    differences: tuple[Difference, ...]  # in the order of the epochs
    beyond: tuple[Difference, ...]  # of these, those beyond the tolerance

    @property
    def exact(self) -> bool:
        """True if equality to the last digit is expected."""
        return not any(one.fact in COMPUTING for one in self.elsewhere)

    @property
    def sound(self) -> bool:
        """True if the results are as they must be here."""
        return not (self.differences if self.exact else self.beyond)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        first = self.differences[0] if self.differences else None
        return {
            **{name: getattr(self, name) for name in ("sweep", "trial", "status", "epochs", "score", "exact", "sound")},
            "equal": not self.differences,
            "first_difference": first and dataclasses.asdict(first),
            "differences": len(self.differences),
            "beyond_tolerance": [dataclasses.asdict(one) for one in self.beyond],
            "elsewhere": [dataclasses.asdict(one) for one in self.elsewhere],
        }

    def verdict(self) -> Iterator[str]:
        """Yield the result in sentences."""
        epochs = f"{self.epochs} epoch{'' if self.epochs == 1 else 's'}"
        if not self.differences:
            yield f"trial {self.trial}, {self.status}: {epochs} run again, equal to the last digit"
        else:
            first = self.differences[0]
            yield f"trial {self.trial}, {self.status}: {epochs} run again"
            yield f"epoch {first.epoch} is the first that differs: {first}"
        for one in self.elsewhere:
            yield str(one)
        if not self.differences:
            return
        if self.exact:
            yield "CPU, versions and code are those of the record, so it should be equal to the last digit"
        elif self.beyond:
            yield from (f"beyond the tolerance in epoch {one.epoch}: {one}" for one in self.beyond)
            yield TOLERANCE
        else:
            yield f"within the tolerance: {TOLERANCE}"


def replay(
    board: Board, number: int, data_dir: Path | None, trust: str | None, report: Callable[[str], None]
) -> Replay:
    """Run trial `number` of a sweep again as far as its record goes, and compare.

    Args:
        data_dir: where the data are now, if not where the sweep found them.
        trust: the code that may be imported for the model and the metric, if these are not built in; with commas.
        report: gets a line about every epoch.

    Raises:
        ConfigError: there is no such trial, it has nothing to compare, or the data are not the sweep's.
        DatasetError: the data cannot be read.
    """
    trial = _recorded(board, number)
    if problems := _code_problems(trial, trust):
        raise ConfigError(*problems)
    planned = _with_data_in(data_dir, board.plan)
    data, split = planned.split(planned.load())
    resumption.check_same_data(board.spec.split, split)
    import torch

    from trainables import memory, precision
    from trainables.batches import Batches
    from trainables.errors import WeightsError
    from trainables.loop import TrialData, TrialState

    device = torch.device("cuda" if torch.cuda.is_available() and (trial.worker.device or "cpu") != "cpu" else "cpu")
    config = TrialConfig.from_dict(_as_run(board, trial, precision.device_kind(device)))
    torch.set_num_threads(trial.worker.threads or config.threads)
    precision.prepare(device)
    try:
        rows = TrialData.select(config, data, Batches.of(data, device))
        rows = rows.of_run(config, trial.final)
        config = precision.resolve(config, rows)
        state = TrialState.start(config, rows, device)
        differences = tuple(_compared(trial, config, rows, state, report))
    except WeightsError as error:
        raise ConfigError(str(error)) from error
    except (RuntimeError, MemoryError) as error:
        if not memory.out_of_memory(error):
            raise
        raise ConfigError(f"--replay {number}: out of memory on {device.type}: use a machine with more") from error
    return Replay(
        sweep=board.name,
        trial=number,
        status=trial.status,
        epochs=min(state.epoch, len(trial.epochs)),
        score=state.score,
        elsewhere=tuple(_elsewhere(board, trial, state)),
        differences=differences,
        beyond=tuple(beyond(trial, state.score, differences)),
    )


def _as_run(board: Board, trial: TrialRecord, here: str) -> dict[str, Any]:
    """Return the configuration of the trial as it ran, without autos; only a numeric format is for a kind of device.

    On another kind it is what suits that one: digits differ there anyway, and the trial's format may be the slowest.
    """
    worker = trial.worker if trial.worker.kind in (None, here) else dataclasses.replace(trial.worker, format=None)
    known = board.formats.get(format_key(trial.config, here), {})
    return worker.resolve({**trial.config, **known})


def beyond(trial: TrialRecord, score: float | None, differences: tuple[Difference, ...]) -> Iterator[Difference]:
    """Return the differences that another machine or version does not explain.

    Means over an epoch's training rows are steady, and so is the best of a whole trial. What a single epoch scores is
    not, while the learning rate is high. The limits are at least twice what 37 trials on digits were off with kernels
    of AVX2 in the place of AVX-512: see docs/trust.md.
    """
    yield from (one for one in differences if one.metric == "status" or _is_off(one))
    whole = trial.status == "completed" and trial.score is not None and trial.metric != "val_loss"
    if whole and (score is None or abs(score - (trial.score or 0.0)) > SCORE_LIMIT):
        yield Difference(trial.last_epoch, "score", trial.score, score)


def _is_off(one: Difference) -> bool:
    if one.metric not in ("train_loss", "train_accuracy"):
        return False
    limit = LOSS_LIMIT * abs(one.recorded) if one.metric == "train_loss" else ACCURACY_LIMIT
    return bool(abs(one.recorded - one.replayed) > limit)


def _recorded(board: Board, number: int) -> TrialRecord:
    """Return the trial if its record has results to compare with."""
    if board.state is None:
        raise ConfigError(f"{board.place} is a table alone: --replay needs the sweep's folder, for its journal")
    trial = board.state.trials.get(number)
    if trial is None:
        numbers = [str(one) for one in sorted(board.state.trials)]
        some = ", ".join(numbers) if len(numbers) <= 5 else f"{', '.join(numbers[:2])} … {numbers[-1]}"
        raise ConfigError(f"--replay {number}: there is no such trial (trials: {some or 'none yet'})")
    if not trial.epochs and trial.status != "diverged":
        why = trial.error or (trial.end.stop_reason if trial.end else "it has not begun")
        raise ConfigError(f"--replay {number}: the trial has no epoch to compare: {last_line(why)}")
    return trial


def _code_problems(trial: TrialRecord, trust: str | None) -> list[str]:
    """Return why the code of the model or of the metric cannot be used: a record may be anybody's, so the caller must
    trust its code.
    """
    model, metric = trial.config["model"], trial.metric
    code = {"model is built by": model} if is_user_model(model) else {}
    code |= {"metric is computed by": function_of(metric)} if is_user_metric(metric) else {}
    every, trusted = ",".join(dict.fromkeys(code.values())), (trust or "").split(",")
    return [
        f"trial {trial.number}'s {role} code, {name}; if you trust it, allow it with --trust {every}"
        for role, name in code.items()
        if name not in trusted
    ] or [*factories.problems(model), *user_metrics.problems(metric)]


def _with_data_in(data_dir: Path | None, planned: Plan) -> Plan:
    """Return the plan with the data where they are now: a data set that is a path may have moved."""
    if data_dir is None:
        return planned
    old = Path(planned.dataset)
    if planned.dataset in datasets.SOURCES or (old.suffix == ".csv" and old.exists()):
        return dataclasses.replace(planned, data_dir=absolute(data_dir))
    inside = data_dir / old.name
    return dataclasses.replace(
        planned, dataset=str((inside if inside.exists() else data_dir).absolute()), data_dir=None
    )


def _compared(
    trial: TrialRecord, config: TrialConfig, data: TrialData, state: TrialState, report: Callable[[str], None]
) -> Iterator[Difference]:
    """Train as far as the record goes, and return what differs."""
    from trainables.loop import final_metrics, prepared, train

    data = prepared(data, state)
    epochs = train(data, state)
    try:
        for place, number in enumerate(trial.scores):
            recorded = trial.epochs.complete(place, trial.number)
            metrics = next(epochs, None)
            if metrics is None:
                yield Difference(number, "status", "an epoch", "the trial had ended")
                return
            found = list(_differing(number, recorded, metrics.to_dict()))
            report(f"epoch {number}/{trial.last_epoch}  {'; '.join(map(str, found)) or 'equal'}")
            yield from found
        if trial.status == "diverged":
            next(epochs, None)
            yield Difference(trial.last_epoch + 1, "status", "diverged", "an epoch")
    except Diverged as error:
        again = trial.status == "diverged" and state.epoch == trial.last_epoch + 1
        report(f"epoch {state.epoch}  {'diverged, as recorded' if again else f'diverged: {error}'}")
        if not again:
            yield Difference(state.epoch, "status", "an epoch", "diverged")
        return
    if trial.final and trial.status == "completed":
        replayed = final_metrics(data, state)
        for part, measured in replayed.items():
            known = trial.final_metrics.get(part)
            old = {f"final_metrics.{part}.{name}": value for name, value in (known.to_dict() if known else {}).items()}
            new = {f"final_metrics.{part}.{name}": value for name, value in measured.items() if name != "seconds"}
            yield from _differing(trial.last_epoch, old, new)


def _differing(epoch: int, recorded: dict[str, Any], replayed: dict[str, Any]) -> Iterator[Difference]:
    """Return the values of `replayed` that differ from the record, both as JSON has them; older records have fewer."""
    for name, value in json.loads(json.dumps(replayed)).items():
        if name in recorded and name not in OF_THE_RUN and recorded[name] != value:
            yield Difference(epoch, name, recorded[name], value)


def _elsewhere(board: Board, trial: TrialRecord, state: TrialState) -> Iterator[Elsewhere]:
    """Return the facts of this place that differ from those of the commands that ran the trial."""
    import torch

    device, began = state.device, (trial.worker.weights or {}).get("sha256")
    if state.kept.filled is not None and began not in (None, state.kept.filled.sha256):
        yield Elsewhere("weights", f"a file of SHA-256 {str(began)[:8]}…", f"{state.kept.filled.sha256[:8]}…")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    now = _facts(provenance.describe(), "now") | {"device": name}
    found: dict[Elsewhere, None] = {}
    formats = [
        " ".join(each.values()) for each in (trial.worker.format or format_of(state.config), format_of(state.config))
    ]
    if formats[0] != formats[1]:
        found[Elsewhere("numeric format", *formats)] = None
    for spec in _commands(board.events, trial.number) or [board.spec]:
        then = _facts(spec, "then") | {"device": trial.worker.device or "cpu", "CPU": trial.worker.cpu or spec.cpu}
        found |= {Elsewhere(fact, value, now.get(fact)): None for fact, value in then.items() if value != now.get(fact)}
    if device.type == "cuda":
        found[Elsewhere("device", name, "one whose kernels add in no fixed order")] = None
    yield from found


def _commands(events: Iterable[Event], number: int) -> list[Command]:
    """Return the commands under which the trial made progress."""
    latest: Command | None = None
    found: dict[int, Command] = {}
    for event in events:
        if isinstance(event, SweepStarted | SweepResumed):
            latest = event.spec
        elif isinstance(event, TrialEpoch | TrialEnded) and event.trial == number and latest is not None:
            found[id(latest)] = latest
    return list(found.values())


def _facts(command: Command, when: str) -> dict[str, str | None]:
    """Return the hardware, versions and code that a command ran with."""
    changes = f" with changes {when}" if command.dirty else ""  # nobody knows whether they are the same
    revision = command.revision and f"{command.revision[:10]}{changes}"
    return {"CPU": command.cpu, "code": revision, **command.versions}


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
