"""Pictures in class folders: `cats/*.jpg`, `dogs/*.jpg`, perhaps below folders for parts such as `train/`."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from trainables.datasets import layout, tree
from trainables.datasets.inventory import Inventory
from trainables.datasets.listing import Files, Listing, decode
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Decoded, Progress, plain_name, unused_data_dir
from trainables.errors import DatasetError, shown


@dataclass(frozen=True)
class Folder:
    """The class folders in `path`, or in its parts (`train/`, `Test/`, …); pictures may lie deeper in one."""

    path: Path
    reading: Reading = AS_FOUND

    @property
    def name(self) -> str:
        return plain_name(self.path)

    @property
    def origin(self) -> str:
        return str(self.path.absolute())

    @cached_property
    def listing(self) -> Listing:
        """The rows of the folder as it was when they were first asked for.

        Raises:
            DatasetError: as `layout.read`; or folders cannot be opened, and bad images are not to be skipped.
        """
        root = tree.walk(self.path)
        unopened = [shown(path) for reason, path in root.left_out() if reason == tree.UNOPENED]
        if unopened and self.reading.on_bad_image == "fail":
            raise DatasetError(
                *(
                    f"{path}: the folder cannot be opened; allow it, or leave it out with --on-bad-image skip"
                    for path in unopened[:10]
                )
            )
        read = layout.read(root, self.reading)
        rows = [(file, group.label, group.part) for group in read.groups for file in group.folder.pictures()]
        files, labels, parts = (list(column) for column in zip(*rows, strict=True))
        left_out = tree.summed([*root.left_out(), *read.left_out], root.path)
        return Listing(Files(files), labels, parts if any(parts) else (), read.words, left_out)

    def problems(self) -> list[str]:
        problems = unused_data_dir(self.path, self.reading)
        try:
            problems += [] if len(self.listing.images) else ["there are no images"]
        except DatasetError as error:
            problems += error.problems
        return problems

    def key(self) -> str:
        images = self.listing.images
        return files_key(images.paths if isinstance(images, Files) else (), self.path)

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        return decode(replace(self.listing, left_out=()), self.reading, progress, scratch)

    def with_others(self, inventory: Inventory) -> Inventory:
        """Return the inventory of the rows, completed by the other files that are there now."""
        return replace(inventory, left_out=(*self.listing.left_out, *inventory.left_out))


def open_folder(path: Path, reading: Reading) -> Folder | None:
    """Return the folder of class folders at `path`; None if it is no folder, or holds no class folders."""
    if not path.is_dir():
        return None
    folder = Folder(path, reading)
    try:
        return folder if folder.listing else None
    except layout.NoClassFoldersError:
        return None
    except DatasetError:
        return folder  # its problems say how it can be read


def files_key(files: Iterable[Path], root: Path) -> str:
    """Return 64 hex digits over the files' names below `root`, sizes and times: they may be too many to read twice.

    A file that cannot be found has neither size nor time.
    """
    digest, above = hashlib.sha256(), f"{root}{os.sep}"
    for file in files:
        digest.update(f"{str(file).removeprefix(above)}\n".encode(errors="surrogateescape"))
        with contextlib.suppress(OSError, ValueError):  # no file has a name with a NUL
            status = file.stat()
            digest.update(f"{status.st_size}\n{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
