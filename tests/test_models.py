"""Models: one harness for every family, the CIFAR ResNets' sizes, initial weights, no network."""

from __future__ import annotations

import hashlib
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model_weights, regnet

from trainables.config import TrialConfig
from trainables.errors import ConfigError, WeightsError
from trainables.model_names import CIFAR_RESNETS, MODELS, TORCHVISION
from trainables.models import heads, inputs, small_nets, sources, torchvision_models, weights
from trainables.models.build import build

REPRESENTATIVES = (
    "simple_cnn", "resnet20", "resnet18", "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v3_small", "regnet_x_400mf",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg11", "vit_b_32",
)  # fmt: skip
CLASSES = 7


def smallest(name: str) -> int:
    """Return an image size that the family takes with the small stem."""
    return {"inception_v3": 48, "maxvit_t": 112}.get(name, 32)


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Build models without memory: shapes are computed, values are not."""
    widths = regnet.BlockParams.from_init_params

    def on_the_cpu(*args: Any, **kwargs: Any) -> Any:  # RegNet computes its widths with tensors
        with torch.device("cpu"):
            return widths(*args, **kwargs)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", on_the_cpu)
    with torch.device("meta"):
        yield


# The harness


def conforms(name: str) -> None:
    size = smallest(name)
    model = build(TrialConfig(model=name, stem="small", dropout=0.37), CLASSES, size)
    assert model.training
    assert_dropout_before_the_head(model, 0.37)
    seen = watch_first_convolutions(model)
    logits = model(torch.zeros(2, 3, size, size))
    assert (logits.shape, logits.dtype) == ((2, CLASSES), torch.float32)
    assert {shape[2:] for shape in seen} == {kept_resolution(model, size)}
    logits.sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    other = build(TrialConfig(model=name, stem="small"), CLASSES, size)
    other.load_state_dict(model.state_dict(), assign=True)
    assert_dropout_before_the_head(other, 0.0)


def assert_dropout_before_the_head(model: nn.Module, dropout: float) -> None:
    """Check that some dropout has the trial's probability and none another; those of attention are off."""
    found = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    assert dropout in found
    assert found <= {dropout, 0.0}


def watch_first_convolutions(model: nn.Module) -> list[torch.Size]:
    """Return a list that a forward pass fills: the first convolution's output shape, the second one's input shape."""
    seen: list[torch.Size] = []
    first, *others = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    first.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    if others and not isinstance(model, torchvision.models.VGG | small_nets.SimpleCNN):  # which pool between them
        others[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    return seen


def kept_resolution(model: nn.Module, size: int) -> tuple[int, int]:
    if isinstance(model, torchvision.models.SwinTransformer):
        return (16, 16)
    return (8, 8) if isinstance(model, torchvision.models.VisionTransformer) else (size, size)


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_families(name: str) -> None:
    conforms(name)


@pytest.mark.slow
@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("name", sorted(set(MODELS) - set(REPRESENTATIVES)))
def test_every_model(name: str) -> None:
    conforms(name)


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_the_imagenet_stem_is_torchvisions(name: str) -> None:
    size = 299 if name == "inception_v3" else 224
    model = build(TrialConfig(model=name), 1000, size)
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 1000)
    if name in TORCHVISION:
        named = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        original = torchvision.models.get_model(name, **named)
        shapes = {key: tensor.shape for key, tensor in original.state_dict().items()}
        bias = {"classifier.5.bias"} if name == "maxvit_t" else set()  # its own head has none
        assert {k: t.shape for k, t in model.state_dict().items() if k not in bias} == shapes


