"""The command that writes reports: `python -m orchestrator.report SWEEP…`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from orchestrator import report
from trainables.command_line import DONE, FAILED, complain, option, parse
from trainables.errors import InputError


@dataclass(frozen=True)
class ReportOptions:
    """Write report.html into the folders of sweeps, also while they run, and print where it is.

    Exit codes:
      0    done
      1    a report cannot be written
      2    a folder is not a sweep's, or its journal cannot be read

    Examples:
      python -m orchestrator.report results/NAME
      python -m orchestrator.report results/*
    """

    sweeps: Annotated[tuple[Path, ...], Positional, option("SWEEP…")]
    """Folders of sweeps, such as results/NAME."""


def main(arguments: list[str] | None = None) -> int:
    """Write the report of each sweep that is named, and return the exit code."""
    options = parse(ReportOptions, "python -m orchestrator.report", arguments)
    if not options.sweeps:
        return complain(["no sweep is named: give the folder of one, such as results/NAME"])
    for path in options.sweeps:
        try:
            sys.stdout.write(f"{report.write(path)}\n")
        except InputError as error:
            return complain(error.problems)
        except OSError as error:
            return complain([f"the report of {path} cannot be written: {error}"], FAILED)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
