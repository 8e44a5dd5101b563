"""The command: one data set in, the best training settings out.

    python -m orchestrator.sweep cifar10

and from Python:

    from orchestrator import sweep
    result = sweep.run(sweep.SweepOptions("cifar10", trials=8))

The main path is `run`, from top to bottom. What is heavy is imported where it is needed, so that wrong input is
answered before torch or Ray are loaded.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import loggers, validation
from orchestrator.cluster import connection, machine, process_state, signals
from orchestrator.display import on_end, plan_table, progress, text
from orchestrator.plan import forecast, models, plan, recorded, resumption, sharing, time_budget
from orchestrator.plan.context import SweepContext, SweepData
from orchestrator.plan.options import SweepOptions, parse
from orchestrator.plan.plan import Plan
from orchestrator.plan.public_command import public_command
from orchestrator.plan.request import Request
from orchestrator.record import journal_lines, lock, provenance
from orchestrator.record.decoding import RecordError
from orchestrator.record.events import SweepEnded, SweepResumed, SweepStarted
from orchestrator.record.facts import Spec
from orchestrator.record.journal import Journal, JournalError
from orchestrator.record.lock import LockError
from orchestrator.record.paths import SweepFolder
from orchestrator.record.trace import tracing
from orchestrator.result import DryRun, SweepResult
from orchestrator.search.limits import Limits, LimitWatch
from orchestrator.search.time_reserve import Budget, TimeReserve
from trainables import datasets, user_metrics
from trainables.command_line import DONE, FAILED, INTERRUPTED, complain, leave, write
from trainables.errors import ConfigError
from trainables.files import replace_json
from trainables.models import factories
from trainables.storage import Storage

__all__ = ["DryRun", "SweepError", "SweepOptions", "SweepResult", "main", "run"]

if TYPE_CHECKING:
    from rich.console import Console


SAMPLES = 5  # proposals that a dry run shows


class SweepError(RuntimeError):
    """The sweep could not go on; what it has is in its journal."""


def run(options: SweepOptions) -> SweepResult | DryRun:
    """Run a sweep, resume one, or plan one without running it.

    Raises:
        ConfigError: something in `options` is wrong; every problem is named.
        DatasetError: the data set cannot be read.
        JournalError: the record cannot be opened or written.
        RecordError: the record cannot be read.
        LockError: another command works on the sweep.
        SweepError: no worker could start, or the first trials all ended with one same error.
    """
    started = time.monotonic()
    if options.address == "local" and connection.is_guest():
        options = replace(options, address="auto")  # the Ray that the program uses already
    local = [machine.local()] if options.address == "local" else None
    request = validation.check(options, local)
    from orchestrator import conclusion  # takes a second, which wrong input does not wait for

    with ExitStack() as stack:
        trace = stack.enter_context(tracing(options.profile, "plan"))
        resumed, began = _reopen(options.results / options.resume, stack) if options.resume else (None, None)
        nodes = local or _attach(request, began, stack)
        planned = _plan(request, began, resumed, nodes)
        console = progress.console(options.quiet)
        for sentence in journal_lines.losses(resumed.damage if resumed is not None else ()):
            console.print(sentence, soft_wrap=True)
        if resumed is not None and conclusion.is_delivered(resumed, planned):
            _follow(request, resumed.path.parent, console, stack)
            confirmed = conclusion.show_finished(resumed, planned, console)
            wall_s = time.monotonic() - started
            return SweepResult(resumed.path.parent, planned, resumed.state, confirmed, "finished", wall_s)
        trace.next("read the data")  # meanwhile Ray starts, and its workers import
        starts = options.address == "local" and not options.dry_run
        here = stack.enter_context(connection.connecting("local", step=trace.beside)) if starts else None
        loaded = _load(planned, console)
        planned, notes = _suited(planned, request, nodes, loaded) if resumed is None else (planned, ())
        loaded = models.tried(planned, loaded, resumed.state if resumed else None, nodes)
        slots = planned.slots(nodes)
        plan_table.show_plan(planned, slots, loaded, console, (*notes, *machine.warnings(nodes)), request.limit_texts)
        if options.dry_run:
            return _dry_run(planned, slots, loaded, options.results, console)
        journal = resumed or _open(options.results / planned.name, stack)
        trace.journal = journal.path
        _follow(request, journal.path.parent, console, stack)
        trace.next("wait for Ray")
        storage, shared = _storage(planned, journal, here, console)
        context = SweepContext(planned, loaded, journal, storage, shared, console, trace, here)
        budget = Budget(seconds := time_budget.parsed(options.time_budget) or math.inf, started + seconds)
        if resumed is not None:
            resumption.check_same_data(resumed.state.spec.split, loaded.split)
        context = sharing.fitted(context)
        ended = _search(context, budget, request.limits, public_command(options))
        confirmed = conclusion.conclude(context)
        trace.next("wait for what runs beside")
        wall_s = time.monotonic() - started
        return SweepResult(context.folder.path, planned, context.state, confirmed, ended, wall_s)


def _suited(planned: Plan, request: Request, nodes: machine.Nodes, loaded: SweepData) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan of a new sweep once its data is known, and notes about it."""
    from orchestrator.leaderboard import memory

    planned = plan.suited(planned, request, nodes, loaded.rows)
    planned, warning = time_budget.planned_for(planned, request, nodes, loaded.rows)
    planned, remembered = memory.remember(planned, request.warm_start, request.options.results, loaded.split)
    return planned, (*remembered, warning)


