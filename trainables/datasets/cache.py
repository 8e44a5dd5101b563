"""Decoded data sets on disk: decoded once, mapped by every process after that, the test set kept apart.

A folder of the cache is written beside its place and renamed into it, so it is whole or absent. Later damage
shows in its sizes and its fingerprint: both are checked at every load, and what fails is decoded again.

A machine that does not see another one's folder keeps a copy of it in a cache of its own.
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

from trainables.datasets.seal import Sealed
from trainables.datasets.source import Decoded, Pixels
from trainables.datasets.stored_images import StoredImages, portions
from trainables.errors import DatasetError
from trainables.strata import Rows

VERSION = 2
"""Of what a cache folder holds; folders of other versions are decoded again."""

_SEARCH = ("images.npy", "labels.npy")
_TEST = ("test_images.npy", "test_labels.npy")
_META = "meta.json"

Blocks = Callable[[Path], Iterator[bytes | memoryview]]
"""What a file of another machine holds, block by block."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """The rows that a sweep may search on, and where the sealed test set lies. Test rows are not in it."""

    name: str
    classes: tuple[str, ...]
    images: Pixels  # [N, H, W, C], mapped from the cache, read-only
    labels: NDArray[np.int64]  # [N]
    duplicates: NDArray[np.int64]  # rows whose image also stands in the test set, ascending
    fingerprint: str  # hex, SHA-256 over images, labels and classes
    test_rows: int
    test_fingerprint: str
    official_test: bool  # or drawn from the rows by us
    origin: str
    folder: Path
    unreadable: tuple[str, ...]  # rows left out, each with its place and the reason
    side: int | None  # pixels, of the squares that images of different sizes were made


def cache_dir() -> Path:
    """`$SWEEP_ORCHESTRATOR_CACHE`, else `sweep-orchestrator` under `$XDG_CACHE_HOME` or `~/.cache`."""
    own = os.environ.get("SWEEP_ORCHESTRATOR_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sweep-orchestrator"


def writable_dir(part: str) -> Path:
    """The cache's folder `part`; with a warning a temporary one, where the cache cannot be written."""
    folder = cache_dir() / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        return _instead(error)


def _instead(reason: OSError) -> Path:
    warnings.warn(
        f"the cache {cache_dir()} cannot be written ({reason}); going on without it and decoding again "
        "next time; set SWEEP_ORCHESTRATOR_CACHE to a folder with room",
        stacklevel=3,
    )
    return _temporary_dir()


