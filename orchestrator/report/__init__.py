"""`report.html`: a whole sweep in one file that opens in a browser and needs no network.

python -m orchestrator.report results/NAME    make it (again); also while the sweep runs
"""

from __future__ import annotations

import time
from pathlib import Path

from orchestrator.plan.plan import Plan
from orchestrator.record.decoding import RecordError
from orchestrator.record.journal import read
from orchestrator.record.state import replay
from orchestrator.report.page import Sweep, render
from trainables.files import replace_file

NAME = "report.html"


def write(folder: Path) -> Path:
    """Make the report of the sweep in `folder` from its journal, and return its path.

    Raises:
        RecordError: the journal is no sweep's, or does not say how the sweep began.
        OSError: the journal cannot be read, or the disk did not take the report.
    """
    path = folder / NAME
    events = read(folder / "journal.jsonl")[0]
    try:
        state = replay(events)
        if not state.begun:
            raise RecordError("its journal does not say how it began")
        page = render(Sweep(folder, events, state, Plan.from_dict(state.spec.plan), time.time()))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise RecordError(f"something in its journal is not as this version writes it ({what})") from error
    replace_file(path, page.encode())
    return path
