"""`report.html`: a whole sweep in one file that opens in a browser and needs no network.

python -m orchestrator.report results/NAME    make it (again); also while the sweep runs
"""

from __future__ import annotations

import time
from pathlib import Path

from orchestrator.plan.plan import Plan
from orchestrator.record import reading
from orchestrator.record.paths import SweepFolder
from orchestrator.report.page import Sweep, render
from trainables.files import replace_file

NAME = "report.html"


def write(folder: Path) -> Path:
    """Make the report of the sweep in `folder` from its journal, and return its path.

    Raises:
        RecordError: the folder is not a sweep's, or its journal cannot be read.
        OSError: the disk did not take the report.
    """
    record = reading.read_folder(folder)
    planned = Plan.from_dict(record.state.spec.plan)
    page = render(Sweep(folder, record.events, record.state, planned, time.time()))
    path = SweepFolder(folder).report
    replace_file(path, page.encode())
    return path
