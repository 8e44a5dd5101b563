"""The process that sends a sweep's journal to one tracker.

    python -m orchestrator.loggers TRACKER[=URL] FOLDER

It ends when its standard input does and the journal has been read to its end.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from orchestrator.loggers import DRAIN_S
from orchestrator.loggers.follower import Follower
from orchestrator.loggers.trackers import USAGE, make
from trainables.command_line import option, parse

POLL_S = 0.5
RETRY_S = 15.0  # after a tracker could not be updated


@dataclass(frozen=True)
class FollowOptions:
    """Send the trials of a sweep to an experiment tracker. A sweep with --log starts this command itself.

    It follows the journal until its standard input ends.
    """

    tracker: Annotated[str, Positional, option("TRACKER", f"The tracker: {USAGE}.")]
    folder: Annotated[Path, Positional, option("FOLDER", "The sweep's folder.")]


def follow(text: str, folder: Path) -> int:
    """Follow the sweep until it is over, and return 0 if the tracker got everything."""
    console = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)  # what clients print goes to the log instead
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.nice(10)
    fcntl.flock(sys.stderr.fileno(), fcntl.LOCK_EX)  # the process of a killed driver may still be at work, for a while
    follower = Follower(folder, lambda state: make(text, folder, state))
    over, failed, due = False, False, 0.0
    while not over:
        over = bool(select.select([sys.stdin], [], [], POLL_S)[0])
        if over:
            signal.alarm(round(DRAIN_S))  # whatever a client waits for then
        if not over and time.monotonic() < due:
            continue
        error = follower.follow()
        if error is not None:
            due = time.monotonic() + RETRY_S
            if not failed:
                console.write(
                    f"{text} cannot be updated ({describe(error)}); the sweep goes on without it, see {folder}/logs\n"
                )
                failed = True
    if follower.behind:
        follower.follow()  # once more: what stood in the way of the others comes last now
    follower.close()
    return int(follower.behind)


def describe(error: Exception) -> str:
    """Return one line of at most 200 characters about `error`."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parse(FollowOptions, "python -m orchestrator.loggers", arguments)
    return follow(options.tracker, options.folder)


if __name__ == "__main__":
    sys.exit(main())
