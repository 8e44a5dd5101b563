"""The column of a table that names each row's part: `split`, `set`, `fold`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainables.datasets.folder_names import part_in
from trainables.datasets.reading import PARTS
from trainables.errors import DatasetError, listed, shown

LEFT_OUT = ("unlabelled", "ignore")
"""Parts whose rows are no rows of the data set."""

Pairs = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class SplitColumn:
    """The values of a column, and the part that each value stands for, one of `PARTS`; empty if no column is used."""

    name: str = ""
    values: Sequence[str] = ()
    part_of: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()  # columns that look alike, but whose values name no part

    @classmethod
    def of(cls, place: Path, columns: Mapping[str, Sequence[str]], pairs: Pairs) -> SplitColumn:
        """Return that of the `columns` whose values are named by `pairs` (see `Reading.parts`) or are parts' names.

        Raises:
            DatasetError: some of its values are parts' names, others are not.
        """
        unused: list[str] = []
        for name, values in columns.items():
            distinct = sorted(set(values))
            given = {value: part for part, value in pairs if value in distinct}
            known = {value: part for value in distinct if (part := part_in(value))}
            unknown = [value for value in distinct if value not in given and value not in known]
            if given:
                return cls(name, values, dict.fromkeys(distinct, "train") | known | given, tuple(unused))
            if known and unknown:
                raise DatasetError(_mixed(place, name, known, unknown))
            if known:
                return cls(name, values, known, tuple(unused))
            unused.append(name)
        return cls(unused=tuple(unused))

    @property
    def parts(self) -> list[str]:
        """The part of each row; empty if no column is used."""
        return [self.part_of[value] for value in self.values]

    def __str__(self) -> str:
        """Return what the column is used for, for a message."""
        parts = [f"{shown(value)!r} as {part}" for value, part in self.part_of.items()]
        used = [f"parts in column {shown(self.name)!r} ({', '.join(parts)})"] if self.name else []
        return ", ".join(used + [f"column {shown(name)!r} is not used as parts" for name in self.unused])


def _mixed(place: Path, name: str, known: Mapping[str, str], unknown: Sequence[str]) -> str:
    """Return the message that a column's values are not all parts."""
    stands = ", ".join(f"{shown(value)!r} for {part}" for value, part in known.items())
    example = f"--parts ignore={unknown[0] or '…'}"
    return (
        f"{shown(place)}: column {shown(name)!r} has {listed([value or 'nothing' for value in unknown])} beside "
        f"{stands}; name what each is, one of {', '.join(PARTS)}, for example {example}"
    )
