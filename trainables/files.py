"""Files that are complete or absent, whatever happens while they are written, and files of others, of any kind."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file: a part of its path is no folder",
    errno.ELOOP: "a link that leads back to itself",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ENAMETOOLONG: "its name is too long",
}
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder, not a file"),
    (stat.S_ISFIFO, "a named pipe, not a file"),
    (stat.S_ISSOCK, "a socket, not a file"),
    (stat.S_ISREG, ""),
)


class UnreadableError(OSError):
    """A path that leads to no regular file that can be read; the text is the reason, without the path."""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file to be read. Never wait for a pipe, and never open a device.

    Raises:
        UnreadableError: there is none at `path`, or it may not be read.
    """
    try:
        _check_regular(Path(path).stat())
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except UnreadableError:
        raise
    except OSError as error:
        dangling = error.errno == errno.ENOENT and Path(path).is_symlink()
        reason = "a link to a file that is not there" if dangling else _REASONS.get(error.errno or 0, error.strerror)
        raise UnreadableError(reason) from error
    except ValueError as error:  # a NUL character, or half of a surrogate pair
        raise UnreadableError("no file can have this name") from error
    file = os.fdopen(descriptor, "rb")
    try:
        _check_regular(os.fstat(descriptor))  # it may have been replaced
    except UnreadableError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result) -> None:
    """Raise UnreadableError for anything but a regular file."""
    kind = next((kind for check, kind in _KINDS if check(status.st_mode)), "a device, not a file")
    if kind:
        raise UnreadableError(kind)


def sha256(path: Path) -> str:
    """Return 64 hex digits of the SHA-256 of a file, which is read in pieces; raise OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write `content`, or its pieces, such that a reader finds the old file or the new one, even after a crash."""
    with new_file(path) as temporary, temporary.open("wb") as file:
        file.writelines([content] if isinstance(content, bytes) else content)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write a file at, which then gets the name `path`, unless writing fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON, as `replace_file` does."""
    replace_file(path, json.dumps(content, indent=2).encode())


def replace_folder(new: Path, folder: Path) -> None:
    """Give the folder `new` the name of `folder`, whose former content is removed.

    A reader finds the old one or the new one, also after a crash. Only where the system cannot exchange two names there
    is a moment without either; `restore_folder` then puts the old one back.
    """
    former = _former(folder)
    restore_folder(folder)
    if not folder.exists():
        new.rename(folder)
    elif _exchange(new, folder):
        former = new
    else:
        folder.rename(former)
        new.rename(folder)
    sync_folder(folder)
    shutil.rmtree(former, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Put back what a process took away with `replace_folder` that was killed before the new one had the name."""
    if _former(folder).exists() and not folder.exists():
        _former(folder).rename(folder)
    shutil.rmtree(_former(folder), ignore_errors=True)


def _former(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Give two files or folders each other's name in one step; return whether the system can do that."""
    library, names = ctypes.CDLL(None, use_errno=True), (os.fsencode(one), os.fsencode(other))
    here, swap = -2 if sys.platform == "darwin" else -100, 2  # AT_FDCWD; RENAME_SWAP, RENAME_EXCHANGE
    rename = getattr(library, "renameatx_np" if sys.platform == "darwin" else "renameat2", None)
    return rename is not None and rename(here, names[0], here, names[1], swap) == 0


def unwritable(path: Path) -> str | None:
    """Return a message why no file can be written at `path`; None if nothing speaks against it before one tries."""
    folder = path.absolute().parent
    if path.is_dir():
        return f"{path} is a folder; name a file"
    if not folder.is_dir():
        return f"{path}: there is no folder {path.parent}; make it first"
    return None if os.access(folder, os.W_OK) else f"{path}: the folder {path.parent} cannot be written"


def sync_folder(path: Path) -> None:
    """Make the folder's entry of `path` survive a loss of power, if the file system can promise that."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)
