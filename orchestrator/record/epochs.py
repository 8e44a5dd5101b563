"""The metrics of a trial's epochs, kept as numbers side by side: a sweep has a million epochs."""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, overload

from orchestrator.record.confusions import Confusions
from orchestrator.record.facts import NOT_NUMBERS

WHOLE = frozenset(("epoch", "step", "skipped_steps", "attempt", "beside"))
"""Names whose numbers are whole ones."""
NAN = float("nan")  # of what is undefined, as no line of a journal holds it


class Epochs(Sequence[dict[str, Any]]):
    """The epochs of a trial in order, each a dict of its metrics, with `attempt`, `score` and `ended_at`.

    What is undefined is None. The dicts are made when they are asked for, of what a dict of 40 bytes a number would be.
    """

    __slots__ = ("_confusions", "_layout", "_numbers", "_others", "number")

    def __init__(self, epochs: Iterable[dict[str, Any]] = (), confusions: Confusions | None = None) -> None:
        """Take the epochs so far, and the file that has what was confused after each."""
        self.number = 0  # of the last epoch
        self._confusions = confusions
        self._layout = _Layout((), (), ())
        self._numbers = array("d")  # epoch by epoch, in the order of the layout's names
        self._others: dict[int, dict[str, Any]] = {}  # of some epochs, what is no number
        for epoch in epochs:
            self.append(epoch)

    def append(self, epoch: dict[str, Any]) -> None:
        """Add the next epoch."""
        self.number = int(epoch["epoch"])
        if not self._layout.fits(epoch):
            self._widen(epoch)
        others = {name: value for name in self._layout.texts if (value := epoch.get(name)) is not None}
        if others:
            self._others[len(self)] = others
        self._numbers.frombytes(self._layout.packed(epoch))

    def _widen(self, epoch: dict[str, Any]) -> None:
        """Make place for names that no earlier epoch had, or of which none had a value."""
        texts = dict.fromkeys((*self._layout.texts, *(name for name in epoch if name in NOT_NUMBERS)))
        numbers = {name: value for name, value in epoch.items() if name not in NOT_NUMBERS}
        new = [name for name, value in numbers.items() if value is not None and name not in self._names]
        empty = (*self._layout.undefined, *numbers)
        undefined = dict.fromkeys(name for name in empty if name not in (*self._names, *new))
        rows = [[*self._row(index), *[NAN] * len(new)] for index in range(len(self))]
        self._layout = _layout((*self._names, *new), tuple(undefined), tuple(texts))
        self._numbers = array("d", chain.from_iterable(rows))

    @property
    def _names(self) -> tuple[str, ...]:
        return self._layout.names

    def _row(self, index: int) -> list[float]:
        width = len(self._names)
        return self._numbers[index * width : (index + 1) * width].tolist()

    def __len__(self) -> int:
        return len(self._numbers) // len(self._names) if self._names else 0

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        found: dict[str, Any] = {
            name: _value(name, number) for name, number in zip(self._names, self._row(place), strict=True)
        }
        return {**found, **self._layout.empty, **self._others.get(place, {})}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[place] for place in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Epochs({list(self)!r})"

    def raw(self, name: str) -> array[float]:
        """Return a metric in every epoch, as a number; NaN where it is undefined."""
        return self._of(name) if name in self._names else array("d", [NAN]) * len(self)

    def column(self, name: str) -> list[float | None]:
        """Return a metric in every epoch."""
        return [None if number != number else number for number in self.raw(name)]

    def numbers(self, name: str) -> array[float]:
        """Return a metric in the epochs in which it is defined."""
        return array("d", (number for number in self.column(name) if number is not None))

    def place(self, epoch: int) -> int | None:
        """Return the index of the epoch with a number; None if there is none."""
        numbers = self._of("epoch") if "epoch" in self._names else ()
        return next((place for place, number in enumerate(numbers) if number == epoch), None)

    def confusion_text(self, index: int, trial: int) -> str | None:
        """Return the confusion matrix after an epoch of a trial as JSON; None if it is not known."""
        inline = self._others.get(index, {}).get("val_confusion")
        if inline is not None or self._confusions is None or "beside" not in self._names:
            return None if inline is None else json.dumps(inline)
        beside, epoch = self.raw("beside")[index], int(self.raw("epoch")[index])
        return None if beside != beside else self._confusions.read_texts(int(beside), trial, epoch)[0]

    def complete(self, index: int, trial: int) -> dict[str, Any]:
        """Return an epoch of a trial with what was confused after it, as far as it is known."""
        epoch = self[index]
        beside = epoch.pop("beside", None)
        if beside is None or self._confusions is None:
            return epoch
        return epoch | self._confusions.read(beside, trial, epoch["epoch"])

    def _of(self, name: str) -> array[float]:
        return self._numbers[self._layout.places[name] :: len(self._names)]


class Reached(Mapping[int, float | None]):
    """The values that trials had at one epoch, in the order in which they came there: trial → value, or None.

    A dict of a million floats takes five times the memory.
    """

    __slots__ = ("_trials", "_values")

    def __init__(self) -> None:
        self._trials = array("q")
        self._values = array("d")

    def append(self, trial: int, value: float | None) -> None:
        """Add a trial that is not there yet."""
        self._trials.append(trial)
        self._values.append(NAN if value is None else value)

    def __getitem__(self, trial: int) -> float | None:
        try:
            number = self._values[self._trials.index(trial)]
        except ValueError:
            raise KeyError(trial) from None
        return None if number != number else number

    def __iter__(self) -> Iterator[int]:
        return iter(self._trials)

    def __len__(self) -> int:
        return len(self._trials)

    def items(self) -> ItemsView[int, float | None]:
        """Return the pairs of trial and value, without a search for each."""
        return dict(zip(self._trials, (None if x != x else x for x in self._values), strict=True)).items()


class _Layout:
    """The numbers that an epoch has, and their order; all trials of a sweep share one or two."""

    __slots__ = ("_pack", "_values", "empty", "known", "names", "places", "texts", "undefined")

    def __init__(self, names: tuple[str, ...], undefined: tuple[str, ...], texts: tuple[str, ...]) -> None:
        self.names = names  # of what was a number in any epoch
        self.undefined = undefined  # of what was None in all
        self.texts = texts  # of what is no number, and mostly None
        self.empty = dict.fromkeys((*undefined, *texts))
        self._values = itemgetter(*names, "epoch")  # of two and more, so that it returns a tuple
        self._pack = struct.Struct(f"{len(names) + 1}d").pack
        self.places = {name: place for place, name in enumerate(names)}
        self.known = frozenset((*names, *undefined, *texts))

    def fits(self, epoch: dict[str, Any]) -> bool:
        """Return whether there is a place for every number of an epoch."""
        return self.known.issuperset(epoch) and {None}.issuperset(map(epoch.get, self.undefined))

    def packed(self, epoch: dict[str, Any]) -> bytes:
        """Return the numbers of an epoch in their order, as an array of doubles has them."""
        try:
            packed = self._pack(*self._values(epoch))
        except (KeyError, struct.error):  # there is one that this epoch does not have
            values = (*map(epoch.get, self.names), 0.0)
            packed = self._pack(*(NAN if value is None else value for value in values))
        return packed[: -struct.calcsize("d")]


_layout = cache(_Layout)


def _value(name: str, number: float) -> Any:
    if number != number:
        return None
    return int(number) if name in WHOLE else number
