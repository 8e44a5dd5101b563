"""The process that tells one tracker what a sweep's journal says.

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
from pathlib import Path

from orchestrator.loggers import DRAIN_S
from orchestrator.loggers.follower import Follower, make

POLL_S = 0.5
RETRY_S = 15.0  # after a tracker could not be told


def main(text: str, folder: Path) -> int:
    """Follow until the sweep is over; 0 if everything was told."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)  # to people; clients' chatter goes to the log
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.nice(10)
    fcntl.flock(sys.stderr.fileno(), fcntl.LOCK_EX)  # that of a killed driver may still be at work, for a while
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
                told.write(f"{text} cannot be told ({in_words(error)}); the sweep goes on without, see {folder}/logs\n")
                failed = True
    if follower.behind:
        follower.follow()  # once more: what stood in the way of the others comes last now
    follower.close()
    return int(follower.behind)


def in_words(error: Exception) -> str:
    """One line of at most 200 characters about `error`."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
