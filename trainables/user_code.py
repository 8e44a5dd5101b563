"""The user's code: called with the keywords that it takes, and its errors reported in one line with their place."""

from __future__ import annotations

import importlib
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any

from trainables.errors import ConfigError, did_you_mean

LONGEST_ERROR = 300  # characters of an error's text


def accepted_keywords(function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Return those of the keywords `offered` that `function` names among its parameters."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return {}
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in offered.items() if name in names}


def find(name: str, setting: str, needed: str) -> Callable[..., Any]:
    """Return the function `package.module:function`; its module is imported.

    Args:
        setting: begins each message, such as `model=nets:small`.
        needed: what it should be, such as `a function that returns a model`.

    Raises:
        ConfigError: there is no such function.
    """
    module_name, _, attribute = name.partition(":")
    try:
        with errors_in(f"{setting}: {module_name} cannot be imported"):
            module = importlib.import_module(module_name)
    except ConfigError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError) and f"{module_name}.".startswith(f"{missing.name}."):
            raise ConfigError(
                f"{setting}: there is no module {missing.name} in this folder, on PYTHONPATH or among the installed "
                "packages"
            ) from error
        raise
    try:
        function = attrgetter(attribute)(module)
    except AttributeError:
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        nearest = did_you_mean(attribute, functions)
        raise ConfigError(f"{setting}: there is no {attribute} in {module_name}{nearest}") from None
    if not callable(function):
        raise ConfigError(f"{setting}: {attribute} is a {type(function).__name__}; {needed} is needed")
    return function  # type: ignore[no-any-return]


def source(name: str) -> Path | None:
    """Return the folder or file with the code of `package.module:function`; None if it is installed, or missing."""
    spec = find_spec(name.partition(":")[0].partition(".")[0])
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        return None
    path = Path(spec.submodule_search_locations[0] if spec.submodule_search_locations else str(spec.origin)).absolute()
    installed = (sysconfig.get_path(scheme) for scheme in ("stdlib", "platstdlib", "purelib", "platlib"))
    return None if any(path.is_relative_to(folder) for folder in installed) else path


@contextmanager
def errors_in(what: str, path: Path | None = None) -> Iterator[None]:
    """Raise errors of the user's code as ConfigError: `what` the code is, the line in `path`, and the error.

    Args:
        path: the user's file; None if the error may come from any file.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        line = _line_of(error, path)
        place = f"{what}, {line}" if line else what
        if isinstance(error, ConfigError):
            raise ConfigError(*(f"{place}: {problem}" for problem in error.problems)) from error
        text = " ".join(str(error).split())[:LONGEST_ERROR]
        raise ConfigError(f"{place}: {type(error).__name__}: {text}") from error


def _line_of(error: BaseException, path: Path | None) -> str:
    """Return the line of the user's code that raised `error`, such as `line 3`, and its file unless it is `path`."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}" if path is not None else f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    if path is not None:
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        return f"line {lines[-1]}" if lines else ""
    project = Path(__file__).parent.parent
    others = [frame for frame in frames if not Path(frame.filename).is_relative_to(project)]
    users = [frame for frame in others if "site-packages" not in frame.filename and not frame.filename.startswith("<")]
    return f"{users[-1].filename}, line {users[-1].lineno}" if users else ""
