"""What search spaces are made for: presets, pretrained nets, and the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import search_spaces
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from search_spaces import pretrained, soundness
from search_spaces.situation import PRESETS, Pictures, Situation
from search_spaces.stage import quotas
from trainables.splits import SearchData

SPACES = ("digits", "cifar10", "fashion-mnist", "/own")
SEARCHED = {"lr", "dropout", "label_smoothing", "train_fraction"}


def data(images: np.ndarray, validation: list[int], pool: list[int]) -> SearchData:
    rows = np.array(validation), np.array(pool)
    moments = np.zeros(3, np.float32), np.ones(3, np.float32)
    return SearchData(images, np.zeros(len(images), np.int64), ("a", "b"), *rows, *moments, "")


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dataset", SPACES)
def test_every_default_space_searches_what_a_sweep_is_for(dataset: str, preset: str, gpu: bool) -> None:
    space = Situation(gpu, preset).make(search_spaces.load(dataset))
    assert set(space.distributions) >= SEARCHED


@pytest.mark.parametrize("gpu", [False, True])
def test_pretrained_nets_are_a_resnet_and_an_efficientnet(gpu: bool) -> None:
    nets = pretrained.NETS[gpu]
    space = Situation(gpu, "good", "imagenet", nets).make(pretrained.space)
    models = space.values("model")
    assert set(space.distributions) >= SEARCHED
    assert any(name.startswith("resnet") for name in models)
    assert any(name.startswith("efficientnet") for name in models)


@pytest.mark.parametrize("dataset", SPACES[1:])
def test_with_a_gpu_nets_from_scratch_are_resnets_and_efficientnets(dataset: str) -> None:
    models = Situation(gpu=True).make(search_spaces.load(dataset)).values("model")
    assert models == ("resnet18", "efficientnet_b0")


def test_presets_search_more_and_more() -> None:
    trials = [Situation(False, preset).make(search_spaces.load("digits")).trials for preset in PRESETS]
    assert trials == [6, 24, 72]


def test_a_cpu_computes_no_more_features_than_it_has_time_for() -> None:
    seen = pretrained.Seen(("resnet18", "resnet34", "resnet50"), ("pad", "crop"))
    found = [seen.affordable(rows, 12_000) for rows in (1_000, 2_000, 4_000, 6_000, 9_000)]
    assert [(len(part.nets), part.fits, part.views) for part in found] == [
        (3, ("pad", "crop"), "flip"),
        (3, ("pad",), "flip"),
        (3, ("pad",), "one"),
        (2, ("pad",), "one"),
        (1, ("pad",), "one"),
    ]


@pytest.mark.parametrize(
    ("preset", "gpu", "heads", "tuned"),
    [("quick", True, 8, 0), ("good", False, 48, 0), ("good", True, 48, 12), ("best", False, 96, 6)],
)
def test_heads_come_first_and_whole_nets_after_them(preset: str, gpu: bool, heads: int, tuned: int) -> None:
    space = Situation(gpu, preset, "imagenet", ("resnet18", "resnet34"), 500).make(pretrained.space)
    assert not list(soundness.problems(space))
    assert space.trials == heads + tuned
    if tuned:
        assert quotas(space.stages, space.trials) == [heads, tuned]
        assert [stage.fixed for stage in space.stages] == [{"freeze": True}, {"freeze": False}]
        assert {name for name in space.distributions if not space.active(name, {"freeze": True})} == set(
            pretrained.FINE_TUNING
        )


def test_heads_are_not_augmented() -> None:
    space = Situation(True, "good", "imagenet", ("resnet18", "resnet34"), 500).make(pretrained.space)
    assert not space.config({"freeze": True}).augments


def test_heads_on_few_pictures_train_for_more_epochs() -> None:
    def epochs(rows: int | None) -> int:
        situation = Situation(False, "good", "imagenet", ("resnet18",), rows)
        return situation.make(pretrained.space).base.max_epochs

    assert [epochs(rows) for rows in (None, 100, 1_000, 100_000)] == [5, 40, 25, 5]


def test_pictures_are_counted_and_measured() -> None:
    images = np.zeros((10, 8, 8, 3), np.uint8)
    assert Pictures.of(data(images, [0, 1], [2, 3, 4])) == Pictures(5, square=True)
    assert Pictures.of(data(images, [0, 1, 2], [0, 1, 2])) == Pictures(3, square=True)
    assert Pictures.of(data(images[:, :, :6], [0], [1])) == Pictures(2, square=False)


def test_named_data_sets_begin_from_scratch_unless_weights_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "resnet18.safetensors").touch()
    asked = str(tmp_path / "resnet18.safetensors")
    assert Request(SweepOptions("digits")).situation(gpu=False).nets == ()
    found = Request(SweepOptions("digits", weights=asked)).situation(gpu=False)
    assert (found.nets, found.weights) == (("resnet18",), asked)
    assert Request(SweepOptions("digits", weights="imagenet")).situation(gpu=True).nets == pretrained.NETS[True]
    one = Request(SweepOptions("digits", weights="imagenet", set=("model=resnet34",)))
    assert one.situation(gpu=True).nets == ("resnet34",)


def test_weights_of_timm_name_their_net() -> None:
    found = Request(SweepOptions("digits", weights="timm:resnet18.a1_in1k")).situation(gpu=False)
    assert (found.nets, found.weights) == (("timm:resnet18",), "timm:resnet18.a1_in1k")


def test_pictures_of_ones_own_begin_with_nets_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert Request(SweepOptions("/own")).situation(gpu=False) == Situation()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth").touch()
    found = Request(SweepOptions("/own")).situation(gpu=False)
    assert (found.nets, found.weights) == (("resnet18",), "imagenet")
    assert Request(SweepOptions("/own", weights="none")).situation(gpu=False) == Situation()
