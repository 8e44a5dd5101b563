"""The storage of checkpoints: a folder of this machine, a folder that machines share, or a bucket."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from trainables.files import replace_file

SCHEMES = ("s3", "gs")
SILENCE_S = 5.0  # a request to a bucket is given up after so long without an answer; it is made twice

PATIENCE_S = 90.0  # how long a storage that fails is tried again
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0  # between two tries; each pause is twice as long as the one before
NOT_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # no space, which waiting does not give

Result = TypeVar("Result")


class StorageError(OSError):
    """Storage failed again and again: what was asked for may be there or not."""


def patiently(action: Callable[[], Result], give_up: Callable[[], bool] = lambda: False) -> Result:
    """Return what `action` returns, and try again for `PATIENCE_S`, less and less often, while storage fails.

    Args:
        give_up: returns whether nobody needs the result any more; asked after a pause.

    Raises:
        StorageError: it failed all the time.
        OSError: there is no space, which waiting does not change.
    """
    started, pause_s = time.monotonic(), FIRST_PAUSE_S
    while True:
        try:
            return action()
        except OSError as error:
            waited_s = time.monotonic() - started
            if error.errno in NOT_PASSING:
                raise
            if waited_s + pause_s > PATIENCE_S or give_up():
                raise StorageError(f"storage failed for {waited_s:.0f} s: {error}") from error
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def below(place: str, name: str) -> str:
    """Return the path or URI of `name` in the folder `place`; a URI keeps its options."""
    if "://" not in place:
        return str(Path(place) / name)
    parts = urlsplit(place)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


@dataclass(frozen=True)
class Storage:
    """Files by their path below `uri`: an absolute folder, `s3://BUCKET/PATH` or `gs://BUCKET/PATH`.

    Buckets are reached through pyarrow's file systems, which take credentials from the environment and options such
    as `?region=…` or `?endpoint_override=…` from the URI. All methods raise OSError if the storage fails.
    """

    uri: str

    def write(self, path: str, content: bytes) -> None:
        """Replace the file, or write a new one, completely or not at all."""
        files, root = _opened(self.uri)
        if self.is_folder:
            target = Path(root) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, content)
        else:
            with files.open_output_stream(f"{root}/{path}") as stream:
                stream.write(content)

    def open(self, path: str) -> Any:
        """Open a binary file to read from, at any place in it."""
        files, root = _opened(self.uri)
        return files.open_input_file(f"{root}/{path}")

    def names(self, folder: str = "") -> list[str]:
        """Return the names of files and folders in `folder`, in no order; none if it does not exist."""
        from pyarrow.fs import FileSelector

        files, root = _opened(self.uri)
        entries = files.get_file_info(FileSelector(f"{root}/{folder}".rstrip("/"), allow_not_found=True))
        return [entry.base_name for entry in entries]

    def folders(self) -> list[str]:
        """Return the names of the folders at the top, in no order."""
        from pyarrow.fs import FileSelector, FileType

        files, root = _opened(self.uri)
        entries = files.get_file_info(FileSelector(root, allow_not_found=True))
        return [entry.base_name for entry in entries if entry.type == FileType.Directory]

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        files, root = _opened(self.uri)
        with suppress(FileNotFoundError):
            files.delete_file(f"{root}/{path}")

    def remove_folder(self, folder: str) -> None:
        """Remove a folder with its content, if it exists."""
        if self.is_folder:  # four times as fast as through pyarrow, and called after every trial
            with suppress(FileNotFoundError):
                shutil.rmtree(Path(self.uri) / folder)
            return
        files, root = _opened(self.uri)
        with suppress(FileNotFoundError):
            files.delete_dir(f"{root}/{folder}")

    @property
    def is_folder(self) -> bool:
        """Return whether this is a folder, not a bucket."""
        return "://" not in self.uri


@cache
def _opened(uri: str) -> tuple[Any, str]:
    """Return the file system of `uri`, and the path in it."""
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" not in uri:
        return LocalFileSystem(), uri
    try:
        files, root = FileSystem.from_uri(uri)
    except ArrowException as error:
        raise OSError(f"{uri} cannot be opened: {error}") from error
    return _less_patient(files), root.rstrip("/")


def _less_patient(files: Any) -> Any:
    """Return the same file system with shorter time limits, which a URI cannot set; it is made again from its pickle.

    By default S3 keeps trying for 99 s if a server never answers, Google for 15 minutes if it refuses.
    """
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    _, (options,) = files.__reduce__()
    if isinstance(files, S3FileSystem):
        twice = AwsStandardS3RetryStrategy(max_attempts=2)
        options |= {"connect_timeout": SILENCE_S, "request_timeout": SILENCE_S, "retry_strategy": twice}
    else:
        options["retry_time_limit"] = timedelta(seconds=SILENCE_S)
    return type(files)(**options)
