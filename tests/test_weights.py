"""Initial weights: read from files of every kind as tensors alone, mapped to a model's names, refused where wrong."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.errors import ConfigError, WeightsError
from trainables.models import heads, inputs, weights
from trainables.models.build import build, build_filled
from trainables.models.filling import Filled, best_names

CLASSES = 7
NETS = """
from torch import nn

def small(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))
"""


@pytest.fixture(autouse=True)
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_read", {})
    monkeypatch.setattr(inputs, "_known", {})


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return dict(build(TrialConfig(model="resnet8"), 10, 32).state_dict())


def filled(file: Path, model: str = "resnet8", size: int = 32, **fields: Any) -> tuple[nn.Module, Filled]:
    made, found = build_filled(TrialConfig(model=model, weights=str(file), **fields), CLASSES, size)
    assert found is not None
    return made, found


def refusal(file: Path, model: str = "resnet8", **fields: Any) -> str:
    with pytest.raises((WeightsError, ConfigError)) as raised:
        filled(file, model, **fields)
    (problem,) = raised.value.problems
    return problem


# Files


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_a_file_of_every_kind(suffix: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / f"mine{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    model, found = filled(file)
    loaded = model.state_dict()
    assert {key for key in loaded if not torch.equal(loaded[key], state[key])} == {"fc.weight", "fc.bias"}
    assert found == Filled(
        file.name,
        hashlib.sha256(file.read_bytes()).hexdigest(),
        loaded=len(state) - 2,
        drawn=("fc.weight", "fc.bias"),
        head=("fc.weight", "fc.bias"),
        left=0,
        prefix="",
    )


@pytest.mark.parametrize("nesting", [("state_dict",), ("model",), ("model_state",), ("ema",), ("model", "state_dict")])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "_orig_mod.module.", "model.encoder.", "module.module."]
)
def test_nested_and_prefixed_names(
    nesting: tuple[str, ...], prefix: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    content: Any = {prefix + name: tensor for name, tensor in state.items()}
    for key in reversed(nesting):
        content = {key: content, "epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}}
    torch.save(content, tmp_path / "mine.pth")
    model, found = filled(tmp_path / "mine.pth")
    assert (found.loaded, found.prefix) == (len(state) - 2, prefix)
    assert torch.equal(model.state_dict()["conv1.weight"], state["conv1.weight"])
    assert (f"{prefix!r} taken before the names" in str(found)) == bool(prefix)


def test_tensors_beside_the_prefix_count_as_left(state: dict[str, Tensor], tmp_path: Path) -> None:
    base = {f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("fc")}
    torch.save({**base, "head.weight": torch.zeros(9, 64), "head.bias": torch.zeros(9)}, tmp_path / "mine.pth")
    assert filled(tmp_path / "mine.pth")[1].left == 2


def test_damaged_files_of_every_length_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    for zipped in (True, False):
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        whole = file.read_bytes()
        for length in (*range(1, 4000, 171), *(len(whole) * part // 20 for part in range(20))):
            file.write_bytes(whole[:length])
            with pytest.raises(WeightsError, match=r"mine\.pth"):
                weights._tensors_of(file)


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")])
def test_tensors_that_are_no_arrays_are_named(tensor: Tensor, tmp_path: Path) -> None:
    torch.save({"fine": torch.zeros(2), "odd": tensor}, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match="odd is sparse, quantized or without values"):
        weights._tensors_of(tmp_path / "mine.pth")


@pytest.mark.parametrize(("weights", "mean"), [("imagenet", 0.5), ("none", 0.485), ("googlenet.pth", 0.485)])
def test_a_bundle_of_a_net_that_converts_its_images_describes_what_its_layers_see(weights: str, mean: float) -> None:
    config = {"model": "googlenet", "weights": weights, "normalization": "imagenet", "image_size": 96}
    found = inputs.described_in({"config": config})
    assert found is not None
    assert found.mean[0] == mean


def test_weights_of_a_net_with_two_heads_fit(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("levit_128s").state_dict(), tmp_path / "levit.pth")
    made = TrialConfig(model="timm:levit_128s", weights=str(tmp_path / "levit.pth"), image_size=224)
    _, found = build_filled(made, 7, 224)
    assert found is not None
    assert {name.split(".")[0] for name in found.head} == {"head", "head_dist"}
    assert set(found.drawn) == set(found.head)


def test_averaged_weights_come_first(state: dict[str, Tensor], tmp_path: Path) -> None:
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"model": state, "model_ema": averaged}, tmp_path / "mine.pth")
    model, _ = filled(tmp_path / "mine.pth")
    assert torch.equal(model.state_dict()["conv1.weight"], averaged["conv1.weight"])


def test_a_prefix_of_the_models_own() -> None:
    state = {"encoder.layer.weight": torch.zeros(2, 2), "encoder.norm.weight": torch.zeros(2)}
    assert best_names(state, state) == ("", state)
    plain = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}
    found = best_names(plain, state)
    assert found is not None
    assert found[0] == "+encoder."
    assert found[1].keys() == state.keys()
    assert best_names({"other": torch.zeros(3)}, state) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}, tmp_path / "a.safetensors")
    model, _ = filled(tmp_path / "a.safetensors")
    weight = model.state_dict()["conv1.weight"]
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, state["conv1.weight"].to(dtype).float(), rtol=0, atol=0)


class Attack:
    """A pickle that would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Attack(tmp_path / "mark")}, tmp_path / "mine.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    for name in ("mine.pth", "whole.pt"):
        problem = refusal(tmp_path / name)
        assert "would run code that is in it" in problem
        assert f"torch.load('{name}', weights_only=False" in problem
    assert not (tmp_path / "mark").exists()


