"""Decoded data sets on disk: decoded once, mapped by every later process, the test set kept apart.

A folder of the cache is written beside its place and renamed into it, so it is complete or absent. Later damage
shows in its sizes and its fingerprint: both are checked at every load, and a damaged folder is decoded again.

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.inventory import Inventory
from trainables.datasets.seal import Sealed
from trainables.datasets.source import Decoded, Pixels
from trainables.datasets.stored_images import StoredImages, portions
from trainables.errors import DatasetError
from trainables.strata import Rows

VERSION = 3
"""The version of a cache folder's content; folders of other versions are decoded again."""

_SEARCH = ("images.npy", "labels.npy")
_TEST = ("test_images.npy", "test_labels.npy")
_META = "meta.json"

Blocks = Callable[[Path], Iterator[bytes | memoryview]]
"""Yields the content of a file of another machine, block by block."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """The rows that a sweep may search on, and the place of the sealed test set, whose rows are not here."""

    name: str
    classes: tuple[str, ...]
    images: Pixels  # [N, H, W, C], mapped from the cache, read-only
    labels: NDArray[np.int64]  # [N]
    duplicates: NDArray[np.int64]  # rows whose image is also in the test set, ascending
    fingerprint: str  # hex, SHA-256 over images, labels and classes
    test_rows: int
    test_fingerprint: str
    official_test: bool  # False: this project drew the test set from the rows
    origin: str
    folder: Path
    unreadable: tuple[str, ...]  # rows left out: the place of each, and why it cannot be read
    side: int | None  # pixels; images of different sizes became squares of this side
    inventory: Inventory


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


def open_test(dataset: Dataset) -> tuple[Pixels, NDArray[np.int64]]:
    """Open the sealed test set: return its images [N, H, W, C] and labels [N].

    Raises:
        DatasetError: they are missing, or not those that were sealed.
    """
    try:
        images, labels = _read(dataset.folder, _TEST)
        intact = fingerprint(images, labels, dataset.classes) == dataset.test_fingerprint
    except (OSError, ValueError):
        intact = False
    if not intact:
        raise DatasetError(
            f"the test set of {dataset.name} is missing or damaged; delete {dataset.folder} and load the data set again"
        )
    return images, labels


def fingerprint(images: Pixels | StoredImages, labels: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Return 64 hex digits of the SHA-256 over images, labels, their shape and the classes."""
    digest = hashlib.sha256(json.dumps([images.shape, classes]).encode())
    for portion in portions(images.shape):
        digest.update(np.ascontiguousarray(images[portion]).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def identity(folder: Path) -> bytes:
    """Return the bytes that tell this folder from all others: its description, with the fingerprints of both parts."""
    return (folder / _META).read_bytes()


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
        return identity(folder) == expected and _sizes_fit(folder, json.loads(expected))
    except OSError:
        return False


def _sizes_fit(folder: Path, meta: dict[str, Any]) -> bool:
    return all((folder / file).stat().st_size == size for file, size in meta["files"].items())


def _fetch(folder: Path, expected: bytes, copy: Path, blocks: Blocks) -> None:
    """Write the files of another machine's `folder` beside `copy`, check them, and rename."""
    with _scratch(copy) as scratch:
        try:
            for name in _SEARCH + _TEST:
                with (scratch / name).open("wb") as file:
                    file.writelines(blocks(folder / name))
            (scratch / _META).write_bytes(expected)
            open_test(_open(scratch))
        except (OSError, ValueError, KeyError, DatasetError) as error:
            raise OSError(
                f"{folder} cannot be copied to {copy} ({error}); set SWEEP_ORCHESTRATOR_CACHE on this machine to a "
                "folder on a disk with free space, or to one that all machines share"
            ) from error
        _rename(scratch, copy)


def _read(folder: Path, files: tuple[str, str]) -> tuple[Pixels, NDArray[np.int64]]:
    return np.load(folder / files[0], mmap_mode="r"), np.load(folder / files[1])


def _open(folder: Path) -> Dataset:
    """Open a cache folder; raise OSError, ValueError or KeyError if it is absent, damaged or of another version."""
    meta = json.loads((folder / _META).read_text())
    if meta["version"] != VERSION:
        raise ValueError(f"{folder} has version {meta['version']}, not {VERSION}")
    if not _sizes_fit(folder, meta):
        raise ValueError(f"files in {folder} do not have the sizes that were written")
    images, labels = _read(folder, _SEARCH)
    classes = tuple(meta["classes"])
    if fingerprint(images, labels, classes) != meta["fingerprint"]:
        raise ValueError(f"{folder} does not hold what was written")
    return Dataset(
        name=meta["name"],
        classes=classes,
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
        inventory=Inventory.from_dict(meta["inventory"]),
    )


def _store(folder: Path, name: str, origin: str, sealed: Sealed) -> Dataset:
    """Write beside `folder`, and rename. If several processes do so, the first one's folder stays."""
    with _scratch(folder) as scratch:
        _write(scratch, name, origin, sealed)
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


def _write(folder: Path, name: str, origin: str, sealed: Sealed) -> None:
    """Write both parts and their description."""
    decoded = sealed.decoded
    meta: dict[str, Any] = {
        "version": VERSION,
        "name": name,
        "origin": origin,
        "classes": decoded.classes,
        "rows": len(sealed.search),
        "duplicates": sealed.duplicates.tolist(),
        "fingerprint": _write_part(folder, _SEARCH, decoded, sealed.search),
        "test_rows": len(sealed.test),
        "test_fingerprint": _write_part(folder, _TEST, decoded, sealed.test),
        "official_test": sealed.official_test,
        "unreadable": decoded.unreadable,
        "side": decoded.side,
        "inventory": decoded.inventory.to_dict(),
        "files": {file: (folder / file).stat().st_size for file in _SEARCH + _TEST},
    }
    (folder / _META).write_text(json.dumps(meta))


def _write_part(folder: Path, files: tuple[str, str], decoded: Decoded, rows: Rows) -> str:
    """Write images and labels of some rows; return their fingerprint. With a memory map a full disk would kill us."""
    images, labels = StoredImages((decoded.images,), rows), decoded.labels[rows]
    with (folder / files[0]).open("wb") as file:
        layout = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
        np.lib.format.write_array_header_1_0(file, layout)
        file.writelines(images[portion].data for portion in portions(images.shape))
    np.save(folder / files[1], labels)
    return fingerprint(images, labels, decoded.classes)
