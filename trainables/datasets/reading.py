"""What the user says about a data set's files, where the files do not show it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import suggestion

SHORT_SIDE = 320
"""Pixels; the default for `--stored-side`. It is enough for random crops that are resized to 224."""

BAD_IMAGE_POLICIES = {
    "fail": "refuse the data set",
    "skip": "leave these images out; sweep.json lists them",
}
"""What can be done about images that cannot be read."""

UNLABELLED_POLICIES = {
    "fail": "refuse the data set",
    "skip": "leave these images out",
}
"""What can be done about images without a label, such as those of a competition's test folder."""

PARTS = ("train", "val", "test", "unlabelled", "ignore")
"""The parts that `--parts` names. The validation part is pooled with the training part; the last two are left out."""

TOO_FEW = 0
"""The value of `Reading.min_rows` that leaves out the classes that are too small to be used."""


@dataclass(frozen=True)
class Reading:
    """A way to read the files of a data set. Equal files read in different ways are different data sets.

    Attributes:
        data_dir: where the files of a named data set are, for those that have files, or the pictures of a table.
        image_column, label_column: of a table; None: found by their names and types.
        parts: (part, folder, file or value of a split column) pairs, such as ("test", "seg_test").
        classes: the classes to use; empty: all.
        min_rows: classes with fewer rows are left out; TOO_FEW: those too small to be used; None: none are.
        on_bad_image: one of `BAD_IMAGE_POLICIES`.
        on_unlabelled: one of `UNLABELLED_POLICIES`.
        background: the color that transparent pictures are put on, as Pillow's `ImageColor` reads it.
        stored_side: pixels; a picture whose shorter side is longer is stored scaled down to that.
    """

    data_dir: Path | None = None
    image_column: str | None = None
    label_column: str | None = None
    parts: tuple[tuple[str, ...], ...] = ()
    classes: tuple[str, ...] = ()
    min_rows: int | None = None
    on_bad_image: str = "fail"
    on_unlabelled: str = "fail"
    background: str = "white"
    stored_side: int = SHORT_SIDE

    def key(self) -> str:
        """Return 64 hex digits that differ if two readings may make different rows of the same files."""
        content = dataclasses.replace(self, data_dir=None, on_bad_image="fail")
        return hashlib.sha256(repr(content).encode(errors="surrogateescape")).hexdigest()


AS_FOUND = Reading()
"""The reading of a user who says nothing."""


def parse_parts(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the (part, name) pairs of a text such as `train=seg_train,test=seg_test`; see `check_parts`."""
    pairs = [pair.partition("=") for pair in re.split(r",(?=[^,=]*=)", text) if pair.strip()]
    return tuple((part.strip(), name.strip()) for part, _, name in pairs)


def check_parts(text: str) -> list[str]:
    """Return a message for each pair of `--parts` that names no part, or nothing that is one."""
    example = "for example --parts train=seg_train,test=seg_test"
    problems = [] if parse_parts(text) else [f"--parts {text!r}: nothing is named; {example}"]
    for part, name in parse_parts(text):
        if part not in PARTS:
            problems.append(f"--parts: unknown part {part!r}{suggestion(part, PARTS)}")
        elif not name:
            problems.append(f"--parts: nothing follows {part}=; {example}")
    return problems
