"""The plan of a resumed sweep: as it began, but for what may change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.cluster.machine import Nodes, Slot, capacity, widest
from orchestrator.plan import slot_range
from orchestrator.plan.final_runs import CONFIRM_SEEDS
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan, count_trials
from orchestrator.plan.request import Request, absolute, absolute_dataset, with_absolute_paths
from orchestrator.record.aims import check_target
from orchestrator.record.state import SweepState
from orchestrator.search.promotion import ROUND
from search_spaces.space import SearchSpace
from trainables import datasets
from trainables.command_line import flag_of
from trainables.config import FIELDS
from trainables.epoch_metrics import canonical
from trainables.errors import ConfigError

MAY_CHANGE = (
    "resume",
    "trials",
    "confirm",
    "confirm_seeds",
    "refit",
    "no_refit",
    "ensemble",
    "time_budget",
    "epoch_budget",
    "gpu_hours",
    "target_score",
    "patience_trials",
    "results",
    "address",
    "slots",
    "cpus_per_trial",
    "gpus_per_trial",
    "data_dir",
    "log",
    "on_end",
    "dry_run",
    "profile",
    "json",
    "quiet",
    "quick",
)
"""The options that may differ with --resume. Data may have moved: its content is compared. `quick` is a preset.

Slots may have another number and size, since they change no result but in its last digits.
"""


def resume(request: Request, began: Plan, state: SweepState, nodes: Nodes) -> Plan:
    """Return the plan of a resumed sweep: as it `began`, but with more trials and other slots if they are asked for.

    Raises:
        ConfigError: fewer trials are asked for than the sweep has, an option contradicts how the sweep began, or no
            machine has the capacity for a trial.
    """
    options = request.options
    problems = [
        *_contradictions(request, began),
        *_too_few(options, began, state),
        *_other_device(options, began),
        *check_target(began.space.base.metric, options.target_score),
        *slot_range.check_share(options, nodes),
    ]
    if problems:
        raise ConfigError(*problems)
    confirm = began.confirm if options.confirm is None else options.confirm
    seeds = options.confirm_seeds or began.confirm_seeds or CONFIRM_SEEDS[began.preset]
    dataset, data_dir = _place(options, began)
    trials = count_trials(options.trials or _trials(began, state), began.sampler, began.arms, began.seed)
    planned = dataclasses.replace(
        began,
        dataset=dataset,
        data_dir=data_dir,
        confirm=confirm,
        confirm_seeds=seeds if confirm or began.recipe else 0,
        refit=bool(confirm) and not options.no_refit and (options.refit or began.refit),
        ensemble=(options.ensemble or began.ensemble) if confirm else "none",
        open_ended=began.open_ended and options.trials is None and options.time_budget is not None,
        trials=trials,
    )
    planned = dataclasses.replace(planned, rounds=began.rounds if planned.open_ended else _rounds(began, state, trials))
    return _with_slots(planned, options, nodes)


def _rounds(began: Plan, state: SweepState, trials: int) -> tuple[int, ...]:
    """Return the rounds of a sweep that has `trials` now: those that it had, and one for the trials added."""
    there = began.rounds[-1] if began.rounds else 0
    former = (*began.rounds, *range(there + ROUND, _trials(began, state), ROUND))
    return (*(end for end in former if end < trials), trials)


def _trials(began: Plan, state: SweepState) -> int:
    """Return how many trials the sweep has in each arm; those that it could have had in a time budget are over."""
    there = max((arm.proposed for arm in state.arms.values()), default=0)
    return max(there, 1) if began.open_ended else began.trials


def _with_slots(planned: Plan, options: SweepOptions, nodes: Nodes) -> Plan:
    """Return the plan with the slots that are asked for now: of another number or size, where they are given.

    The size with which the sweep began is kept if it fits; if not, a slot has as many CPUs as one can have.

    Raises:
        ConfigError: too few slots fit.
    """
    asked = slot_range.asked(options)
    slots = slot_range.SlotRange(planned.least_slots, planned.concurrency) if options.slots == "auto" else asked
    slot = planned.slot if options.gpus_per_trial == "auto" else Slot(planned.slot_cpus, options.gpus_per_trial)
    if options.cpus_per_trial != "auto":
        slot = dataclasses.replace(slot, cpus=options.cpus_per_trial)
    elif slots.least and not capacity(nodes, slot):
        wider = widest(slot, nodes, slots.most or planned.trials)
        slot = wider if wider.cpus else slot
    grows = options.address != "local"
    needed = slots if options.slots != "auto" else slot_range.SlotRange(min(slots.least, 1) if grows else 1)
    slot_range.check_capacity(needed, slot, nodes, grows=grows)
    planned = dataclasses.replace(planned.with_slot(slot), concurrency=slots.most, least_slots=slots.least)
    given = (options.gpus_per_trial, options.cpus_per_trial) != ("auto", "auto")
    return dataclasses.replace(planned, share_gpus=planned.share_gpus and not given)


def _other_device(options: SweepOptions, began: Plan) -> list[str]:
    """Return a message if trials should change from GPUs to CPUs or back: spaces and numeric formats suit one kind."""
    gpus = options.gpus_per_trial
    if gpus == "auto" or bool(gpus) == bool(began.slot_gpus):
        return []
    kinds = ("GPUs", "CPUs") if began.slot_gpus else ("CPUs", "GPUs")
    return [
        f"--gpus-per-trial {gpus:g}: this sweep's trials run on {kinds[0]}, for which their settings and numeric "
        f"formats were chosen; leave it out, or start a new sweep on {kinds[1]}"
    ]


def _place(options: SweepOptions, began: Plan) -> tuple[str, str | None]:
    """Return the data set as it is given now, at its new path, for which --data-dir may stand; and its `data_dir`."""
    moved, data_dir = options.dataset, absolute(options.data_dir)
    if moved is None and data_dir and _has_path(began.dataset) and not datasets.is_table(Path(began.dataset)):
        moved, data_dir = data_dir, None
    dataset = absolute_dataset(moved) if moved and _has_path(began.dataset) else began.dataset
    return dataset, data_dir or began.data_dir


def _has_path(dataset: str) -> bool:
    return dataset not in datasets.SOURCES


def check_same_data(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError with the differences if a resumed sweep would not see the rows that it began with."""
    if "pictures" in now and "pictures" not in before:
        raise ConfigError(
            "this sweep began with an earlier version, which cut pictures of different sizes to squares when it stored "
            "them and trained on others in their shape; they are stored whole and seen as squares; start a new sweep"
        )
    changed = [f"{name} was {before[name]}, is {now.get(name)}" for name in before if before[name] != now.get(name)]
    if changed:
        raise ConfigError(f"the data set is not the one this sweep began with: {'; '.join(changed)}")


