"""The one way to read a sweep: its journal, folded. Changes nothing, so a running sweep can be read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from orchestrator.record import former_schemas, journal
from orchestrator.record.decoding import RecordError, from_json
from orchestrator.record.events import Event
from orchestrator.record.facts import Spec
from orchestrator.record.paths import JOURNAL, SPEC
from orchestrator.record.state import SweepState, replay
from trainables.storage import Storage, below


@dataclass(frozen=True)
class Record:
    """The record of a sweep: its events, and the state that they fold to. Damaged lines are left out."""

    state: SweepState
    events: list[Event]


def read(storage: Storage, place: str) -> Record:
    """Read the sweep whose folder `storage` is, on a disk or in a bucket.

    A sweep whose first line is damaged begins as `sweep.json` says, which repeats that line.

    Args:
        place: the folder as the user named it, for messages.

    Raises:
        RecordError: there is no journal, it cannot be read, or it does not say how the sweep began.
    """
    name = below(place, JOURNAL)
    try:
        content = _content(storage, JOURNAL)
    except FileNotFoundError:
        raise RecordError(
            f"{place} is not a sweep's folder: it has no {JOURNAL}; name one, such as results/NAME"
        ) from None
    except OSError as error:
        raise RecordError(f"{name} cannot be read: {error.strerror or error}") from error
    events, _ = journal.parse(content, name)
    journal.check_events(content, events, name)
    state = replay(events)
    if not state.begun:
        state.spec = spec_copy(storage) or state.spec
    if not state.begun:
        raise RecordError(f"{name} does not say how the sweep began, nor does {SPEC} beside it; start a new sweep")
    return Record(state, events)


def read_folder(folder: Path) -> Record:
    """Read the sweep in `folder`; raises as `read`."""
    if not folder.is_dir():
        raise RecordError(f"{folder} is not a sweep's folder: there is no such folder; name one, such as results/NAME")
    return read(Storage(str(folder.absolute())), str(folder))


def spec_copy(storage: Storage) -> Spec | None:
    """Return what `sweep.json` says of how the sweep began; None if it is missing or damaged as well."""
    try:
        record = json.loads(_content(storage, SPEC))
        return from_json(Spec, former_schemas.spec(record)) if isinstance(record, dict) else None
    except (OSError, ValueError, RecursionError):  # of another type, too: `RecordError` is a ValueError
        return None


def _content(storage: Storage, name: str) -> bytes:
    with storage.open(name) as file:
        content: bytes = file.read()
    return content
