"""What is read first: docstrings begin with a verb, and no function or file is too long to be read in one sitting."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator

import pytest
from conftest import ROOT

PACKAGES = ("orchestrator", "search_spaces", "trainables")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "template" not in path.parts)

VERBS = frozenset(  # a further verb is added where it is first used
    """
    Adapt Add Advance Append Apply Attach Begin Bring Build Cancel Check Close Collect Combine Compare Compute
    Convert Copy Count Create Cut Decode Describe Divide Do Download Draw Drop End Estimate Find Finish Fit Follow Give
    Go Handle Have Hold Keep Label Let Load Log Make Map Measure Merge Mirror Move Multiply Note Open Pad Parse
    Plot Print Put Raise Read Record Remove Rename Replace Report Request Reserve Resume Return Rise Run Save
    Clear Scale Seal Select Set Show Sort Split Start Stop Switch Take Teach Train Translate Try Turn Update Wait Warn
    Write Yield
    """.split()  # noqa: SIM905
)
NO_BEGINNINGS = frozenset("All As Every How Likewise Not Of Those What When Where Whether Which Why".split())  # noqa: SIM905
SECTIONS = ("Args:", "Raises:")  # a constructor has these alone: its class says the rest

LONGEST, MEDIAN, NINE_IN_TEN, FILE = 56, 7, 22, 350  # lines

Function = ast.FunctionDef | ast.AsyncFunctionDef


def definitions() -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Yield every function, method and class of the packages, with its place."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function | ast.ClassDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def beginning(node: Function | ast.ClassDef) -> str:
    """Return the first word of the docstring; nothing if there is none."""
    words = (ast.get_docstring(node) or "").split()
    return words[0].rstrip(".,:;") if words else ""


def is_property(node: Function) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    functions = [(place, node) for place, node in definitions() if isinstance(node, Function) and not is_property(node)]
    written = [(place, beginning(node)) for place, node in functions if beginning(node)]
    assert len(written) > 500
    assert [(place, word) for place, word in written if word not in VERBS and f"{word}:" not in SECTIONS] == []


def test_no_docstring_begins_amid_a_sentence() -> None:
    assert [place for place, node in definitions() if beginning(node) in NO_BEGINNINGS] == []


def test_functions_can_be_read_at_a_glance() -> None:
    lines = {
        place: (node.end_lineno or node.lineno) - node.lineno + 1
        for place, node in definitions()
        if isinstance(node, Function)
    }
    assert [place for place, count in lines.items() if count > LONGEST] == []
    assert statistics.median(lines.values()) <= MEDIAN
    assert statistics.quantiles(lines.values(), n=10)[-1] <= NINE_IN_TEN


@pytest.mark.parametrize("package", PACKAGES)
def test_files_can_be_read_in_one_sitting(package: str) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in FILES if path.is_relative_to(ROOT / package)}
    assert lengths
    assert {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > FILE} == {}
