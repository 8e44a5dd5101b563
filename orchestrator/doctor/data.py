"""Check that the data can be read and split."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING

from orchestrator.display.inventory import CLASSES, ClassCounts, described
from orchestrator.display.text import counted
from orchestrator.doctor.finding import Finding, Findings, all_failed
from orchestrator.plan.plan import Plan
from trainables import datasets
from trainables.datasets import cache
from trainables.datasets.stored_images import StoredImages
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from trainables.splits import SearchData


FEW_ROWS = 10  # of a class: with fewer, one picture more or less is over 10 points of its recall
TABLE_WIDTH = 50  # columns of the classes and their rows


def check_data(planned: Plan, console: Console) -> Generator[Finding, None, SearchData | None]:
    """Decode and split the data as the sweep will, check the rows, and return them; None if that fails."""
    from orchestrator.display.progress import decoding

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            with decoding(console) as report:
                dataset = planned.load(report)
                cache.verify_fully(dataset)
                data, _ = planned.split(dataset, report)
        except (datasets.DatasetError, ConfigError) as error:
            yield from all_failed("data", error.problems, "repair the file or remove it")
            return None
    for warning in caught:
        what, _, fix = str(warning.message).rpartition("; ")
        yield Finding("disk", "warning", what, fix)
    for name, text in described(dataset.inventory):
        table = ClassCounts.of(dataset.inventory).lines(TABLE_WIDTH) if name == CLASSES else []
        yield Finding("data", "ok", "\n".join([f"{name}: {text}", *table]))
    yield Finding("data", "ok", _description(dataset, data))
    if dataset.unreadable:
        images, some = counted(len(dataset.unreadable), "image"), ", ".join(dataset.unreadable[:5])
        yield Finding("data", "warning", f"{images} left out that cannot be read: {some}", "repair or remove them")
    if len(dataset.duplicates):
        images = counted(len(dataset.duplicates), "training image")
        what = f"{images} left out that the test set has, too"
        yield Finding("data", "warning", what, "remove the copies from the training data")
    yield from _check_rows(data)
    return data


def _description(dataset: datasets.Dataset, data: SearchData) -> str:
    """Return the size of the stored images and the rows of the sweep's parts in one line."""
    height, width, channels = dataset.images.shape[1:]
    rows = f"{len(data.pool):,} for training, {len(data.validation):,} for validation"
    if data.folds:
        rows = f"{len(data.pool):,} for training and validation, in {len(data.folds)} folds"
    test = "its own" if dataset.official_test else "drawn at random, once"
    size = f"{width}×{height} px" if dataset.side is None else f"shorter sides up to {dataset.side} px"
    return (
        f"{counted(len(dataset.labels), 'image')} of {size}, {'gray' if channels == 1 else 'RGB'}; "
        f"{rows}; {dataset.test_rows:,} in the test set ({test})"
    )


def _check_rows(data: SearchData) -> Findings:
    """Warn of classes with few validation rows, and of images that appear more than once."""
    from trainables.strata import class_counts

    scored = class_counts(data.labels[data.validation], len(data.classes))
    few = [f"{name!r} {n}" for name, n in zip(data.classes, scored, strict=True) if n < FEW_ROWS]
    if few:
        what = f"few validation rows: {', '.join(few[:5])}{' …' if len(few) > 5 else ''}"
        yield Finding("data", "warning", f"{what}: their scores depend on chance", "add images of these classes")
    first_part: dict[bytes, int] = {}
    first_label: dict[bytes, int] = {}
    copies = contradictions = 0
    digests = StoredImages.of(data.images).digests()
    for part, rows in enumerate(data.folds or (data.validation, data.pool)):
        for row in rows.tolist():
            content = digests[row].tobytes()
            copies += first_part.setdefault(content, part) != part
            contradictions += first_label.setdefault(content, data.labels[row]) != data.labels[row]
    if copies:
        images = counted(copies, "image appears", "images appear")
        what = f"{images} in both training and validation rows: scores are optimistic"
        yield Finding("data", "warning", what, "keep one copy of each image in the data")
    if contradictions:
        images = counted(contradictions, "image appears", "images appear")
        what = f"{images} again with another label"
        yield Finding("data", "warning", what, "give each image one label")
