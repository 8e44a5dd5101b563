"""What the names of folders mean: parts of a data set, folds, and classes."""

from __future__ import annotations

import re
import unicodedata

PART_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst", "holdout", "heldout"),
    "unlabelled": ("unlabelled", "unlabeled", "pred", "predict", "prediction"),
}
"""Words in names of folders that hold a part, in lower case: `Train`, `seg_train`, `training_set`, `test2017`."""

FILLERS = frozenset(
    "set sets data dataset image images img imgs picture pictures pic pics photo photos jpg jpeg png seg split "  # noqa: SIM905
    "folder dir files part raw new all".split()
)
"""Words that may stand beside one of these."""

FOLD = re.compile(r"(k?fold|split|part|batch|chunk|shard|cv)s?[ _.-]?\d+", re.IGNORECASE)
"""Names of folders among which the rows were divided, each with all classes."""


def part_of(name: str) -> str:
    """Return the part that a folder's name means, such as `train` for `seg_train`; an empty text for other names."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])|hold[ _-]?out", _split, name).lower())
    found = {_PARTS[_bare(word)] for word in words if _bare(word) in _PARTS}
    known = all(_bare(word) in _PARTS or word in FILLERS for word in words)
    return found.pop() if len(found) == 1 and known else ""


def _split(match: re.Match[str]) -> str:
    return "holdout" if match[0] else " "


def _bare(word: str) -> str:
    """Return a word without an ending such as `set`, as in `trainset`."""
    return re.sub(r"(?<=..)(sets?|data|images?|imgs?)$", "", word)


_PARTS = {word: part for part, words in PART_WORDS.items() for word in words}


def part_in(name: str) -> str | None:
    """Return the part that a word of a name stands for: `test` for `my-test`, but None for `testers` and `test-train`.

    Words end where the names of files on the Hugging Face hub are split: https://hf.co/docs/hub/datasets-data-files-configuration.
    """
    words = re.split(r"[\W_\d]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    parts = {_PARTS[word] for word in words if word in _PARTS}
    return parts.pop() if len(parts) == 1 else None


def label_of(name: str) -> str:
    """Return a folder's name as a label: composed, and text, also where the name is no UTF-8."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)
