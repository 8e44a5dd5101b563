"""A data set's inventory as text: the same sentences in the plan, the doctor's findings, report and contact sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from orchestrator.display.text import counted
from trainables.datasets.inventory import Inventory, LeftOut
from trainables.datasets.reading import PARTS
from trainables.errors import shown

CLASSES = "classes"  # name of the sentence that the table of classes belongs to
ROWS = "rows"  # heading of the counts where there are no parts
SHOWN_CLASSES = 10  # rows of that table on a terminal


@dataclass(frozen=True)
class ClassCounts:
    """The rows of each class in each part, as a table."""

    heading: tuple[str, ...]  # class, and a name per part
    rows: tuple[tuple[str, tuple[int, ...]], ...]  # class and counts, in the order of the classes

    @classmethod
    def of(cls, inventory: Inventory) -> ClassCounts:
        """Return the table of an inventory."""
        parts = dict(sorted(inventory.parts.items(), key=lambda item: [*PARTS, item[0]].index(item[0])))
        names = dict.fromkeys(name for classes in parts.values() for name in classes)
        rows = tuple((name, tuple(classes.get(name, 0) for classes in parts.values())) for name in names)
        return cls(("class", *(parts if len(parts) > 1 else (ROWS,))), rows)

    @property
    def totals(self) -> tuple[int, ...]:
        """The rows of each part."""
        return tuple(map(sum, zip(*(counts for _, counts in self.rows), strict=True)))

    def lines(self, width: int, most: int = SHOWN_CLASSES) -> list[str]:
        """Return the table as lines of at most `width` columns, with `most` classes; longer names are cut."""
        listed = self.rows[:most]
        more = len(self.rows) - len(listed)
        last = [(f"… {more:,} more", ())] if more else []
        table = [
            [shown(name), *(f"{count:,}" for count in counts)]
            for name, counts in (*listed, *last, (f"all {len(self.rows):,}", self.totals))
        ]
        table.insert(0, list(self.heading))
        numbers = [max(len(row[i]) for row in table if len(row) > i) for i in range(1, len(self.heading))]
        name_width = min(max(cell_len(row[0]) for row in table), max(width - sum(numbers) - 2 * len(numbers), 5))
        return [_line(row, name_width, numbers) for row in table]


def described(inventory: Inventory) -> list[tuple[str, str]]:
    """Return what is known of a data set, as (name, sentence) pairs: how it was read, and what was left out and why."""
    pairs = [("layout", shown(inventory.layout))] if inventory.layout else []
    if inventory.parts:
        pairs.append((CLASSES, _classes(ClassCounts.of(inventory))))
    if pictures := _pictures(inventory):
        pairs.append(("pictures", pictures))
    pairs += [("left out", _left_out(left)) for left in inventory.left_out]
    return pairs + [("note", shown(note)) for note in inventory.notes]


def _classes(table: ClassCounts) -> str:
    """Return the number of classes, and how many rows the smallest and the largest have in each part."""
    sizes = [
        f"{_range(min(counts), max(counts))}{'' if part == ROWS else f' in {part}'}"
        for part, *counts in zip(table.heading[1:], *(counts for _, counts in table.rows), strict=True)
    ]
    return f"{counted(len(table.rows), 'class', 'classes')} of {', '.join(sizes)}"


def _range(least: int, most: int) -> str:
    return counted(most, "row") if least == most else f"{least:,} to {counted(most, 'row')}"


def _pictures(inventory: Inventory) -> str:
    """Return formats and sizes in one line; an empty text if neither is known."""
    formats = ", ".join(f"{count:,} {name}" for name, count in _by_count(inventory.formats))
    if inventory.smallest is None or inventory.largest is None:
        return formats
    smallest, largest = (f"{width:,}×{height:,}" for width, height in (inventory.smallest, inventory.largest))
    sizes = f"{smallest} pixels" if smallest == largest else f"{smallest} to {largest} pixels"
    return f"{formats}; {sizes}" if formats else sizes


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _left_out(left: LeftOut) -> str:
    """Return a reason, how many were left out for it, and the first of them."""
    examples = ", ".join(map(shown, left.examples))
    more = ", …" if left.count > len(left.examples) else ""
    return f"{left.count:,}, {shown(left.reason)}" + (f": {examples}{more}" if examples else "")


def _line(row: list[str], name_width: int, numbers: list[int]) -> str:
    name = row[0] if cell_len(row[0]) <= name_width else f"{set_cell_size(row[0], name_width - 1)}…"
    cells = (f"{text:>{width}}" for text, width in zip(row[1:], numbers, strict=False))
    return "  ".join([set_cell_size(name, name_width), *cells]).rstrip()
