"""The user's command at a sweep's end, `--on-end`, and messages of a sweep that failed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from orchestrator.plan.options import SweepOptions
from trainables.command_line import FAILED, complain


def notify(command: str | None, result: dict[str, Any]) -> None:
    """Run the user's command with the result as JSON on its standard input; ours has the last line of the output."""
    if command is None:
        return
    done = subprocess.run(command, shell=True, input=json.dumps(result), text=True, stdout=sys.stderr, check=False)  # noqa: S602 - it is the user's own
    if done.returncode:
        complain([f"--on-end {command!r} ended with exit code {done.returncode}"], FAILED)


def notify_failed(options: SweepOptions, problem: str) -> None:
    """Run the user's command with what made the sweep fail."""
    notify(options.on_end, {"sweep": options.resume or options.name, "ended": "failed", "error": problem})


def fail(options: SweepOptions, problem: str) -> int:
    """Run the user's command, show the problem, and return the exit code."""
    notify_failed(options, problem)
    return complain([problem], FAILED)
