"""What was found in a data set: how it was read, its parts and classes, and what was left out and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.errors import counted

EXAMPLES = 3
"""Paths that are kept of all files that were left out for one reason."""

ALL = "all"
"""The name of the only part of a data set that has no parts."""


TREATMENTS: Mapping[str, tuple[str, str]] = {
    "animation": ("animation: its first frame is used", "animations: the first frame of each is used"),
    "pages": ("file of several pages: the first is used", "files of several pages: the first of each is used"),
    "turned": ("picture turned as its EXIF says", "pictures turned as their EXIF says"),
    "damaged EXIF": ("picture with damaged EXIF, not turned", "pictures with damaged EXIF, not turned"),
    "on background": ("transparent picture on {background}", "transparent pictures on {background}"),
    "scaled": (
        "picture of more than 8 bits a channel, scaled to 8",
        "pictures of more than 8 bits a channel, scaled to 8",
    ),
}
"""What can be done to a picture as it is read, and the words for one and for several."""


@dataclass(frozen=True)
class LeftOut:
    """Files or rows that are no rows of the data set, for one reason."""

    reason: str  # such as "hidden file", "folder of thumbnails", "no label", "class not in --classes"
    count: int
    examples: tuple[str, ...] = ()  # places of the first ones, at most EXAMPLES


@dataclass(frozen=True)
class Inventory:
    """A data set as it was understood, before anything is trained. Every file is in `parts` or in `left_out`."""

    layout: str = ""  # how the files were read, for a message: "class folders in the parts train/ and test/"
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # part → class → rows; ALL: there are no parts
    left_out: tuple[LeftOut, ...] = ()
    formats: Mapping[str, int] = field(default_factory=dict)  # Pillow's name of a format → pictures
    smallest: tuple[int, int] | None = None  # width and height in pixels of the picture with the smallest area
    largest: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()  # what was done to pictures: "12 animations: the first frame is used", …

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` gives the inventory back."""
        return {
            "layout": self.layout,
            "parts": {part: dict(classes) for part, classes in self.parts.items()},
            "left_out": [
                {"reason": left.reason, "count": left.count, "examples": list(left.examples)} for left in self.left_out
            ],
            "formats": dict(self.formats),
            "smallest": self.smallest,
            "largest": self.largest,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Inventory:
        """Return the inventory that `to_dict` described; raise KeyError or TypeError for values that it does not."""
        smallest, largest = values["smallest"], values["largest"]
        return cls(
            layout=values["layout"],
            parts=values["parts"],
            left_out=tuple(
                LeftOut(left["reason"], left["count"], tuple(left["examples"])) for left in values["left_out"]
            ),
            formats=values["formats"],
            smallest=smallest and tuple(smallest),
            largest=largest and tuple(largest),
            notes=tuple(values["notes"]),
        )


def counts_of(
    labels: NDArray[np.int64], classes: tuple[str, ...], parts: NDArray[Any] | None
) -> dict[str, dict[str, int]]:
    """Return the rows of each class in each part; `labels` and the names of `parts` are those of all rows."""
    if parts is None:
        parts = np.full(len(labels), ALL, dtype=object)
    counts = {part: np.bincount(labels[parts == part], minlength=len(classes)) for part in dict.fromkeys(parts)}
    return {part: dict(zip(classes, rows.tolist(), strict=True)) for part, rows in counts.items()}


class Tally:
    """Sums up what was found out about pictures, one after another, while they were read."""

    def __init__(self) -> None:
        self._formats: Counter[str] = Counter()
        self._treatments: Counter[str] = Counter()
        self._smallest: tuple[int, int] | None = None
        self._largest: tuple[int, int] | None = None

    def add(self, name: str, size: tuple[int, int], treatments: Iterable[str]) -> None:
        """Add a picture: its format, its width and height in pixels, and keys of `TREATMENTS`."""
        self._formats[name] += 1
        self._treatments.update(treatments)
        self._smallest = min(self._smallest or size, size, key=math.prod)
        self._largest = max(self._largest or size, size, key=math.prod)

    def complete(self, inventory: Inventory, background: str) -> Inventory:
        """Return `inventory` with formats, sizes and notes of the pictures, put on `background` where transparent."""
        texts = [(self._treatments[key], TREATMENTS[key]) for key in TREATMENTS if self._treatments[key]]
        notes = [counted(number, *words).format(background=background) for number, words in texts]
        return replace(
            inventory,
            formats=dict(self._formats.most_common()),
            smallest=self._smallest,
            largest=self._largest,
            notes=(*inventory.notes, *notes),
        )
