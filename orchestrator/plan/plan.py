"""The plan of a sweep: its options made definite, before torch, Ray or the data are loaded."""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from orchestrator.cluster.machine import Nodes, Slot, capacity
from orchestrator.plan import final_runs, recorded_arms, slot_range
from orchestrator.plan.request import Request, absolute, absolute_dataset
from orchestrator.record import aims, former_schemas
from orchestrator.record.aims import Aim, Constraint
from orchestrator.record.decoding import By, from_json
from orchestrator.search.promotion import KEEP, Rounds
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.schedulers import SCHEDULERS, ByArm, check_settings, stop_rule
from orchestrator.search.trial_queue import NextTrial, TrialQueue
from search_spaces.grid import count_points
from search_spaces.recipe import searched_split
from search_spaces.situation import UNREAD, Pictures
from search_spaces.space import SearchSpace
from search_spaces.stage import Stage
from trainables import datasets
from trainables.config import TrialConfig
from trainables.errors import ConfigError, look_up
from trainables.seeds import seed_for
from trainables.storage import below

if TYPE_CHECKING:
    from orchestrator.record.state import SweepState
    from orchestrator.search.study import JournalStudy
    from trainables.splits import SearchData


@dataclass(frozen=True)
class Plan:
    """A sweep as it will be run.

    A sweep without a recipe has one arm, named ""; its best trials are confirmed unless `confirm` is 0. `trials` is the
    number of searched trials in every arm. At most `concurrency` of them run at a time, None for as many as fit, and
    the sweep begins with `least_slots`. `storage` is None for the sweep's folder.
    """

    name: str
    dataset: str
    data_dir: str | None
    subset: int | None
    seed: int
    trials: int
    sampler: str
    scheduler: str
    grace: int
    factor: float
    arms: Annotated[Mapping[str, SearchSpace], By(recorded_arms.from_record)]
    slot_cpus: int
    slot_gpus: float
    concurrency: int | None
    least_slots: int = 1
    storage: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    on_bad_image: str = "fail"
    stored_side: int = 320
    parts: tuple[tuple[str, ...], ...] = ()
    classes: tuple[str, ...] = ()
    min_rows: int | None = None
    on_unlabelled: str = "fail"
    background: str = "white"
    recipe: str | None = None
    confirm: int = 0
    confirm_seeds: int = 0
    refit: bool = False  # the winner is trained once more, on all rows but the test set's
    ensemble: str = "none"  # which of the winner's models are kept
    external_test: str | None = None
    folds: int | None = 1  # of the rows that trials are scored on; None: as many as suit the data
    least_validation_rows: int = 10  # of each class; the validation set of new sweeps has the class mix of all rows
    preset: str = "good"
    open_ended: bool = False  # `trials` are an estimate of how many fit into the time budget
    confirm_start: bool = False  # the trial at the start point is confirmed, too, if it is among the best ten
    share_gpus: bool = False  # how many trials share a GPU is measured before the first proposal
    kind_gpus: dict[str, float] = field(default_factory=dict)  # kinds of GPUs → `slot_gpus` there, if another
    rounds: tuple[int, ...] = ()  # trials of an arm after each round of the search, as many as were asked for then
    also: tuple[str, ...] = ()  # aims beside the metric, each `NAME:min` or `NAME:max`
    constraint: tuple[str, ...] = ()  # that the winner must meet, such as `parameters<5000000`

    @property
    def space(self) -> SearchSpace:
        """The first arm's space: all arms have its metric and its searched fields."""
        return next(iter(self.arms.values()))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the first arm's search; none where the sampler knows all its proposals from the start."""
        return self.space.stages if look_up(SAMPLERS, self.sampler, "sampler").points is None else ()

    @property
    def aims(self) -> tuple[Aim, ...]:
        """The aims beside the metric."""
        return aims.known_aims(self.also)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints that the winner must meet."""
        return aims.known_constraints(self.constraint)

    @property
    def opened(self) -> bool:
        """True if trials see the test set, as a recipe's do that follow their paper's protocol."""
        return any(space.base.split != "core" for space in self.arms.values())

    @property
    def reading(self) -> datasets.Reading:
        """The way in which the files of the data set are read."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(datasets.Reading)}
        return datasets.Reading(**{**named, "data_dir": Path(self.data_dir) if self.data_dir else None})

    def queue(self) -> TrialQueue:
        """Return the queue of all trials of the sweep; those that refit the winner are counted alone."""
        best = max(self.confirm, 1)
        runs = self.confirm_seeds, best, self.confirm_start, self.refits
        return TrialQueue(self.arms, self.trials, *runs, self.open_ended)

    @property
    def refits(self) -> int:
        """The number of refits: one, or one for each member of an ensemble."""
        return int(self.refit) * (1 if self.ensemble == "none" else self.confirm_seeds)

    def config(self, number: int, due: NextTrial, params: dict[str, Any]) -> TrialConfig:
        """Return the configuration of trial `number`, made from its arm and its searched values.

        Final training runs have the same seeds in all arms. Searched trials are never scored on the rows that final
        training runs are tested on.
        """
        space = self.arms[due.arm]
        seed = ("confirm", due.index) if due.final else ("trial", number)
        split = space.base.split if due.final else searched_split(space.base.split)
        config = space.config(params, threads=self.slot_cpus, seed=seed_for(self.seed, *seed), split=split)
        return config if due.stop_epoch is None else config.replace(**final_runs.REFIT, stop_epoch=due.stop_epoch)

    def load(self, progress: datasets.Progress | None = None) -> datasets.Dataset:
        """Load the sweep's data set; raises DatasetError if it cannot be read."""
        return datasets.load(self.dataset, self.reading, progress)

    def split(
        self, dataset: datasets.Dataset, progress: datasets.Progress | None = None
    ) -> tuple[SearchData, dict[str, Any]]:
        """Return the rows of `dataset` that trials may see, and the record of how they were split.

        Raises:
            ConfigError: naming every reason why a trial has no rows.
            DatasetError: the external test set cannot be used, or there are too few rows.
        """
        from trainables.splits import Scoring, describe, search_data
        from trainables.trial_rows import check_split

        external_test = (
            datasets.load_external(Path(self.external_test), dataset, self.reading, progress)
            if self.external_test
            else None
        )
        asked: dict[str, Any] = {"subset": self.subset, "opened": self.opened, "external_test": external_test}
        asked["scoring"] = Scoring(self.folds, self.least_validation_rows)
        data = search_data(dataset, **asked)
        problems = [problem for config in self._examples() for problem in check_split(data, config)]
        if problems:
            raise ConfigError(*dict.fromkeys(problems))
        return data, describe(dataset, **asked)

    def _examples(self) -> list[TrialConfig]:
        """Return one configuration for each way in which trials choose their rows."""
        kinds = []
        for arm, space in self.arms.items():
            kinds += [NextTrial(arm, 0, {})] if self.recipe else []
            kinds += [NextTrial(arm, 0)] if space.distributions or not self.recipe else []
        return [self.config(0, due, {}) for due in kinds]

    def slots(self, nodes: Nodes) -> int:
        """Return how many trials run at a time on `nodes`."""
        fitting = capacity(nodes, self.slot)
        return min(fitting, self.concurrency or fitting)

    @property
    def slot(self) -> Slot:
        """A trial's share of a machine."""
        return Slot(self.slot_cpus, self.slot_gpus, self.kind_gpus)

    def with_slot(self, slot: Slot) -> Plan:
        """Return the plan with another share of a machine for each trial."""
        return dataclasses.replace(self, slot_cpus=slot.cpus, slot_gpus=slot.gpus, kind_gpus=dict(slot.by_kind))

    def slot_text(self) -> str:
        """Describe a trial's share of a machine."""
        return f"{self.slot} each{' (a GPU is shared, if measured so)' if self.share_gpus else ''}"

    def stopping(self) -> str:
        """Describe the rule that ends weak trials."""
        return look_up(SCHEDULERS, self.scheduler, "scheduler").describe(self.grace, self.factor)

    def studies(self, state: SweepState) -> dict[str, JournalStudy]:
        """Return a new study for each arm of the sweep whose state is folded to `state`."""
        from orchestrator.search.study import JournalStudy  # imports Optuna

        rules, judge = self.stop_rule().rules, aims.judge(state.trials, self.constraints)
        return {
            name: JournalStudy(space, self.sampler, self.seed, name, self.trials, rules[name].learned_at, judge)
            for name, space in self.arms.items()
        }

    def stop_rule(self) -> ByArm:
        """Return the rule that ends weak trials, for each arm with its own number of epochs."""
        settings = self.grace, self.factor, Rounds(self.rounds, max(self.confirm, KEEP))
        return ByArm({name: stop_rule(self.scheduler, space, *settings) for name, space in self.arms.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` gives the plan back."""
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "arms": {name: space.to_dict() for name, space in self.arms.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_dict` described.

        Raises:
            RecordError: a field is missing or has a value that it cannot have.
        """
        return from_json(cls, values if "rounds" in values else former_schemas.plan(values))


def make(request: Request, nodes: Nodes, pictures: Pictures = UNREAD) -> Plan:
    """Return the plan for what is asked for on these nodes, as far as it shows before the `pictures` are read.

    Raises:
        ConfigError: naming everything that asks for more than there is, or does not go together.
    """
    options = request.options
    gpu = slot_range.gpus(options, nodes) > 0
    arms = request.spaces(gpu=gpu, pictures=pictures)
    space = next(iter(arms.values()))
    trials = count_trials(options.trials or space.trials, options.sampler, arms, options.seed)
    grace = options.grace or max(1, space.base.max_epochs // 9)
    problems = slot_range.check_share(options, nodes) + _alike(arms) + _check_rungs(request, grace, arms)
    problems += [] if gpu else _only_on_gpus(request)
    if problems:
        raise ConfigError(*problems)
    confirm, seeds = final_runs.confirmation(options, trials if space.distributions else 1)
    slots = slot_range.asked(options)
    slot = slot_range.size(options, nodes, TrialQueue(arms, trials, seeds).total() if options.recipe else trials)
    slot_range.check_capacity(slots, slot, nodes, grows=options.address != "local")
    stem = options.recipe or _stem(request.dataset)
    plan = Plan(
        name=options.name or _free_name(options.results, f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"),
        dataset=absolute_dataset(request.dataset),
        subset=options.subset or space.subset,
        seed=options.seed,
        trials=trials,
        sampler=options.sampler,
        scheduler=options.scheduler,
        grace=grace,
        factor=options.factor,
        arms=arms,
        slot_cpus=slot.cpus,
        slot_gpus=slot.gpus,
        concurrency=slots.most,
        least_slots=slots.least,
        **{**dataclasses.asdict(options.reading), "data_dir": absolute(options.data_dir)},
        recipe=options.recipe,
        confirm=confirm,
        confirm_seeds=seeds,
        refit=final_runs.refit(options, request.dataset, confirm),
        ensemble=final_runs.ensemble(options, request.dataset, confirm),
        external_test=absolute(options.external_test),
        folds=1 if options.recipe else None if options.folds == "auto" else options.folds,
        least_validation_rows=1,
        preset=options.preset,
        confirm_start=options.confirm is None and confirm > 0,
        share_gpus=slot.gpus == 1.0 and options.gpus_per_trial == options.cpus_per_trial == "auto",
        rounds=(trials,),
        also=tuple(map(str, request.aims)),
        constraint=tuple(map(str, request.constraints)),
    )
    if options.storage is not None:  # shared by sweeps, of one name perhaps
        place = options.storage if "://" in options.storage else str(Path(options.storage).expanduser().absolute())
        plan = dataclasses.replace(plan, storage=below(place, f"{plan.name}-{secrets.token_hex(4)}"))
    return plan


def suited(planned: Plan, request: Request, nodes: Nodes, data: SearchData) -> Plan:
    """Return the plan of a new sweep once its pictures are read: search spaces may depend on them."""
    again = make(request, nodes, Pictures.of(data))
    return dataclasses.replace(again, name=planned.name, storage=planned.storage)


def _check_rungs(request: Request, grace: int, arms: Mapping[str, SearchSpace]) -> list[str]:
    """Return a message if the rungs of an arm lie too close together."""
    longest = max(space.base.max_epochs for space in arms.values())
    problem = check_settings(request.options.scheduler, request.options.factor, grace, longest)
    return [] if problem is None else [problem]


def _only_on_gpus(request: Request) -> list[str]:
    """Return a message for each option that means nothing where trials do not run on GPUs."""
    hours = request.options.gpu_hours
    problems = aims.without_gpus(request.aims, request.constraints)
    if hours is not None:
        problems.append(f"--gpu-hours {hours:g}: trials do not run on GPUs here; use --time-budget")
    return problems


def _alike(arms: Mapping[str, SearchSpace]) -> list[str]:
    """Return a message for each arm that equals an earlier one."""
    first: dict[str, str] = {}
    twins = [(name, first.setdefault(json.dumps(space.to_dict()), name)) for name, space in arms.items()]
    return [
        f"arms {twin} and {name} are equal with these --set options: name one of them by --arms, or set fewer fields"
        for name, twin in twins
        if name != twin
    ]


def _free_name(results: Path, name: str) -> str:
    """Return `name`, or `name-2`, `name-3`, … if sweeps that began in the same second have it."""
    return next(free for i in count(1) if not (results / (free := name if i == 1 else f"{name}-{i}")).exists())


def count_trials(trials: int, sampler: str, arms: Mapping[str, SearchSpace], seed: int) -> int:
    """Return `trials`, but not more than there are different points to propose in the largest of the arms that search.

    Raises:
        ConfigError: the sampler cannot search a space.
    """
    spaces = [space for name, space in arms.items() if space.distributions or not name]
    points = look_up(SAMPLERS, sampler, "sampler").points
    if points is not None:
        for space in spaces:
            points(space, seed)  # refuses a space
    return max((count_points(space, trials) for space in spaces), default=trials)


def _stem(dataset: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(dataset).stem).strip("-.") or "data"