def _too_few(options: SweepOptions, planned: Plan, state: SweepState) -> list[str]:
    """Return a message for each number of trials or runs that is smaller than what the sweep has, or does not apply."""
    problems = []
    confirm = planned.confirm if options.confirm is None else options.confirm
    there = {
        "trials": max((arm.proposed for arm in state.arms.values()), default=0),
        "confirm_seeds": max((index + 1 for arm in state.arms.values() for _, index in arm.finals), default=0),
    }
    for name, least in there.items():
        given = getattr(options, name)
        if given is not None and given < least:
            problems.append(f"{flag_of(name)} {given}: this sweep has {least} already; ask for at least as many")
    if options.trials is not None and planned.recipe is not None and not planned.space.distributions:
        problems.append(f"--trials {options.trials}: nothing is searched in this sweep; see --confirm-seeds")
    if options.confirm_seeds is not None and planned.recipe is None and not confirm:
        problems.append(f"--confirm-seeds {options.confirm_seeds}: this sweep confirms nothing; see --confirm")
    if options.confirm is not None and planned.recipe is not None:
        problems.append(f"--confirm {options.confirm}: this sweep is of a recipe; see --confirm-seeds")
    return problems


def _contradictions(request: Request, began: Plan) -> list[str]:
    """Return a message for each option given beside --resume that contradicts how the sweep began."""
    options, base = request.options, began.space.base
    before = {
        **{f.name: getattr(began, f.name) for f in dataclasses.fields(began)},
        "arms": tuple(began.arms),
        "max_epochs": base.max_epochs,
        "metric": base.metric,
        "folds": began.folds or "auto",
    }
    problems = []
    for field in dataclasses.fields(options):
        name, given = field.name, getattr(options, field.name)
        if name in MAY_CHANGE or given == field.default:
            continue
        if name == "dataset" and _has_path(given) and _has_path(began.dataset):  # it may have moved
            continue
        meaning: dict[str, Callable[[Any], Any]] = {
            "dataset": absolute_dataset,
            "metric": canonical,
            "external_test": absolute,
            "also": lambda given: tuple(map(str, request.aims)),
            "constraint": lambda given: tuple(map(str, request.constraints)),
        }
        given = getattr(options.reading, name, meaning.get(name, lambda same: same)(given))
        if given == before.get(name):
            continue
        option = "the data set" if name == "dataset" else flag_of(name)
        if name in ("set", "search", "fit", "weights"):
            for space in began.arms.values():
                problems += _space_contradictions(request, space)
        elif name in before:
            problems.append(f"{option} {_words(given)}: this sweep began with {_words(before[name])}")
        else:
            problems.append(f"{option}: it cannot be given with --resume")
    advice = "leave it out, or start a new sweep"
    return [f"{problem}; {advice}" for problem in dict.fromkeys(problems)]


def _words(value: Any) -> str:
    return "none" if value is None else " ".join(value) if isinstance(value, tuple) else str(value)


def _space_contradictions(request: Request, space: SearchSpace) -> list[str]:
    """Return a message for each field that --set and --search would change."""
    now = with_absolute_paths(request.changed(space))
    return [
        f"{name}={now.describe(name)}: this sweep began with {space.describe(name)}"
        for name in FIELDS
        if now.describe(name) != space.describe(name)
    ]
