"""The command: `python -m orchestrator.report SWEEP …`."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator import report
from orchestrator.record.journal import JournalError
from trainables.command_line import DONE, FAILED, WRONG, complain, say, show_version


def main(arguments: list[str] | None = None) -> int:
    """Make the report of each sweep named, and say where it is; 2 if one is none, 1 if it cannot be written."""
    paths = [Path(text) for text in (sys.argv[1:] if arguments is None else arguments)]
    if Path("--version") in paths:
        show_version()
    if not paths or any(str(path).startswith("-") for path in paths):
        say("usage: python -m orchestrator.report SWEEP_FOLDER …")
        return WRONG
    for path in paths:
        if not (path / "journal.jsonl").is_file():
            return complain([f"{path} is no sweep's folder: no journal.jsonl there; name one, as results/NAME"])
        try:
            sys.stdout.write(f"{report.write(path)}\n")
        except JournalError as error:
            return complain([f"{path} is not a sweep's folder that can be read: {error}"])
        except OSError as error:
            return complain([f"the report of {path} was not made: {error}"], FAILED)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
