"""`report.html`: a whole sweep in one file that opens in a browser and needs no network.

python -m orchestrator.report results/NAME    make it (again); also while the sweep runs
"""

from __future__ import annotations

import time
from pathlib import Path

from orchestrator.plan import recorded
from orchestrator.record.paths import SweepFolder
from orchestrator.report.page import Sweep, render
from trainables.files import replace_file


def write(folder: Path) -> Path:
    """Make the report of the sweep in `folder` from its journal, and return its path.

    Raises:
        RecordError: there is no sweep, or it cannot be read.
        OSError: the disk did not take the report.
    """
    path = SweepFolder(folder).report
    sweep = recorded.read(folder)
    page = render(Sweep(SweepFolder(folder), sweep.events, sweep.state, sweep.plan, time.time()))
    replace_file(path, page.encode())
    return path
