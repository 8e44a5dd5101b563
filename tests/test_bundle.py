"""Bundles: the model that was written is loaded and computes what the loop computed; other files are refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
import tiny
import torch
from bundles import Made
from conftest import ROOT, Command, Finished
from PIL import Image
from safetensors.torch import save
from sklearn.metrics import precision_recall_fscore_support

from orchestrator.assessment.candidates import Candidate, Confirmed
from orchestrator.assessment.confirmation import Confirmation, Spread, TestScores
from orchestrator.assessment.intervals import Interval
from orchestrator.bundle import bundle, contents
from orchestrator.bundle.bundle import BundleError
from orchestrator.bundle.classifier import ImageError
from orchestrator.bundle.contents import choices
from orchestrator.bundle.documents import CONFIRMED, SEARCHED
from orchestrator.record.facts import Measured
from orchestrator.record.journal import read as read_journal
from orchestrator.record.kept_weights import Weights
from orchestrator.record.state import replay
from trainables import evaluation
from trainables.calibration import calibration_error, fit_temperature
from trainables.config import TrialConfig
from trainables.datasets import load
from trainables.models import build
from trainables.splits import search_data

FILES = {"model.safetensors", "config.json", "labels.json", "preprocessing.json", "metrics.json", "README.md"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return bundles.make(tmp_path_factory.mktemp("bundle") / "best")


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "best"))


def rewrite(where: Path, **changes: Any) -> None:
    """Change entries of `config.json`, which no hash protects."""
    path = where / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_five_lines_and_no_ray(made: Made, tmp_path: Path) -> None:
    Image.fromarray(made.validation[0][..., 0]).save(tmp_path / "one.png")
    code = f"""
import sys; sys.modules["ray"] = sys.modules["optuna"] = None
from orchestrator import bundle
model = bundle.load({str(made.folder)!r})
predictions = model.predict([{str(tmp_path / "one.png")!r}])
print(predictions.labels, predictions.probabilities.shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert done.stdout == f"{made.labels[:1]} (1, 3)\n"


def test_the_winner_scores_on_the_validation_set_what_the_leaderboard_has(finished: tuple[Finished, Path]) -> None:
    data, model = search_data(load("digits")), bundle.load(finished[1] / "best")
    predictions = model.predict(data.images[row] for row in data.validation)
    correct = sum(
        name == data.classes[label]
        for name, label in zip(predictions.labels, data.labels[data.validation], strict=True)
    )
    trained = replay(read_journal(finished[1] / "journal.jsonl")[0]).trials[finished[0].result["best"]["trial"]]
    assert trained.worker.format is not None
    few = 0 if trained.worker.format["precision"] == "float32" else 2  # rows on the edge, at most
    assert abs(correct - round(finished[0].result["best"]["score"] * len(data.validation))) <= few
    assert model.config.precision == "float32"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"image_size": 12, "evaluation_crop": 0.75, "resized_crop": 0.5, "normalization": "imagenet"},
        {"memory_format": "channels_last"},
        {"freeze": True, "head_width": 8, "batch_size": 7},
        {"evaluation_views": "flip"},
        {"evaluation_views": "flip", "freeze": True, "head_width": 8},
        {"channels": 3, "selection": "last", "normalization": "half", "model": "simple_cnn"},
    ],
    ids=lambda fields: ",".join(fields) or "plain",
)
def test_logits_are_those_of_the_loop(fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    made = bundles.make(tmp_path / "best", **fields)
    model = bundle.load(made.folder, device="cpu")
    bound = None if fields.get("freeze") else 0.0  # features are computed in batches of another size
    torch.testing.assert_close(model.logits(np.stack(made.validation)), made.logits, rtol=bound, atol=bound)
    assert model.predict(made.validation).labels == made.labels


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_what_was_trained_in_fewer_bits_predicts_in_float32(precision: str, tmp_path: Path) -> None:
    """The same weights give the logits of a float32 trial, bit for bit; those of training are a little off."""
    made = bundles.make(tmp_path / "best", precision=precision, lr=0.02, memory_format="channels_last")
    model = bundle.load(made.folder, device="cpu")
    assert (model.config.precision, model.config.memory_format) == ("float32", "channels_last")
    exact = made.trial.config | {"precision": "float32"}
    data = tiny.select_from(TrialConfig.from_dict(exact), made.data)
    expected = evaluation.predict(TrialConfig.from_dict(exact), data.batches, data.scored_rows, model.module)[0]
    found = model.logits(np.stack(made.validation))
    assert torch.equal(found, expected)
    assert not torch.equal(found, made.logits)
    torch.testing.assert_close(found, made.logits, rtol=0.05, atol=0.1)
    images, labels = np.stack(made.validation), made.truth.numpy()
    weights = {name: tensor.numpy() for name, tensor in model.module.state_dict().items()}
    statistics = (made.data.mean, made.data.std)
    trained = TrialConfig.from_dict(made.trial.config)
    logits = evaluation.on_images(trained, weights, images, labels, statistics, 3, (0, 0, 0), 1, None)[1]
    assert np.array_equal(logits, expected.numpy())  # the sealed test set is measured so


def test_the_same_image_in_every_format(made: Made, tmp_path: Path) -> None:
    model, gray = bundle.load(made.folder), made.validation[0]
    picture = Image.fromarray(gray[..., 0])
    rgb, rgba = np.asarray(picture.convert("RGB")), np.asarray(picture.convert("RGBA"))
    picture.save(tmp_path / "one.png")
    formats = [
        tmp_path / "one.png",
        str(tmp_path / "one.png"),
        picture,
        picture.convert("RGB"),
        gray,
        gray[..., 0],
        rgb,
        rgba,
    ]
    predictions = model.predict(formats)
    assert predictions.labels == made.labels[:1] * len(formats)
    assert np.ptp(predictions.probabilities, axis=0).max() < 1e-6
    assert predictions.probabilities.shape == (len(formats), 3)
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, rtol=1e-5)


