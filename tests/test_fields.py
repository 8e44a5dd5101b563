"""docs/fields.md lists all fields and models; `python tests/test_fields.py` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from search_spaces.distributions import OPTIONS, as_typed
from trainables.config import FIELDS, PAGE, SYNONYMS
from trainables.field_values import ModelName
from trainables.model_names import MODELS

PATH = Path(__file__).parent.parent / PAGE
SECTIONS = {  # by the first field of each
    "model": "The model",
    "optimizer": "Training",
    "split": "The rows",
    "image_size": "The images",
    "metric": "Measurement and computation",
}
HEAD = """# Fields

A trial's configuration has these fields. `--set FIELD=VALUE` fixes one and `--search FIELD=DIST` searches it, as
[spaces.md](spaces.md) describes. Each data set's search space has its own values for some of them: `--dry-run` shows
which are searched, and a trial's configuration is in the leaderboard.

In the column of allowed values, [0, 1) means from 0 to 1, with 0 and without 1.
"""


def page() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *rows(), "## Models", "", *models(), ""])


def rows() -> Iterator[str]:
    """Yield the lines of the tables, with a heading before each."""
    for name, field in FIELDS.items():
        if name in SECTIONS:
            yield from ([] if name == "model" else [""])
            yield from (f"## {SECTIONS[name]}", "", "| field | default | allowed | meaning |", "|---|---|---|---|")
        value = f"{field.default:g}" if isinstance(field.default, float) else as_typed(field.default)
        default = f"`{value}`" if value else "empty"
        allowed, meaning = field.metadata["allowed"], field.metadata["meaning"]
        text = "a [model](#models)" if isinstance(allowed, ModelName) else str(allowed).removeprefix("one of ")
        option = f"; a sweep sets it by `{OPTIONS[name]}`" if name in OPTIONS else ""
        yield f"| `{name}` | {default} | {text} | {meaning}{option} |"
    yield ""


def models() -> Iterator[str]:
    """Yield the lines about models."""
    yield f"{len(MODELS)} models are built in; torchvision has most of them, and ImageNet weights for them:"
    yield ""
    yield ", ".join(f"`{name}`" for name in MODELS) + "."
    yield ""
    yield "`timm:NAME` is a model of timm, and `package.module:factory` a function of yours:"
    yield "see [your-model.md](your-model.md)."


def test_the_page_has_all_fields_and_models() -> None:
    assert PATH.read_text() == page(), f"{PAGE} is out of date: write it by `python {Path(__file__).name}`"


def test_the_page_on_training_says_when_each_field_pays() -> None:
    page = (PATH.parent / "training.md").read_text()
    assert [name for name in FIELDS if f"`{name}`" not in page] == []


def test_sections_begin_with_fields_and_synonyms_lead_to_them() -> None:
    assert set(SECTIONS) <= set(FIELDS)
    assert set(SYNONYMS.values()) <= set(FIELDS)


if __name__ == "__main__":
    PATH.write_text(page())
