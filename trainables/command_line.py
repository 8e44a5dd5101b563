"""What all commands share: exit codes, options and their help, and messages, which go to standard error."""

from __future__ import annotations

import atexit
import difflib
import os
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from importlib.metadata import PackageNotFoundError, version
from inspect import cleandoc
from io import TextIOWrapper
from types import MappingProxyType, NoneType, UnionType
from typing import IO, Annotated, Any, Literal, NoReturn, TextIO, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from trainables.config import FIELDS, SYNONYMS
from trainables.errors import shown, split_at_commas
from trainables.secrets import without_secrets

T = TypeVar("T")

PROJECT = "sweep-orchestrator"

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130  # WRONG: the command was; 130: by Ctrl-C, as in shells


def show(line: str) -> None:
    """Write a line to standard error; standard output is for results. What might control a terminal is escaped."""
    write("\n".join(map(shown, line.split("\n"))) + "\n", sys.stderr)


def write(text: str, file: TextIO | None = None) -> None:
    """Write to standard output or another stream, at once; if its reader has gone, nobody misses it."""
    file = file or sys.stdout
    try:
        file.write(text)
        file.flush()
    except BrokenPipeError:
        let_go(file)


def let_go(file: IO[str]) -> None:
    """Drop what is written to a stream whose reader has gone, from now on; Python's last flush too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def complain(problems: Iterable[str], code: int = WRONG) -> int:
    """Write a line for each thing that is wrong, and return the exit code."""
    for problem in problems:
        show("error: " + without_secrets(problem).replace("\n", "\n  "))  # no file name can make up a line of its own
    return code


def leave(code: int) -> NoReturn:
    """End the process with this exit code, without what Python does besides: half a second, to free memory.

    Threads are waited for, and those of pools that idle are ended; what is registered for the end is done, and what was
    written is flushed, as ever.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does; only that wakes the threads of a pool
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def flag_of(name: str) -> str:
    """Return the option of a field: `--max-epochs` of `max_epochs`, and `--try` of `try_`, as `try` is Python's."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def option(metavar: str, help_text: str | None = None, name: str | None = None) -> Any:
    """Return the annotation of an option: its placeholder, and its help unless a docstring of one line below it has it.

    Its `name` is that of the field unless it is given. The help ends with "(default: …)" if the default is a value;
    other defaults belong into the text.
    """
    return arg(name=name, metavar=metavar, help=help_text, help_behavior_hint=_default)


def _default(text: str) -> str:
    return f"(default: {text})" if text not in ("None", "False", "") else ""


Flag = Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint="")]
Repeated = Annotated[tuple[tuple[str, ...] | str, ...], UseAppendAction]
"""Texts after an option that may be given several times. From Python, plain texts do."""


def parse(
    options: type[T],
    prog: str,
    arguments: Sequence[str] | None,
    description: str | None = None,
    fields: Mapping[str, str] = MappingProxyType({}),
    least: Mapping[str, int] = MappingProxyType({}),
) -> T:
    """Return the command line as an instance of `options`; end the process after `--help`, `--version` or a mistake.

    Args:
        arguments: default: those that the process was started with.
        description: head of the help. Default: the docstring of `options`, with its examples.
        fields: what to write in place of options that users may expect; see `set_fields`.
        least: options whose value is a whole number → the least that is allowed, for the message about a text.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal or pipe may be of ASCII only
    given = sys.argv[1:] if arguments is None else list(arguments)
    if "--version" in given:
        show_version()
    head = cleandoc(description or options.__doc__ or "")
    parsed, unknown = tyro.cli(
        options,
        prog=prog,
        args=given,
        description=head,
        config=(OmitArgPrefixes,),
        return_unknown_args=True,
        registry=_lenient_numbers(),
    )
    problems = _mistakes(unknown, given, {**fields, **_spellings(options)}) + _wrong_numbers(parsed, least)
    if problems:
        raise SystemExit(complain(problems))
    return parsed


def _kinds(hint: Any) -> list[Any]:
    """Return the types and the words that an option's type allows, without None."""
    if get_origin(hint) in (Union, UnionType):
        return [kind for part in get_args(hint) for kind in _kinds(part)]
    return [*get_args(hint)] if get_origin(hint) is Literal else [] if hint is NoneType else [hint]


