"""The lines of a journal: how one is written, and what is read of a file in which some are damaged.

    {"v": 4, "g": 2, "n": 17, "t": 1700000000.0, …, "crc": "0f3a9c41"}

Every line begins with its schema, the generation of the command that wrote it (1 for the first that worked on the
sweep) and its number, and ends with the CRC-32 of all bytes before the last key; later schemas keep to that. So a
damaged line is known, whatever was hit, and costs itself alone: lines are put in order by generation and number, copies
are dropped, and what a command wrote after another one had taken the sweep over does not count. Lines of schema 2 and 3
have neither generation nor checksum: they count if they hold an event, in the order of the file.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from orchestrator.record import events, former_schemas
from orchestrator.record.decoding import RecordError
from orchestrator.record.events import Event
from trainables.errors import counted

SCHEMA = 5
READABLE = (2, 3, 4, SCHEMA)
"""The schemas that this version reads; those before `RENAMED` are translated, line by line."""
KNOWN = f"{', '.join(map(str, READABLE[:-1]))} and {SCHEMA}"
RENAMED = 3  # the first schema with today's names
CHECKED = 4  # the first schema with checksums

HEAD = re.compile(rb'\{"v": ?(\d{1,6}), ?(?:"g": ?(\d{1,9}), ?)?"n": ?(\d{1,15})[,}]')
END = b', "crc": "%08x"}'
END_SIZE = len(END % 0)
WITHIN = re.compile(rb'\{"v": (?:(?!\{"v": ).)*?, "crc": "[0-9a-f]{8}"\}')
"""A line in what looks like one: the end of the line before it is lost."""
MORE = b', "more": true'
HINTS = re.compile(rb'"(event|trial)": ?"?(\w+)')
DELIVERY = b'"event": "deliver'
SHOWN = 5  # lines that are left out, in messages
LEGIBLE = 300  # bytes of a damaged line that are looked at


class Damage(NamedTuple):
    """A line that is left out."""

    line: int  # counted from 1
    start: int  # in the file, in bytes
    size: int
    problem: str  # what is wrong with it and what it seems to hold, for people


def losses(damage: Sequence[Damage]) -> list[str]:
    """Return a sentence for each line that is left out, or for the first few and the number of the others."""
    lines = [f"line {one.line} of the journal is left out: {one.problem}" for one in damage[:SHOWN]]
    others = len(damage) - SHOWN
    return lines + ([f"and {counted(others, 'more line')}"] if others > 0 else [])


class _Line(NamedTuple):
    """A line that can be read."""

    generation: int  # 0 before schema 4
    n: int
    number: int  # in the file, counted from 1
    start: int
    size: int
    more: bool


def encode(line: Mapping[str, Any]) -> bytes:
    """Return a line with its checksum, and the byte that ends it.

    Raises:
        ValueError: it holds NaN or an infinity.
    """
    text = json.dumps(line, allow_nan=False).encode()[:-1]
    return text + END % zlib.crc32(text) + b"\n"


def decode(line: bytes) -> Event | None:
    """Return the event on a line; None if the line is torn, damaged, of another schema or of an unknown kind."""
    head = HEAD.match(line)
    schema = int(head[1]) if head else 0
    if schema not in READABLE or (schema >= CHECKED and not is_whole(line)):
        return None
    return _event(line)


def _event(line: bytes) -> Event | None:
    """Return the event on a line that is whole, as far as a checksum can say."""
    try:
        found = load(line)
        return events.parse(former_schemas.event(found) if found["v"] < RENAMED else found)
    except (ValueError, RecursionError, RecordError):
        return None


def is_whole(line: bytes) -> bool:
    """Return whether a line, without the byte that ends it, has the checksum of its content."""
    return line.endswith(END % zlib.crc32(memoryview(line)[:-END_SIZE]))


def load(line: bytes) -> Any:
    """Return the JSON value on a line, by the fast reader or, if that does not know it (half a surrogate), the other.

    Raises:
        ValueError, RecursionError: it holds none.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)


