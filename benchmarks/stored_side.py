"""The difference between crops of pictures stored as squares of 320 pixels and crops of the originals.

    python -m benchmarks.stored_side

`trainables.datasets.pictures` stores the center crop of a picture, a square with its side scaled to 320 pixels.
Random resized crops to 224 are then cut from that. The reference is what the papers do: torchvision's crop of the
original file, scaled with antialiasing by Pillow. No target; the figures are for the recipes' lab notes.

* Area: the share of a picture that no crop can show, because it is not in the square.
* Pixels: the same region, cut out of the original and out of what is stored, as PSNR in dB and as mean absolute
  difference in levels of 255, by the region's share of the square. Three ways, to see the part of each: from
  the stored square as trials do it (`batches.resized_crop`, not antialiased); from the stored square by Pillow; from
  the original as trials would do it, which differs from the reference by antialiasing alone.
* Positions: crops drawn by `batches.crop_boxes` in whole pictures and in their squares, by aspect ratio: the crops'
  mean share of the picture's area; how far their centres are from the picture's, in mean, as a share of the long
  side; and how much of the attention that crops give to the places along the long side goes elsewhere (total
  variation; a crop gives each place that it shows the same).

Pictures: scikit-learn's two sample photographs, and those of scikit-image where that is found; it is not imported, so
`pip install --target DIR --no-deps scikit-image` and PYTHONPATH=DIR will do. The evidence names them.
"""

from __future__ import annotations

import importlib.util
import io
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
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resized_crop as cropped_by_pillow

from benchmarks.record import EVIDENCE, Figure, Record, two_cores
from trainables.augmentation import crop_boxes, resized_crop
from trainables.datasets.pictures import pixels
from trainables.datasets.reading import SHORT_SIDE