def test_the_list_of_names_is_torchvisions() -> None:
    assert sorted(TORCHVISION) == sorted(torchvision.models.list_models(module=torchvision.models))
    assert all(hasattr(get_model_weights(name), "DEFAULT") for name in TORCHVISION)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_a_seed_fixes_the_weights(name: str) -> None:
    def made(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return build(TrialConfig(model=name), CLASSES, 16).state_dict()

    one, again, other = made(1), made(1), made(2)
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_dropout_acts_in_training_only() -> None:
    model = build(TrialConfig(model="resnet8", dropout=0.5), CLASSES, 8)
    images = torch.rand(4, 3, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    torch.testing.assert_close(model(images), model(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("size", "stem", "kernel"), [(63, "auto", 3), (64, "auto", 7), (64, "small", 3), (32, "imagenet", 7)]
)
def test_auto_is_the_small_stem_below_64_pixels(size: int, stem: str, kernel: int) -> None:
    model = build(TrialConfig(model="resnet18", stem=stem), CLASSES, size)
    assert isinstance(model.conv1, nn.Conv2d)
    assert model.conv1.kernel_size == (kernel, kernel)
    assert isinstance(model.maxpool, nn.Identity) is (kernel == 3)


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize(
    ("name", "size", "stem"),
    [
        ("inception_v3", 8, "auto"),
        ("vgg11", 28, "auto"),
        ("maxvit_t", 32, "auto"),
        ("vit_b_16", 100, "imagenet"),
        ("alexnet", 32, "imagenet"),
    ],
)
def test_a_size_that_a_model_cannot_take_is_named(name: str, size: int, stem: str) -> None:
    with pytest.raises(ConfigError, match=rf"model={name} .*{size}×{size} pixels .*use .*larger images"):
        build(TrialConfig(model=name, stem=stem), CLASSES, size)


@pytest.mark.parametrize(
    ("size", "least", "largest", "patch"),
    [
        (32, 8, 16, 4),
        (28, 8, 16, 2),
        (8, 8, 16, 1),
        (4, 8, 16, 1),
        (224, 8, 16, 16),
        (32, 16, 4, 2),
        (64, 16, 4, 4),
    ],
)
def test_patches(size: int, least: int, largest: int, patch: int) -> None:
    assert torchvision_models._patch(size, least, largest) == patch


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("size", [32, 64, 100, 224])
@pytest.mark.parametrize("name", ["vgg16", "vit_b_16", "simple_cnn", "resnet50"])
def test_the_arms_of_comparisons_take_small_images(name: str, size: int) -> None:
    model = build(TrialConfig(model=name, stem="small" if size == 100 else "auto"), CLASSES, size)
    assert model(torch.zeros(2, 3, size, size)).shape == (2, CLASSES)


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize(("size", "tokens"), [(32, 5), (64, 17), (96, 37)])
def test_a_vision_transformer_keeps_its_patches_with_the_imagenet_stem(size: int, tokens: int) -> None:
    model = build(TrialConfig(model="vit_b_16", stem="imagenet"), CLASSES, size)
    assert isinstance(model.conv_proj, nn.Conv2d)
    assert model.conv_proj.kernel_size == (16, 16)
    assert model.seq_length == tokens
    assert model(torch.zeros(2, 3, size, size)).shape == (2, CLASSES)


@pytest.mark.usefixtures("meta")
def test_a_size_that_fits_is_named_where_patches_do_not() -> None:
    with pytest.raises(ConfigError, match="100 pixels are not a whole number of patches of 16, 112 are"):
        build(TrialConfig(model="vit_b_16", stem="imagenet"), CLASSES, 100)


# The simple CNN


@pytest.mark.parametrize(("size", "side"), [(8, 1), (16, 2), (28, 3), (32, 4), (100, 4)])
def test_the_simple_cnn(size: int, side: int) -> None:
    model = build(TrialConfig(model="simple_cnn"), CLASSES, size)
    kinds = [type(module).__name__ for module in model.features]  # type: ignore[union-attr]
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d"] * 3
    assert [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == [32, 64, 128]
    assert isinstance(model.hidden, nn.Linear)
    assert (model.hidden.in_features, model.hidden.out_features) == (128 * side**2, 128)
    assert model(torch.zeros(2, 3, size, size + 4)).shape == (2, CLASSES)


def test_the_simple_cnn_has_a_head_as_others_have() -> None:
    model = build(TrialConfig(model="simple_cnn", head_width=5, freeze=True, dropout=0.3), CLASSES, 16)
    heads.freeze_base(model)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {"fc.hidden.weight", "fc.hidden.bias", "fc.output.weight", "fc.output.bias"}


def test_what_the_simple_cnn_cannot_do() -> None:
    with pytest.raises(ConfigError, match="has no published ImageNet weights"):
        build(TrialConfig(model="simple_cnn", weights="imagenet"), CLASSES, 32)
    with pytest.raises(ConfigError, match=r"cannot take images of 7×7 pixels; use images of 8"):
        build(TrialConfig(model="simple_cnn"), CLASSES, 7)


# The CIFAR ResNets


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85), ("resnet110", 1.7)],
)
def test_cifar_resnets_have_the_papers_size(name: str, millions: float) -> None:
    model = build(TrialConfig(model=name), 10, 32)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert round(parameters / 1e6, 2 if millions < 1 else 1) == millions
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == int(name.removeprefix("resnet"))  # shortcuts have no parameters


def test_the_shortcut_strides_and_pads_with_zeros() -> None:
    block = small_nets.CifarBlock(2, 4).eval()
    nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    images = torch.rand(1, 2, 5, 5)
    expected = torch.cat((images[:, :, ::2, ::2], torch.zeros(1, 2, 3, 3)), dim=1)
    assert torch.equal(block(images), expected)


@pytest.mark.parametrize("name", CIFAR_RESNETS)
def test_cifar_resnets_have_no_imagenet_weights(name: str) -> None:
    with pytest.raises(ConfigError, match=f"model={name} has no published ImageNet weights"):
        build(TrialConfig(model=name, weights="imagenet"), 10, 32)


def test_cifar_resnets_do_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, module, None)  # to import it would raise
    build(TrialConfig(model="resnet8"), 10, 32)


