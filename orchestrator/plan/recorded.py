"""The one way to read a sweep: its journal is folded, and the plan parsed with which it began.

Nothing is changed, so a sweep may run meanwhile. All commands that read sweeps do it by this file: they agree on which
ones can be read, and give the same message about one that cannot.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.plan.plan import Plan
from orchestrator.record import former_schemas, journal
from orchestrator.record.confusions import Confusions
from orchestrator.record.decoding import RecordError, from_json
from orchestrator.record.facts import Spec
from orchestrator.record.journal_lines import Lines
from orchestrator.record.paths import CONFUSIONS, JOURNAL, SPEC
from orchestrator.record.state import SweepState, replay
from trainables.storage import below

OpenFile = Callable[[str], BinaryIO]
"""Opens a file by its name in a sweep's folder, on a disk or in a bucket, to be read in binary; raises OSError."""


@dataclass(frozen=True)
class RecordedSweep:
    """A sweep as its record has it."""

    place: str  # the path or URI of its folder
    plan: Plan  # with which it began, or was resumed last
    state: SweepState
    events: Lines = field(repr=False)
    restored: bool = False  # `sweep.json` says how it began, since the journal does not


def read(folder: Path) -> RecordedSweep:
    """Return the sweep in `folder`.

    Raises:
        RecordError: there is none, or it cannot be read; the message names the file, and says what to do.
    """
    if not folder.exists():
        raise RecordError(f"{folder}: there is no such folder; name a sweep's, such as results/NAME")
    return read_from(lambda name: (folder / name).open("rb"), str(folder))


def read_from(open_file: OpenFile, place: str) -> RecordedSweep:
    """Return the sweep whose files `open_file` opens; `place` is the path or URI of its folder.

    Raises:
        RecordError: as `read`.
    """
    name = below(place, JOURNAL)
    try:
        lines = Lines(partial(open_file, JOURNAL), name)
    except FileNotFoundError:
        raise RecordError(
            f"{place} is not a sweep's folder: it has no {JOURNAL}; name one, such as results/NAME"
        ) from None
    except OSError as error:
        raise RecordError(
            f"{name} cannot be read: {error.strerror or error}; see that it is a file that you may read"
        ) from error
    journal.check_any(lines, name)
    state = replay(lines, Confusions(partial(open_file, CONFUSIONS)))
    as_read = state.spec
    state.spec, plan = _beginning(state, open_file, place)
    return RecordedSweep(place, plan, state, lines, restored=state.spec is not as_read)


def _beginning(state: SweepState, open_file: OpenFile, place: str) -> tuple[Spec, Plan]:
    """Return how a sweep began: as the first line of its journal says or, if that is damaged, as `sweep.json` does.

    Raises:
        RecordError: neither says it.
    """
    name = below(place, JOURNAL)
    if state.next_n == 0:
        raise RecordError(
            f"{name} does not say how the sweep began: it is empty; restore it from a copy, or start a new sweep"
        )
    damage = "its first line is damaged"
    if state.begun:
        try:
            return state.spec, Plan.from_dict(state.spec.plan)
        except RecordError as error:
            damage = f"{damage} ({error.problems[0]})"
    try:
        return _repeated(open_file)
    except RecordError as error:
        raise RecordError(
            f"{name} does not say how the sweep began: {damage}, and {SPEC}, which repeats it, {error.problems[0]}; "
            "restore one of the two from a copy, or start a new sweep"
        ) from None


def _repeated(open_file: OpenFile) -> tuple[Spec, Plan]:
    """Return what `sweep.json` repeats of the first line, or raise RecordError with the rest of a sentence about it."""
    try:
        with open_file(SPEC) as file:
            record = json.loads(file.read())
    except FileNotFoundError:
        raise RecordError("is missing") from None
    except OSError as error:
        raise RecordError(f"cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError):
        raise RecordError("is damaged, too (it is not JSON)") from None
    try:
        spec = from_json(Spec, former_schemas.spec(from_json(dict[str, Any], record)))
        return spec, Plan.from_dict(spec.plan)
    except RecordError as error:
        raise RecordError(f"is damaged, too ({error.problems[0]})") from error
