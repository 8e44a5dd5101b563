"""The command: `python -m orchestrator.report SWEEP …`."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator import report
from orchestrator.journal import JournalError


def main(arguments: list[str] | None = None) -> int:
    """Make the report of each sweep named, and say where it is; 2 if one is none, 1 if it cannot be written."""
    paths = [Path(text) for text in (sys.argv[1:] if arguments is None else arguments)]
    if not paths or any(str(path).startswith("-") for path in paths):
        sys.stderr.write("usage: python -m orchestrator.report SWEEP_FOLDER …\n")
        return 2
    for path in paths:
        if not (path / "journal.jsonl").is_file():
            sys.stderr.write(f"error: {path} is no sweep's folder: no journal.jsonl there; name one, as results/NAME\n")
            return 2
        try:
            sys.stdout.write(f"{report.write(path)}\n")
        except JournalError as error:
            sys.stderr.write(f"error: {path} is not a sweep's folder that can be read: {error}\n")
            return 2
        except OSError as error:
            sys.stderr.write(f"error: the report of {path} was not made: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
