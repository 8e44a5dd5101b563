"""Find what on this machine or cluster would make a sweep fail, and how to fix it.

    python -m orchestrator.doctor cifar10 --storage s3://bucket/path

The command takes the options of `orchestrator.sweep`, so in a sweep's command only that word needs to change. Nothing
is trained but one optimizer step of each model, and nothing stays on the disk but the decoded data.
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
from orchestrator.doctor.nodes import check_gpus, check_ray, check_storage, checkpoint_place
from orchestrator.doctor.resources import check_disk, check_memory, disk_needs
from orchestrator.plan import plan, recorded, resumption
from orchestrator.plan.options import PlanOptions, SweepOptions, parse
from orchestrator.plan.plan import Plan
from orchestrator.plan.recorded import RecordedSweep
from orchestrator.plan.request import Request
from orchestrator.record.decoding import RecordError
from trainables.command_line import INTERRUPTED, write
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


ABOUT = """
Find what would make a sweep fail, and how to fix it. Takes the options of a sweep; no trial runs.

Exit codes, the lowest if several checks failed:
  0    no check failed
  2    the sweep would refuse this command
  10   Python or a library has the wrong version
  11   Ray cannot be started or reached
  12   torch cannot use a GPU
  13   a node cannot use the checkpoint storage
  14   a disk or the memory is too small
  15   the data cannot be read or split
  16   a model cannot be trained
  130  interrupted

Examples:
  python -m orchestrator.doctor
  python -m orchestrator.doctor cifar10 --data-dir ~/data/cifar10 --set model=resnet50
  python -m orchestrator.doctor --address 10.0.0.1:6379 --storage s3://bucket/path
"""


def examine(options: SweepOptions, console: Console) -> Findings:
    """Run all checks, and yield their findings; a check that depends on a failed one is left out."""
    from orchestrator.cluster import connection

    try:
        request = validation.check(options, [machine.local()] if options.address == "local" else None)
        sweep = recorded.read(options.results / options.resume) if options.resume else None
    except (ConfigError, RecordError) as error:
        yield from all_failed("command", error.problems, None)
        return
    yield from check_environment()
    notes: list[str] = []
    with ExitStack() as stack:
        try:
            stack.enter_context(connection.connect(options.address, notes.append))
        except ConfigError as error:
            yield from all_failed("ray", error.problems, "see `ray status`")
            return
        nodes = connection.nodes()
        yield from check_ray(options.address, nodes, notes)
        try:
            planned = _planned(request, sweep, [node.resources for node in nodes])
        except ConfigError as error:
            yield from all_failed("command", error.problems, None)
            return
        yield from check_gpus(options.address, planned, nodes)
        yield from check_storage(checkpoint_place(options, planned))
    data = yield from check_data(planned, console)
    if data is not None:
        costs = yield from check_models(planned, data)
        if costs:
            yield from check_memory(planned, nodes, data.images.nbytes, max(cost.memory for cost in costs))
        yield from check_disk(disk_needs(options, planned, nodes, costs))


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the exit code: 0 if no check failed, otherwise the lowest code of a failed one."""
    return min((CODES[finding.check] for finding in findings if finding.status == "failed"), default=0)


def _planned(request: Request, sweep: RecordedSweep | None, nodes: machine.Nodes) -> Plan:
    """Return the plan of the new sweep that is requested, or of the one that is resumed."""
    if sweep is None:
        return plan.make(request, nodes)
    return resumption.resume(request, sweep.plan, sweep.state, nodes)


def show(finding: Finding, console: Console) -> None:
    """Print a line about the finding, and below it the fix."""
    from rich.text import Text

    status = Text(f"{finding.status:8}", style=STYLES[finding.status])
    what = finding.what.replace("\n", f"\n{'':20}")
    console.print(status + Text(f"{finding.check:12}{what}"), soft_wrap=True)
    if finding.fix is not None:
        console.print(f"{'':20}→ {finding.fix}", soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parse(ABOUT, "python -m orchestrator.doctor", arguments, PlanOptions)
    from orchestrator.display import progress

    console, findings = progress.console(), []
    try:
        for finding in examine(options, console):
            findings.append(finding)
            if not options.quiet or finding.status == "failed":
                show(finding, console)
    except KeyboardInterrupt:
        return INTERRUPTED
    code = exit_code(findings)
    if options.json:
        result = {"ok": code == 0, "exit_code": code, "findings": [asdict(finding) for finding in findings]}
        write(json.dumps(result) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
