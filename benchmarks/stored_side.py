"""The difference between crops of pictures stored with a shorter side of 320 pixels and crops of the originals.

    python -m benchmarks.stored_side

A data set's pictures are stored whole, scaled down to a shorter side of 320 pixels. Random resized crops to 224 are
then cut from that (`trainables.views`). The reference is what the papers do: torchvision's crop of the original file,
scaled with antialiasing by Pillow. No target; the figures are for the recipes' lab notes.

The same region, cut out of the original and out of what is stored, is compared as PSNR in dB and as mean absolute
difference in levels of 255, by the region's share of the picture; and the same from the original as trials would do it,
which shows what storing costs.

Pictures: scikit-learn's two sample photographs, and those of scikit-image where that is found; it is not imported, so
`pip install --target DIR --no-deps scikit-image` and PYTHONPATH=DIR will do. The evidence names them.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resized_crop as cropped_by_pillow

from benchmarks.record import EVIDENCE, Figure, Record, two_cores
from trainables.augmentation import crop_boxes
from trainables.datasets import decoder
from trainables.datasets.packed import in_channels
from trainables.datasets.reading import SHORT_SIDE
from trainables.datasets.source import WHITE, Pixels
from trainables.views import render_one

SIDE = 224  # pixels, of the crops
SMALLEST = 0.08  # share of the area, torchvision's default
AREAS = (0.08, 0.25, 0.5, 0.75, 1.0)  # share of the square: limits of the separate groups
WAYS = ("stored", "original")
PHOTOGRAPHS = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "skimage": (
        "data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/hubble_deep_field.jpg",
        "data/motorcycle_left.png", "data/retina.jpg", "data/rocket.jpg",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Compare stored pictures with originals."""

    crops: int = 400
    """Crops of each picture."""
    stored_side: int = SHORT_SIDE
    """The shorter side of the stored pictures in pixels."""
    seed: int = 0
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("stored_side", asdict(options))
    generator = torch.Generator().manual_seed(options.seed)
    files = photographs()
    record.notes.append(f"pictures: {', '.join(file.name for file in files)}")
    for file in files:
        for run in compared(file, options, generator):
            record.add(run)
    return 0 if record.write(options.evidence, figures(record.runs)) else 1


def photographs() -> list[Path]:
    """Return the sample photographs of the installed packages."""
    found = []
    for package, names in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            found += [path for name in names if (path := Path(spec.origin).parent / name).is_file()]
    return found


def compared(file: Path, options: Options, generator: torch.Generator) -> Iterator[dict[str, Any]]:
    """Yield a picture's size, then the differences of its crops in each group of areas."""
    encoded = file.read_bytes()
    original, stored = (in_channels(decoder.read(encoded, side=side).pixels, 3) for side in (None, options.stored_side))
    height, width = original.shape[:2]
    scaled_by = round(options.stored_side / min(height, width), 4)
    yield {"kind": "picture", "picture": file.name, "width": width, "height": height, "scaled_by": scaled_by}
    heights, widths = torch.tensor([[height], [width]]).expand(-1, options.crops)
    boxes = crop_boxes(heights, widths, SMALLEST, generator).T.tolist()
    found = [differences(original, stored, box) for box in boxes]
    shares = [box[2] * box[3] / (height * width) for box in boxes]
    for low, high in itertools.pairwise(AREAS):
        chosen = [each for each, share in zip(found, shares, strict=True) if low <= share < high]
        for way in WAYS if chosen else ():
            yield {
                "kind": "pixels",
                "picture": file.name,
                "area": f"{low}–{high}",
                "way": way,
                "crops": len(chosen),
                "psnr_db": round(statistics.mean(each[way][0] for each in chosen), 2),
                "levels": round(statistics.mean(each[way][1] for each in chosen), 3),
            }


def differences(original: Pixels, stored: Pixels, box: list[int]) -> dict[str, tuple[float, float]]:
    """Return PSNR and mean absolute difference of one region to the reference, for each way.

    `box` is top, left, height and width in pixels of the original.
    """
    reference = cropped_by_pillow(Image.fromarray(original), *box, [SIDE, SIDE], InterpolationMode.BILINEAR)
    scale = np.array(stored.shape[:2]) / original.shape[:2]
    inside = np.rint(np.array(box) * np.tile(scale, 2)).astype(int).tolist()
    return {
        "stored": difference(seen(stored, inside), reference),
        "original": difference(seen(original, box), reference),
    }


def seen(picture: Pixels, box: list[int]) -> Pixels:
    """Return a region at 224 × 224 as trials see it."""
    view = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    render_one(picture, box, view, WHITE)
    return view


def difference(ours: NDArray[Any], reference: Image.Image) -> tuple[float, float]:
    """Return PSNR in dB and the mean absolute difference in levels."""
    error = ours.astype(np.float64) - np.asarray(reference, dtype=np.float64)
    mean_square = max(float(np.mean(error**2)), 1e-6)  # equal pictures: 108 dB, not infinity
    return 10 * math.log10(255**2 / mean_square), float(np.mean(np.abs(error)))


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return figures with a value for each picture."""
    made = []
    pixel_runs = [run for run in runs if run["kind"] == "pixels"]
    for way in WAYS:
        for area in dict.fromkeys(run["area"] for run in pixel_runs):
            chosen = [run for run in pixel_runs if (run["area"], run["way"]) == (area, way)]
            made.append(Figure(f"PSNR, {way}, area {area}", "dB", [run["psnr_db"] for run in chosen]))
            made.append(Figure(f"mean difference, {way}, area {area}", "levels", [run["levels"] for run in chosen]))
    return made


if __name__ == "__main__":
    sys.exit(main())