# Initial weights


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "_read", {})
    monkeypatch.setattr(inputs, "_known", {})
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def publish(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> dict[str, torch.Tensor]:
    """Save new weights in torchvision's layout where torch.hub looks for them, named by their hash; return them."""
    model = torchvision.models.get_model(name, **arguments)
    file = folder / "made.pth"
    torch.save(model.state_dict(), file)
    published = folder / f"{name}-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    file.rename(published)
    monkeypatch.setattr(get_model_weights(name).DEFAULT.value, "url", f"https://weights.invalid/{published.name}")
    return dict(model.state_dict())


def left_random(name: str, published: dict[str, torch.Tensor], **fields: Any) -> set[str]:
    """Return the names of the weights that are not the published ones."""
    size = fields.pop("size", 32)
    built = build(TrialConfig(model=name, weights="imagenet", **fields), CLASSES, size).state_dict()
    return {key for key, tensor in built.items() if not torch.equal(tensor, published.get(key, torch.empty(0)))}


@pytest.mark.parametrize(
    ("name", "arguments", "head", "stem"),
    [
        ("resnet18", {}, {"fc.weight", "fc.bias"}, {"conv1.weight"}),
        ("mnasnet0_5", {}, {"classifier.1.weight", "classifier.1.bias"}, set()),
        (
            "googlenet",
            {"aux_logits": True, "init_weights": False},
            {"fc.weight", "fc.bias"},
            {"conv1.conv.weight"},
        ),
    ],
)
def test_imagenet_weights(
    name: str,
    arguments: dict[str, Any],
    head: set[str],
    stem: set[str],
    hub: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published = publish(name, hub, monkeypatch, **arguments)
    assert left_random(name, published, stem="imagenet", size=64) == head
    assert left_random(name, published, stem="small") == head | stem


def test_imagenet_weights_of_a_densenet_as_they_were_saved(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = publish("densenet121", hub, monkeypatch)
    (file,) = hub.iterdir()
    old = {key.replace("norm1", "norm.1").replace("conv2", "conv.2"): tensor for key, tensor in published.items()}
    torch.save(old, file)
    monkeypatch.setattr(sources, "downloaded", lambda path, url: path)  # its hash is another now
    assert left_random("densenet121", published) == {"classifier.weight", "classifier.bias"}


def test_damaged_weights_are_refused(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("squeezenet1_1", hub, monkeypatch)
    (file,) = hub.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=rf"{file} is damaged.*delete it"):
        build(TrialConfig(model="squeezenet1_1", weights="imagenet"), CLASSES, 32)


def test_no_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    url = get_model_weights("squeezenet1_1").DEFAULT.url
    with pytest.raises(WeightsError) as raised:
        build(TrialConfig(model="squeezenet1_1", weights="imagenet"), CLASSES, 32)
    file = hub / url.rsplit("/", 1)[1]
    assert f"not at {file}" in str(raised.value)
    assert url in str(raised.value)
    assert list(hub.iterdir()) == []
