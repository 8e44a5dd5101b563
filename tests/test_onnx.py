"""`python -m orchestrator.onnx`: an ONNX file computes the probabilities of predict, from images as they are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
import torch
from bundles import Made

from orchestrator import onnx
from orchestrator.bundle import bundle, onnx_model
from orchestrator.onnx import main

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return bundles.make(tmp_path_factory.mktemp("bundle") / "best", image_size=12, evaluation_crop=0.75)


@pytest.fixture(scope="module")
def exported(made: Made) -> Path:
    file = made.folder.with_name("model.onnx")
    assert main([str(made.folder), str(file)]) == 0
    return file


def probabilities(file: Path, images: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(file)
    return np.asarray(session.run(["probabilities"], {"images": np.stack(images)})[0])


@pytest.mark.parametrize("count", [1, 7, 24])
def test_probabilities_are_those_of_predict(made: Made, exported: Path, count: int) -> None:
    """At the temperature, of images that are resized and cropped, in batches of any size."""
    expected = bundle.load(made.folder, "cpu").predict(made.validation[:count])
    found = probabilities(exported, list(bundle.load(made.folder, "cpu").views(made.validation[:count])))
    np.testing.assert_allclose(found, expected.probabilities, atol=1e-4)
    assert [made.data.classes[number] for number in found.argmax(1)] == made.labels[:count]


def test_the_metadata_describe_the_model(made: Made, exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    metadata = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert metadata["labels"] == list(made.data.classes)
    assert metadata["temperature"] == bundle.read(made.folder).temperature
    assert (metadata["model"], metadata["sweep"], metadata["trial"], metadata["data"]["name"]) == (
        "resnet8",
        "tiny",
        0,
        "stripes",
    )
    (images,), (output,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [16, 16, 1])
    assert (output.name, output.type, output.shape[1:]) == ("probabilities", "tensor(float)", [3])


@pytest.mark.slow
@pytest.mark.timeout(400)  # vit_b_16 has 86 million weights
@pytest.mark.parametrize(
    "fields",
    [
        {"model": "resnet18", "stem": "imagenet", "channels": 3, "image_size": 32},
        {"model": "resnet18", "precision": "bfloat16", "memory_format": "channels_last"},
        {"model": "efficientnet_b0", "image_size": 32, "normalization": "imagenet", "resized_crop": 0.5},
        {"model": "simple_cnn", "normalization": "none"},
        {"model": "vit_b_16", "image_size": 16},
        {"freeze": True, "head_width": 8},
    ],
    ids=lambda fields: fields.get("model", "head"),
)
def test_families_of_nets(fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    made = bundles.make(tmp_path / "best", max_epochs=1, **fields)
    assert main([str(made.folder), str(tmp_path / "model.onnx")]) == 0
    model = bundle.load(made.folder, "cpu")
    exact = torch.from_numpy(probabilities(tmp_path / "model.onnx", list(model.views(made.validation))))
    torch.testing.assert_close(
        exact.double(),
        torch.from_numpy(model.predict(made.validation).probabilities),
        atol=1e-4,
        rtol=0,
    )


def test_a_file_that_computes_something_else_is_not_kept(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = bundles.make(tmp_path / "other", image_size=12, evaluation_crop=0.75, seed=5)
    content = onnx_model.encode(bundle.load(other.folder, "cpu"), {})
    monkeypatch.setattr(onnx_model, "encode", lambda *_: content)
    assert main([str(made.folder), str(tmp_path / "model.onnx")]) == 1
    assert "resnet8 as ONNX has probabilities that differ from torch's by" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_all_mistakes_are_reported_at_once(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else object())
    assert main([str(made.folder.parent), str(tmp_path / "nowhere" / "model")]) == 2
    lines = capsys.readouterr().err.splitlines()
    for problem in (
        "the bundle is in it: best/",
        "the file's name must end in .onnx",
        "make it first",
        "ONNX needs onnxscript: pip install 'sweep-orchestrator[onnx]'",
    ):
        assert len([line for line in lines if problem in line]) == 1, problem
    assert len(lines) == 4