class Lines:
    """The lines of a journal, which `open_file` opens to be read in binary; iterating reads the events once more.

    Only the place of each line is kept, so a journal may be larger than the memory.
    """

    def __init__(self, open_file: Callable[[], BinaryIO], name: str) -> None:
        """Read every line of the journal `name` once.

        Raises:
            RecordError: the journal has a schema that this version does not read.
            OSError: the file cannot be read.
        """
        self._open = open_file
        self.damage: list[Damage] = []
        self.any_complete = False  # there is a line, damaged or not, that was written to its end
        self.in_order = self.is_terminated = True
        self._others: dict[int, bool] = {}  # schemas that this version does not read → whether a checksum says so
        self._damaged_last = False
        found = array("q")  # six numbers a line
        with open_file() as file:
            self.size = self._scan(file, found)  # of the file, in bytes
        self._check_schemas(name, any_readable=bool(found))
        if not self.in_order:
            found = array("q", chain.from_iterable(self._settled(found)))
        self._starts, self._sizes, more = (found[place :: len(_Line._fields)] for place in (3, 4, 5))
        while more and more[-1] and not self._damaged_last:  # the rest of what was appended with it is missing
            more.pop()
            what = "the rest of what was written with it is missing"
            self.damage.append(Damage(found[-4], self._starts.pop(), self._sizes.pop(), what))
            del found[-len(_Line._fields) :]
        self.generation, self.next_n = (found[-6], found[-5] + 1) if found else (0, 0)
        self.damage.sort()

    @classmethod
    def at(cls, path: Path) -> Lines:
        """Read the lines of the file at `path`; it raises what the constructor does."""
        return cls(lambda: path.open("rb"), str(path))

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Event]:
        """Yield the events. A whole line of a kind that this version does not know is passed over."""
        for line in self.contents():
            event = _event(line)
            if event is not None:
                yield event

    @property
    def missing(self) -> int:
        """The number of events that are lost to damage: they are numbered, and damaged ones left out."""
        return self.next_n - len(self)

    @property
    def is_clean(self) -> bool:
        """True if the file holds exactly the lines that are read."""
        return self.in_order and self.is_terminated and not self.damage

    def contents(self) -> Iterator[bytes]:
        """Yield the lines that can be read, in order, without the byte that ends each."""
        with self._open() as file:
            if self.is_clean:
                yield from (line[:-1] for line in islice(file, len(self)))
                return
            for start, size in zip(self._starts, self._sizes, strict=True):
                file.seek(start)
                yield file.read(size)

    def damaged(self) -> Iterator[bytes]:
        """Yield what stands on the lines that are left out, in the order of the file."""
        with self._open() as file:
            for one in self.damage:
                file.seek(one.start)
                yield file.read(one.size)

    def _scan(self, file: BinaryIO, found: array[int]) -> int:
        """Add the lines that can be read to `found`; return where the last one ends."""
        start, generation, n, number, terminated, damaged = 0, 0, -1, 0, True, False
        for number, raw in enumerate(file, start=1):
            terminated = raw.endswith(b"\n")
            line = raw[:-1] if terminated else raw
            whole = self._line(line, number, start)
            if whole is not None:
                self.in_order = self.in_order and whole.n > n and whole.generation >= generation
                generation, n, damaged = whole.generation, whole.n, False
                found.extend(whole)
            else:
                self.in_order, damaged = self.in_order and bool(line), terminated and bool(line)
                for one in self._within(line, number, start):
                    self.in_order, generation, n, damaged = False, one.generation, one.n, False
                    found.extend(one)
            start += len(raw)
        self.is_terminated, self._damaged_last = terminated, damaged
        self.any_complete = number > (0 if terminated else 1)
        return start

    def _within(self, line: bytes, number: int, start: int) -> Iterator[_Line]:
        """Yield the lines that are in a damaged one: it may be the byte between two that is damaged."""
        end = 0
        for within in WITHIN.finditer(line):
            if (one := self._line(within[0], number, start + within.start())) is not None:
                yield one
                end = within.end()
        if line and len(line) > end + (end > 0):
            self.damage.append(Damage(number, start + end, len(line) - end, _described(line[end:])))

    def _line(self, line: bytes, number: int, start: int) -> _Line | None:
        head = HEAD.match(line)
        if head is None:
            return None
        schema = int(head[1])
        whole = schema >= CHECKED and is_whole(line)
        if schema not in READABLE:
            self._others[schema] = self._others.get(schema, False) or whole
            return None
        if schema >= CHECKED:
            more = line.endswith(MORE, 0, -END_SIZE)
            return _Line(int(head[2] or 0), int(head[3]), number, start, len(line), more) if whole else None
        event = decode(line)
        return None if event is None else _Line(0, event.n, number, start, len(line), event.more)

    def _settled(self, found: array[int]) -> list[_Line]:
        """Return lines that are not all in order sorted, without copies and what was written after a take-over."""
        lines = [_Line(*numbers) for numbers in zip(*[iter(found)] * len(_Line._fields), strict=True)]
        former = [line for line in lines if not line.generation]
        growing = _growing(former)
        for line in set(former).difference(growing):
            self._leave_out(line, "its number does not fit between those of its neighbors, or repeats one")
        limits: dict[int, int] = {}  # generation → the least number of a later one
        least = sys.maxsize
        for line in reversed(lines := sorted([*growing, *(line for line in lines if line.generation)])):
            limits.setdefault(line.generation, least)
            least = min(least, line.n)
        settled: list[_Line] = []
        for line in lines:
            if line.n >= limits[line.generation]:
                self._leave_out(line, "another command had taken the sweep over when it was written")
            elif settled and settled[-1].n == line.n:
                self._leave_out(line, f"it repeats line {settled[-1].number}")
            else:
                settled.append(line)
        return settled

    def _leave_out(self, line: _Line, problem: str) -> None:
        self.damage.append(Damage(line.number, line.start, line.size, problem))

    def _check_schemas(self, name: str, any_readable: bool) -> None:
        """Raise RecordError if the journal `name` has a schema that this version does not read.

        Without a checksum it may be damage that says so; then it counts if no line is of a schema that is read.
        """
        foreign = [schema for schema, sure in self._others.items() if sure or not any_readable]
        if foreign:
            schema = max(foreign)
            other = "a newer" if schema > SCHEMA else "the older"
            raise RecordError(
                f"{name} has schema {schema}, this version reads {KNOWN}; use {other} sweep-orchestrator for it"
            )