def _dry_run(planned: Plan, slots: int, loaded: SweepData, folder: Path, console: Console) -> DryRun:
    """Show the first few proposals (of a recipe, of its first arm), and write the contact sheet into `folder`."""
    from orchestrator.report import contact_sheet
    from orchestrator.search.study import JournalStudy

    study = JournalStudy(planned.space, planned.sampler, planned.seed, trials=planned.trials)
    numbers = range(min(SAMPLES, planned.trials)) if planned.space.distributions else ()
    samples = [found.params for number in numbers if (found := study.propose(number)) is not None]
    plan_table.show_samples(planned, samples, console)
    expected = forecast.forecast(planned, loaded.rows, slots)
    plan_table.show_forecast(expected, slots, console)
    sheet = contact_sheet.write(planned, loaded, folder)
    console.print(f"pictures of each class, as the net sees them: {' and '.join(map(str, sheet))}", soft_wrap=True)
    return DryRun(planned, slots, loaded.split, loaded.inventory, samples, sheet[0], expected)


def _search(context: SweepContext, budget: Budget, limits: Limits, command: str) -> str:
    """Run the trials that the queue holds until it is empty or the budget spent; return why it ended."""
    context.trace.next("search and confirm")
    from orchestrator import conclusion
    from orchestrator.assessment import refits, tables
    from orchestrator.bundle import run_weights
    from orchestrator.bundle.early_model import EarlyModel
    from orchestrator.cluster import demand, shared_images
    from orchestrator.display.live_view import SweepView
    from orchestrator.record import kept_weights
    from orchestrator.search import slots, tuning
    from orchestrator.search.searcher import JournalSearcher
    from orchestrator.search.workers import Workers

    planned, journal, ending = context.plan, context.journal, tuning.Ending(budget.deadline)
    queue, rule, studies = refits.queue(planned), planned.stop_rule(), planned.studies(context.state)
    shared = shared_images.share(context.data), shared_images.share_weights(models.nets(planned))
    pruner = kept_weights.Pruner(context.state, context.storage)
    early, view = EarlyModel(context), SweepView(context.state, planned, context.console, budget.deadline)
    watch = LimitWatch(journal, queue, limits, planned.slot_gpus)
    subscribers = (  # in this order, after the event is on the disk and folded
        *(study.observe for study in studies.values()),  # first: proposals need what has happened
        watch.observe,
        tables.Writer(context.state, planned, context.folder).observe,  # they can be made again, so may be late
        early.observe,  # it reads weights, which the next one may remove
        pruner.observe,  # after the tables: it removes what nothing needs any more
        conclusion.Ahead(context, queue, shared[0]).observe,
        view.observe,  # last: people see what all others know
    )
    with process_state.optuna_quiet():  # for all trials at once: a change of level costs as much as the replay of one
        journal.subscribe(*subscribers)
    count_slots = context.slot_counter(queue)
    _record_start(context, planned.slots(slots.machines()), command)
    (guard := run_weights.Guard(context)).describe()
    pruner.tidy()
    workload = forecast.workload(planned, planned.slots(slots.machines()), budget.seconds)
    with (
        ending.interruption.handled(lambda: journal.appending),
        view.shown(),
        early.finishing(),
        demand.cancelled_at_end(),
    ):
        ended = tuning.run(
            journal,
            JournalSearcher(
                *(journal, queue, rule, studies, planned.config, count_slots),
                *(lambda: ending.reason is not None, guard.requeue, planned.slot_cpus),
                (TimeReserve(journal, queue, budget, count_slots).check, watch.check),
                Workers.of_slots(planned.slot),
            ),
            rule,
            tuning.image_trials(*shared, context.storage, "cuda" if planned.slot_gpus else "cpu", workload),
            *({"cpu": planned.slot_cpus, "gpu": planned.slot_gpus}, ending),
        )
    pruner.tidy()
    return _close(context, ended, ending.failure)


def _close(context: SweepContext, ended: str, failure: str | None) -> str:
    """Record and return the reason of the sweep's end: its time budget too if that left fewer trials than asked for."""
    closed = context.state.closed
    cut_short = closed is not None and closed.reason == "time_budget" and not context.plan.open_ended
    reason = "sweep_budget" if ended == "finished" and cut_short else ended
    context.journal.append(SweepEnded(reason))
    if failure is not None:
        raise SweepError(failure)
    return reason


def _record_start(context: SweepContext, slots: int, command: str) -> None:
    """Write what was asked, where it runs and what was measured there, into the journal and into `sweep.json`."""
    opening = SweepResumed if context.state.begun else SweepStarted
    spec = Spec(
        plan=context.plan.to_dict(),
        split=context.loaded.split,
        inventory=context.loaded.inventory.to_dict(),
        **vars(provenance.describe(slots, command)),
    )
    context.journal.append(opening(spec), *context.measured)
    context.folder.final.unlink(missing_ok=True)
    replace_json(context.folder.spec, context.state.record())


