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
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import loggers, validation
from orchestrator.cluster import machine
from orchestrator.plan import plan, resumption
from orchestrator.plan.options import SweepOptions, parse
from orchestrator.plan.plan import Plan
from orchestrator.record import former_schemas, lock, provenance
from orchestrator.record.journal import Journal, JournalError
from orchestrator.record.lock import LockError
from orchestrator.record.state import SweepState
from orchestrator.result import DryRun, SweepResult
from orchestrator.validation import check_foreign
from trainables import datasets
from trainables.command_line import DONE, FAILED, INTERRUPTED, complain
from trainables.errors import ConfigError
from trainables.files import replace_json
from trainables.models import factories
from trainables.storage import Storage

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.search.schedulers import StopRule
    from orchestrator.search.tuning import Ending
    from search_spaces.space import SearchSpace
    from trainables.splits import SearchData

SAMPLES = 5  # of the space that a dry run shows


class SweepError(RuntimeError):
    """The sweep could not go on; what it has is in its journal."""


def run(options: SweepOptions) -> SweepResult | DryRun:
    """Run a sweep, or go on with one, or say what it would do.

    Raises:
        ConfigError: something in `options` is wrong; every problem is named.
        DatasetError: the data set cannot be read.
        JournalError: the record cannot be read or written.
        LockError: another command works on the sweep.
        SweepError: no worker could start.
    """
    started = time.monotonic()
    nodes: machine.Nodes | None = [machine.local()] if options.address == "local" else None
    validation.check(options, nodes)
    with ExitStack() as stack:
        journal = _open(options.results / options.resume, stack) if options.resume else None
        nodes = _attach(options, journal, stack) if nodes is None else nodes
        planned = plan.make(options, nodes) if journal is None else resumption.resume(options, journal.state, nodes)
        folder = options.results / (options.resume or planned.name)

        from orchestrator.display import progress

        people = progress.console(options.quiet)
        followed = loggers.following(plan.flat(options.log), folder, partial(people.print, soft_wrap=True))
        if journal is not None and _all_ended(journal.state, planned):
            from orchestrator import conclusion

            stack.enter_context(followed)
            if conclusion.is_concluded(folder):
                conclusion.show_finished(journal.state, folder, people)
            else:  # the command was killed after the last trial, or files were damaged since
                storage = _storage(planned, folder)
                shared = options.address == "local" or _shares(planned, storage, options.address, people)
                conclusion.conclude(journal, planned, _load(planned, people)[0], storage, shared, people)
            return SweepResult(folder, journal.state, "finished", time.monotonic() - started)
        data, split = _load(planned, people)
        check_foreign(planned, data)
        progress.show_plan(planned, planned.slots(nodes), split, people)
        if options.dry_run:
            samples = _samples(planned)
            progress.show_samples(planned, samples, people)
            return DryRun(planned, planned.slots(nodes), split, samples)
        journal = journal or _open(folder, stack)
        stack.enter_context(followed)
        if options.address == "local":
            from orchestrator.cluster import connection

            stack.enter_context(connection.connect("local"))
        storage = _storage(planned, folder)
        shared = _shares(planned, storage, options.address, people)
        deadline = started + (plan.seconds(options.time_budget or "") or float("inf"))
        ended = _search(planned, data, split, journal, storage, deadline, people)
        from orchestrator import conclusion

        conclusion.conclude(journal, planned, data, storage, shared, people)
        return SweepResult(folder, journal.state, ended, time.monotonic() - started)


def _samples(planned: Plan) -> list[dict[str, Any]]:
    """The searched values of the first few trials that would be proposed; of a recipe, in its first arm."""
    from orchestrator.search.samplers import JournalStudy

    study = JournalStudy(planned.space, planned.sampler, planned.seed)
    numbers = range(min(SAMPLES, planned.trials)) if planned.space.distributions else ()
    return [params for number in numbers if (params := study.propose(number, number)) is not None]


def _search(
    planned: Plan,
    data: SearchData,
    split: dict[str, Any],
    journal: Journal,
    storage: Storage,
    deadline: float,
    people: Console,
) -> str:
    """Run the trials that are due; why the search ended."""
    from orchestrator.assessment import tables
    from orchestrator.cluster import shared_images
    from orchestrator.display.live_view import SweepView
    from orchestrator.record import kept_weights
    from orchestrator.search import slots, tuning
    from orchestrator.search.samplers import JournalStudy
    from orchestrator.search.schedulers import ByArm, stop_rule
    from orchestrator.search.searcher import JournalSearcher

    folder, room = journal.path.parent, slots.SlotCounter(planned)
    studies = {name: JournalStudy(space, planned.sampler, planned.seed, name) for name, space in planned.arms.items()}
    opening = "sweep_resumed" if journal.state.spec else "sweep_started"
    if journal.state.spec:
        resumption.check_same_data(journal.state.spec["split"], split)
    spec = {"plan": planned.to_dict(), "slots": room(), "split": split, **provenance.describe()}
    for study in studies.values():
        journal.subscribe(study.observe)
    journal.append({"event": opening, "spec": spec})
    (folder / "final.json").unlink(missing_ok=True)
    replace_json(folder / "sweep.json", journal.state.record())

    def rule(space: SearchSpace) -> StopRule:
        return stop_rule(planned.scheduler, space.base.max_epochs, planned.grace, planned.factor)

    pruner = kept_weights.Pruner(journal.state, storage)
    shown = SweepView(journal.state, planned, people)
    journal.subscribe(tables.Writer(journal.state, folder).observe)
    journal.subscribe(pruner.observe)
    journal.subscribe(shown.observe)
    pruner.tidy()
    ending = tuning.Ending(deadline)
    with _signals(ending, journal), shown.shown():
        ended = tuning.run(
            journal,
            JournalSearcher(journal, planned.queue(), studies, planned.config, room, lambda: ending.reason is not None),
            ByArm({name: rule(space) for name, space in planned.arms.items()}),
            tuning.image_trials(shared_images.share(data), storage, "cuda" if planned.slot_gpus else "cpu"),
            {"cpu": planned.slot_cpus, "gpu": planned.slot_gpus},
            ending,
        )
    pruner.tidy()
    journal.append({"event": "sweep_ended", "reason": ended})
    if ending.failure is not None:
        raise SweepError(f"no worker could start: {ending.failure}")
    return ended


