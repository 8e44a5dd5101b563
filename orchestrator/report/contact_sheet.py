"""The contact sheet: some pictures of each class as the net sees them, beside what the data set was read as.

`--dry-run` writes it as a page and as a picture. A sweep saves its pictures at its end, for the report's data section.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.display.inventory import CLASSES, ClassCounts, described
from orchestrator.plan.context import SweepData
from orchestrator.plan.plan import Plan
from orchestrator.report.confusions import LOSSLESS_SIDE
from orchestrator.report.rendering import environment, read_style
from trainables import autos
from trainables.datasets.inventory import Inventory
from trainables.errors import shown
from trainables.files import replace_file
from trainables.strata import Rows

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainables.splits import SearchData

PAGE, PICTURE = "contact.html", "contact.png"
PICTURES, PER_CLASS = 256, 8  # at most, so that the page stays small; of a class there is at least one
PICTURED = 128  # classes with pictures, at most: the first ones
THUMBNAIL, LABEL_WIDTH, MARGIN = 72, 200, 8  # pixels of the picture of the sheet
INK, PAPER = "#1a1d21", "#eceff2"


@dataclass(frozen=True)
class ClassPictures:
    """Some pictures of one class as data URIs."""

    label: str
    pictures: list[str]


@dataclass(frozen=True)
class Sheet:
    """The pictures of a contact sheet: the first classes of a data set, and the side that the net sees them at."""

    side: int  # pixels
    classes: list[ClassPictures]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sheet:
        """Return the sheet that `asdict` described; raise KeyError or TypeError for values that it does not."""
        return cls(values["side"], [ClassPictures(one["label"], list(one["pictures"])) for one in values["classes"]])


def write(planned: Plan, loaded: SweepData, folder: Path) -> tuple[Path, Path]:
    """Write the contact sheet of a plan into `folder` as a page and as a picture, and return their paths.

    Raises:
        OSError: they cannot be written.
    """
    pictures = _pictures(planned, loaded.rows)
    page = (
        environment()
        .get_template(PAGE)
        .render(
            name=Path(planned.dataset).name,
            data=section(_sheet(pictures), loaded.inventory),
            style=read_style(),
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / PAGE, page.encode(errors="backslashreplace"))
    _drawn(pictures).save(content := BytesIO(), "PNG")
    replace_file(folder / PICTURE, content.getvalue())
    return folder / PAGE, folder / PICTURE


def save(planned: Plan, data: SearchData, path: Path) -> None:
    """Save the pictures for the report as JSON; raise OSError if that fails."""
    replace_file(path, json.dumps(asdict(_sheet(_pictures(planned, data)))).encode())


def read(path: Path) -> Sheet | None:
    """Return the saved pictures; None where there are none."""
    try:
        return Sheet.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def section(sheet: Sheet | None, inventory: Inventory) -> dict[str, Any] | None:
    """Return what the template's data section is given; None where nothing is known of the data."""
    facts, counts = described(inventory), ClassCounts.of(inventory)
    if not facts and sheet is None:
        return None
    pictures = {one.label: one.pictures for one in sheet.classes} if sheet else {}
    rows = dict(counts.rows) or dict.fromkeys(pictures, ())
    return {
        "facts": [(name, text) for name, text in facts if name != CLASSES],
        "summary": dict(facts).get(CLASSES),
        "parts": counts.heading[1:],
        "side": sheet and sheet.side,
        "classes": [(shown(name), of_parts, pictures.get(name, [])) for name, of_parts in rows.items()],
        "pictured": len(pictures),
    }


Pictures = list[tuple[str, "list[Image]"]]
"""Each class with some of its pictures."""


def _pictures(planned: Plan, data: SearchData) -> Pictures:
    """Return pictures of rows that may be trained on, in the random order of the pool, as a trial evaluates them."""
    import torch

    from trainables.batches import Batches, normalization

    config, device = planned.space.base, "cuda" if planned.slot_gpus else "cpu"
    batches = Batches.of(data, torch.device("cpu"))
    size = autos.image_size(config, data.images.shape[1:3], device)
    config = autos.resolved(config, size).replace(memory_format="contiguous")
    moments = normalization(config.normalization, data.mean.tolist(), data.std.tolist())
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in moments)
    found: Pictures = []
    for label, rows in _rows(data):
        images = torch.cat([images for images, _ in batches.evaluate(torch.from_numpy(rows), config)])
        pixels = ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        found.append((label, [_image(one) for one in pixels.permute(0, 2, 3, 1).numpy()]))
    return found


def _rows(data: SearchData) -> Iterator[tuple[str, Rows]]:
    """Yield each of the first classes, and the first of its rows in the pool."""
    labels, first = data.labels[data.pool], min(len(data.classes), PICTURED)
    for number, name in enumerate(data.classes[:first]):
        yield name, data.pool[labels == number][: max(1, min(PER_CLASS, PICTURES // first))]


def _image(pixels: Any) -> Image:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels))


def _sheet(found: Pictures) -> Sheet:
    return Sheet(
        side=max((picture.height for _, pictures in found for picture in pictures), default=0),
        classes=[ClassPictures(label, [_data_uri(picture) for picture in pictures]) for label, pictures in found],
    )


def _data_uri(picture: Image) -> str:
    picture.save(content := BytesIO(), "WEBP", lossless=max(picture.size) <= LOSSLESS_SIDE, quality=80)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def _drawn(found: Pictures) -> Image:
    """Return the sheet as one picture: a line for each class, with its name and its pictures."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    most = max((len(pictures) for _, pictures in found), default=0)
    step = THUMBNAIL + MARGIN
    size = (LABEL_WIDTH + most * step + MARGIN, len(found) * step + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for line, (label, pictures) in enumerate(found):
        top = MARGIN + line * step
        draw.text((MARGIN, top + THUMBNAIL // 2), _fitting(label, font), INK, font, anchor="lm")
        for column, picture in enumerate(pictures):
            nearest = picture.width < THUMBNAIL
            resample = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
            scaled = ImageOps.contain(picture, (THUMBNAIL, THUMBNAIL), resample)
            sheet.paste(scaled, (LABEL_WIDTH + column * step, top))
    return sheet


def _fitting(label: str, font: Any) -> str:
    """Return as much of a class's name, in one line, as the sheet has space for."""
    text = shown(label)
    while font.getlength(text) > LABEL_WIDTH - 2 * MARGIN:
        text = f"{text[:-2]}…"
    return text
