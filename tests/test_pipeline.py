"""Pictures are read on all cores in their order, and never more at a time than the limit allows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_decoder import encoded

from trainables.datasets import pipeline
from trainables.datasets.decoder import Reserve
from trainables.datasets.formats import PictureError
from trainables.datasets.pipeline import Batch, each
from trainables.errors import DatasetError

ROOT = Path(__file__).parent.parent
LARGE = bytes(5000)  # no thumbnail


def batches(sizes: list[int], content: bytes = LARGE) -> Iterator[Batch]:
    """Yield batches of so many images, which are numbered in their table from 1."""
    row = 1
    for size in sizes:
        yield Batch("t.csv", range(row, row + size), [content + b"%d" % (row + n) for n in range(size)])
        row += size


def number(source: bytes) -> int:
    return int(source.lstrip(b"\0"))


@pytest.mark.parametrize("content", [LARGE, b""])
@pytest.mark.parametrize("sizes", [[3] * 40, [0, 5, 0], [], [1] * 100, [100, 1]])
def test_results_keep_their_order(sizes: list[int], content: bytes) -> None:
    def slow_at_first(source: bytes, reserve: Reserve) -> int:
        time.sleep(0.02 if number(source) == 1 else 0)
        if number(source) % 7 == 0:
            raise PictureError("a seventh")
        return number(source)

    expected = [(f"t.csv, row {n}", "a seventh" if n % 7 == 0 else n) for n in range(1, sum(sizes) + 1)]
    assert list(each(batches(sizes, content), slow_at_first)) == expected


def test_an_image_without_bytes_is_named() -> None:
    batch = Batch("t.parquet", [4, 5], [None, LARGE])
    assert list(each([batch], lambda source, reserve: 1)) == [
        ("t.parquet, row 4", "no image bytes; images must be embedded, not only named"),
        ("t.parquet, row 5", 1),
    ]


def test_an_error_of_the_reader_is_raised_where_results_are_taken() -> None:
    def broken(source: bytes, reserve: Reserve) -> int:
        if number(source) == 30:
            raise RuntimeError("broken")
        return number(source)

    found = each(batches([4] * 20), broken)
    assert [next(found)[1] for _ in range(28)] == list(range(1, 29))
    with pytest.raises(RuntimeError, match="broken"):
        list(found)


def test_an_error_of_the_source_ends_all_threads() -> None:
    def cut_short() -> Iterator[Batch]:
        yield from batches([4] * 20)
        raise DatasetError("a damaged table")

    before = threading.active_count()
    with pytest.raises(DatasetError, match="damaged"):
        list(each(cut_short(), lambda source, reserve: number(source)))
    assert threading.active_count() == before


class Watched:
    """A reader of pictures that need memory, and the most bytes that they had at once."""

    def __init__(self, needed: int, result: int) -> None:
        self._needed, self._result, self._lock = needed, result, threading.Lock()
        self.used = self.most = self.threads = 0

    def __call__(self, source: bytes, reserve: Reserve) -> np.ndarray[Any, Any]:
        reserve(self._needed)
        self.change(self._needed)
        with self._lock:
            self.threads += 1
        time.sleep(0.001)
        self.change(self._result - self._needed)
        return np.empty(self._result, np.uint8)

    def change(self, count: int) -> None:
        with self._lock:
            self.used += count
            self.most = max(self.most, self.used)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize(("needed", "result"), [(30, 1), (30, 30), (300, 1), (300, 300), (2, 2)])
def test_memory_stays_below_the_limit_or_is_that_of_one_picture(
    needed: int, result: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In units of a hundredth of the limit."""
    monkeypatch.setattr(pipeline, "LIMIT", 2**20)
    monkeypatch.setattr(pipeline, "_SMALL", 2**10)
    monkeypatch.setattr(pipeline, "_THREADS", threads)
    monkeypatch.setattr(pipeline, "_AHEAD", 2 * threads)
    unit = 2**20 // 100
    watched = Watched(needed * unit, result * unit)
    for _, pixels in each(batches([5] * 12), watched):
        assert not isinstance(pixels, str)
        watched.change(-len(pixels))
    assert watched.used == 0
    assert watched.most <= 2**20 + max(needed, result) * unit


@pytest.mark.timeout(30)
def test_encoded_pictures_that_wait_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "LIMIT", 100_000)
    waiting, most, taken = 0, 0, 0

    def counted() -> Iterator[Batch]:
        nonlocal waiting, most
        for batch in batches([4] * 30, bytes(9000)):
            waiting += 1
            most = max(most, waiting - taken)
            yield batch

    for row, _ in enumerate(each(counted(), lambda source, reserve: number(source))):
        taken = row // 4
    assert most <= 4


PEAK = """
import sys
from pathlib import Path
from trainables.datasets.decoder import read
from trainables.datasets.pipeline import Batch, each
peak = lambda: int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
files = [Path(name) for name in sys.argv[2:]]
before = None
for place, found in each([Batch("", (), files[n : n + 16]) for n in range(0, len(files), 16)],
                         lambda source, reserve: read(source, side=int(sys.argv[1]) or None, reserve=reserve)):
    before = before or peak()
    assert not isinstance(found, str), found
print(peak())
"""


def peak(files: list[Path], side: int = 320, threads: int = 16) -> float:
    """Return the most megabytes that a process has while it reads `files`, with as many threads as on a large one."""
    script = f"from trainables.datasets import pipeline\npipeline._THREADS = {threads}\n{PEAK}"
    command = [sys.executable, "-c", script, str(side), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env={**os.environ})
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {"quality": 50}), ("TIFF", {}), ("BMP", {})],
)
def test_large_pictures_take_no_more_than_the_limit(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    noise = Image.effect_noise((600, 400), 50).convert("RGB")
    small.write_bytes(encoded(noise, name, **options))
    large.write_bytes(encoded(noise.resize((6000, 4000)), name, **options))  # 24 million pixels
    alone = 480 if name == "WEBP" else 0  # its decoder needs more for a single picture
    assert peak([large] * 8) - peak([small] * 8) < max(300, alone)
