"""Show a sweep's leaderboard, a recipe's comparison; also while it runs.

python -m orchestrator.leaderboard results/NAME
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from orchestrator.comparison import compare
from orchestrator.journal import JournalError, read
from orchestrator.progress import leaderboard_table, show_comparison
from orchestrator.state import replay


def main(arguments: list[str] | None = None) -> int:
    """Show the leaderboard of each sweep named; 2 if one is none."""
    paths = [Path(text) for text in (sys.argv[1:] if arguments is None else arguments)]
    if not paths or any(str(path).startswith("-") for path in paths):
        print("usage: python -m orchestrator.leaderboard SWEEP_FOLDER …", file=sys.stderr)  # noqa: T201
        return 2
    for path in paths:
        try:
            state = replay(read(path / "journal.jsonl")[0])
            if "plan" not in state.spec:
                raise JournalError("its journal does not say how it began")
        except (OSError, JournalError) as error:
            print(f"{path} is not a sweep's folder that can be read: {error}", file=sys.stderr)  # noqa: T201
            return 2
        console = Console()
        console.print(leaderboard_table(state, 10, console.width))
        if state.spec["plan"]["recipe"] is not None:
            show_comparison(compare(state), console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
