"""The confusions of models after each epoch, beside the journal: few ask for them, and they are most of the data.

`confusions.bin` holds a record an epoch: its size and its CRC-32 (two unsigned integers of 4 bytes, the lowest first),
then two lines of JSON, the confusion matrix and the examples, compressed by zlib. The checksum begins with the trial's
and the epoch's number, so that a record is not taken for another one's. The epoch's event has the place where its
record begins. What cannot be read is unknown, as it is in older sweeps; nothing else depends on it.
"""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.record.events import TrialEpoch

HEAD = struct.Struct("<II")
FIELDS = ("val_confusion", "val_confused")
MOST = 2**24  # bytes of a record


class Confusions:
    """Reads the file that `open_file` opens in binary, record by record."""

    def __init__(self, open_file: Callable[[], BinaryIO]) -> None:
        self._open = open_file
        self._file: BinaryIO | None = None
        self._reading = threading.Lock()  # the early model is written in a thread of its own

    @classmethod
    def at(cls, path: Path) -> Confusions:
        """Return those of the file at `path`, which need not be there."""
        return cls(lambda: path.open("rb"))

    def read(self, place: int, trial: int, epoch: int) -> dict[str, Any]:
        """Return `val_confusion` and `val_confused` of an epoch, as far as they are known."""
        texts = self.read_texts(place, trial, epoch)
        return {name: json.loads(text) for name, text in zip(FIELDS, texts, strict=True) if text is not None}

    def read_texts(self, place: int, trial: int, epoch: int) -> tuple[str | None, str | None]:
        """Return the same as JSON, None for what is not known."""
        try:
            with self._reading:
                if self._file is None:
                    self._file = self._open()
                self._file.seek(place)
                size, checksum = HEAD.unpack(self._file.read(HEAD.size))
                content = self._file.read(min(size, MOST))
            if zlib.crc32(content, _key(trial, epoch)) != checksum:
                return None, None
            matrix, confused = zlib.decompress(content).decode().split("\n")
            return None if matrix == "null" else matrix, None if confused == "null" else confused
        except (OSError, ValueError, struct.error, zlib.error):
            return None, None

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": self._open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_open"])  # type: ignore[misc]

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


class ConfusionsWriter:
    """Appends to the file at `path`, which is made with the first record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def append(self, trial: int, epoch: int, metrics: Mapping[str, Any]) -> int | None:
        """Write what an epoch's metrics say of confusions, if anything; return its place, None if it is not there."""
        if not any(metrics.get(name) for name in FIELDS):
            return None
        content = zlib.compress("\n".join(json.dumps(metrics.get(name)) for name in FIELDS).encode(), 1)
        with suppress(OSError):  # a full disk: the journal will say so
            if self._file is None:
                self._file = self._path.open("ab")
            place = self._file.seek(0, 2)
            self._file.write(HEAD.pack(len(content), zlib.crc32(content, _key(trial, epoch))) + content)
            self._file.flush()
            return place
        return None

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def put_aside(event: TrialEpoch, beside: ConfusionsWriter) -> TrialEpoch:
    """Return an epoch's event without what was confused, which is written `beside` the journal."""
    metrics = {name: value for name, value in event.metrics.items() if name not in FIELDS}
    return replace(event, metrics=metrics, beside=beside.append(event.trial, event.epoch, event.metrics))


def _key(trial: int, epoch: int) -> int:
    return zlib.crc32(f"{trial} {epoch}".encode())