def test_images_of_other_sizes_are_prepared_as_those_of_the_data(made: Made, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, shape, dtype=np.uint8) for shape in ((16, 40, 3), (9, 7, 3), (300, 200, 3))]
    files = [tmp_path / f"{number}.png" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    model = bundle.load(made.folder)
    for file, image in zip(files, images, strict=True):
        grey = np.asarray(Image.fromarray(image).convert("L"))[..., None]
        np.testing.assert_array_equal(model.stored(file), grey)  # whole, in the colors of the data
        np.testing.assert_array_equal(model.stored(image), grey)


def test_probabilities_are_those_at_the_temperature_and_labels_those_without(made: Made) -> None:
    model = bundle.load(made.folder)
    calibration = json.loads((made.folder / "metrics.json").read_text())["calibration"]
    assert model.temperature == calibration["temperature"] == fit_temperature(made.logits, made.truth)
    assert model.temperature is not None
    assert (calibration["fitted_on"], calibration["judged_on"]) == ("validation", "validation")
    predictions = model.predict(made.validation)
    expected = (made.logits.double() / model.temperature).softmax(1)
    np.testing.assert_allclose(predictions.probabilities, expected.numpy())
    assert calibration["tempered_error"] == pytest.approx(calibration_error(expected, made.truth))
    assert calibration["calibration_error"] == pytest.approx(
        calibration_error(made.logits.double().softmax(1), made.truth)
    )
    assert predictions.labels == made.labels


def test_a_model_that_was_scored_on_test_rows_alone_is_not_calibrated(tmp_path: Path) -> None:
    made = bundles.make(tmp_path / "best", split="50:50", selection="last", opened=True)
    assert bundle.read(made.folder).metrics.calibration is None
    assert bundle.load(made.folder).temperature is None
    assert "not calibrated" in (made.folder / "README.md").read_text()
    opened = bundles.make(tmp_path / "opened", split="50:50", opened=True)
    calibration = bundle.read(opened.folder).metrics.calibration
    assert calibration is not None
    assert calibration.fitted_on == calibration.judged_on == "validation"
    assert "on the validation set, which it was fitted to, they differ" in (opened.folder / "README.md").read_text()


def test_any_number_of_images(made: Made) -> None:
    model = bundle.load(made.folder)
    many = model.predict(made.validation * 12)
    assert many.labels == made.labels * 12
    assert model.predict([]).probabilities.shape == (0, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.float32), r"float32 \[8, 8\] is no image: uint8 is needed"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 \[3, 8, 8\] is no image"),
        (np.zeros((0, 8), np.uint8), "is no image"),
        (7, "int is no type of image: give a path"),
        (Path("nowhere.png"), "nowhere.png: there is no such file"),
        (ROOT / "README.md", "README.md: the image cannot be read"),
        (Image.new("RGB", (0, 8)), "it has no pixels"),
    ],
)
def test_what_is_no_image_is_refused(made: Made, image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        bundle.load(made.folder).predict([made.validation[0], image])


def test_a_single_image_is_not_a_list(made: Made) -> None:
    with pytest.raises(ImageError, match="a list of images is needed"):
        bundle.load(made.folder).predict("one.png")


def test_the_module_is_a_plain_torch_module(made: Made) -> None:
    module = bundle.load(made.folder).module
    assert isinstance(module, torch.nn.Module)
    assert not module.training
    assert module(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_loading_leaves_torch_s_random_state_alone(made: Made) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    bundle.load(made.folder)
    assert torch.rand(1) == expected


def test_initial_weights_are_not_needed_any_more(made: Made, tmp_path: Path) -> None:
    initial = tmp_path / "initial.safetensors"
    initial.write_bytes(save(build.build(tiny.config(), 3, 8).state_dict()))
    again = bundles.make(tmp_path / "best", weights=str(initial))
    initial.unlink()
    assert bundle.load(again.folder).predict(again.validation).labels == again.labels
    googlenet = TrialConfig(model="googlenet", weights="imagenet")
    assert build.build(googlenet, 3, 64, initialized=False).transform_input  # as ImageNet's weights want it


# The files


def test_files_and_their_hashes(made: Made) -> None:
    assert {path.name for path in made.folder.iterdir()} == FILES
    config = json.loads((made.folder / "config.json").read_text())
    assert set(config["files"]) == FILES - {"config.json"}
    assert bundle.is_complete(made.folder)


def test_metrics_of_each_class_are_those_of_scikit_learn(made: Made) -> None:
    validation = json.loads((made.folder / "metrics.json").read_text())["parts"]["validation"]
    expected = precision_recall_fscore_support(
        made.data.labels[made.data.validation], made.logits.argmax(1), zero_division=np.nan
    )
    found = [[row[name] for name in ("precision", "recall", "f1", "rows")] for row in validation["classes"]]
    np.testing.assert_allclose(np.array(found, float), np.array(expected).T)


def test_the_card_describes_the_model_and_its_limits(made: Made) -> None:
    card = (made.folder / "README.md").read_text()
    assert f"{made.trial.score:.4f}" in card
    assert "Not confirmed" in card
    for text in ("resnet8", "stripes", "a, b, c", "8 × 8", "bundle.load", "| lr | 0.05 |", "60 rows", "36 test rows"):
        assert text in card


def test_a_confirmed_winner_s_card(made: Made, tmp_path: Path) -> None:
    tensors = {name: tensor.numpy() for name, tensor in bundle.load(made.folder).module.state_dict().items()}
    metrics = {"rows": 36, "accuracy": 0.9, "correct": "//////A=", "confusion": [[12, 0, 0], [1, 11, 0], [0, 2, 10]]}
    made.trial.final_metrics = {"validation": Measured.of(metrics), "test": Measured.of(metrics)}
    searched = replace(made.trial, score=0.97)
    runs = tuple(replace(made.trial, number=n, score=score) for n, score in ((1, 0.92), (2, 0.93), (3, 0.94)))
    winner = Confirmed(searched, runs)
    accuracy = Spread(0.9, [0.9], None)
    test = TestScores(36, accuracy, accuracy, 0.9, Interval(0.75, 0.96), 1 / 3, True, None, None)
    confirmation = Confirmation(winner, winner, (Candidate(winner, winner.interval()),), test, 1)
    interval = winner.interval()
    assert interval is not None
    try:
        bundle.write(
            choices([made.trial], CONFIRMED),
            made.data,
            lambda _: Weights(tensors),
            tmp_path / "best",
            bundles.SPEC,
            confirmation,
        )
    finally:
        made.trial.final_metrics = {}
    written = bundle.read(tmp_path / "best").metrics
    assert written.confirmed
    assert written.confirmation is not None
    assert written.confirmation["validation"]["mean"] == pytest.approx(0.93)
    assert [one.recall for one in written.parts["test"].classes] == pytest.approx([1, 11 / 12, 10 / 12])
    assert "correct" not in json.loads((tmp_path / "best" / "metrics.json").read_text())["parts"]["validation"]
    card = (tmp_path / "best" / "README.md").read_text()
    assert "Not confirmed" not in card
    assert f"mean `val_accuracy` of 0.9300 (95% interval {interval.low:.4f} to {interval.high:.4f})" in card
    assert "this model's accuracy is 0.9000 (95% interval 0.7500 to 0.9600)" in card
    assert "On the 36 test rows" in card
    assert "not calibrated" in card


def test_no_weights_no_bundle(made: Made, tmp_path: Path) -> None:
    assert bundle.write(choices([made.trial], SEARCHED), made.data, lambda _: None, tmp_path / "best") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(FILES - {"config.json"}))
def test_a_missing_or_altered_file_is_named(copied: Path, name: str) -> None:
    path = copied / name
    content = path.read_bytes()
    path.write_bytes(content[:-3] + b"odd")
    with pytest.raises(BundleError, match=f"{name} is not what was written"):
        bundle.load(copied)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} cannot be read: No such file"):
        bundle.load(copied)
    assert not bundle.is_complete(copied)


