"""A user's search space from a file: YAML in the language of `--set` and `--search`, or Python."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from search_spaces import soundness
from search_spaces.changes import BETWEEN, Searched, change, parse_searched
from search_spaces.distributions import OPTIONS
from search_spaces.situation import Situation
from search_spaces.space import SearchSpace
from search_spaces.stage import Stage
from search_spaces.starts import Start
from trainables.config import FIELDS, TrialConfig, check_values, coerce
from trainables.errors import ConfigError, suggestion
from trainables.field_texts import parse_fields, parse_value
from trainables.user_code import errors_in

SUFFIXES = (".yaml", ".yml", ".py")
COUNTS = {"trials": 1, "max_epochs": 1, "subset": 2}  # whole numbers that a file may give, and their minimum
KEYS = (*COUNTS, "set", "search", "stages", "unstopped", "starts")
STAGE_KEYS = ("share", "set", "best", "each")
ELSEWHERE = {**OPTIONS, "max_epochs": "the key max_epochs, beside set and search"}
FUNCTION = "space"  # of a Python file
EXPECTED = f"define {FUNCTION}(*, gpu, quick), which returns a SearchSpace; search_spaces/digits.py is an example"
SpaceMaker = Callable[[Situation], SearchSpace]


def read(path: Path) -> SpaceMaker:
    """Read a file, once: a Python file runs here. What its space leaves out has the defaults of `TrialConfig`.

    A YAML file gives the same space with GPUs and without, quick or not.

    Raises:
        ConfigError: naming everything that is wrong, with the file, and the line where there is one.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--space {path}: a file ending in {', '.join(SUFFIXES)} is needed")
    if not path.is_file():
        raise ConfigError(f"--space {path}: there is no such file")
    if path.suffix == ".py":
        return partial(_made_by, _function_in(path), path)
    space = _from_yaml(path)
    return lambda situation: space


def _function_in(path: Path) -> Callable[..., Any]:
    """Run a Python file and return its function `space`."""
    with errors_in(str(path), path):
        make = runpy.run_path(str(path)).get(FUNCTION)
    if not callable(make):
        raise ConfigError(f"{path}: there is no function {FUNCTION} in it; {EXPECTED}")
    return make  # type: ignore[no-any-return]


def _made_by(make: Callable[..., Any], path: Path, situation: Situation) -> SearchSpace:
    """Return the space that the function `make` of the file `path` makes, checked."""
    with errors_in(str(path), path):
        space = situation.make(make)
    if not isinstance(space, SearchSpace):
        raise ConfigError(f"{path}: {FUNCTION} returned {type(space).__name__}; {EXPECTED}")
    counts = {"trials": space.trials, "subset": space.subset}
    problems = [problem for _, problem in soundness.problems(space)]
    problems += [text for name, value in counts.items() if value is not None for text in _check_count(name, value)]
    changed = (name for name in OPTIONS if name != "max_epochs" and getattr(space.base, name) != FIELDS[name].default)
    problems += [f"{name} belongs to the whole sweep: use {OPTIONS[name]}" for name in changed]
    if problems:
        raise ConfigError(*(f"{path}: {problem}" for problem in problems))
    return space


