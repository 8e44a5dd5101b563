"""A prediction from several views is that of the mean of their features, in the loop, a bundle, ONNX and Grad-CAM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
import tiny
import torch

from orchestrator import onnx
from orchestrator.bundle import bundle
from orchestrator.bundle.explanation import maps
from trainables import features
from trainables.evaluation import predict
from trainables.loop import prepared, train
from trainables.models import heads
from trainables.models.view_mean import EVALUATION_VIEWS, ViewMean, evaluated


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))


def model_of(**fields: Any) -> torch.nn.Module:
    made = tiny.config(**fields)
    _, state = tiny.start(made)
    return state.model.eval()


@pytest.mark.parametrize("width", [0, 6])
def test_the_mean_is_that_of_the_features(width: int) -> None:
    model, images = model_of(head_width=width), torch.randn(5, 3, 8, 8)
    base, head = heads.with_head(model, torch.nn.Identity()), heads.head_of(model)
    with torch.no_grad():
        expected = head((base(images) + base(images.flip(3))) / 2)
        found = evaluated(tiny.config(head_width=width, evaluation_views="flip"), model)(images)
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, model(images), atol=1e-4)


def test_one_view_is_the_model_itself() -> None:
    model = model_of()
    assert evaluated(tiny.config(), model) is model


def test_the_views_share_the_models_tensors() -> None:
    model = model_of(head_width=6)
    mean = ViewMean(model, EVALUATION_VIEWS["flip"])
    assert {id(tensor) for tensor in mean.parameters()} == {id(tensor) for tensor in model.parameters()}


@pytest.mark.parametrize("name", EVALUATION_VIEWS)
def test_every_view_undoes_itself(name: str) -> None:
    images = torch.randn(2, 3, 4, 5)
    first, *others = EVALUATION_VIEWS[name]
    assert torch.equal(first(images), images)
    assert all(torch.equal(view(view(images)), images) for view in others)


@pytest.mark.parametrize("width", [0, 6])
def test_a_frozen_trial_predicts_on_images_what_it_does_on_features(width: int) -> None:
    made = tiny.config(freeze=True, evaluation_views="flip", head_width=width)
    data, state = tiny.start(made)
    on_features = prepared(data, state)
    assert isinstance(on_features.batches, features.Features)
    list(train(on_features, state))
    logits, _ = predict(made, on_features.batches, data.scored_rows, state.kept.predictor)
    again, _ = predict(made, data.batches, data.scored_rows, evaluated(made, state.model))
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-4)


def test_a_trial_trains_as_without_and_scores_by_the_mean() -> None:
    found = {}
    for views in EVALUATION_VIEWS:
        data, state = tiny.start(tiny.config(evaluation_views=views))
        found[views] = next(train(data, state))
    assert found["flip"].train_loss == found["one"].train_loss
    assert found["flip"].val_loss != found["one"].val_loss


@pytest.mark.parametrize("width", [0, 6])
def test_an_onnx_file_has_the_views_inside(width: int, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made = bundles.make(tmp_path / "best", evaluation_views="flip", head_width=width)
    file = tmp_path / "model.onnx"
    assert onnx.main([str(made.folder), str(file)]) == 0
    classifier = bundle.load(made.folder, "cpu")
    (found,) = onnxruntime.InferenceSession(file).run(
        None, {"images": np.asarray(classifier.views(made.validation[:5]))}
    )
    np.testing.assert_allclose(found, classifier.predict(made.validation[:5]).probabilities, atol=1e-4)


def test_heat_maps_of_mirrored_pictures_are_mirrored() -> None:
    made = tiny.config(evaluation_views="flip", model="resnet20")
    _, state = tiny.start(made)
    images, labels = torch.randn(3, 3, 16, 16), torch.tensor([0, 1, 2])
    module = evaluated(made, state.model).eval()
    found, mirrored = maps(module, images, labels), maps(module, images.flip(3), labels)
    assert found.shape[0] == 3
    torch.testing.assert_close(mirrored, found.flip(3), rtol=1e-4, atol=1e-6)


def test_a_bundle_records_the_views(tmp_path: Path) -> None:
    made = bundles.make(tmp_path / "best", evaluation_views="flip")
    assert bundle.read(made.folder).preprocessing.evaluation_views == "flip"
    assert bundle.load(made.folder, "cpu").config.evaluation_views == "flip"
