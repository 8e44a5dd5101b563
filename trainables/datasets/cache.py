"""Decoded data sets on disk: decoded once, mapped by every later process, the test set kept apart.

A folder of the cache is written beside its place and renamed into it, so it is complete or absent. Later damage
shows in the sizes, times and contents of its files: a file whose size and time are those that were verified is not read
again, another one is compared with its hash, and a damaged folder is decoded again.

A machine that does not share a folder with the machine that decoded it keeps a local copy in a cache of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.decoded_folder import (
    META,
    SEARCH,
    TEST,
    VERSION,
    read_part,
    sizes_fit,
    verify,
    write,
)
from trainables.datasets.inventory import Inventory
from trainables.datasets.reading import SHORT_SIDE
from trainables.datasets.seal import Sealed
from trainables.datasets.source import WHITE, Pixels
from trainables.datasets.stored_images import StoredImages
from trainables.errors import DatasetError

Blocks = Callable[[Path], Iterator[bytes | memoryview]]
"""Yields the content of a file of another machine, block by block."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """The rows that a sweep may search on, and the place of the sealed test set, whose rows are not here."""

    name: str
    classes: tuple[str, ...]
    images: Pixels | StoredImages  # [N, H, W, C], mapped from the cache, read-only
    labels: NDArray[np.int64]  # [N]
    duplicates: NDArray[np.int64]  # rows whose image is also in the test set, ascending
    fingerprint: str  # hex, SHA-256 over images, labels and classes
    test_rows: int
    test_fingerprint: str
    official_test: bool  # False: this project drew the test set from the rows
    origin: str
    folder: Path
    unreadable: tuple[str, ...]  # rows left out: the place of each, and why it cannot be read
    side: int | None  # pixels, the longest shorter side of pictures of different sizes; None: all have one shape
    inventory: Inventory
    background: tuple[int, int, int] = WHITE  # behind transparent pictures, and around padded ones
    stored_side: int = SHORT_SIDE  # pixels; pictures whose shorter side is longer were scaled down to that


def cache_dir() -> Path:
    """Return `$SWEEP_ORCHESTRATOR_CACHE`, else `sweep-orchestrator` under `$XDG_CACHE_HOME` or `~/.cache`."""
    chosen = os.environ.get("SWEEP_ORCHESTRATOR_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "sweep-orchestrator"


def writable_dir(part: str) -> Path:
    """Return the cache's folder `part`; if the cache cannot be written, warn and return a temporary folder."""
    folder = cache_dir() / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        return _replacement(error)


def _replacement(reason: OSError) -> Path:
    """Warn that the cache cannot be written, and return a temporary folder."""
    warnings.warn(
        f"the cache {cache_dir()} cannot be written ({reason}); continuing without it, so the data are decoded again "
        "next time; set SWEEP_ORCHESTRATOR_CACHE to a folder on a disk with free space",
        stacklevel=3,
    )
    return _temporary_dir()


