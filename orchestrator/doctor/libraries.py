"""Check that Python and the libraries are of the versions that the project needs."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata, version

from orchestrator.doctor.finding import Finding, Findings, failed
from trainables.command_line import PROJECT

TESTED_WITH = {"ray": "2.60", "optuna": "5.0"}
"""Libraries of which private parts are used, and the releases that the tests ran with."""
SHOWN_PACKAGES = ("ray", "torch", "torchvision", "optuna", "numpy", "pyarrow")


def check_environment() -> Findings:
    """Compare this Python and its libraries with the versions that the project needs and was tested with."""
    from orchestrator.display.text import python

    try:
        problems = unmet(requirements())
    except PackageNotFoundError:
        what = f"{PROJECT} is not installed in this Python, so the versions that it needs are not known"
        yield Finding("environment", "warning", what, f"{python()} -m pip install --editable .")
        return
    for problem in problems:
        yield failed("environment", problem, f"{python()} -m pip install --upgrade {PROJECT}")
    if not problems:
        libraries = ", ".join(f"{name} {version(name)}" for name in SHOWN_PACKAGES)
        yield Finding("environment", "ok", f"Python {platform.python_version()}, {libraries}")
    for name, tested in TESTED_WITH.items():
        if not problems and not f"{version(name)}.".startswith(f"{tested}."):
            what = f"{name} {version(name)} is not the tested release {tested}, and private parts of it are used"
            yield Finding("environment", "warning", what, f"{python()} -m pip install '{name}=={tested}.*'")


def requirements() -> list[str]:
    """Return what the project needs, Python included, as `name>=version`.

    Raises:
        PackageNotFoundError: the project runs without being installed.
    """
    package = metadata(PROJECT)
    needed = [text for text in package.get_all("Requires-Dist") or [] if "extra ==" not in text]
    return [f"python{package['Requires-Python']}", *needed]


def unmet(needed: Sequence[str]) -> list[str]:
    """Return a message, with its fix, for each of `needed` (`name>=version,<version`) that is not met."""
    problems = []
    for text in needed:
        match, least = re.match(r"[\w.-]+", text), re.search(r">=\s*([\d.]+)", text)
        if match is None or least is None:
            continue
        name, below = match[0], re.search(r"<(?!=)\s*([\d.]+)", text)
        wanted = f"{name}>={least[1]}" + (f",<{below[1]}" if below else "")
        fix = "make a new environment with it" if name == "python" else f"pip install --upgrade '{wanted}'"
        try:
            installed = platform.python_version() if name == "python" else version(name)
        except PackageNotFoundError:
            problems.append(f"{name} is not installed; {fix}")
            continue
        if _numbers(installed) < _numbers(least[1]):
            problems.append(f"{name} {installed} is too old, {least[1]} or newer is needed; {fix}")
        elif below is not None and _numbers(installed) >= _numbers(below[1]):
            problems.append(f"{name} {installed} is too new, a version before {below[1]} is needed; {fix}")
    return problems


def _numbers(text: str) -> list[int]:
    """Return the numbers of a version: 2, 15 and 0 of `2.15.0+cu130`."""
    return [int(number) for number in re.findall(r"\d+", text.partition("+")[0])[:3]]
