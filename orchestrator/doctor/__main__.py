"""What on this machine or cluster would make a sweep fail, and the mend.

    python -m orchestrator.doctor cifar10 --storage s3://bucket/path

Takes the options of `orchestrator.sweep`, so that a sweep's command can be tried with the one word changed. Nothing is
trained but one optimizer step of each model, and nothing stays behind but the decoded data.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from orchestrator import validation
from orchestrator.cluster import machine
from orchestrator.doctor.data import check_data
from orchestrator.doctor.finding import CODES, Finding, Findings, all_failed
from orchestrator.doctor.libraries import check_environment
from orchestrator.doctor.models import check_models
from orchestrator.doctor.nodes import check_gpus, check_ray, check_storage, place
from orchestrator.doctor.resources import check_disk, check_memory, disk_needs
from orchestrator.plan import plan, resumption
from orchestrator.plan.options import PlanOptions, SweepOptions, parse
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request
from orchestrator.record import journal
from orchestrator.record.state import replay
from trainables.command_line import INTERRUPTED
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


ABOUT = """
Find what would make a sweep fail. Takes a sweep's options; trains nothing.

Exit codes: 0 all well; 2 the sweep would refuse this command; otherwise the first that failed of 10 environment,
11 Ray, 12 GPU, 13 storage, 14 disk or memory, 15 data, 16 model.

For example:
  python -m orchestrator.doctor
  python -m orchestrator.doctor cifar10 --data-dir ~/data/cifar10 --set model=resnet50
  python -m orchestrator.doctor --address 10.0.0.1:6379 --storage s3://bucket/path
"""


def examine(options: SweepOptions, people: Console) -> Findings:
    """Check after check. What rests on one that failed is left out."""
    from orchestrator.cluster import connection

    try:
        request = validation.check(options, [machine.local()] if options.address == "local" else None)
    except ConfigError as error:
        yield from all_failed("command", error.problems, "see --help")
        return
    yield from check_environment()
    told: list[str] = []
    with ExitStack() as stack:
        try:
            stack.enter_context(connection.connect(options.address, told.append))
        except ConfigError as error:
            yield from all_failed("ray", error.problems, "see `ray status`")
            return
        there = connection.nodes()
        yield from check_ray(options.address, there, told)
        try:
            planned = _planned(request, [node.resources for node in there])
        except (ConfigError, journal.JournalError) as error:
            yield from all_failed("command", getattr(error, "problems", [str(error)]), "see --help")
            return
        yield from check_gpus(planned, there)
        yield from check_storage(place(options, planned))
    data = yield from check_data(planned, people)
    if data is not None:
        costs = yield from check_models(planned, data)
        if costs:
            yield from check_memory(planned, there, data.images.nbytes, max(cost.memory for cost in costs))
        yield from check_disk(disk_needs(options, planned, there, costs))


def exit_code(findings: Iterable[Finding]) -> int:
    """0 if nothing failed."""
    return min((CODES[finding.check] for finding in findings if finding.status == "failed"), default=0)


def _planned(request: Request, nodes: machine.Nodes) -> Plan:
    """The sweep that the options ask for, or that they go on with."""
    options = request.options
    if options.resume is None:
        return plan.make(request, nodes)
    events, _ = journal.read(options.results / options.resume / "journal.jsonl")
    return resumption.resume(request, replay(events), nodes)


def show(finding: Finding, people: Console) -> None:
    """A line, and the mend beneath it."""
    from rich.text import Text

    status = Text(f"{finding.status:8}", style=STYLES[finding.status])
    people.print(status + Text(f"{finding.check:12}{finding.what}"), soft_wrap=True)
    if finding.fix is not None:
        people.print(f"{'':20}→ {finding.fix}", soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; its exit code."""
    options = parse(ABOUT, "python -m orchestrator.doctor", arguments, PlanOptions)
    from orchestrator.display import progress

    people, found = progress.console(), []
    try:
        for finding in examine(options, people):
            found.append(finding)
            if not options.quiet or finding.status == "failed":
                show(finding, people)
    except KeyboardInterrupt:
        return INTERRUPTED
    code = exit_code(found)
    if options.json:
        answer = {"ok": code == 0, "exit_code": code, "findings": [asdict(finding) for finding in found]}
        sys.stdout.write(json.dumps(answer) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
