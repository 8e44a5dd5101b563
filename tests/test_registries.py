"""Registries, the tables beside what they list: each name works, and the factory itself refuses an unknown one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import ROOT, Command

import search_spaces
from orchestrator.loggers import trackers
from orchestrator.loggers.trackers import TRACKERS
from orchestrator.record.facts import Spec
from orchestrator.record.state import SweepState
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.schedulers import SCHEDULERS, stop_rule
from orchestrator.search.study import JournalStudy
from search_spaces import recipes, soundness
from search_spaces.changes import parse_searched
from search_spaces.distributions import DISTRIBUTIONS
from search_spaces.situation import Situation
from search_spaces.space import SearchSpace, integer
from trainables import autos, datasets, features
from trainables.autos import INTERPOLATIONS, STEMS
from trainables.batches import MEMORY_FORMATS, ORDERS, Batches
from trainables.config import FIELD_TYPES, FIELDS, TrialConfig
from trainables.epoch_metrics import METRICS, better
from trainables.errors import LISTED, LONG_LIST, InputError
from trainables.evaluation import PRECISIONS, predict
from trainables.field_values import OneOf
from trainables.losses import CLASS_WEIGHTS, SMOOTHING, training_loss
from trainables.metrics import scores
from trainables.model_names import BUILT_IN_MODELS
from trainables.models.build import builder_of
from trainables.models.inputs import NORMALIZATIONS
from trainables.models.torchvision_models import torchvision_model
from trainables.models.view_mean import EVALUATION_VIEWS, evaluated
from trainables.optimizers import OPTIMIZERS, SCHEDULES, Schedule, build_optimizer
from trainables.selection import SELECTIONS, keep_best
from trainables.trial_rows import POSITIVE_CLASSES
from trainables.views import FRAMES, resampled


@dataclass(frozen=True)
class Registry:
    """A table, and the function that takes a name from a user and runs what the table has for it."""

    table: Mapping[str, Any]
    use: Callable[[str], Any]


def unchecked(**fields: Any) -> TrialConfig:
    """Return a configuration whose values were not checked: what a factory gets if a list of names is wrong."""
    config = TrialConfig()
    for name, value in fields.items():
        object.__setattr__(config, name, value)
    return config


def tracker(name: str) -> trackers.Tracker:
    """Return a tracker that has nothing to log yet."""
    if name in TRACKERS:
        pytest.importorskip(TRACKERS[name].client, reason="this extra is not installed")
    state = SweepState(Spec(plan={"dataset": "digits", "arms": {}}))
    return trackers.make(f"{name}=sqlite:///:memory:", Path(tempfile.mkdtemp()), state)


STEPPED = SearchSpace(TrialConfig(), {"batch_size": integer(16, 64, 16)})
REGISTRIES = {
    "data sources": Registry(datasets.SOURCES, datasets.make_source),
    "policies for images that cannot be read": Registry(
        datasets.BAD_IMAGE_POLICIES, lambda policy: datasets.load("digits", datasets.Reading(on_bad_image=policy))
    ),
    "search spaces": Registry(search_spaces.SPACES, search_spaces.load),
    "recipes": Registry(recipes.RECIPES, recipes.load),
    "distributions": Registry(DISTRIBUTIONS, lambda kind: parse_searched("batch_size", f"{kind}(1, 2)")),
    "built-in models": Registry(BUILT_IN_MODELS, builder_of),
    "metrics": Registry(METRICS, lambda name: better(name, 0.5, 0.4)),
    "samplers": Registry(SAMPLERS, lambda name: JournalStudy(STEPPED, name, seed=0).propose(0)),
    "schedulers": Registry(SCHEDULERS, lambda name: stop_rule(name, SearchSpace(TrialConfig(max_epochs=9)), 1, 3)),
    "trackers": Registry(TRACKERS, tracker),
}
LABELS, LOGITS = torch.tensor([0, 1, 1]), torch.eye(3, 2)
IMAGES = Batches(np.zeros((3, 8, 8, 3), np.uint8), LABELS.numpy(), [0.5] * 3, [0.5] * 3, torch.device("cpu"))


def first_batch(config: TrialConfig, on_features: bool = False) -> Any:
    data = features.Features(torch.zeros(3, 5), IMAGES) if on_features else IMAGES
    return next(data.train(torch.arange(3), 3, config, torch.Generator().manual_seed(0)))


def scaled(config: TrialConfig) -> Any:
    boxes = torch.tensor([[0], [0], [8], [8]])
    return resampled(torch.zeros(1, 8, 8, 3), boxes, (4, 4), torch.zeros(3), autos.interpolation(config))


def kept_epoch(config: TrialConfig) -> int:
    """Return the epoch that a trial would end with after its first one."""
    _, state = tiny.start(tiny.config())
    state.config, state.epoch = config, 1
    keep_best(state, scores(LOGITS, LABELS)._asdict())
    return state.best_epoch


VALUES: dict[str, tuple[Iterable[str], Callable[[TrialConfig], object]]] = {
    "stem": (STEMS, lambda config: torchvision_model(config, 3, 32, None)),
    "optimizer": (OPTIMIZERS, lambda config: build_optimizer(config, torch.nn.Linear(2, 2))),
    "schedule": (SCHEDULES, lambda config: Schedule(config, torch.optim.SGD([torch.ones(1)]), 3).set_rate(0)),
    "selection": (SELECTIONS, kept_epoch),
    "smoothed_over": (SMOOTHING, lambda config: training_loss(config, LOGITS, LABELS, None)),
    "class_weights": (CLASS_WEIGHTS, lambda config: tiny.select(config)),
    "sampling": (ORDERS, first_batch),
    "sampling, on features": (ORDERS, lambda config: first_batch(config, on_features=True)),
    "fit": (FRAMES, first_batch),
    "evaluation_views": (EVALUATION_VIEWS, lambda config: evaluated(config, torch.nn.Flatten())),
    "interpolation": (INTERPOLATIONS, scaled),
    "normalization": (("auto", "train", *NORMALIZATIONS), first_batch),
    "memory_format": (MEMORY_FORMATS, first_batch),
    "precision": (PRECISIONS, lambda config: predict(config, IMAGES, LABELS, torch.nn.Flatten())),
    "epoch": (("pool", "rows"), lambda config: tiny.select(config)),
    "positive_class": (POSITIVE_CLASSES, lambda config: tiny.select(config)),
}
"""Fields of a configuration → the table of their values, and what runs what it has for one."""


def run_with(field: str) -> Callable[[str], object]:
    return lambda value: VALUES[field][1](unchecked(**{field.partition(",")[0]: value}))


REGISTRIES |= {
    f"values of {field}": Registry(dict.fromkeys(table), run_with(field)) for field, (table, _) in VALUES.items()
}
EVERY_NAME = [(registry, name) for registry in REGISTRIES for name in REGISTRIES[registry].table]


@pytest.mark.parametrize(("registry", "name"), EVERY_NAME)
def test_every_name_works(registry: str, name: str) -> None:
    assert REGISTRIES[registry].use(name) is not None


@pytest.mark.parametrize("registry", REGISTRIES)
def test_the_factory_itself_refuses_an_unknown_name(registry: str) -> None:
    """Check the message, which shows the nearest name, and all names or the first of many."""
    table, use = REGISTRIES[registry].table, REGISTRIES[registry].use
    name = max(table, key=len)
    with pytest.raises(InputError, match=f"{name}z.*did you mean") as raised:
        use(f"{name}z")
    assert name in str(raised.value).partition("did you mean")[2]
    with pytest.raises(InputError, match="§§§") as raised:
        use("§§§")
    shown = list(table)[: LISTED if len(table) > LONG_LIST else None]
    assert all(allowed in str(raised.value) for allowed in shown)


@pytest.mark.parametrize("field", VALUES)
def test_a_field_allows_what_its_table_has(field: str) -> None:
    """Compare the names: the configuration keeps them apart from what they run, as it must not import torch."""
    assert list(VALUES[field][0]) == list(FIELDS[field.partition(",")[0]].metadata["allowed"].names)


def test_no_field_has_names_without_a_table() -> None:
    named = {name for name, field in FIELDS.items() if isinstance(field.metadata["allowed"], OneOf)}
    flags = {name for name in named if FIELD_TYPES[name] is bool}
    elsewhere = {"model", "metric"}  # registries of their own
    assert named - flags - elsewhere == {field.partition(",")[0] for field in VALUES}


def test_sources_and_spaces_have_the_names_that_they_are_listed_under() -> None:
    assert [datasets.make_source(name).name for name in datasets.SOURCES] == list(datasets.SOURCES)
    assert set(search_spaces.SPACES) <= set(datasets.SOURCES)


@pytest.mark.parametrize("dataset", [*datasets.SOURCES, "/a/path"])
def test_every_data_set_has_a_search_space(dataset: str) -> None:
    space = Situation().make(search_spaces.load(dataset))
    assert not list(soundness.problems(space))


def test_every_data_set_is_named_where_a_reader_looks_for_one() -> None:
    page = (ROOT / "docs" / "your-data.md").read_text()
    for name, source in datasets.SOURCES.items():
        assert f"| `{name}` | {source.help} |" in page
        assert name in datasets.DATASET_HELP


def test_every_recipe_has_a_row_in_the_docs() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    assert [name for name in recipes.RECIPES if f"| `{name}` |" not in page] == []


def test_help_has_every_name(command: Command) -> None:
    text = " ".join(command("orchestrator.sweep", "--help").out.replace("│", " ").split())
    for table in (SAMPLERS, SCHEDULERS):
        assert "|".join(table) in text
        assert [name for name, entry in table.items() if f"{name} {entry.help}" not in text] == []
    assert [name for name, what in datasets.BAD_IMAGE_POLICIES.items() if f"{name}: {what}" not in text] == []
    for names in (datasets.SOURCES, recipes.RECIPES, METRICS, [TRACKERS[name].usage(name) for name in TRACKERS]):
        assert ", ".join(names) in text


def test_every_tracker_has_a_row_in_the_docs() -> None:
    page = (ROOT / "docs" / "logging.md").read_text()
    assert [name for name in TRACKERS if f"| `{TRACKERS[name].usage(name)}` |" not in page] == []
