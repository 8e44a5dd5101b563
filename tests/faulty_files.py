"""A real file system, of pyarrow's kind, that fails as storage in a network does, and the clock that users wait by."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import FileSelector, FileSystemHandler, LocalFileSystem, PyFileSystem

from trainables import storage
from trainables.storage import Storage


class Clock:
    """Seconds that pass when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class Faults:
    """How often a file system fails: shares of the reads (listings among them) and writes, and a time of all reads."""

    clock: Clock
    read: float = 0.0
    write: float = 0.0
    down_until: float = -1.0  # seconds of the clock
    fate: random.Random = field(default_factory=lambda: random.Random(0))
    failed: int = 0

    def reading(self, path: str) -> None:
        self._meet(self.clock.now < self.down_until or self.fate.random() < self.read, "read", path)

    def writing(self, path: str) -> None:
        self._meet(self.fate.random() < self.write, "write", path)

    def _meet(self, fails: bool, what: str, path: str) -> None:
        if fails:
            self.failed += 1
            raise OSError(f"When {what}ing '{Path(path).name}': AWS Error NETWORK_CONNECTION during the operation")


class FaultyFiles(FileSystemHandler):  # type: ignore[misc]
    """The local file system behind `Faults`, as far as `Storage` uses it."""

    def __init__(self, faults: Faults) -> None:
        self._files = LocalFileSystem()
        self._faults = faults

    def get_type_name(self) -> str:
        return "faulty"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info_selector(self, selector: Any) -> Any:
        self._faults.reading(selector.base_dir)
        again = FileSelector(selector.base_dir, selector.allow_not_found, selector.recursive)
        return self._files.get_file_info(again)

    def get_file_info(self, paths: list[str]) -> Any:
        return self._files.get_file_info(paths)

    def open_input_file(self, path: str) -> Any:
        self._faults.reading(path)
        return self._files.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self._faults.writing(path)
        Path(path).parent.mkdir(parents=True, exist_ok=True)  # a bucket has no folders
        return self._files.open_output_stream(path)

    def delete_file(self, path: str) -> None:
        self._faults.writing(path)
        self._files.delete_file(path)

    def delete_dir(self, path: str) -> None:
        self._files.delete_dir(path)

    def _never(self, *arguments: Any) -> Any:
        raise NotImplementedError

    open_input_stream = open_append_stream = copy_file = move = create_dir = _never
    delete_dir_contents = delete_root_dir_contents = _never


def faulty_storage(folder: Path, monkeypatch: pytest.MonkeyPatch, **faults: Any) -> tuple[Storage, Faults]:
    """Return a bucket whose objects are the files in `folder`, and its faults; who waits does so by their clock."""
    made = Faults(Clock(), **faults)
    files = PyFileSystem(FaultyFiles(made))
    monkeypatch.setattr(storage, "_opened", lambda uri: (files, str(folder)))
    monkeypatch.setattr(storage, "time", made.clock)
    return Storage("s3://faulty/checkpoints"), made
