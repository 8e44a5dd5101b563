"""Whether the data can be read and split."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING

from orchestrator.doctor.finding import Finding, Findings, all_failed
from orchestrator.plan.plan import Plan
from trainables import datasets
from trainables.datasets.stored_images import portions
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from trainables.splits import SearchData


def check_data(planned: Plan, people: Console) -> Generator[Finding, None, SearchData | None]:
    """Decode and split the data as the sweep will, and look at what came of it."""
    from orchestrator.display.progress import decoding

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            with decoding(people) as report:
                dataset = planned.load(report)
                data, _ = planned.split(dataset, report)
        except (datasets.DatasetError, ConfigError) as error:
            yield from all_failed("data", error.problems, "mend it or take it out")
            return None
    for warning in caught:
        what, _, fix = str(warning.message).rpartition("; ")
        yield Finding("disk", "warning", what, fix)
    yield Finding("data", "ok", _described(dataset, data))
    if dataset.unreadable:
        what = f"{len(dataset.unreadable)} images cannot be read and are left out: {', '.join(dataset.unreadable[:5])}"
        yield Finding("data", "warning", what, "mend or remove them")
    if len(dataset.duplicates):
        what = f"{len(dataset.duplicates)} images stand in the test set too; the sweep leaves them out"
        yield Finding("data", "warning", what, "take them out of one of the two")
    yield from _check_rows(data)
    return data


def _described(dataset: datasets.Dataset, data: SearchData) -> str:
    from trainables.strata import class_counts

    counts = class_counts(dataset.labels, len(dataset.classes))
    height, width, channels = dataset.images.shape[1:]
    sealed = "official" if dataset.official_test else "drawn once"
    return (
        f"{len(dataset.labels):,} images of {width}×{height} px, {'grey' if channels == 1 else 'RGB'}, in "
        f"{len(counts)} classes of {counts.min():,} to {counts.max():,}; {len(data.pool):,} to train on, "
        f"{len(data.validation):,} to score on; {dataset.test_rows:,} in the test set ({sealed})"
    )


def _check_rows(data: SearchData) -> Findings:
    """Classes with too few rows to trust their scores, images that stand there more than once."""
    from trainables.splits import VALIDATION_ROWS_PER_CLASS
    from trainables.strata import class_counts

    scored = class_counts(data.labels[data.validation], len(data.classes))
    few = [f"{name!r} {n}" for name, n in zip(data.classes, scored, strict=True) if n < VALIDATION_ROWS_PER_CLASS]
    if few:
        what = f"few rows to score on: {', '.join(few[:5])}{' …' if len(few) > 5 else ''}"
        yield Finding("data", "warning", f"{what}: luck decides there", "add images of these classes")
    where: dict[bytes, str] = {}
    label: dict[bytes, int] = {}
    copies = torn = 0
    for part, rows in (("validation", data.validation), ("pool", data.pool)):
        for portion in portions((len(rows), *data.images.shape[1:])):
            for row, image in zip(rows[portion], data.images[rows[portion]], strict=True):
                content = hashlib.blake2b(image.data, digest_size=16).digest()
                copies += where.setdefault(content, part) != part
                torn += label.setdefault(content, data.labels[row]) != data.labels[row]
    if copies:
        what = f"{copies} images to train on are also scored on: scores flatter"
        yield Finding("data", "warning", what, "keep one of each in the data")
    if torn:
        what = f"{torn} images stand there again under another label"
        yield Finding("data", "warning", what, "give each image one label")
