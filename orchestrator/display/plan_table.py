"""The plan on the terminal: what the data set was read as, what the sweep is about to do, and its first proposals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

import search_spaces
from orchestrator.display.inventory import CLASSES, ClassCounts, described
from orchestrator.display.text import counted, duration, short, span
from orchestrator.plan.context import SweepData
from orchestrator.plan.forecast import Forecast, StageForecast
from orchestrator.plan.plan import Plan
from orchestrator.record.decoding import from_json
from orchestrator.record.facts import RowCounts
from orchestrator.search.promotion import Asha
from orchestrator.search.samplers import SAMPLERS
from search_spaces.distributions import as_typed
from search_spaces.stage import quotas
from trainables.config import FIELDS
from trainables.epoch_metrics import direction_of
from trainables.errors import look_up, shown
from trainables.model_names import TIMM

TRAINED = {True: " of heads on frozen nets", False: " of whole nets"}  # by the value of `freeze`
STARTS_SHOWN = 3
NAMES_WIDTH = 20  # columns of the names beside what the plan says, at most

Pairs = Iterator[tuple[str, str]]
"""A name and a sentence for each line of the plan."""


def show_plan(
    planned: Plan,
    slots: int,
    loaded: SweepData,
    target: Console,
    notes: Iterable[str] = (),
    limits: Sequence[str] = (),
) -> None:
    """Print what the data set was read as, what the sweep is about to do with it, and further notes.

    Args:
        limits: what ends the search early, as text.
    """
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column()
    table.add_column(overflow="fold")
    for pairs in (
        [("sweep", planned.name), ("data", shown(planned.dataset))],
        _read(loaded, target.width - NAMES_WIDTH),
        _rows(planned, from_json(RowCounts, loaded.split)),
        _runs(planned, f"{_abreast(planned, slots)} at a time, {planned.slot_text()}", limits),
        _weights(planned, loaded),
        _settings(planned),
    ):
        for name, text in pairs:
            table.add_row(name, text)
    target.print(table)
    for note in filter(None, notes):
        target.print(note, style="yellow" if note.startswith("warning") else "", soft_wrap=True)


def _abreast(planned: Plan, slots: int) -> str:
    """Return how many trials run at a time: those that fit now, and how many there may be later."""
    most = planned.concurrency or slots
    return str(slots) if slots >= most else f"{slots} now, up to {most}"


def _read(loaded: SweepData, width: int) -> Pairs:
    """Yield how the data set was read, the rows of each class, and what was left out."""
    for name, text in described(loaded.inventory):
        yield name, text
        if name == CLASSES:
            yield "", "\n".join(ClassCounts.of(loaded.inventory).lines(width))


def _rows(planned: Plan, rows: RowCounts) -> Pairs:
    """Yield which rows are trained on, scored on and sealed."""
    skipped = rows.unreadable_rows
    unreadable = f"; {counted(skipped, 'unreadable image')} left out" if skipped else ""
    duplicates = rows.duplicate_rows
    if planned.opened:
        training = rows.pool_rows + rows.validation_rows
        yield "rows", f"{counted(training, 'row')} and {counted(rows.opened_rows, 'test row')}{unreadable}"
        twice = f"; {counted(duplicates, 'row is', 'rows are')} in both" if duplicates else ""
        yield "test set", f"not sealed: the arms are trained and tested as in the paper{twice}"
    else:
        yield "rows", f"{counted(rows.pool_rows, 'row')} to train on, {_scored(rows)}{unreadable}"
        seal = "official" if rows.official_test else "20 %, drawn once"
        left_out = f"{counted(duplicates, 'duplicate')} left out of the other rows"
        yield "test set", f"{counted(rows.test_rows, 'row')}, sealed ({seal}); {left_out}"
    if planned.external_test is not None:
        yield "external test set", f"{counted(rows.external_rows, 'row')} from {planned.external_test}"


def _scored(rows: RowCounts) -> str:
    """Describe the rows that trials are scored on."""
    if (folds := rows.folds) == 1:
        return f"{rows.validation_rows:,} in the validation set"
    return f"each scored once in {folds} folds: a trial trains {folds} models, so its epochs take {folds} times as long"


def _runs(planned: Plan, together: str, limits: Sequence[str]) -> Pairs:
    """Yield the trials that are searched, and the runs that confirm them or compare the arms."""
    longest = counted(max(space.base.max_epochs for space in planned.arms.values()), "epoch")
    if planned.space.distributions or planned.recipe is None:
        each = " in every arm" if planned.recipe else ""
        trials = f"as many as fit, about {planned.trials} or more" if planned.open_ended else planned.trials
        yield "trials", f"{trials}{each} × at most {longest}, {together}"
        yield from ((f"  stage {number}", text) for number, text in enumerate(_stages(planned), start=1))
        if planned.space.stages and not planned.stages:
            yield "  stages", f"none, as {planned.sampler} {look_up(SAMPLERS, planned.sampler, 'sampler').help}"
        if planned.aims:
            yield "aims", f"{', '.join(map(str, planned.aims))}, beside {planned.space.base.metric}, which decides"
        if planned.constraints:
            yield "constraints", f"the winner meets {' and '.join(map(str, planned.constraints))}"
        yield "proposals", f"{planned.sampler}, seed {planned.seed}; {_stopped(planned)}"
        if known := _starts(planned):
            yield "starts", known
        if limits:
            first = ", whichever comes first" if len(limits) > 1 else ""
            yield "limits", f"the search ends at {_either(limits)}{first}"
        if known := _known_epochs(planned):
            yield "epochs", known
    if planned.recipe is not None:
        yield "runs", f"{planned.confirm_seeds} of every arm × at most {longest}, {together}"
    elif planned.confirm:
        best = "trial" if planned.confirm == 1 else f"{planned.confirm} trials"
        runs = f"the best {best} again, in full, with {counted(planned.confirm_seeds, 'new seed')}"
        runs += "; the trial at the start point, too, if it is among the best ten" if _confirms_start(planned) else ""
        refit = "the winner is trained once more on all other rows, and " if planned.refit else ""
        yield "confirmation", f"{runs}; then {refit}the test set is opened for {'both' if refit else 'the winner'}"
    else:
        yield "confirmation", "none: the best score will be the luckiest one, and the test set stays sealed"


def _confirms_start(planned: Plan) -> bool:
    return planned.confirm_start and bool(planned.space.starts)


def _starts(planned: Plan) -> str:
    """Describe the start points that the search has, as far as they are searched; nothing if there are none."""
    found = planned.space.starts if look_up(SAMPLERS, planned.sampler, "sampler").points is None else ()
    texts = [" ".join(f"{name}={short(value)}" for name, value in start.items()) for start in found]
    more = f"; {len(texts) - STARTS_SHOWN} more" if len(texts) > STARTS_SHOWN else ""
    return f"{counted(len(texts), 'setting')} first: {'; '.join(texts[:STARTS_SHOWN])}{more}" if texts else ""


def _either(texts: Sequence[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def _known_epochs(planned: Plan) -> str:
    """Describe how many trials come to each rung, and the epochs of the search; nothing where scores decide that."""
    rule = planned.stop_rule().rules[next(iter(planned.arms))]
    if not isinstance(rule, Asha) or planned.stages or len(planned.rounds) != 1 or not rule.rungs:
        return ""
    reached = zip(rule.quotas(planned.trials), (*rule.rungs, rule.max_epochs), strict=True)
    steps = ", ".join(f"{trials} trials to epoch {epoch}" for trials, epoch in reached)
    each = " in every arm" if len(planned.arms) > 1 else ""
    return f"{rule.epochs(planned.trials)} in the search{each}: {steps}"


def _stopped(planned: Plan) -> str:
    """Describe which trials are stopped early, and by what rule."""
    nets = planned.space.values("freeze") != (True,)
    if planned.space.unstopped != {"freeze": True}:
        return f"stopped by {planned.stopping()}"
    return f"heads run in full{f', whole nets are stopped by {planned.stopping()}' if nets else ''}"


def _weights(planned: Plan, loaded: SweepData) -> Pairs:
    """Yield what was loaded of each net's weights or, for one's own pictures, that there are none."""
    for (model, _), filled in loaded.filled.items():
        yield f"weights of {model.removeprefix(TIMM)}", str(filled)
    own = planned.recipe is None and planned.dataset not in search_spaces.SPACES
    if own and planned.space.values("weights") == ("none",):
        yield (
            "weights",
            "none: nets are trained from scratch, which takes many more pictures; --weights imagenet downloads "
            "pretrained ones, --weights FOLDER uses yours",
        )


def _stages(planned: Plan) -> Iterator[str]:
    """Yield a line for each stage of the search: its trials, and what is decided about their searched fields."""
    space = planned.space
    for stage, trials in zip(planned.stages, quotas(planned.stages, planned.trials), strict=True):
        every = [f"each of {len(space.values(name))} values of {name} first" for name in stage.each]
        best = [f"{name} of the best {count if count > 1 else 'one'} so far" for name, count in stage.best.items()]
        fixed = [f"{name}={as_typed(value)}" for name, value in stage.fixed.items()]
        title = TRAINED[stage.fixed["freeze"]] if "freeze" in stage.fixed else ""
        yield f"{counted(trials, 'trial')}{title}: {', '.join([*fixed, *every, *best]) or 'all is searched'}"


def _settings(planned: Plan) -> Pairs:
    """Yield the metric, the searched fields, and those that are fixed to another value than their default."""
    base = planned.space.base
    yield "metric", f"{base.metric} ({direction_of(base.metric)})"
    for name in planned.space.varied:
        yield f"  {name}", planned.space.describe(name)
    arms = {name: space.base.to_dict() for name, space in planned.arms.items()}
    alike = {n for n in FIELDS if len({arm[n] for arm in arms.values()}) == 1}

    def listed(arm: dict[str, Any], names: Iterable[str]) -> str:
        return ", ".join(f"{n}={short(arm[n])}" for n in names if n not in planned.space.varied)

    changed = (n for n in FIELDS if n in alike and getattr(base, n) != FIELDS[n].default)
    yield "fixed", listed(base.to_dict(), changed)
    if planned.recipe is not None:
        for name, arm in arms.items():
            yield f"  {name}", listed(arm, (n for n in FIELDS if n not in alike))


def show_forecast(expected: Forecast | None, slots: int, target: Console) -> None:
    """Print how long the sweep will take, and what that is made of."""
    if expected is None:
        target.print("time: unknown, as no step of a trial could be run on this machine; the doctor says why")
        return
    several = len(expected.stages) > 1
    parts = [] if several else [_epoch(expected.epoch_s), *_features(expected.stages)]
    parts.append(f"as measured on {counted(expected.measured, 'configuration')}; {slots} at a time")
    target.print(f"time: about {span(expected.low_s, expected.high_s)} ({', '.join(parts)})", soft_wrap=True)
    for number, stage in enumerate(expected.stages if several else (), start=1):
        parts = [counted(stage.trials, "trial"), _epoch(stage.epoch_s), *_features([stage])]
        target.print(f"  stage {number}: {span(stage.low_s, stage.high_s)} ({', '.join(parts)})", soft_wrap=True)


def _epoch(seconds: float) -> str:
    return f"{f'{seconds:.2g} s' if seconds < 10 else duration(seconds)} an epoch"


def _features(stages: Iterable[StageForecast]) -> list[str]:
    """Return a text about the features that are computed once, if there are any."""
    return [f"{duration(stage.features_s)} for features, once" for stage in stages if stage.features_s]


def show_samples(planned: Plan, samples: Sequence[dict[str, Any]], target: Console) -> None:
    """Print one row per searched field, one column per sample; a dash where a condition excludes the field."""
    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("samples")
    for number in range(len(samples)):
        table.add_column(str(number))
    for name in planned.space.distributions:
        table.add_row(f"  {name}", *(short(params[name]) if name in params else "–" for params in samples))
    target.print(table)
