"""Search spaces: what `--set` and `--search` mean, and what the shipped spaces search."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces import soundness
from search_spaces.changes import override, parse
from search_spaces.distributions import Distribution
from search_spaces.grid import Grid
from search_spaces.space import SearchSpace, choice, integer, log, uniform
from trainables.config import TrialConfig
from trainables.errors import ConfigError

SHIPPED = ("digits", "cifar10", "fashion_mnist", "generic")
EMPTY = SearchSpace(TrialConfig())


def problems(*, sets: tuple[str, ...] = (), searches: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        override(EMPTY, *parse(sets, searches))
    return caught.value.problems


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("quick", [False, True])
def test_shipped_spaces_search_what_matters(name: str, gpu: bool, quick: bool) -> None:
    space = importlib.import_module(f"search_spaces.{name}").space(gpu=gpu, quick=quick)
    assert {"lr", "dropout", "label_smoothing", "train_fraction", "weight_decay"} <= set(space.distributions)
    for distribution in space.distributions.values():
        if not isinstance(distribution, CategoricalDistribution):
            assert distribution.low < distribution.high
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_a_bare_cifar10_sweep_follows_the_machine() -> None:
    module = importlib.import_module("search_spaces.cifar10")
    small, large = module.space(gpu=False, quick=False), module.space(gpu=True, quick=False)
    assert (small.base.model, small.base.max_epochs, small.trials) == ("resnet20", 6, 16)
    assert (large.values("model"), large.base.max_epochs, large.trials) == (("resnet18", "efficientnet_b0"), 30, 40)


def test_every_form_of_distribution() -> None:
    searches = [
        "lr=log(1e-4,1e-1)",
        "dropout=uniform(0, 0.5, 0.1)",
        "batch_size=int(32,128,32)",
        "flip=choice(true,false)",
    ]
    found = override(EMPTY, *parse([], [*searches, "model=choice(resnet8,resnet20)"])).distributions
    assert found == {
        "lr": FloatDistribution(1e-4, 1e-1, log=True),
        "dropout": FloatDistribution(0, 0.5, step=0.1),
        "batch_size": IntDistribution(32, 128, step=32),
        "flip": CategoricalDistribution((True, False)),
        "model": CategoricalDistribution(("resnet8", "resnet20")),
    }


def test_a_field_that_is_set_is_searched_no_more() -> None:
    space = SearchSpace(TrialConfig(), {"lr": log(0.1, 1), "dropout": uniform(0, 0.5)})
    found = override(space, *parse(["lr=1"], []))
    assert (set(found.distributions), found.base.lr) == ({"dropout"}, 1.0)
    assert found.config({"dropout": 0.2}, seed=3) == TrialConfig(lr=1.0, dropout=0.2, seed=3)


CONDITIONAL = SearchSpace(
    TrialConfig(brightness=0.1),
    {
        "momentum": uniform(0.8, 0.9),
        "optimizer": choice("sgd", "adam"),
        "schedule": choice("cosine", "one_cycle"),
        "warmup": choice(0.1, 0.2),
        "saturation": uniform(0, 0.5),
    },
    conditions={
        "momentum": {"optimizer": ("sgd",), "schedule": ("one_cycle",)},
        "warmup": {"schedule": ("one_cycle",)},
    },
    ties={"contrast": "saturation"},
)


def test_a_field_with_a_condition_is_searched_where_it_holds() -> None:
    space = CONDITIONAL
    assert not list(soundness.problems(space))
    order = space.order()
    assert max(order.index("optimizer"), order.index("schedule")) < order.index("momentum")
    assert space.active("momentum", {"optimizer": "sgd", "schedule": "one_cycle"})
    assert not space.active("momentum", {"optimizer": "adam", "schedule": "one_cycle"})
    assert not space.active("momentum", {"optimizer": "sgd"}), "the base's schedule is cosine"
    assert space.describe("momentum") == "uniform(0.8, 0.9) if optimizer=sgd and schedule=one_cycle"
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_a_field_without_its_condition_has_the_bases_value() -> None:
    assert CONDITIONAL.config({"optimizer": "adam"}).momentum == TrialConfig.momentum
    assert CONDITIONAL.config({"optimizer": "sgd", "momentum": 0.85}).momentum == 0.85
    assert set(CONDITIONAL.values("warmup")) == {0.1, 0.2, 0.0}


def test_a_tied_field_has_the_others_value() -> None:
    config = CONDITIONAL.config({"saturation": 0.3})
    assert (config.contrast, config.saturation, config.brightness) == (0.3, 0.3, 0.1)
    found = override(CONDITIONAL, *parse(["saturation=0.2"], []))
    assert (found.base.contrast, found.ties) == (0.2, {})
    found = override(CONDITIONAL, *parse(["contrast=0.4"], []))
    assert (found.config({"saturation": 0.2}).contrast, found.ties) == (0.4, {})
    found = override(CONDITIONAL, *parse([], ["contrast=uniform(0,0.1)", "brightness=same(contrast)"]))
    assert found.ties == {"brightness": "contrast"}


@pytest.mark.parametrize(
    ("settings", "searched", "conditions"),
    [
        (["optimizer=sgd"], {"momentum", "schedule", "warmup"}, {"momentum": ["schedule"], "warmup": ["schedule"]}),
        (["optimizer=adam"], {"schedule", "warmup"}, {"warmup": ["schedule"]}),
        (["schedule=cosine"], {"optimizer"}, {}),
        (["schedule=one_cycle", "optimizer=sgd"], {"momentum", "warmup"}, {}),
        (["momentum=0.5"], {"optimizer", "schedule", "warmup"}, {"warmup": ["schedule"]}),
    ],
)
def test_what_is_set_decides_the_conditions_on_it(
    settings: list[str], searched: set[str], conditions: dict[str, list[str]]
) -> None:
    found = override(CONDITIONAL, *parse(settings, []))
    assert set(found.distributions) == searched | {"saturation"}
    assert {name: list(condition) for name, condition in found.conditions.items()} == conditions


def test_what_is_searched_anew_loses_its_condition() -> None:
    found = override(
        CONDITIONAL, *parse([], ["momentum=uniform(0.1,0.2) if optimizer=sgd|adam", "warmup=uniform(0,0.5)"])
    )
    assert found.conditions == {"momentum": {"optimizer": ("sgd", "adam")}}


def test_a_grid_has_every_point_of_every_branch_once() -> None:
    axes = {"saturation": choice(0, 0.1), "momentum": choice(0.8, 0.9, 0.95)}
    space = replace(CONDITIONAL, distributions={**CONDITIONAL.distributions, **axes})
    points = list(Grid(space, seed=1))
    assert len(points) == len({tuple(sorted(point.items())) for point in points})
    # saturation × (optimizer × (one_cycle: warmup × (sgd: momentum), cosine))
    assert len(points) == 2 * ((2 * 3 + 1) + (2 + 1))
    assert len({space.config(point).digest() for point in points}) == len(points)
    for point in points:
        assert all((name in point) == space.active(name, point) for name in space.distributions)


def test_weights_have_new_names_wherever_they_stand() -> None:
    space = SearchSpace(
        TrialConfig(weights="a.safetensors"),
        {"weights": choice("a.safetensors", "none"), "freeze": choice(True, False)},
        conditions={"freeze": {"weights": ("a.safetensors",)}},
    )
    found = space.renamed("weights", {"a.safetensors": "/there/a.safetensors"})
    assert found.values("weights") == ("/there/a.safetensors", "none")
    assert found.active("freeze", {"weights": "/there/a.safetensors"})
    assert found.active("freeze", {})
    assert found.describe("freeze") == "choice(true, false) if weights=/there/a.safetensors"


def test_all_wrong_values_are_named_at_once() -> None:
    found = "\n".join(
        problems(
            sets=("modle=resnet18", "lr=-1", "batch_size=2.5", "flip=maybe", "seed=3", "nonsense"),
            searches=("dropout=uniform(0.5,1.5)", "model=choice(a,resnet8)", "weight_decay=logg(1,2)"),
        )
    )
    for part in ("did you mean model?", "lr=-1", "batch_size=2.5", "flip='maybe'", "use --seed", "'nonsense'"):
        assert part in found
    for part in ("dropout=1.5", "model='a'", "weight_decay=logg(1,2)"):
        assert part in found


@pytest.mark.parametrize(
    "search",
    [
        "lr=log(0.1)", "lr=log(1,0.1)", "lr=log(0,1)", "lr=uniform(a,b)", "lr=choice()", "lr=choice(1,1.0)", "lr=0.1",
        "lr=", "batch_size=uniform(1,2)", "model=log(1,2)", "batch_size=int(1.5,3)", "max_epochs=int(1,5)",
        "lr=uniform(0.1,1,0.4)", "lr=uniform(0.1,1,0)", "lr=uniform(0,1e999,0.1)", "batch_size=int(32,100,32)",
    ],
)  # fmt: skip
def test_wrong_distributions_are_reported(search: str) -> None:
    assert problems(searches=(search,))


def test_arithmetic_in_a_distribution() -> None:
    searches = ["lr=log(10**-4, 1/10)", "dropout=uniform(-0.25 + 0.25, 5e-1 * 1)", "batch_size=int(2**5, 128 - 2*32)"]
    found = override(EMPTY, *parse([], searches)).distributions
    assert found == {
        "lr": FloatDistribution(10**-4, 0.1, log=True),
        "dropout": FloatDistribution(0, 0.5),
        "batch_size": IntDistribution(32, 64),
    }


@pytest.mark.parametrize(
    ("search", "why"),
    [
        ("lr=log(10**10**10,1)", "Numerical result out of range"),
        ("lr=log(lr,1)", "lr is not a number"),
        ("lr=log(open('x'),1)", "open('x') is not a number"),
        ("lr=log('a','b')", "'a' is not a number"),
        ("lr=log(True,1)", "True is not a number"),
        ("lr=log(1/0,1)", "division by zero"),
        ("lr=log(0,1)", "LOW is 0 and HIGH is 1"),
        ("lr=log(1,0.1)", "LOW is 1 and HIGH is 0.1"),
        ("lr=log(1e-4)", "two numbers are needed"),
        ("lr=log(1,2,3)", "two numbers are needed"),
        ("lr=log(0.1", "this is not complete"),
        ("lr=log", "this is not complete"),
    ],
)
def test_what_a_distribution_lacks_is_named_plainly(search: str, why: str) -> None:
    assert problems(searches=(search,)) == [f"{search}: {why}; write log(LOW,HIGH), with LOW above 0 and below HIGH"]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("lr=uniform(1,0)", "LOW is 1 and HIGH is 0; write uniform(LOW,HIGH[,STEP]), with LOW below HIGH"),
        ("lr=uniform(0.1,0.3,0)", "STEP is 0, and must be above 0; write uniform(LOW,HIGH[,STEP]), with LOW below"),
        ("batch_size=int(1)", "two or three numbers are needed; write int(LOW,HIGH[,STEP]), with LOW below HIGH"),
        ("lr=0.1", "one value is set, not searched; write --set lr=0.1, or in a space file lr under set"),
        ("model=resnet18", "one value is set, not searched; write --set model=resnet18"),
        ("lr=[0.1, 0.3]", "several values are a choice; write choice(0.1,0.3)"),
        ("model=['resnet8', 'resnet18']", "several values are a choice; write choice(resnet8,resnet18)"),
        ("lr=0.1;0.3", "several values are a choice; write choice(0.1,0.3)"),
        ("lr=[0.1, fast]", "unknown distribution (allowed: log(LOW,HIGH), "),
        ("lr=lgo(1,2)", "unknown distribution; did you mean log? (allowed: "),
    ],
)
def test_what_is_no_distribution_is_named_with_what_to_write(search: str, message: str) -> None:
    (found,) = problems(searches=(search,))
    assert found.startswith(f"{search}: {message}")


def test_set_and_searched_contradict() -> None:
    assert "both set and searched" in problems(sets=("lr=1",), searches=("lr=log(0.1,1)",))[0]


def test_a_grid_has_every_point_once() -> None:
    axes: dict[str, Distribution] = {
        "lr": choice(0.1, 0.3),
        "dropout": uniform(0.0, 0.3, 0.1),
        "batch_size": integer(32, 64, 32),
    }
    grid = Grid(SearchSpace(TrialConfig(), axes), seed=1)
    points = {tuple(sorted(point.items())) for point in grid}
    assert len(grid) == len(points) == 2 * 4 * 2
    assert {dict(point)["dropout"] for point in points} == {0.0, 0.1, 0.2, 0.3}
    assert list(grid) != list(Grid(SearchSpace(TrialConfig(), axes), seed=2))


def test_a_grid_needs_steps() -> None:
    with pytest.raises(ConfigError, match="lr: a grid needs steps"):
        Grid(SearchSpace(TrialConfig(), {"lr": log(0.1, 1)}), seed=0)
