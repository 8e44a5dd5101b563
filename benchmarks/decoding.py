"""Decoding photographs of 12 megapixels: time and memory, against an earlier revision of the project.

    git worktree add ../before REVISION
    python -m benchmarks.decoding --before ../before

Both sides decode the same folder, each in a process of its own on two cores: from the files to the pixels that are
stored, in a temporary file. The sides alternate, first one, then the other beginning. Photographs are made: sums of
smooth noise of all scales, as natural pictures have it, and ellipses with sharp edges; JPEG of about 3 MB, every third
upright, every second with EXIF as cameras write it. `distinct` of them are made, and linked as often as needed: all
are in the system's memory before the first run, so that no disk is measured. Uniform sizes would favor this revision,
as the earlier one stored those as they were, with 36 MB each; sizes are mixed so that both store a shorter side of 320.

Memory is the most that a process had (VmHWM), with Python, numpy and what else it imports. Targets: no slower than the
earlier revision, at most 600 MB. Last, all `pictures` are decoded once by this revision.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image, ImageDraw

from benchmarks.record import EVIDENCE, ROOT, BenchmarkError, Figure, Record, Target, say, two_cores

SIZE = (4000, 3000)
EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0"
SIDE = """
import sys, tempfile, time
from pathlib import Path
from trainables import datasets
source = datasets.make_source(sys.argv[1])
with tempfile.TemporaryDirectory() as scratch:
    started = time.perf_counter()
    decoded = source.decode(lambda *_: None, Path(scratch))
    took = time.perf_counter() - started
    status = Path("/proc/self/status").read_text().splitlines()
print(len(decoded.labels), took, next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


@dataclass(frozen=True)
class Options:
    """Compare the decoding of large photographs with that of an earlier revision."""

    before: Path | None = None
    """A checkout of the earlier revision. Without it, only this one is measured."""
    pictures: int = 2000
    compared: int = 200
    """Pictures that both sides decode."""
    distinct: int = 20
    pairs: int = 2
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("decoding", asdict(options))
    sides = {"now": ROOT} | ({"before": options.before.absolute()} if options.before else {})
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        made = [photograph(Path(folder) / f"{number}.jpg", number) for number in range(options.distinct)]
        record.notes.append(
            f"files of {statistics.mean(path.stat().st_size for path in made) / 1e6:.2f} MB in the mean"
        )
        some = linked(Path(folder) / "some", made, options.compared)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for pair in range(options.pairs):
            for name in list(sides)[:: 1 if pair % 2 else -1]:
                found = decoded(some, options.compared, sides[name])
                runs[name].append(found)
                record.add({"side": name, "pictures": options.compared, **found})
        whole = decoded(linked(Path(folder) / "all", made, options.pictures), options.pictures, ROOT)
        record.add({"side": "now", "pictures": options.pictures, **whole})
    peaks = [run["peak_mb"] for run in [*runs["now"], whole]]
    figures = [
        Figure(f"{options.pictures:,} photographs of 12 MP decoded", "s", [whole["seconds"]]),
        Figure("peak memory while decoding them", "MB", peaks, Target(600, statistic="max")),
    ]
    if options.before:
        both = zip(runs["now"], runs["before"], strict=True)
        ratios = [now["seconds"] / before["seconds"] for now, before in both]
        figures.append(Figure("decoding time, now / before", "", ratios, Target(1.0)))
        figures.append(Figure("peak memory before", "MB", [run["peak_mb"] for run in runs["before"]]))
    return 0 if record.write(options.evidence, figures) else 1


def photograph(path: Path, seed: int) -> Path:
    """Write a photograph of 12 megapixels that is made."""
    random = np.random.default_rng(seed)
    size = SIZE if seed % 3 else SIZE[::-1]
    pixels = np.full((size[1], size[0], 3), 128, np.float32)
    for octave in range(2, 13):
        grid = random.normal(0, 1, (3, -(-size[1] * 2**octave // 4096) + 1, -(-size[0] * 2**octave // 4096) + 1))
        for channel in range(3):
            layer = Image.fromarray(grid[channel].astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
            pixels[..., channel] += 90 / 2 ** (0.3 * octave) * np.asarray(layer)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for x, y, width, height in random.integers(0, 1000, (40, 4)):
        place = (4 * x, 4 * y, 4 * x + width, 4 * y + height)
        draw.ellipse(place, fill=tuple(map(int, random.integers(0, 256, 3))))
    image.save(path, quality=90, exif=EXIF if seed % 2 else b"")
    return path


def linked(folder: Path, files: list[Path], count: int) -> Path:
    """Return a folder of two class folders with so many pictures, which are links to `files`."""
    for name in ("even", "odd"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        os.link(files[number % len(files)], folder / ("even", "odd")[number // len(files) % 2] / f"{number}.jpg")
    return folder


def decoded(folder: Path, pictures: int, checkout: Path) -> dict[str, Any]:
    """Decode a folder with the code of a checkout; return seconds and the peak of its memory in MB."""
    done = subprocess.run(
        [sys.executable, "-c", SIDE, str(folder)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BenchmarkError(done.stderr)
    rows, seconds, peak = done.stdout.split()
    if int(rows) != pictures:
        raise BenchmarkError(f"{checkout.name} decoded {rows} of {pictures} pictures")
    return {"seconds": float(seconds), "peak_mb": int(peak) * 1024 / 1e6}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        say(f"failed: {error}")
        sys.exit(1)
