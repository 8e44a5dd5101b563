"""The templates of all pages, and what renders them."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def environment() -> Environment:
    """Return what renders the templates: all that is given to them is escaped."""
    return Environment(
        loader=PackageLoader("orchestrator.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def read_style() -> Markup:
    """Return the style sheet of all pages."""
    return read_own("report.css")


def read_own(name: str) -> Markup:
    """Return one of the template's files, which is put into a page as it is."""
    return Markup((files("orchestrator.report") / "template" / name).read_text())  # noqa: S704 - ours