SIDE = 224  # pixels, of the crops
SMALLEST = 0.08  # share of the area, torchvision's default
AREAS = (0.08, 0.25, 0.5, 0.75, 1.0)  # share of the square: limits of the groups that are told apart
SHAPES = {"1:1": 1.0, "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9}
WAYS = ("stored", "stored, antialiased", "original, not antialiased")
PHOTOGRAPHS = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "skimage": (
        "data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/hubble_deep_field.jpg",
        "data/motorcycle_left.png", "data/retina.jpg", "data/rocket.jpg",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Compare stored squares with originals."""

    crops: int = 400
    """Crops of each picture."""
    draws: int = 100_000
    """Crops of each aspect ratio that are drawn for the positions."""
    stored_side: int = SHORT_SIDE
    """Side of the stored squares in pixels."""
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
    for name, ratio in SHAPES.items():
        record.add({"kind": "positions", "shape": name, **positions(ratio, options.draws, generator)})
    return 0 if record.write(options.evidence, figures(record.runs)) else 1


def photographs() -> list[Path]:
    """Return the sample photographs of the installed packages."""
    found = []
    for package, names in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            found += [path for name in names if (path := Path(spec.origin).parent / name).is_file()]
    return found


# Pixels


def compared(file: Path, options: Options, generator: torch.Generator) -> Iterator[dict[str, Any]]:
    """Yield a picture's shape, then the differences of its crops in each group of areas."""
    encoded = file.read_bytes()
    with Image.open(io.BytesIO(encoded)) as image:
        original = image.convert("RGB")
    width, height = original.size
    short = min(width, height)
    yield {
        "kind": "picture",
        "picture": file.name,
        "width": width,
        "height": height,
        "never_seen": round(1 - short / max(width, height), 4),
        "scaled_by": round(options.stored_side / short, 4),
    }
    stored = Image.fromarray(pixels(encoded, size=(options.stored_side, options.stored_side), channels=3))
    boxes = crop_boxes(short, short, SMALLEST, options.crops, generator).T
    found = [differences(original, stored, box) for box in boxes]
    shares = [float(box[2] * box[3]) / short**2 for box in boxes]
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


def differences(original: Image.Image, stored: Image.Image, box: Tensor) -> dict[str, tuple[float, float]]:
    """Return PSNR and mean absolute difference of one region to the reference, for each way.

    `box` is top, left, height and width in pixels of the original's middle square.
    """
    width, height = original.size
    short = min(width, height)
    center_crop = torch.tensor([height - short, width - short, 0, 0]) / 2
    whole = box + center_crop.long()
    # Of an odd rest the square begins between two pixels, and so lie the regions in what is stored of it.
    inside = ((whole - center_crop) * (stored.width / short)).clamp(min=0)
    top, left, tall, wide = inside.tolist()
    reference = cropped_by_pillow(original, *whole.tolist(), [SIDE, SIDE], InterpolationMode.BILINEAR)
    corners = (left, top, min(left + wide, stored.width), min(top + tall, stored.height))
    antialiased = stored.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=corners)
    return {
        "stored": difference(as_trials_do(stored, inside), reference),
        "stored, antialiased": difference(np.asarray(antialiased), reference),
        "original, not antialiased": difference(as_trials_do(original, whole), reference),
    }


def as_trials_do(image: Image.Image, box: Tensor) -> NDArray[np.float32]:
    """Return a region at 224 × 224, in levels of 255, by `batches.resized_crop`."""
    batch = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    return resized_crop(batch, box[:, None], SIDE)[0].permute(1, 2, 0).numpy() * 255


def difference(ours: NDArray[Any], reference: Image.Image) -> tuple[float, float]:
    """Return PSNR in dB and the mean absolute difference in levels."""
    error = ours.astype(np.float64) - np.asarray(reference, dtype=np.float64)
    mean_square = max(float(np.mean(error**2)), 1e-6)  # equal pictures: 108 dB, not infinity
    return 10 * math.log10(255**2 / mean_square), float(np.mean(np.abs(error)))


# Positions


def positions(ratio: float, draws: int, generator: torch.Generator) -> dict[str, float]:
    """Compare crops of pictures that are `ratio` times as wide as high with crops of their squares."""
    height, width = SHORT_SIDE, round(SHORT_SIDE * ratio)
    whole = crop_boxes(height, width, SMALLEST, draws, generator)
    square = crop_boxes(height, height, SMALLEST, draws, generator)
    square[1] += (width - height) // 2
    told: dict[str, float] = {"never_seen": 1 - height / width}
    seen = {}
    for side, (_, left, tall, wide) in {"originals": whole, "stored": square}.items():
        told[f"area_{side}"] = float((tall * wide).double().mean()) / (height * width)
        told[f"off_centre_{side}"] = float(((left + wide / 2) / width - 0.5).abs().double().mean())
        seen[side] = coverage(left, wide, width)
    told["seen_elsewhere"] = float((seen["originals"] - seen["stored"]).abs().sum()) / 2
    return {name: round(value, 4) for name, value in told.items()}


def coverage(left: Tensor, wide: Tensor, width: int) -> Tensor:
    """Return the crops' attention to each column, equal for all columns of a crop: [width], sum 1."""
    ends = torch.zeros(width + 1, dtype=torch.float64)
    ends.index_add_(0, left, 1 / wide.double()).index_add_(0, left + wide, -1 / wide.double())
    return ends.cumsum(0)[:width] / len(left)


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return figures with a value for each picture or aspect ratio."""
    made = [Figure("area never seen", "", [run["never_seen"] for run in runs if run["kind"] == "picture"])]
    pixel_runs = [run for run in runs if run["kind"] == "pixels"]
    for way in WAYS:
        for area in dict.fromkeys(run["area"] for run in pixel_runs):
            chosen = [run for run in pixel_runs if (run["area"], run["way"]) == (area, way)]
            made.append(Figure(f"PSNR, {way}, area {area}", "dB", [run["psnr_db"] for run in chosen]))
            made.append(Figure(f"mean difference, {way}, area {area}", "levels", [run["levels"] for run in chosen]))
    made += [
        Figure(f"attention elsewhere along the long side, {run['shape']}", "", [run["seen_elsewhere"]])
        for run in runs
        if run["kind"] == "positions"
    ]
    return made


if __name__ == "__main__":
    sys.exit(main())