def _check_count(name: str, value: Any) -> list[str]:
    """Return a message if `value` is no count of its kind."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= COUNTS[name]:
        return []
    return [f"{name}: {value}: a whole number is needed, at least {COUNTS[name]}"]


@dataclass(frozen=True)
class _Entry:
    """A key of a YAML mapping with its line and its value, which stays text, as on the command line."""

    key: str
    line: int
    value: yaml.Node

    @property
    def text(self) -> str | None:
        return self.value.value if isinstance(self.value, yaml.ScalarNode) else None


Problems = list[tuple[int, str]]
"""The number of each wrong line, and a message about it."""


def _from_yaml(path: Path) -> SearchSpace:
    """Return the space in a YAML file."""
    root = _read(path)
    problems: Problems = []
    parts = {entry.key: entry for entry in _entries(root, "a space", problems, KEYS)}
    counts = {name: _count(parts[name], problems) for name in COUNTS if name in parts}
    fixed, set_at = _fields(parts.get("set"), _value, problems)
    searched, searched_at = _fields(parts.get("search"), _searched, problems)
    lines = set_at | searched_at
    problems += [(lines[name], f"{name} is both set and searched; leave one out") for name in fixed if name in searched]
    unsound = {name for name in lines if name not in fixed and name not in searched}
    sound = {name: how for name, how in searched.items() if not unsound & {*how.depends_on, how.same}}
    space = change(SearchSpace(TrialConfig(**fixed)), {}, sound)
    stages, stage_lines = _stages(parts.get("stages"), problems)
    lines |= stage_lines
    unstopped, unstopped_at = _fields(parts.get("unstopped"), _value, problems)
    lines |= {f"unstopped {name}": line for name, line in unstopped_at.items()}
    starts, start_lines = _starts(parts.get("starts"), problems)
    lines |= start_lines
    if not problems:  # what depends on a wrong line is not reported as well
        space = replace(space, stages=stages, unstopped=unstopped, starts=starts)
    problems += [(lines[name], problem) for name, problem in soundness.problems(space) if name not in fixed]
    if problems:
        raise ConfigError(*(f"{path}, line {line}: {problem}" for line, problem in sorted(problems)))
    base = space.base.replace(max_epochs=counts.pop("max_epochs", space.base.max_epochs))
    return replace(space, base=base, **counts)


def _read(path: Path) -> yaml.Node:
    """Return the root of the file's nodes, which have their lines; no tag makes an object."""
    try:
        with path.open(encoding="utf-8") as file:
            root = yaml.compose(file, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ConfigError(f"{path}{where}: this is not YAML: {error.problem or error.context}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--space {path} cannot be read: {str(error).splitlines()[0]}") from error
    if root is None or (isinstance(root, yaml.MappingNode) and not root.value):
        raise ConfigError(f"{path} is empty; a space has the keys {', '.join(KEYS)}")
    return root


def _entries(node: yaml.Node, what: str, problems: Problems, allowed: tuple[str, ...] = ()) -> Iterator[_Entry]:
    """Yield the entries of a mapping; add a message about each wrong key to `problems`.

    Args:
        allowed: its keys; nothing for any key.
    """
    if not isinstance(node, yaml.MappingNode):
        content = f"the keys {', '.join(allowed)}" if allowed else "a line FIELD: … for each field"
        problems.append((_line(node), f"{what} is a mapping, with {content}; here is {_kind(node)}"))
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else _kind(key)
        if name in lines:
            problems.append((_line(key), f"{name} stands in line {lines[name]} already; leave one out"))
        elif allowed and name not in allowed:
            problems.append((_line(key), f"unknown key {name!r}{suggestion(name, allowed)}"))
        else:
            lines[name] = _line(key)
            yield _Entry(name, _line(key), value)


def _fields(
    part: _Entry | None, parse: Callable[[str, str], Any], problems: Problems
) -> tuple[dict[str, Any], dict[str, int]]:
    """Parse the fields under `set` or `search`: return those that are sound, and the lines of all."""
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    if part is None:
        return values, lines
    for entry in _entries(part.value, part.key, problems):
        lines[entry.key] = entry.line
        text = _several(entry) if parse is _searched else entry.text
        if text is None:
            problems.append(
                (entry.line, f"{entry.key}: text is needed, as after --{part.key}; here is {_kind(entry.value)}")
            )
            continue
        sound, wrong = parse_fields([f"{entry.key}={text}"], "FIELD: …", parse, ELSEWHERE)
        problems += [(entry.line, problem) for problem in wrong]
        values |= sound
    return values, lines


def _several(entry: _Entry) -> str | None:
    """Return the text of a field or, of a list of texts, all of them as one; None if it is neither."""
    if isinstance(entry.value, yaml.SequenceNode) and all(
        isinstance(one, yaml.ScalarNode) for one in entry.value.value
    ):
        return BETWEEN.join(one.value for one in entry.value.value) or None
    return entry.text


def _value(name: str, text: str) -> Any:
    """Parse and check a value of field `name`."""
    value = parse_value(name, text)
    if problems := check_values({name: value}):
        raise ConfigError(*problems)
    return coerce(name, value)


def _searched(name: str, text: str) -> Searched:
    """Parse and check how field `name` is searched."""
    how = parse_searched(name, text)
    if problems := how.problems(name):
        raise ConfigError(*problems)
    return how


def _stages(part: _Entry | None, problems: Problems) -> tuple[tuple[Stage, ...], dict[str, int]]:
    """Parse the stages, and return them with the line of each, `stage 1` and so on."""
    nodes = [] if part is None else _items(part, "a list of stages", problems)
    lines = {f"stage {number}": _line(node) for number, node in enumerate(nodes, start=1)}
    return tuple(_stage(node, name, problems) for name, node in zip(lines, nodes, strict=True)), lines


def _starts(part: _Entry | None, problems: Problems) -> tuple[tuple[Start, ...], dict[str, int]]:
    """Parse the start points, and return them with the line of each, `start 1` and so on."""
    nodes = [] if part is None else _items(part, "a list of settings", problems)
    lines = {f"start {number}": _line(node) for number, node in enumerate(nodes, start=1)}
    entries = (_Entry(name, lines[name], node) for name, node in zip(lines, nodes, strict=True))
    return tuple(_fields(entry, _value, problems)[0] for entry in entries), lines


def _stage(node: yaml.Node, name: str, problems: Problems) -> Stage:
    """Parse one stage; what is wrong in it is left out."""
    parts = {entry.key: entry for entry in _entries(node, name, problems, STAGE_KEYS)}
    if not isinstance(node, yaml.MappingNode):
        return Stage(1)
    fixed, _ = _fields(parts.get("set"), _value, problems)
    best, _ = _fields(parts.get("best"), lambda field, text: int(text) if text.isdecimal() else text, problems)
    each = _items(parts["each"], "a list of fields", problems) if "each" in parts else []
    share = parts["share"].text if "share" in parts else None
    try:
        number = float(share or "")
    except ValueError:
        number = 1.0
        problems.append((_line(node), f"{name}: its share is {share or 'missing'}; a number above 0 is needed"))
    return Stage(number, fixed, best, tuple(str(field.value) for field in each))


def _items(entry: _Entry, what: str, problems: Problems) -> list[yaml.Node]:
    """Return the items of a list; add a message to `problems` if there is none."""
    if isinstance(entry.value, yaml.SequenceNode):
        return list(entry.value.value)
    problems.append((entry.line, f"{entry.key} is {what}; here is {_kind(entry.value)}"))
    return []


def _count(entry: _Entry, problems: Problems) -> Any:
    """Parse and check a whole number; add a message to `problems` if it is wrong."""
    text = _kind(entry.value) if entry.text is None else entry.text
    value = int(text) if re.fullmatch(r"[0-9]{1,12}", text) else text
    problems += [(entry.line, problem) for problem in _check_count(entry.key, value)]
    return value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(node: yaml.Node) -> str:
    """Return a description of a node for a message."""
    kinds = {yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}
    return kinds.get(type(node), f"{node.value!r}" if node.value else "nothing")
