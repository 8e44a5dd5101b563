"""The autos that weights decide: what published weights expect is what a trial gives them, and what it records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bundles
import pytest
import tiny
from torchvision.models import get_model_weights

from trainables import autos
from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.model_names import TORCHVISION
from trainables.models import inputs
from trainables.models.inputs import Inputs

STORED = (320, 320)


def resolved(device: str = "cpu", stored: tuple[int, int] = STORED, **fields: Any) -> tuple[int, str, str, str]:
    config = TrialConfig(**fields)
    found = autos.resolved(config, autos.image_size(config, stored, device))
    return found.image_size, found.stem, found.interpolation, found.normalization


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_known", {})


@pytest.mark.parametrize(
    ("device", "stored", "size", "stem"),
    [("cpu", STORED, 64, "imagenet"), ("cuda", STORED, 224, "imagenet"), ("cpu", (50, 40), 40, "small")],
)
def test_without_weights_images_decide(device: str, stored: tuple[int, int], size: int, stem: str) -> None:
    assert resolved(device, stored, model="resnet18") == (size, stem, "bilinear", "train")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("stored", [STORED, (32, 32)])
@pytest.mark.parametrize(
    ("model", "weights", "expected"),
    [
        ("resnet18", "imagenet", (224, "imagenet", "bilinear", "imagenet")),
        ("efficientnet_b0", "imagenet", (224, "imagenet", "bicubic", "imagenet")),
        ("efficientnet_v2_l", "imagenet", (480, "imagenet", "bicubic", "half")),
        ("inception_v3", "imagenet", (299, "imagenet", "bilinear", "imagenet")),
        ("timm:tf_efficientnet_lite1", "imagenet", (240, "auto", "bicubic", "half")),
        ("timm:resnet10t", "timm:vit_base_patch16_clip_224.openai", (224, "auto", "bicubic", "clip")),
        ("timm:dpn68", "imagenet", (224, "auto", "bicubic", "dpn")),
        ("timm:volo_d1_224", "imagenet", (224, "auto", "bicubic", "imagenet")),
    ],
)
def test_published_weights_decide(
    model: str, weights: str, expected: tuple[int, str, str, str], device: str, stored: tuple[int, int]
) -> None:
    assert resolved(device, stored, model=model, weights=weights) == expected


def test_what_is_given_stays() -> None:
    given: dict[str, Any] = {"image_size": 96, "interpolation": "bilinear", "normalization": "train", "stem": "small"}
    found = resolved(model="efficientnet_b0", weights="imagenet", **given)
    assert found == (96, "small", "bilinear", "train")
    assert resolved(model="resnet18", weights="imagenet", stem="small")[0] == 64  # made for small images


def test_every_published_normalization_of_torchvision_has_a_name() -> None:
    for name in TORCHVISION:
        assert inputs.normalization(name, "imagenet") in ("imagenet", "half")


def test_an_unknown_normalization_is_refused_with_its_numbers() -> None:
    inputs.remember("resnet18", "imagenet", Inputs(224, (0.43, 0.411, 0.296), (0.213, 0.156, 0.143), "bilinear"))
    with pytest.raises(ConfigError, match=r"mean \(0.43, 0.411, 0.296\) and deviation \(0.213, .*set normalization to"):
        resolved(model="resnet18", weights="imagenet")
    assert resolved(model="resnet18", weights="imagenet", normalization="imagenet")[3] == "imagenet"


def test_a_file_is_what_its_description_or_its_name_says(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    assert resolved(model="timm:tf_efficientnet_lite2", weights=str(file)) == (260, "auto", "bicubic", "half")
    published = {"input_size": [3, 96, 96], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet10t", "pretrained_cfg": published}))
    assert resolved(model="timm:resnet10t", weights=str(tmp_path)) == (96, "auto", "bilinear", "half")


@pytest.mark.parametrize(("kind", "size"), [("IMAGENET1K_SWAG_E2E_V1", 384), ("IMAGENET1K_V1", 224)])
def test_a_file_of_torchvisions_is_the_one_of_its_name(tmp_path: Path, kind: str, size: int) -> None:
    file = tmp_path / Path(get_model_weights("vit_b_16")[kind].url).name
    file.touch()
    assert resolved(model="vit_b_16", weights=str(file))[0] == size


def test_a_file_without_a_publisher_is_as_no_weights(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").touch()
    assert resolved(model="resnet20", weights=str(tmp_path / "mine.pth")) == (64, "auto", "bilinear", "train")
    (tmp_path / "inception_v3.pth").touch()  # without the conversion of inputs that comes with weights=imagenet
    assert resolved(model="inception_v3", weights=str(tmp_path / "inception_v3.pth"))[3] == "half"


def test_a_trial_has_no_auto_and_its_losses_are_those_of_what_auto_stands_for() -> None:
    _, state = tiny.start(tiny.config())
    assert (state.config.image_size, state.config.interpolation, state.config.normalization) == (8, "bilinear", "train")
    auto = [tiny.lasting(one) for one in tiny.epochs(tiny.config())]
    spelled = tiny.config(image_size=8, interpolation="bilinear", normalization="train")
    assert auto == [tiny.lasting(one) for one in tiny.epochs(spelled)]


def test_a_bundle_has_no_auto(tmp_path: Path) -> None:
    made = bundles.make(tmp_path / "best", image_size=16, interpolation="bicubic")
    config = json.loads((made.folder / "config.json").read_text())["config"]
    assert (config["interpolation"], config["normalization"], config["image_size"]) == ("bicubic", "auto", 16)
    assert json.loads((made.folder / "preprocessing.json").read_text())["interpolation"] == "bicubic"


OLD = {
    **{name: value for name, value in TrialConfig().to_dict().items() if name != "interpolation"},
    "weights": "imagenet",
    "normalization": "train",
}


@pytest.mark.parametrize(
    ("fields", "stem", "interpolation"),
    [
        ({"image_size": 32}, "small", "bilinear"),
        ({"image_size": 64}, "auto", "bilinear"),
        ({"image_size": 32, "stem": "imagenet"}, "imagenet", "bilinear"),
        ({"image_size": 32, "model": "timm:resnet10t"}, "auto", "bilinear"),
        ({"image_size": 32, "weights": "none"}, "auto", "auto"),
    ],
)
def test_older_records_mean_what_they_meant(fields: dict[str, Any], stem: str, interpolation: str) -> None:
    config = TrialConfig.from_dict({**OLD, **fields})
    assert (config.stem, config.interpolation, config.normalization) == (stem, interpolation, "train")
