"""Code of the user's own: called with what it takes, and what it raises told in a line, with its place."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.errors import ConfigError


def taken(function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the keywords `offered` that `function` names among its parameters."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins do not say
        return {}
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in offered.items() if name in named}


@contextmanager
def told(what: str, path: Path | None = None) -> Iterator[None]:
    """Turns what the user's code raises into a ConfigError: `what` it is, the line in `path`, and the error.

    Args:
        path: the user's file; None for wherever the error came from.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        place = _place(error, path)
        at = f"{what}, {place}" if place else what
        if isinstance(error, ConfigError):
            raise ConfigError(*(f"{at}: {problem}" for problem in error.problems)) from error
        raise ConfigError(f"{at}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error


def _place(error: BaseException, path: Path | None) -> str:
    """Where in the user's code `error` was raised: `line 3`, with the file if none is given."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}" if path is not None else f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    if path is not None:
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        return f"line {lines[-1]}" if lines else ""
    ours = Path(__file__).parent.parent
    theirs = [frame for frame in frames if not Path(frame.filename).is_relative_to(ours)]
    own = [frame for frame in theirs if "site-packages" not in frame.filename and not frame.filename.startswith("<")]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else ""