@functools.cache
def _temporary_dir() -> Path:
    """Make a folder that lives as long as this process: a sweep should not fail for want of a cache."""
    folder = tempfile.mkdtemp(prefix="sweep-orchestrator-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def load(name: str, origin: str, key: str, decode: Callable[[Path], Sealed]) -> Dataset:
    """Return the data set from the cache; `decode` it into the cache if it is absent or damaged.

    Args:
        key: hex digits that identify the source's content.
        decode: takes a folder for pixels that it does not hold in memory.

    Raises:
        DatasetError: from `decode`, or because neither the cache nor a temporary folder can be written.
    """
    place = Path("datasets") / f"{name}-{key[:16]}"
    with contextlib.suppress(OSError, ValueError, KeyError):
        # The same files may have been decoded from another place.
        return dataclasses.replace(_open(cache_dir() / place), origin=origin)
    folder = writable_dir("datasets")
    try:
        return _store(folder / place.name, name, origin, decode(folder))
    except OSError as error:  # a full disk shows only while writing
        folder = _replacement(error)
    try:
        return _store(folder / place.name, name, origin, decode(folder))
    except OSError as error:
        problem = f"{name} can be stored neither in {cache_dir()} nor in {folder}: {error}"
        raise DatasetError(problem) from error


def open_test(dataset: Dataset) -> tuple[Pixels | StoredImages, NDArray[np.int64]]:
    """Open the sealed test set: return its images [N, H, W, C] and labels [N].

    Raises:
        DatasetError: they are missing, or not those that were sealed.
    """
    try:
        verify(dataset.folder, TEST)
        return read_part(dataset.folder, TEST, dataset.images.shape[1:])
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(
            f"the test set of {dataset.name} is missing or damaged; delete {dataset.folder} and load the data set again"
        ) from error


def verify_fully(dataset: Dataset) -> None:
    """Compare every file of the data set with its hash, whatever its time of change is.

    Raises:
        DatasetError: a file is missing, or its content has changed.
    """
    try:
        verify(dataset.folder, SEARCH + TEST, all_again=True)
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{error}; delete {dataset.folder} and load the data set again") from error


def identity(folder: Path) -> bytes:
    """Return the bytes that tell this folder from all others: its description, with the fingerprints of both parts."""
    return (folder / META).read_bytes()


def local_copy(path: Path, expected: bytes, blocks: Blocks) -> Path:
    """Return the path of a local copy of another machine's file, fetched on first use; `path` if both share the file.

    All files of its cache folder are fetched together. Of several processes one fetches, the others wait.

    Args:
        path: the file's path on the other machine.
        expected: the `identity` of its folder.
        blocks: reads the other machine's files.

    Raises:
        OSError: the disk has no space for a copy, or the bytes that arrived differ from those on the other machine.
    """
    if _is_copy(path.parent, expected):
        return path
    copy = writable_dir("datasets") / f"{path.parent.name}.{hashlib.sha256(expected).hexdigest()[:16]}"
    with copy.with_name(f"{copy.name}.lock").open("w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks: two processes may fetch the same
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_copy(copy, expected):
            _fetch(path.parent, expected, copy, blocks)
    return copy / path.name


def _is_copy(folder: Path, expected: bytes) -> bool:
    """Return whether `folder` has the `expected` identity, and files of the sizes that it gives."""
    try:
        return identity(folder) == expected and sizes_fit(folder, json.loads(expected))
    except OSError:
        return False


def _fetch(folder: Path, expected: bytes, copy: Path, blocks: Blocks) -> None:
    """Write the files of another machine's `folder` beside `copy`, check them, and rename."""
    with _scratch(copy) as scratch:
        try:
            for name in SEARCH + TEST:
                with (scratch / name).open("wb") as file:
                    file.writelines(blocks(folder / name))
            (scratch / META).write_bytes(expected)
            verify(scratch, SEARCH + TEST)
        except (OSError, ValueError, KeyError) as error:
            raise OSError(
                f"{folder} cannot be copied to {copy} ({error}); set SWEEP_ORCHESTRATOR_CACHE on this machine to a "
                "folder on a disk with free space, or to one that all machines share"
            ) from error
        _rename(scratch, copy)


def _open(folder: Path) -> Dataset:
    """Open a cache folder; raise OSError, ValueError or KeyError if it is absent, damaged or of another version."""
    meta = json.loads((folder / META).read_text())
    if meta["version"] != VERSION:
        raise ValueError(f"{folder} has version {meta['version']}, not {VERSION}")
    if not sizes_fit(folder, meta):  # of the test set, too, whose content is compared when it is opened
        raise ValueError(f"files in {folder} do not have the sizes that were written")
    verify(folder, SEARCH)
    images, labels = read_part(folder, SEARCH, meta["shape"])
    return Dataset(
        name=meta["name"],
        classes=tuple(meta["classes"]),
        images=images,
        labels=labels,
        duplicates=np.array(meta["duplicates"], dtype=np.int64),
        fingerprint=meta["fingerprint"],
        test_rows=meta["test_rows"],
        test_fingerprint=meta["test_fingerprint"],
        official_test=meta["official_test"],
        origin=meta["origin"],
        folder=folder,
        unreadable=tuple(meta["unreadable"]),
        side=meta["side"],
        background=tuple(meta["background"]),
        stored_side=meta["stored_side"],
        inventory=Inventory.from_dict(meta["inventory"]),
    )


def _store(folder: Path, name: str, origin: str, sealed: Sealed) -> Dataset:
    """Write beside `folder`, and rename. If several processes do so, the first one's folder stays."""
    with _scratch(folder) as scratch:
        write(scratch, name, origin, sealed)
        _rename(scratch, folder)
    return _open(folder)


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder`; remove it at the end unless it was renamed."""
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rename(scratch: Path, folder: Path) -> None:
    """Rename `scratch` to `folder`, unless an undamaged folder is there."""
    with contextlib.suppress(OSError):
        scratch.rename(folder)
        return
    with contextlib.suppress(OSError, ValueError, KeyError):
        _open(folder)
        return
    damaged = scratch.with_name(f"{scratch.name}.damaged")
    folder.rename(damaged)
    scratch.rename(folder)
    shutil.rmtree(damaged, ignore_errors=True)
