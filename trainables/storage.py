"""Where checkpoints lie: a folder of this machine, one that machines share, or a bucket."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trainables.files import replace_file

SCHEMES = ("s3", "gs")


@dataclass(frozen=True)
class Storage:
    """Whole files by their path below `uri`: an absolute folder, `s3://BUCKET/PATH` or `gs://BUCKET/PATH`.

    Buckets are reached through pyarrow's file systems, which take credentials from the environment and options such
    as `?region=…` or `?endpoint_override=…` from the URI. All methods raise OSError where the storage fails.
    """

    uri: str

    def write(self, path: str, content: bytes) -> None:
        """Whole or not at all, in place of what was there."""
        files, root = _opened(self.uri)
        if self.is_folder:
            target = Path(root) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, content)
        else:
            with files.open_output_stream(f"{root}/{path}") as stream:
                stream.write(content)

    def open(self, path: str) -> Any:
        """A binary file to read from, at any place in it."""
        files, root = _opened(self.uri)
        return files.open_input_file(f"{root}/{path}")

    def names(self, folder: str = "") -> list[str]:
        """What lies in `folder`, in no order; nothing if it is not there."""
        from pyarrow.fs import FileSelector

        files, root = _opened(self.uri)
        found = files.get_file_info(FileSelector(f"{root}/{folder}".rstrip("/"), allow_not_found=True))
        return [info.base_name for info in found]

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        files, root = _opened(self.uri)
        with suppress(FileNotFoundError):
            files.delete_file(f"{root}/{path}")

    def remove_folder(self, folder: str) -> None:
        """Remove a folder with all that is in it, if it is there."""
        files, root = _opened(self.uri)
        with suppress(FileNotFoundError):
            files.delete_dir(f"{root}/{folder}")

    @property
    def is_folder(self) -> bool:
        return "://" not in self.uri


@cache
def _opened(uri: str) -> tuple[Any, str]:
    """The file system, and the path in it."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" not in uri:
        return LocalFileSystem(), uri
    try:
        files, root = FileSystem.from_uri(uri)
    except ArrowInvalid as error:
        raise OSError(f"{uri} cannot be opened: {error}") from error
    return files, root.rstrip("/")