def _load(planned: Plan, people: Console) -> tuple[SearchData, dict[str, Any]]:
    """The rows that trials may see, and the record of how they were split."""
    from orchestrator.display.progress import decoding

    with decoding(people) as report:
        return planned.split(planned.load(report), report)


def _open(folder: Path, stack: ExitStack) -> Journal:
    """The journal of the sweep in `folder`, held and open until the stack ends."""
    folder.mkdir(parents=True, exist_ok=True)
    stack.enter_context(lock.hold(folder))
    journal = Journal(folder / "journal.jsonl")
    stack.callback(journal.close)
    if journal.state.trials and not journal.state.spec:  # the first line was damaged, its copy may not be
        with suppress(OSError, ValueError):
            spec = former_schemas.spec(json.loads((folder / "sweep.json").read_bytes()))
            journal.append({"event": "sweep_started", "spec": {n: v for n, v in spec.items() if n != "formats"}})
    return journal


def _attach(options: SweepOptions, journal: Journal | None, stack: ExitStack) -> machine.Nodes:
    """The machines of the cluster that was asked for, attached to until the stack ends, with the code of all models."""
    from orchestrator.cluster import connection
    from orchestrator.display import progress

    tell = partial(progress.console(options.quiet).print, soft_wrap=True)
    spaces = (
        plan.possible_spaces(options) if journal is None else resumption.began(options, journal.state).arms.values()
    )
    sources = {factories.source(str(name)) for space in spaces for name in space.values("model")}
    stack.enter_context(connection.connect(options.address, tell, sorted(filter(None, sources))))
    return [node.resources for node in connection.nodes()]


def _storage(planned: Plan, folder: Path) -> Storage:
    """Where the checkpoints of the sweep in `folder` lie."""
    return Storage(planned.storage or str((folder / "checkpoints").absolute()))


def _shares(planned: Plan, storage: Storage, address: str, people: Console) -> bool:
    """Whether all machines share the storage, as a probe shows. Where that was asked for, it must be so.

    Raises:
        ConfigError: naming every machine that cannot use the storage that was asked for.
    """
    from orchestrator.cluster import storage_probe

    try:
        if address == "local":
            with storage_probe.probing(storage):
                return True
        blind = storage_probe.nodes_without_access(storage)
    except OSError as error:
        raise ConfigError(f"checkpoints cannot be kept in {storage.uri} from this machine: {error}") from error
    if blind and planned.storage is not None:
        raise ConfigError(*[f"--storage {storage.uri}: node {name}: {why}" for name, why in blind.items()])
    if blind:
        people.print(
            f"note: {', '.join(blind)} cannot see this sweep's folder, so checkpoints stay on each node's own disk: "
            "a lost node costs its running trials from their first epoch. --storage names a place that all nodes see"
        )
    return not blind


def _all_ended(state: SweepState, planned: Plan) -> bool:
    return state.finished == len(state.trials) and planned.queue().next(state) is None


@contextmanager
def _signals(ending: Ending, journal: Journal) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the search, once; a second one ends the process. Both can be resumed.

    Tune is left at once: a signal to all processes of a job has ended Ray as well, and no call to it returns.
    """

    def on_signal(number: int, frame: Any) -> None:
        if ending.signal:
            os._exit(INTERRUPTED)
        ending.signal = True
        if ending.within_tune and not journal.appending:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> int:
    """The command line; its exit code."""
    options = parse(str(SweepOptions.__doc__), "python -m orchestrator.sweep", arguments)
    try:
        result = run(options)
    except (ConfigError, datasets.DatasetError) as error:
        return complain(error.problems)
    except LockError as error:
        return complain([str(error)])
    except (JournalError, SweepError) as error:
        return _fail(options, str(error))
    except OSError as error:
        return _fail(options, f"{error}; what has finished is in the journal: make room, then go on with --resume")
    except KeyboardInterrupt:
        return INTERRUPTED
    if options.json:
        sys.stdout.write(json.dumps(result.to_dict()) + "\n")
    if isinstance(result, DryRun):
        return DONE
    _notify(options.on_end, result.to_dict())
    if result.ended == "signal":
        return INTERRUPTED
    return DONE if result.whole() else FAILED


def _notify(command: str | None, result: dict[str, Any]) -> None:
    """Run the user's command with the result as JSON on its standard input; ours has the last line of the output."""
    if command is None:
        return
    done = subprocess.run(command, shell=True, input=json.dumps(result), text=True, stdout=sys.stderr, check=False)  # noqa: S602 - it is the user's own
    if done.returncode:
        complain([f"--on-end {command!r} ended with exit code {done.returncode}"], FAILED)


def _fail(options: SweepOptions, problem: str) -> int:
    _notify(options.on_end, {"sweep": options.resume or options.name, "ended": "failed", "error": problem})
    return complain([problem], FAILED)


if __name__ == "__main__":
    sys.exit(main())
