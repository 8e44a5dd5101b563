"""What was found in a data set: how it was read, its parts and classes, and what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXAMPLES = 3
"""Paths that are kept of all files that were left out for one reason."""

ALL = "all"
"""The name of the only part of a data set that has no parts."""


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