def test_the_command_that_converts_a_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(build(TrialConfig(model="resnet8"), 10, 32), tmp_path / "whole.pt")
    command = refusal(tmp_path / "whole.pt").partition('python -c "')[2].rstrip('"')
    monkeypatch.chdir(tmp_path)
    exec(command)  # noqa: S102 - what the message says
    assert filled(tmp_path / "whole.safetensors")[1].drawn == ("fc.weight", "fc.bias")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("cut", [0, 1, 100])
def test_damaged_files(name: str, cut: int, state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / name
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    file.write_bytes(file.read_bytes()[: -cut or None][: -1 if cut else 0])
    problem = refusal(file)
    assert f"weights={file} cannot be read" in problem
    assert "\n" not in problem


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(2)], torch.zeros(3)])
def test_a_file_without_tensors_by_name(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    assert "holds no tensors by name" in refusal(tmp_path / "a.pth")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no such file or folder" in refusal(tmp_path / "a.pth")


# What fits


def test_another_net_is_refused_with_names_and_shapes_of_both(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(state, file)
    assert refusal(file, "resnet14").endswith(
        "of the model are not in the file, first blocks.3.conv1.weight (32, 16, 3, 3), blocks.3.bn1.weight (32,), "
        "blocks.3.bn1.bias (32,); it has no other tensors; use the weights of the same model"
    ) or "blocks.1.conv1.weight is (32, 16, 3, 3), not (16, 16, 3, 3)" in refusal(file, "resnet14")
    save_file({"a.weight": torch.zeros(3, 4), "bn1.num_batches_tracked": torch.tensor(3)}, file)
    weights._read.clear()
    assert "first conv1.weight (16, 3, 3, 3), bn1.weight (16,), bn1.bias (16,); it has a.weight (3, 4)" in refusal(file)


def test_a_part_of_a_users_model_is_loaded_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "a.safetensors"
    save_file({"0.weight": torch.ones(8, 3, 3, 3), "9.weight": torch.ones(2)}, file)
    model, found = filled(file, "mine_nets:small")
    assert model.state_dict()["0.weight"].unique().tolist() == [1.0]
    assert (found.loaded, found.left) == (1, 1)
    assert found.to_dict()["drawn_names"][:2] == ["0.bias", "1.weight"]
    assert "drawn at random: 0.bias, 1.weight, 1.bias and 2 more, a new head" in str(found)
    assert "lack 0.bias, 1.weight, 1.bias and 2 more, which would stay as drawn at random" in refusal(
        file, "mine_nets:small", freeze=True
    )
    sys.modules.pop("mine_nets")


def test_a_head_of_the_same_width_is_loaded_from_a_file(tmp_path: Path) -> None:
    mine = build(TrialConfig(model="resnet8", head_width=5), CLASSES, 32).state_dict()
    save_file(mine, tmp_path / "a.safetensors")
    model, found = filled(tmp_path / "a.safetensors", head_width=5)
    assert found.drawn == ()
    torch.testing.assert_close(model.state_dict(), mine, rtol=0, atol=0)


@pytest.mark.parametrize(
    "model", ["resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit_b_32", "swin_t"))]
)
def test_a_drawn_stem_in_a_frozen_base_is_refused(model: str, tmp_path: Path) -> None:
    file = tmp_path / f"{model}.pth"
    torch.save(build(TrialConfig(model=model), 10, 64).state_dict(), file)
    _, found = filled(file, model, freeze=True)
    assert found.drawn == found.head
    _, found = filled(file, model, stem="small")
    assert len(found.drawn) > len(found.head)
    assert "which would stay as drawn at random with freeze=true; use stem=imagenet" in refusal(
        file, model, stem="small", freeze=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(("stored", "size"), [(64, 96), (96, 64)])
def test_a_transformers_positions_are_interpolated_from_a_file(stored: int, size: int, tmp_path: Path) -> None:
    before = build(TrialConfig(model="vit_b_32", stem="imagenet"), 10, stored)
    nn.init.ones_(before.get_parameter("encoder.pos_embedding"))
    torch.save(before.state_dict(), tmp_path / "vit_b_32.pth")
    model, found = filled(tmp_path / "vit_b_32.pth", "vit_b_32", size)
    positions = model.get_parameter("encoder.pos_embedding")
    torch.testing.assert_close(positions, torch.ones(1, (size // 32) ** 2 + 1, 768))
    assert found.drawn == found.head


def test_timm_converts_what_its_models_had_otherwise(tmp_path: Path) -> None:
    model = "timm:vit_tiny_patch16_224"
    before = build(TrialConfig(model=model), 10, 64).state_dict()
    file = tmp_path / "vit_tiny_patch16_224.pth"
    torch.save({f"module.{name}": tensor for name, tensor in before.items()}, file)
    for size in (64, 96):
        weights._read.clear()
        torch.manual_seed(2)
        made, found = filled(file, model, size, freeze=True)
        assert set(found.drawn) == {"head.weight", "head.bias"}
        assert torch.equal(made.state_dict()["blocks.0.attn.qkv.weight"], before["blocks.0.attn.qkv.weight"])
        assert torch.equal(made.state_dict()["pos_embed"], before["pos_embed"]) == (size == 64)
    torch.manual_seed(2)
    drawn = build(TrialConfig(model=model, freeze=True), CLASSES, 96).state_dict()
    assert torch.equal(drawn["head.weight"], made.state_dict()["head.weight"])  # of the same seed


def test_weights_are_read_once(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(state, file)
    filled(file)
    file.unlink()
    filled(file, head_width=3)
    weights.release()
    assert "there is no such file" in refusal(file)


# Places


def test_each_model_takes_its_file_of_a_folder(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "resnet8.safetensors")
    torch.save(build(TrialConfig(model="resnet14"), 10, 32).state_dict(), tmp_path / "resnet14.pth")
    for model, name in (("resnet8", "resnet8.safetensors"), ("resnet14", "resnet14.pth")):
        assert filled(tmp_path, model)[1].source == name
    assert "has no weights of model=resnet20" in refusal(tmp_path, "resnet20")


def hub(folder: Path, repository: str, files: dict[str, bytes]) -> None:
    """Write what a download of a repository leaves in the cache of the Hugging Face Hub."""
    place = folder / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    for name, content in files.items():
        (snapshot / name).write_bytes(content)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("model", "source", "repository"),
    [
        ("timm:resnet10t", "timm:resnet10t.c3_in1k", "timm/resnet10t.c3_in1k"),
        ("timm:resnet10t", "imagenet", "timm/resnet10t.c3_in1k"),
        ("timm:resnet10t", "hf-hub:someone/net", "someone/net"),
    ],
)
def test_downloads_from_the_hub(offline: Path, model: str, source: str, repository: str, name: str) -> None:
    tensors = build(TrialConfig(model=model), 10, 32).state_dict()
    file = offline / name
    save_file(tensors, file) if name.endswith("safetensors") else torch.save(tensors, file)
    cfg = {"input_size": [3, 96, 96], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    description = json.dumps({"architecture": "resnet10t", "pretrained_cfg": cfg}).encode()
    hub(offline, repository, {name: file.read_bytes(), "config.json": description})
    made, found = build_filled(TrialConfig(model=model, weights=source), CLASSES, 32)
    assert found is not None
    assert set(found.drawn) == {"fc.weight", "fc.bias"}
    assert torch.equal(made.state_dict()["conv1.0.weight"], tensors["conv1.0.weight"])
    assert inputs.of(model, source) == inputs.Inputs(96, (0.5,) * 3, (0.5,) * 3, "bilinear")


@pytest.mark.parametrize(
    ("source", "repository"),
    [("timm:resnet10t.c3_in1k", "timm/resnet10t.c3_in1k"), ("hf-hub:someone/net@v2", "someone/net")],
)
def test_a_failing_download_says_what_to_do(offline: Path, source: str, repository: str) -> None:
    with pytest.raises(WeightsError) as raised:
        build(TrialConfig(model="timm:resnet10t", weights=source), CLASSES, 32)
    message = str(raised.value)
    assert (
        f"weights={source}: model.safetensors or pytorch_model.bin of {repository} is not in {offline / 'hub'}"
        in message
    )
    assert f"`hf download {repository} model.safetensors config.json --local-dir {repository.split('/')[1]}`" in message
    assert "with weights=none it needs no network" in message


@pytest.mark.parametrize(
    ("model", "source", "message"),
    [
        (
            "timm:resnet10t",
            "timm:resnet10t.nonsense",
            "timm has no weights resnet10t.nonsense (allowed: timm:resnet10t.c3",
        ),
        ("timm:resnet10t", "timm:nonsense", "timm has no weights nonsense (it publishes none of this model)"),
        ("resnet20", "timm:resnet10t.c3_in1k", "another net's"),
        ("resnet20", "imagenet", "has no published"),
    ],
)
def test_weights_that_are_not_published(offline: Path, model: str, source: str, message: str) -> None:
    tensors = build(TrialConfig(model="timm:resnet10t"), 10, 32).state_dict()
    save_file(tensors, offline / "a")
    hub(offline, "timm/resnet10t.c3_in1k", {"model.safetensors": (offline / "a").read_bytes()})
    with pytest.raises((WeightsError, ConfigError)) as raised:
        build(TrialConfig(model=model, weights=source), CLASSES, 32)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "value", ["imagnet", "", "a.txt", "timm:", "timm:a/b", "hf-hub:net", "hf-hub:a/b/c", "http://a", 3, None]
)
def test_what_is_no_source_of_weights(value: Any) -> None:
    if value == "http://a":
        pytest.skip("it is a path of a folder as well")
    with pytest.raises(ConfigError, match="allowed"):
        TrialConfig.from_dict({"weights": value})


WEIGHTS = os.environ.get("BENCHMARK_WEIGHTS")


@pytest.mark.skipif(WEIGHTS is None, reason="BENCHMARK_WEIGHTS names no folder with tf_efficientnet_lite0.safetensors")
def test_real_weights_fit_and_see_as_they_should() -> None:
    real = Path(str(WEIGHTS)) / "tf_efficientnet_lite0.safetensors"
    model, found = filled(real.parent, "timm:tf_efficientnet_lite0", 64, freeze=True)
    assert (found.loaded, set(found.drawn)) == (294, {"classifier.weight", "classifier.bias"})
    assert inputs.of("timm:tf_efficientnet_lite0", str(real.parent)) == inputs.Inputs(
        224, (0.5,) * 3, (0.5,) * 3, "bicubic"
    )
    heads.freeze_base(model)
    assert "another net's" in refusal(real, "resnet18")
