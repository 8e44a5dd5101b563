"""The content of a folder of the data cache: images, labels and facts of both parts, their hashes, a description."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.packed import PackedFile, in_channels, one_shape
from trainables.datasets.seal import Sealed
from trainables.datasets.source import Decoded, Pixels
from trainables.datasets.stored_images import PORTION_ROWS, StoredImages, portions
from trainables.files import replace_file, sha256
from trainables.strata import Rows

VERSION = 4
"""The version of a cache folder's content; folders of other versions are decoded again."""

SEARCH = ("images.npy", "labels.npy", "facts.npy")
TEST = ("test_images.npy", "test_labels.npy", "test_facts.npy")
META = "meta.json"
_VERIFIED = "verified.json"  # file → size and time of change when its content was compared with its hash


def write(folder: Path, name: str, origin: str, sealed: Sealed) -> None:
    """Write both parts and their description."""
    decoded = sealed.decoded
    fingerprints = [_write_part(folder, *part, decoded) for part in ((SEARCH, sealed.search), (TEST, sealed.test))]
    meta: dict[str, Any] = {
        "version": VERSION,
        "name": name,
        "origin": origin,
        "classes": decoded.classes,
        "rows": len(sealed.search),
        "shape": StoredImages.of(decoded.images).shape[1:],  # of a row; of pictures of different sizes, a square
        "duplicates": sealed.duplicates.tolist(),
        "fingerprint": fingerprints[0],
        "test_rows": len(sealed.test),
        "test_fingerprint": fingerprints[1],
        "official_test": sealed.official_test,
        "unreadable": decoded.unreadable,
        "side": decoded.side,
        "background": decoded.background,
        "stored_side": decoded.stored_side,
        "inventory": decoded.inventory.to_dict(),
        "files": {file: (folder / file).stat().st_size for file in SEARCH + TEST},
        "hashes": {file: sha256(folder / file) for file in SEARCH + TEST},
    }
    (folder / META).write_text(json.dumps(meta))
    _note_verified(folder, {file: _size_and_time(folder / file) for file in SEARCH + TEST})


def _write_part(folder: Path, files: tuple[str, str, str], rows: Rows, decoded: Decoded) -> str:
    """Write some rows' images, their facts, and labels; return their fingerprint.

    Pictures of one shape are written as an array, those of different sizes one after another.
    """
    whole = StoredImages.of(decoded.images)
    images, channels = whole.select(rows), whole.shape[3]
    facts = images.facts.copy()
    size = one_shape(facts) if decoded.side is None else None
    if size is not None:
        facts["channels"], facts["length"] = channels, math.prod(size) * channels
    facts["start"] = np.cumsum(facts["length"]) - facts["length"]
    shape = (int(facts["length"].sum()),) if size is None else (len(rows), *size, channels)
    with (folder / files[0]).open("wb") as file:  # with a memory map a full disk would kill us
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for start in range(0, len(rows), PORTION_ROWS):
            some = np.arange(start, min(start + PORTION_ROWS, len(rows)))
            if size is None:
                file.writelines(content.data for content in images.contents(some))
            else:
                file.writelines(in_channels(picture, channels).data for picture in images.pictures(some))
    np.save(folder / files[1], decoded.labels[rows])
    np.save(folder / files[2], facts)
    return fingerprint(*read_part(folder, files, whole.shape[1:]), decoded.classes)


def read_part(
    folder: Path, files: tuple[str, str, str], shape: Sequence[int]
) -> tuple[Pixels | StoredImages, NDArray[np.int64]]:
    """Map the images of a part, and read its labels; `shape` is that of the data set's images, but for their number."""
    images, labels = np.load(folder / files[0], mmap_mode="r"), np.load(folder / files[1])
    if images.ndim == 4:
        return images, labels
    return StoredImages((PackedFile((folder / files[0]).absolute(), (len(labels), *shape)),)), labels


def verify(folder: Path, files: tuple[str, ...], all_again: bool = False) -> None:
    """Compare those of the files with their hashes that have changed since that was done last, or all of them.

    Raises:
        ValueError: a file differs from its hash.
        OSError: a file is missing.
        KeyError: the folder's description is incomplete.
    """
    hashes = json.loads((folder / META).read_text())["hashes"]
    try:
        verified = dict(json.loads((folder / _VERIFIED).read_text()))
    except (OSError, ValueError, TypeError):
        verified = {}
    found = {name: _size_and_time(folder / name) for name in files}
    changed = [name for name in files if all_again or verified.get(name) != found[name]]
    for name in changed:
        if sha256(folder / name) != hashes[name]:
            raise ValueError(f"{folder / name} does not hold what was written")
    if changed:
        _note_verified(folder, {**verified, **found})


def _size_and_time(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _note_verified(folder: Path, verified: dict[str, list[int]]) -> None:
    """Write down which files have been compared with their hashes; if the folder cannot be written, they are again."""
    with contextlib.suppress(OSError):
        replace_file(folder / _VERIFIED, json.dumps(verified).encode())


def sizes_fit(folder: Path, meta: dict[str, Any]) -> bool:
    return all((folder / file).stat().st_size == size for file, size in meta["files"].items())


def fingerprint(images: Pixels | StoredImages, labels: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Return 64 hex digits of the SHA-256 over images, labels, their shape and the classes.

    Of pictures of different sizes it is taken over their digests.
    """
    stored = StoredImages.of(images)
    digest = hashlib.sha256(json.dumps([stored.shape, classes]).encode())
    if stored.uniform:
        for portion in portions(stored.shape):
            digest.update(np.ascontiguousarray(stored[portion]).data)
    else:
        digest.update(stored.digests().data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()
