"""Whether Python and the libraries are those that the project needs."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import TYPE_CHECKING

from orchestrator.doctor.finding import Finding, Findings, failed

if TYPE_CHECKING:
    pass

PROJECT = "sweep-orchestrator"
SHOWN_PACKAGES = ("ray", "torch", "torchvision", "optuna", "numpy", "pyarrow")


def check_environment() -> Findings:
    """This Python and its libraries against what the project needs."""
    from orchestrator.display.text import python

    try:
        problems = unmet(requirements())
    except PackageNotFoundError:
        what = f"{PROJECT} is not installed in this Python, so nothing is known of the versions it needs"
        yield Finding("environment", "warning", what, f"{python()} -m pip install --editable .")
        return
    for problem in problems:
        yield failed("environment", problem, f"{python()} -m pip install --upgrade {PROJECT}")
    if not problems:
        libraries = ", ".join(f"{name} {version(name)}" for name in SHOWN_PACKAGES)
        yield Finding("environment", "ok", f"Python {platform.python_version()}, {libraries}")


def requirements() -> list[str]:
    """What the project needs, as `name>=version`; of Python, too.

    Raises:
        PackageNotFoundError: the project runs without being installed.
    """
    described = metadata(PROJECT)
    needed = [text for text in described.get_all("Requires-Dist") or [] if "extra ==" not in text]
    return [f"python{described['Requires-Python']}", *needed]


def unmet(needed: Sequence[str]) -> list[str]:
    """A sentence, with the mend, for each of `needed` (`name>=version`) that this Python does not have."""
    problems = []
    for text in needed:
        match = re.match(r"([\w.-]+)(?:\[[^]]*])?\s*>=\s*([\d.]+)", text)
        if match is None:
            continue
        name, least = match[1], match[2]
        fix = "make a new environment with it" if name == "python" else f"pip install --upgrade '{name}>={least}'"
        try:
            there = platform.python_version() if name == "python" else version(name)
        except PackageNotFoundError:
            problems.append(f"{name} is not installed; {fix}")
            continue
        if _numbers(there) < _numbers(least):
            problems.append(f"{name} {there} is too old, {least} or newer is needed; {fix}")
    return problems


def _numbers(text: str) -> list[int]:
    """The numbers of a version: of `2.15.0+cu130` 2, 15 and 0."""
    return [int(number) for number in re.findall(r"\d+", text.partition("+")[0])[:3]]
