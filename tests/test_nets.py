"""The nets that a place offers: files by name and by metadata, folders, downloads, torch.hub's folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file
from torchvision.models import get_model_weights

from trainables.errors import ConfigError
from trainables.models import nets


def place(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_files_named_after_models(tmp_path: Path) -> None:
    names = ("resnet18-f37072fd.pth", "tf_efficientnet_lite0.safetensors", "resnet10t.c3_in1k.pt", "README.md", "b.pth")
    assert nets.available(str(place(tmp_path, *names))) == {
        "resnet18": str(tmp_path / names[0]),
        "timm:tf_efficientnet_lite0": str(tmp_path / names[1]),
        "timm:resnet10t": str(tmp_path / names[2]),
    }
    for model, name in (("resnet18", names[0]), ("timm:resnet10t", names[2])):
        assert nets.file_of(model, tmp_path) == tmp_path / name
        assert nets.available(str(tmp_path / name)) == {model: str(tmp_path / name)}
    with pytest.raises(
        ConfigError, match=r"has no weights of model=resnet81; did you mean resnet18\? \(it has resnet18"
    ):
        nets.file_of("resnet81", tmp_path)


def test_a_safe_file_is_taken_before_one_that_is_not(tmp_path: Path) -> None:
    place(tmp_path, "resnet18.pth", "resnet18.safetensors")
    assert nets.available(str(tmp_path)) == {"resnet18": str(tmp_path / "resnet18.safetensors")}


def test_two_files_of_one_model_are_refused(tmp_path: Path) -> None:
    place(tmp_path, "resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth")
    with pytest.raises(ConfigError, match=r"resnet50-0676ba61.pth and resnet50-11ad3fa6.pth are all of model=resnet50"):
        nets.available(str(tmp_path))


def test_metadata_name_the_model_of_any_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    for architecture, model in (("resnet20", "resnet20"), ("timm:resnet18.a1_in1k", "timm:resnet18")):
        save_file({"a": torch.zeros(1)}, file, {"architecture": architecture})
        assert nets.available(str(file)) == {model: str(file)}


def test_a_download_and_a_bundle_name_their_models(tmp_path: Path) -> None:
    place(tmp_path, "one/model.safetensors", "one/config.json", "two/model.safetensors", "three/pytorch_model.bin")
    (tmp_path / "one" / "config.json").write_text(json.dumps({"architecture": "resnet10t"}))
    (tmp_path / "two" / "config.json").write_text(json.dumps({"config": {"model": "resnet20"}}))
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert nets.available(str(tmp_path)) == {"timm:resnet10t": str(one), "resnet20": str(two)}
    assert nets.available(str(one)) == nets.available(str(one.parent)) == {"timm:resnet10t": str(one)}


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0[]"])
def test_what_a_damaged_file_says_is_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"neither its name nor its metadata say of which model it is.*--set model="):
        nets.available(str(tmp_path / "mine.safetensors"))
    with pytest.raises(ConfigError, match="no file there is named after a model"):
        nets.available(str(tmp_path))


def test_a_place_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="weights=/nowhere: there is no such file or folder"):
        nets.available("/nowhere")


def test_without_timm_its_models_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets, "find_spec", lambda name: None)
    place(tmp_path, "resnet18.pth", "resnet10t.pth")
    for where in (tmp_path, tmp_path / "resnet10t.pth"):
        with pytest.raises(ConfigError, match=r"resnet10t.pth is of no model of torchvision's.*pip install"):
            nets.available(str(where))
    assert nets.file_of("resnet18", tmp_path) == tmp_path / "resnet18.pth"


def test_what_torch_hub_has_of_torchvisions_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert nets.hub_checkpoints() == Path(torch.hub.get_dir()) / "checkpoints"
    assert nets.available("imagenet") == {}
    best = Path(get_model_weights("efficientnet_b1").DEFAULT.url).name
    place(nets.hub_checkpoints(), best, "resnet50-0676ba61.pth", "resnet18-f37072fd.pth")
    assert nets.available("imagenet", ("efficientnet_b1", "resnet50", "resnet20")) == {
        "efficientnet_b1": str(nets.hub_checkpoints() / best)
    }


def test_looking_for_torchvisions_models_imports_no_torch(tmp_path: Path) -> None:
    place(tmp_path, "resnet18.pth")
    code = (
        "import sys; from trainables.models import nets; "
        f"nets.available({str(tmp_path)!r}); nets.available('imagenet'); "
        "print([name for name in ('torch', 'timm', 'torchvision') if name in sys.modules])"
    )
    environment = {"TORCH_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout.strip() == "[]", done.stderr
