"""The exceptions for wrong input, each of which names everything that is wrong."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")
JOINERS = "\u200c\u200d"
"""Characters without a width that words and emoji are made of."""
LONGEST = 400  # characters of foreign text that are shown whole
LONG_LIST, LISTED = 20, 8  # names: a longer list is a wall of text in a message, which shows the first few


class InputError(ValueError):
    """Input that cannot be used: `problems` holds a message for each thing that is wrong."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ConfigError(InputError):
    """Options or settings with wrong values; each problem names the value and what is allowed."""


class DatasetError(InputError):
    """Data that is missing or cannot be used; each problem names the file, and the row where there is one."""


class WeightsError(InputError):
    """Initial weights that are missing, damaged or of another model; the message says where, and what to do."""


class Diverged(RuntimeError):  # noqa: N818 - the leaderboard's status has this name
    """Training ended because its loss is no longer finite."""


def shown(name: object) -> str:
    """Return a path, a label or other foreign text as it may be shown on a terminal, in one line.

    Of a long text the middle is left out. Control characters, signs that change the direction of the text, and bytes
    that are no UTF-8 are escaped.
    """
    text = str(name)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 4 :]}"
    if text.isprintable() and text.isascii():
        return text
    return "".join(sign if _is_harmless(sign) else _escaped(sign) for sign in text)


def _is_harmless(sign: str) -> bool:
    return sign in JOINERS or unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")


def _escaped(sign: str) -> str:
    """Return a character as Python would write it; a byte that is no UTF-8 is a lone surrogate in a path."""
    code = ord(sign)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else sign.encode("unicode_escape").decode("ascii")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: `1 image`, `1,200 images`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def sized(count: float) -> str:
    """Return a number of bytes as people say it: `812 MB`, or `5.0 GB` of 10^9 bytes."""
    return f"{count / 1e6:,.0f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def last_line(text: str) -> str:
    """Return the last line of a text, such as a traceback, whose last line says most; empty of an empty one."""
    return (text.strip().splitlines() or [""])[-1]


def did_you_mean(name: str, names: Iterable[str], most: int = 1) -> str:
    """Return `; did you mean …?` with the nearest of `names`, or an empty string if none is near."""
    names = list(names)
    *others, last = [name] if name in names else difflib.get_close_matches(name, names, n=most) or [""]
    return f"; did you mean {', '.join(others)}{' or ' if others else ''}{last}?" if last else ""


def listed(names: Collection[str]) -> str:
    """Return names with commas between them; of a long list the first few, and how many there are."""
    names = list(map(shown, names))
    if len(names) <= LONG_LIST:
        return ", ".join(names)
    return f"{', '.join(names[:LISTED])}, … {len(names)} in all"


def split_at_commas(text: str, known: Callable[[str], bool]) -> list[str]:
    """Return the parts of a text that joins several `known` texts by commas, where blanks belong; nothing of others."""
    parts: list[str] = []
    for piece in text.split(","):
        if not parts or known(piece.strip()):
            parts.append(piece.strip())
        elif piece.strip():
            parts[-1] += f",{piece}"  # the comma is within a part, such as log(0.1,1)
    return parts if parts != [text.strip()] and all(map(known, parts)) else []


def suggestion(name: str, names: Collection[str], allowed: str = "") -> str:
    """Return the end of a message about an unknown `name`: the nearest of `names`, and in brackets what is allowed.

    Args:
        allowed: what is allowed, where that is not just `names`, each after the other with blanks between.
    """
    nearest = did_you_mean(name, names, most=3 if len(names) > LONG_LIST else 1)
    if not allowed and (parts := split_at_commas(name, names.__contains__)):
        nearest = f"; did you mean {' '.join(map(shown, parts))}, with a blank between?"
    return f"{nearest} (allowed: {allowed or listed(names)})"


def look_up(table: Mapping[str, T], name: str, setting: str) -> T:
    """Return the entry of a registry under `name`, a value of `setting`: the only way from a name to what it runs.

    Raises:
        ConfigError: the table has no such name. The message names it, the nearest one and what is allowed.
    """
    if name not in table:
        raise ConfigError(f"{setting}={name!r} is unknown{suggestion(name, table)}")
    return table[name]