@functools.cache
def _temporary_dir() -> Path:
    """A folder that lives as long as this process: a sweep should not fail for want of a cache."""
    folder = tempfile.mkdtemp(prefix="sweep-orchestrator-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def load(name: str, origin: str, key: str, decode: Callable[[Path], Sealed]) -> Dataset:
    """The data set from the cache, put there by `decode` if it is absent or damaged.

    Args:
        key: hex digits that stand for the source's content.
        decode: is given a folder for what it does not hold in memory.

    Raises:
        DatasetError: from `decode`, or when neither the cache nor a temporary folder can be written.
    """
    place = Path("datasets") / f"{name}-{key[:16]}"
    with contextlib.suppress(OSError, ValueError, KeyError):
        # The same files may have been decoded from another place.
        return dataclasses.replace(_open(cache_dir() / place), origin=origin)
    folder = writable_dir("datasets")
    try:
        return _store(folder / place.name, name, origin, decode(folder))
    except OSError as error:  # a full disk shows only while writing
        folder = _instead(error)
    try:
        return _store(folder / place.name, name, origin, decode(folder))
    except OSError as error:
        problem = f"{name} can be stored neither in {cache_dir()} nor in {folder}: {error}"
        raise DatasetError(problem) from error


def open_test(dataset: Dataset) -> tuple[Pixels, NDArray[np.int64]]:
    """Opens the seal: the test images [N, H, W, C] and labels [N].

    Raises:
        DatasetError: when they are gone or not those that were sealed.
    """
    try:
        images, labels = _read(dataset.folder, _TEST)
        whole = fingerprint(images, labels, dataset.classes) == dataset.test_fingerprint
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise DatasetError(
            f"the test set of {dataset.name} is gone or damaged; delete {dataset.folder} and load it again"
        )
    return images, labels


def fingerprint(images: Pixels | StoredImages, labels: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """64 hex digits of the SHA-256 over images, labels, their shape and the classes."""
    digest = hashlib.sha256(json.dumps([images.shape, classes]).encode())
    for portion in portions(images.shape):
        digest.update(np.ascontiguousarray(images[portion]).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def identity(folder: Path) -> bytes:
    """What only this folder's copies have: its description, with the fingerprints of both parts."""
    return (folder / _META).read_bytes()


def near(path: Path, known: bytes, blocks: Blocks) -> Path:
    """A file of another machine's cache folder, where this one has it: there, or in a copy, made if there is none.

    Args:
        path: on the other machine.
        known: the `identity` of its folder.
        blocks: what the other machine's files hold.

    Raises:
        OSError: this machine has no room for a copy, or what came is not what was sent.
    """
    if _is_that(path.parent, known):
        return path
    copy = writable_dir("datasets") / f"{path.parent.name}.{hashlib.sha256(known).hexdigest()[:16]}"
    with copy.with_name(f"{copy.name}.lock").open("w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks: two processes may fetch the same
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_that(copy, known):
            _fetch(path.parent, known, copy, blocks)
    return copy / path.name


def _is_that(folder: Path, known: bytes) -> bool:
    """Whether `folder` has that identity, and files of their sizes."""
    try:
        return identity(folder) == known and _sizes_fit(folder, json.loads(known))
    except OSError:
        return False


def _sizes_fit(folder: Path, meta: dict[str, Any]) -> bool:
    return all((folder / file).stat().st_size == size for file, size in meta["files"].items())


def _fetch(folder: Path, known: bytes, copy: Path, blocks: Blocks) -> None:
    """Writes beside `copy` what `folder` holds elsewhere, checks that it has its identity, and renames."""
    with _scratch(copy) as scratch:
        try:
            for name in _SEARCH + _TEST:
                with (scratch / name).open("wb") as file:
                    file.writelines(blocks(folder / name))
            (scratch / _META).write_bytes(known)
            open_test(_open(scratch))
        except (OSError, ValueError, KeyError, DatasetError) as error:
            raise OSError(
                f"{folder} cannot be copied to {copy} ({error}); set SWEEP_ORCHESTRATOR_CACHE on this machine to a "
                "folder with room, or to one that all machines see"
            ) from error
        _rename(scratch, copy)


def _read(folder: Path, files: tuple[str, str]) -> tuple[Pixels, NDArray[np.int64]]:
    return np.load(folder / files[0], mmap_mode="r"), np.load(folder / files[1])


def _open(folder: Path) -> Dataset:
    """Raises OSError, ValueError or KeyError when the folder is absent, damaged or of another version."""
    meta = json.loads((folder / _META).read_text())
    if meta["version"] != VERSION:
        raise ValueError(f"{folder} has version {meta['version']}, not {VERSION}")
    if not _sizes_fit(folder, meta):
        raise ValueError(f"the files in {folder} have not the sizes that were written")
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
    )


def _store(folder: Path, name: str, origin: str, sealed: Sealed) -> Dataset:
    """Writes beside `folder` and renames. Of several processes that race here, the first one's stays."""
    with _scratch(folder) as scratch:
        _write(scratch, name, origin, sealed)
        _rename(scratch, folder)
    return _open(folder)


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder beside `folder`, gone with the context unless it was renamed."""
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rename(scratch: Path, folder: Path) -> None:
    """Puts `scratch` in the place of `folder`, unless something whole is there."""
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
        "files": {file: (folder / file).stat().st_size for file in _SEARCH + _TEST},
    }
    (folder / _META).write_text(json.dumps(meta))


def _write_part(folder: Path, files: tuple[str, str], decoded: Decoded, rows: Rows) -> str:
    """Images and labels of some rows; their fingerprint. Not through a map: a full disk would end the process."""
    images, labels = StoredImages((decoded.images,), rows), decoded.labels[rows]
    with (folder / files[0]).open("wb") as file:
        layout = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
        np.lib.format.write_array_header_1_0(file, layout)
        file.writelines(images[portion].data for portion in portions(images.shape))
    np.save(folder / files[1], labels)
    return fingerprint(images, labels, decoded.classes)