def _load(planned: Plan, console: Console) -> SweepData:
    """Load the rows that trials may see, and describe what was read and how it was split."""
    with progress.decoding(console) as report:
        dataset = planned.load(report)
        return SweepData(*planned.split(dataset, report), dataset.inventory)


def _open(folder: Path, stack: ExitStack, sweep: recorded.RecordedSweep | None = None) -> Journal:
    """Open the journal of the sweep in `folder`, and hold the sweep's lock, until the stack ends.

    What is known of the `sweep` is not read again if its record is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lease = stack.enter_context(lock.hold(folder))
    known = None if sweep is None or sweep.restored else (sweep.events, sweep.state)
    journal = Journal(SweepFolder(folder).journal, lease=lease, known=known)
    stack.callback(journal.close)
    return journal


def _reopen(folder: Path, stack: ExitStack) -> tuple[Journal, Plan]:
    """Open the journal of the sweep in `folder`, which is resumed; return it and the plan that the sweep began with."""
    sweep = recorded.read(folder)  # what is refused stays as it is
    journal = _open(folder, stack, sweep)
    if sweep.restored:  # the first line is damaged: it is written again
        journal.append(SweepStarted(sweep.state.spec))
    return journal, sweep.plan


def _plan(request: Request, began: Plan | None, journal: Journal | None, nodes: machine.Nodes) -> Plan:
    """Return the plan of a new sweep, or of one that is resumed from its journal and the plan that it began with."""
    if began is None or journal is None:
        return plan.make(request, nodes)
    return resumption.resume(request, began, journal.state, nodes)


def _follow(request: Request, folder: Path, console: Console, stack: ExitStack) -> None:
    """Have the trackers that are asked for follow the sweep in `folder` until the stack ends."""
    stack.enter_context(loggers.following(request.trackers, folder, partial(console.print, soft_wrap=True)))


def _attach(request: Request, began: Plan | None, stack: ExitStack) -> machine.Nodes:
    """Attach to the cluster asked for until the stack ends, bring the user's code, and return its machines."""
    notify = partial(progress.console(request.options.quiet).print, soft_wrap=True)
    spaces = request.possible_spaces() if began is None else list(began.arms.values())
    sources = {factories.source(str(name)) for space in spaces for name in space.values("model")}
    sources |= {user_metrics.source(space.base.metric) for space in spaces}
    stack.enter_context(connection.connect(request.options.address, notify, sorted(filter(None, sources))))
    return [node.resources for node in connection.nodes()]


def _storage(
    planned: Plan, journal: Journal, here: connection.Connection | None, console: Console
) -> tuple[Storage, bool]:
    """Return the storage of the sweep's checkpoints, and whether all machines share it, as a probe shows; wait for Ray.

    Raises:
        ConfigError: the storage that was asked for cannot be used; every machine that cannot use it is named.
    """
    from orchestrator.cluster import storage_probe

    if here is not None:
        here.wait()
    storage = Storage(planned.storage or str(SweepFolder(journal.path.parent).checkpoints.absolute()))
    try:
        if here is not None:
            with storage_probe.probing(storage):
                return storage, True
        failed = storage_probe.nodes_without_access(storage)
    except OSError as error:
        raise ConfigError(f"checkpoints cannot be kept in {storage.uri} from this machine: {error}") from error
    if failed and planned.storage is not None:
        raise ConfigError(*(f"--storage {storage.uri}: node {name}: {why}" for name, why in failed.items()))
    if failed:
        console.print(
            f"note: {', '.join(failed)} cannot see this sweep's folder, so checkpoints stay on each node's own disk: "
            "a lost node costs its running trials from their first epoch. --storage names a place that all nodes see"
        )
    return storage, not failed


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = parse(str(SweepOptions.__doc__), "python -m orchestrator.sweep", arguments)
    try:
        with signals.owned():
            result = run(options)
    except (ConfigError, datasets.DatasetError, RecordError) as error:
        return complain(error.problems)
    except LockError as error:
        return complain([str(error)])
    except (JournalError, SweepError) as error:
        return on_end.fail(options, str(error))
    except OSError as error:
        return on_end.fail(
            options, f"{error}; what has finished is in the journal: free disk space, then go on with --resume"
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # a defect of this program: its traceback is needed
        on_end.notify_failed(options, f"{type(error).__name__}: {error}")
        raise
    if options.json:
        write(json.dumps(result.to_dict()) + "\n")
    if isinstance(result, DryRun):
        return DONE
    on_end.notify(options.on_end, result.to_dict())
    if result.ended == "signal":
        return INTERRUPTED
    if result.owed:
        return complain([text.owed_line(result.owed, SweepFolder(result.folder))], FAILED)
    return DONE if result.is_complete() else FAILED


if __name__ == "__main__":
    leave(main())