def newer(copied: Path) -> None:
    rewrite(copied, schema_version=contents.SCHEMA_VERSION + 1)


def older(copied: Path) -> None:
    rewrite(copied, schema_version=bundle.OLDEST - 1)


def wrong_field(copied: Path) -> None:
    rewrite(copied, config={"model": "resnet9"})


def other_model(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())["config"]
    rewrite(copied, config=config | {"model": "resnet20"})


def damaged(copied: Path) -> None:
    (copied / "config.json").write_text("{")


def listed(copied: Path) -> None:
    (copied / "config.json").write_text("[]")


def bare(copied: Path) -> None:
    rewrite(copied, files=None, image_size="8")


def emptied(copied: Path) -> None:
    shutil.rmtree(copied)


def unlike(copied: Path) -> None:
    path = copied / "metrics.json"
    path.write_text('{"metric": "val_accuracy", "parts": {"validation": {"rows": "12"}}}')
    files = json.loads((copied / "config.json").read_text())["files"]
    rewrite(copied, files=files | {path.name: contents.digest(path.read_bytes())})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (newer, r"config.json is of schema \d, and this version reads \d: update"),
        (older, "config.json is of schema 2, which is too old: resume its sweep"),
        (wrong_field, "config.json: model='resnet9' is not allowed; did you mean"),
        (other_model, "model.safetensors does not fit resnet20"),
        (damaged, "config.json is damaged"),
        (listed, "config.json is damaged"),
        (bare, "config.json is damaged: image_size: '8' is not a whole number; files: None is not an object"),
        (unlike, "metrics.json is damaged: confirmed: it is missing; .*; parts: validation: rows: '12' is not a whole"),
        (emptied, "is no bundle: no config.json there"),
    ],
)
def test_what_is_no_bundle_of_this_version_is_refused(
    copied: Path, change: Callable[[Path], None], message: str
) -> None:
    change(copied)
    with pytest.raises(BundleError, match=message) as caught:
        bundle.load(copied)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


def test_a_sweep_s_folder_is_not_taken_for_its_bundle(copied: Path) -> None:
    with pytest.raises(BundleError, match="the bundle is in it: best/"):
        bundle.load(copied.parent)


def test_a_pickle_is_never_opened(copied: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(1)}, buffer)
    path = copied / "model.safetensors"
    path.write_bytes(buffer.getvalue())
    files = json.loads((copied / "config.json").read_text())["files"]
    rewrite(copied, files=files | {path.name: contents.digest(buffer.getvalue())})
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        bundle.load(copied)


def test_the_sweep_s_bundle_is_a_configuration_too(finished: tuple[Finished, Path], command: Command) -> None:
    config = finished[1] / "best" / "config.json"
    done = command("trainables", "digits", "--config", config, "--subset", "100", "--set", "max_epochs=1", "--json")
    assert done.code == 0, done.err
