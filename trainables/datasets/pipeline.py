"""Reads pictures on all cores and hands them on in their order, with a limit to the memory of those under way."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainables import hardware
from trainables.datasets.decoder import Reserve, content, no_limit
from trainables.datasets.formats import PictureError
from trainables.errors import shown

T = TypeVar("T")
Read = Callable[[bytes, Reserve], T]
"""Reads an encoded picture, as `decoder.read` does with its other arguments; raises PictureError if that fails."""

LIMIT = 2**28
"""Bytes of the pictures that are being read, or that wait until those before them are taken. A picture that needs more
is read when no other is."""

_FILES = LIMIT // 4  # bytes of encoded files that are held while other pictures are decoded
_SMALL = 2**20  # bytes that are not counted for each thread: to count every thumbnail would cost more than to read it
_THUMBNAIL = 4096
"""Bytes. Smaller encoded images are decoded in microseconds, most of them spent in Python: threads would only wait for
its lock, and make others wait."""

_THREADS = min(32, hardware.usable_cpus())
_AHEAD = 2 * _THREADS  # batches at a time: no thread waits for the next one, and few images are in memory


@dataclass(frozen=True)
class Batch:
    """Some encoded images, or the files that hold them, and their place, for messages."""

    file: str  # the table that holds or names them; empty without one
    rows: Sequence[int]  # the number of each image's row in that table, from 1
    encoded: Sequence[bytes | Path | None]

    @property
    def thumbnails(self) -> bool:
        """Return whether the images are so small that a thread costs more than it saves."""
        return all(image is None or (isinstance(image, bytes) and len(image) < _THUMBNAIL) for image in self.encoded)

    @property
    def nbytes(self) -> int:
        """Return how many bytes of encoded images are in memory."""
        return sum(len(image) for image in self.encoded if isinstance(image, bytes))

    def place(self, row: int) -> str:
        """Return the place of the image at index `row` of this batch: its table's row, its file, or both."""
        image = self.encoded[row]
        place = f"{shown(self.file)}, row {self.rows[row]}" if self.file else ""
        return place if not isinstance(image, Path) else f"{place}: {shown(image)}" if place else shown(image)


def each(batches: Iterable[Batch], read: Read[T]) -> Iterator[tuple[str, T | str]]:
    """Yield the place of every row and what `read` returns for it, or a message if that fails; see `LIMIT`."""
    line, running = _Line(), deque[tuple[int, Batch]]()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for number, batch in enumerate(batches):
                if not running and batch.thumbnails:
                    yield from ((batch.place(row), attempt(image, read)) for row, image in enumerate(batch.encoded))
                    continue
                while running and (len(running) > _AHEAD or line.used + batch.nbytes > LIMIT):
                    yield from line.results(*running.popleft())
                line.add(batch.nbytes)
                pool.submit(_work, line, number, batch, read)
                running.append((number, batch))
            while running:
                yield from line.results(*running.popleft())
        finally:
            line.close()
            pool.shutdown(cancel_futures=True)  # after an error the rest is not needed


def attempt(
    source: bytes | Path | None, read: Read[T], hold_file: Reserve = no_limit, decode: Reserve = no_limit
) -> T | str:
    """Return what `read` returns for an image, or for the file that holds it; a message if that fails.

    Args:
        hold_file: called with the length of a file before it is read.
        decode: given to `read`.
    """
    if source is None:
        return "no image bytes; images must be embedded, not only named"
    try:
        return read(content(source, hold_file) if isinstance(source, Path) else source, decode)
    except PictureError as error:
        return str(error)


class _Line:
    """The results of the batches that are read, which are taken in the order of their numbers, and their memory."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready: defaultdict[int, deque[tuple[list[Any], int]]] = defaultdict(deque)
        self._first = -1  # the number of the batch whose results are taken
        self._urgent = False  # that batch waits for memory
        self._decoding = 0  # pictures
        self._files = 0  # bytes of encoded files
        self.used = 0  # bytes in all
        self.closed = False  # nothing is taken any more

    def add(self, count: int) -> None:
        """Count so many more bytes, or fewer if it is negative."""
        if count:
            with self._changed:
                self.used += count
                self._changed.notify_all()

    def hold_file(self, number: int, count: int) -> None:
        """Wait until the batch `number` may read a file of so many bytes, and count them."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._files + count <= _FILES or self._is_due(number))
            self._files += count
            self.used += count

    def decode(self, number: int, count: int) -> None:
        """Wait until the batch `number` may use so many bytes to decode a picture, and count them."""

        def may() -> bool:
            due = self._is_due(number)
            self._urgent = self._urgent or due
            fits = self.used + count <= LIMIT
            return self.closed or (fits and (due or not self._urgent)) or (due and not self._decoding)

        with self._changed:
            self._changed.wait_for(may)
            self._urgent = self._urgent and not self._is_due(number)
            self._decoding += 1
            self.used += count

    def _is_due(self, number: int) -> bool:
        """Return whether nothing goes on before the batch `number` has a further result."""
        return number == self._first and not self._ready[number]

    def put(self, number: int, results: list[Any], count: int, held: _Held) -> None:
        """Add results of the batch `number`, which have so many bytes, and release what was held for them."""
        with self._changed:
            self._ready[number].append((results, count))
            self.used += count - held.file - held.decoder
            self._files -= held.file
            self._decoding -= held.decoder > 0
            self._changed.notify_all()

    def results(self, number: int, batch: Batch) -> Iterator[Any]:
        """Yield the results of the batch `number` as they are ready; raise what its thread raised."""
        left = len(batch.encoded)
        while left:
            with self._changed:
                self._first = number
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ready[number])
                results, count = self._ready[number].popleft()
                self.used -= count
                self._changed.notify_all()
            if isinstance(results[-1], BaseException):
                raise results[-1]
            left -= len(results)
            yield from results
        self._ready.pop(number, None)
        self.add(-batch.nbytes)

    def close(self) -> None:
        """Let all threads end."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class _Held:
    """The bytes that one picture of a batch holds while it is read. Small ones are not counted."""

    def __init__(self, line: _Line, number: int) -> None:
        self._line, self._number = line, number
        self.file = self.decoder = 0

    def hold_file(self, count: int) -> None:
        if count > _SMALL:
            self._line.hold_file(self._number, count)
            self.file = count

    def decode(self, count: int) -> None:
        if count > _SMALL and not self.decoder:
            self._line.decode(self._number, count)
            self.decoder = count


def _work(line: _Line, number: int, batch: Batch, read: Read[Any]) -> None:
    """Put the results of a batch on the line."""
    results: list[Any] = []
    size, held = 0, _Held(line, number)
    try:
        for row, image in enumerate(batch.encoded):
            if line.closed:
                return
            result = attempt(image, read, held.hold_file, held.decode)
            results.append((batch.place(row), result))
            size += _size(result)
            if size > _SMALL or held.file or held.decoder or row + 1 == len(batch.encoded):
                line.put(number, results, size, held)
                results, size, held = [], 0, _Held(line, number)
    except BaseException as error:  # it is raised where the results are taken
        line.put(number, [error], 0, held)


def _size(result: Any) -> int:
    """Return the bytes of the largest array or picture in a result; the others are parts of it, or small."""
    return max((getattr(part, "nbytes", 0) for part in (result if isinstance(result, tuple) else (result,))), default=0)
