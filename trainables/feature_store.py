"""Features on the disk: those of each picture under a base, in pieces of some pictures, for this sweep and later ones.

A piece is a file of digests of pictures and their features, with checksums, complete or absent. Its name says which
pictures it was computed for, so several processes find and share the same pieces: whoever locks a piece computes it,
the others take the next one. A lock dies with its process. Pictures that are known from another piece, as most are
where a folder has grown, are not computed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.files import replace_file

Array = NDArray[np.float32]
LEAST_ROWS, MOST_PIECES = 64, 256  # pictures of a piece, at least, and pieces of a data set, at most
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class FeatureStore:
    """The features of a data set's N pictures, read from `folder` as far as they are there.

    Attributes:
        features: float32 [N, F], of which the rows that `known` marks are filled; F is 0 before any is known.
        known: bool [N].
        error: why the newest piece could not be written, if it could not; the features are in memory all the same.
    """

    def __init__(self, folder: Path, digests: NDArray[np.void]) -> None:
        """Read what there is.

        Args:
            digests: V16 [N], equal for pictures that look the same.
        """
        self.folder = folder
        self.features: Array = np.empty((len(digests), 0), np.float32)
        self.known = np.zeros(len(digests), np.bool_)
        self.error: str | None = None
        self._digests = np.ascontiguousarray(digests).view("u1").reshape(len(digests), -1)
        rows = max(LEAST_ROWS, -(-len(digests) // MOST_PIECES))
        starts = range(0, len(digests), rows)
        self._pieces = {self._name(slice(start, start + rows)): slice(start, start + rows) for start in starts}
        for name, part in self._pieces.items():
            self._read(name, part)
        if not self.known.all():
            self._read_others()

    def missing(self) -> list[str]:
        """Return the names of the pieces that are not complete."""
        return [name for name, part in self._pieces.items() if not self.known[part].all()]

    def rows(self, name: str) -> NDArray[np.int64]:
        """Return the rows of a piece that are not known, ascending."""
        part = self._pieces[name]
        return np.flatnonzero(~self.known[part]) + part.start

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Yield whether this process may compute a piece: no other does, and none has done so by now."""
        descriptor = None
        try:
            with contextlib.suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            free = descriptor is None or _lock(descriptor)
            if free:
                self._read(name, self._pieces[name])
            yield free and bool(len(self.rows(name)))
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def refresh(self) -> None:
        """Read the pieces that others have computed meanwhile."""
        for name in self.missing():
            self._read(name, self._pieces[name])

    def add(self, name: str, rows: NDArray[np.int64], features: Array) -> None:
        """Take the features [B, F] of a piece's unknown rows, and write it; a full disk costs the file only."""
        self._fill(rows, features)
        self._write(name, self._pieces[name])

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def _name(self, part: slice) -> str:
        """Return the name of a piece: of two with the same pictures, as copies of one are, each has its own."""
        return hashlib.sha256(str(part.start).encode() + self._digests[part].tobytes()).hexdigest()[:32]

    def _fill(self, rows: NDArray[np.int64], features: Array) -> None:
        if not self.features.shape[1]:
            self.features = np.empty((len(self.known), features.shape[1]), np.float32)
        self.features[rows] = features  # those of another width raise ValueError
        self.known[rows] = True

    def _read(self, name: str, part: slice) -> None:
        """Read a piece from its own file, if that is there and undamaged."""
        with contextlib.suppress(*UNREADABLE), self._path(name).open("rb") as file, np.load(file) as piece:
            if np.array_equal(piece["pictures"], self._digests[part]):
                self._fill(np.arange(*part.indices(len(self.known))), piece["features"])

    def _read_others(self) -> None:
        """Read rows that are in pieces of other data sets, or of this one before it grew, and write them as pieces."""
        own, unknown = self.missing(), dict[bytes, list[int]]()
        for row in np.flatnonzero(~self.known).tolist():
            unknown.setdefault(self._digests[row].tobytes(), []).append(row)
        for path in sorted(self.folder.glob("*.npz")):
            if path.stem not in self._pieces:
                with contextlib.suppress(*UNREADABLE), path.open("rb") as file, np.load(file) as piece:
                    self._take(piece["pictures"], piece["features"], unknown)
        for name in set(own) - set(self.missing()):
            self._write(name, self._pieces[name])

    def _take(self, pictures: NDArray[np.uint8], features: Array, unknown: dict[bytes, list[int]]) -> None:
        """Take the features of a piece's pictures that unknown rows have, by their digests."""
        known = [(row, n) for n, each in enumerate(pictures) for row in unknown.get(each.tobytes(), ())]
        if known:
            rows, numbers = np.array(known, np.int64).T
            self._fill(rows, features[numbers])

    def _write(self, name: str, part: slice) -> None:
        content = io.BytesIO()
        np.savez(content, pictures=self._digests[part], features=self.features[part])
        try:
            replace_file(self._path(name), content.getvalue())
            self._path(name).with_suffix(".lock").unlink(missing_ok=True)
            self.error = None
        except OSError as error:
            self.error = str(error)


def _lock(descriptor: int) -> bool:
    """Return whether the open file could be locked; where locks are not supported, all processes may go on."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