def last_change(file: BinaryIO) -> int:
    """Return the number of the last event but deliveries in an open journal, read from its end; -1 if there is none."""
    size, length = file.seek(0, os.SEEK_END), 1 << 16
    while True:
        file.seek(max(size - length, 0))
        for line in reversed(file.read(length).split(b"\n")[:-1]):
            if (head := HEAD.match(line)) is not None and is_whole(line) and DELIVERY not in line:
                return int(head[3])
        if length >= size:
            return -1
        length *= 16


def _growing(lines: Sequence[_Line]) -> list[_Line]:
    """Return the most lines, in the order of the file, whose numbers grow: a wrong number costs its own line alone."""
    ends: list[int] = []  # the least number that ends a run of each length
    last: list[int] = []  # the place of that line
    before: list[int] = []  # of each line: the place of the one before it in its run
    for place, line in enumerate(lines):
        length = bisect_left(ends, line.n)
        ends[length : length + 1] = [line.n]
        last[length : length + 1] = [place]
        before.append(last[length - 1] if length else -1)
    found, place = [], last[-1] if last else -1
    while place >= 0:
        found.append(lines[place])
        place = before[place]
    return found[::-1]


def _described(line: bytes) -> str:
    """Describe a damaged line by what can be read of it."""
    hints = {key.decode(): value.decode(errors="replace") for key, value in HINTS.findall(line[:LEGIBLE])}
    known = [f"`{hints['event']}`"] if "event" in hints else []
    known += [f"trial {hints['trial']}"] if hints.get("trial", "null") != "null" else []
    return f"it is damaged; it seems to hold {' of '.join(known)}" if known else "it is damaged"