def _lenient_numbers() -> ConstructorRegistry:
    """Return a registry by which an option for a number also takes any other text: `_wrong_numbers` refuses it.

    tyro's own message about it has Python's types and errors.
    """
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        kinds = _kinds(info.type)
        if str in kinds or not {int, float} & {*kinds}:
            return None
        kind = float if float in kinds else int

        def read(texts: list[str]) -> Any:
            with suppress(ValueError):
                return kind(texts[0])
            return texts[0]

        return PrimitiveConstructorSpec(1, kind.__name__, read, lambda value: True, lambda value: [str(value)])

    return registry


def _wrong_numbers(parsed: Any, least: Mapping[str, int]) -> list[str]:
    """Return a message for each option, also of dataclasses that are fields, whose text is not the needed number."""
    problems = []
    for name, hint in get_type_hints(type(parsed)).items():
        value, kinds = getattr(parsed, name), _kinds(hint)
        if is_dataclass(value):
            problems += _wrong_numbers(value, least)
        elif isinstance(value, str) and {int, float} & {*kinds} and not {str, value} & {*kinds}:
            bound = f", at least {least[name]}" if name in least else ""
            words = "".join(f", or {kind}" for kind in kinds if isinstance(kind, str))
            what = "a number" if float in kinds else "a whole number"
            problems.append(f"{flag_of(name)} {value}: {what} is needed{bound}{words}")
    return problems


def set_fields(decided: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Return what to write for a field that is given as an option: `--set lr=VALUE` for `--lr` and `--learning-rate`.

    Args:
        decided: fields that options decide, and these options.
    """
    names = {name: name for name in FIELDS} | SYNONYMS
    return {
        name: f"{decided[field]} VALUE" if field in decided else f"--set {field}=VALUE" for name, field in names.items()
    }


def _spellings(options: Any) -> dict[str, str]:
    """Return what to write for each option of a dataclass, and of the dataclasses that are its fields."""
    spellings: dict[str, str] = {}
    for name, kind in get_type_hints(options, include_extras=True).items():
        if is_dataclass(kind):
            spellings |= _spellings(kind)
        else:
            flag = flag_of(name)
            positional = Positional in getattr(kind, "__metadata__", ())
            spellings[name] = "VALUE without it" if positional else flag if kind == Flag else f"{flag} VALUE"
    return spellings


def _mistakes(unknown: Sequence[str], given: Sequence[str], spellings: Mapping[str, str]) -> list[str]:
    """Return a message for each unknown argument, with the nearest option or field and the value that was given."""
    problems, value = [], ""
    for token in unknown:
        if not token.startswith("-"):
            problems += [f"unexpected argument {token!r}; --help shows what is allowed"] if token != value else []
            continue
        name, equals, value = token.lstrip("-").partition("=")
        if not equals:
            value = next((text for text in given[given.index(token) + 1 :][:1] if not text.startswith("--")), "")
        nearest = difflib.get_close_matches(name.replace("-", "_"), spellings, n=1)
        hint = f"did you mean {spellings[nearest[0]].replace('VALUE', value or '…')}?" if nearest else "see --help"
        problems.append(f"unknown option {token.partition('=')[0]}; {hint}")
    return problems


def begins_with(names: Collection[str], pattern: str) -> Callable[[str], bool]:
    """Return a function that says whether a text begins with one of `names`, followed by what `pattern` matches."""

    def begins(text: str) -> bool:
        match = re.match(rf"(\w+)\s*(?:{pattern})", text)
        return match is not None and match[1] in names

    return begins


is_setting = begins_with(FIELDS, "=")


def check_blanks(name: str, texts: Iterable[str], known: Callable[[str], bool]) -> list[str]:
    """Return a message for each text of option `name` that has commas where blanks belong, with what to write.

    Args:
        known: returns whether a text is, or begins like, one that may follow the option.
    """
    problems = []
    for text in texts:
        parts = split_at_commas(text, known)
        quoted = [part if re.fullmatch(r"[\w.:=/+-]+", part) else f'"{part}"' for part in parts]
        together = f'"{" ".join(parts)}"' if name == "try_" and len(parts) > 1 else " ".join(quoted)
        if parts:
            problems.append(f"{flag_of(name)} {text}: blanks are needed, not commas: {flag_of(name)} {together}")
    return problems


def show_version() -> NoReturn:
    """Print the project's name and version, and end the process."""
    try:
        number = version(PROJECT)
    except PackageNotFoundError:
        number = "(not installed, so its version is unknown)"
    write(f"{PROJECT} {number}\n")
    raise SystemExit(DONE)
