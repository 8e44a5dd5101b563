"""What is seen of a picture: its part, its size, its pixels; the same picture by picture and for a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from orchestrator.bundle.classifier import Classifier
from orchestrator.bundle.documents import Preprocessing
from trainables import views
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.datasets import Reading, load
from trainables.datasets.packed import Packed, table
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import StoredImages, gathered
from trainables.splits import search_data
from trainables.views import Streamed

CPU = torch.device("cpu")
SHAPES = [(30, 40), (40, 30), (25, 25), (7, 50), (61, 8), (1, 3), (24, 24)]
GREEN = (10, 200, 30)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Return a picture that is smooth, as photographs are, and different everywhere."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (3 + c) + seed) + np.cos(columns / (4 + c)) for c in range(channels)]
    return np.stack([(wave * 60 + 128).astype(np.uint8) for wave in waves], axis=2)


def packed(pictures: list[Pixels]) -> StoredImages:
    content = np.concatenate([picture.reshape(-1) for picture in pictures])
    return StoredImages((Packed(content, table(iter(pictures))),))


def batches(pictures: list[Pixels]) -> Batches:
    return Batches(packed(pictures), np.arange(len(pictures)), [0.0] * 3, [1.0] * 3, CPU, GREEN)


def seen(pictures: list[Pixels], **fields: Any) -> Tensor:
    """Return what is evaluated of pictures, in 0 to 255: [B, 3, S, S]."""
    config = TrialConfig(**{"image_size": 16, "normalization": "none", **fields})
    return torch.cat([images for images, _ in batches(pictures).evaluate(torch.arange(len(pictures)), config)]) * 255


def as_tensor(picture: Pixels) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_center_crop_is_torchvisions(shape: tuple[int, int]) -> None:
    picture, side = noise(*shape), min(shape)
    top, left = ((length - side) // 2 for length in shape)
    expected = reference.resized_crop(as_tensor(picture), top, left, side, side, [16, 16], antialias=True)
    torch.testing.assert_close(seen([picture])[0], expected.float(), rtol=0, atol=1.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_squashed_picture_is_torchvisions(shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    expected = reference.resize(as_tensor(picture), [16, 16], antialias=True)
    torch.testing.assert_close(seen([picture], fit="squash")[0], expected.float(), rtol=0, atol=1.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_bicubic_views_are_torchvisions_and_pillows(shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    found = seen([picture], fit="squash", interpolation="bicubic")[0]
    expected = reference.resize(as_tensor(picture), [16, 16], InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1.01)
    by_pillow = np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BICUBIC))
    torch.testing.assert_close(found, as_tensor(by_pillow).float(), rtol=0, atol=1.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_padded_picture_is_whole_with_background_around_it(shape: tuple[int, int]) -> None:
    found = seen([noise(*shape)], fit="pad")[0]
    inner = [max(1, round(16 * length / max(shape))) for length in shape]
    background = (found.round() == torch.tensor(GREEN)[:, None, None].float()).all(0)
    assert abs(int((~background).any(1).sum()) - inner[0]) <= 1
    assert abs(int((~background).any(0).sum()) - inner[1]) <= 1
    if shape == (30, 40):
        expected = reference.resize(as_tensor(noise(*shape)), [12, 16], antialias=True).float()
        torch.testing.assert_close(found[:, 2:14], expected, rtol=0, atol=1.01)
        assert background[:2].all()
        assert background[14:].all()


@pytest.mark.parametrize("fit", views.FRAMES)
def test_a_picture_is_seen_the_same_whatever_is_beside_it(fit: str) -> None:
    pictures = [noise(*shape, seed=number) for number, shape in enumerate(SHAPES)]
    together = seen(pictures, fit=fit)
    for number, picture in enumerate(pictures):
        alone = Batches(picture[None], np.arange(1), [0.0] * 3, [1.0] * 3, CPU, GREEN)
        config = TrialConfig(image_size=16, normalization="none", fit=fit)
        ((found, _),) = alone.evaluate(torch.arange(1), config)
        torch.testing.assert_close(found[0] * 255, together[number], rtol=0, atol=0)


@pytest.mark.parametrize("fit", views.FRAMES)
def test_squares_of_the_right_size_are_not_touched(fit: str) -> None:
    picture = noise(16, 16)
    assert torch.equal(seen([picture, noise(20, 16)], fit=fit)[0].round(), as_tensor(picture).float())


def test_grey_pictures_among_colored_ones_have_three_equal_channels() -> None:
    found = seen([noise(30, 40, channels=1), noise(30, 40)])
    assert found.shape == (2, 3, 16, 16)
    assert torch.equal(found[0, 0], found[0, 1])


@pytest.mark.parametrize("interpolation", views.KERNELS)
@pytest.mark.parametrize("fit", views.FRAMES)
@pytest.mark.parametrize("resized_crop", [0.0, 0.1])
@pytest.mark.parametrize("size", [6, 16, 60])
@pytest.mark.parametrize("shape", [(30, 40), (41, 13), (24, 24)])
def test_a_batch_of_images_is_what_they_are_one_by_one(
    shape: tuple[int, int], size: int, resized_crop: float, fit: str, interpolation: str
) -> None:
    """Compare what suits a GPU with what suits a CPU."""
    images = torch.from_numpy(np.stack([noise(*shape, seed=seed) for seed in range(12)]))
    config, rows = TrialConfig(fit=fit, resized_crop=resized_crop), torch.arange(12)
    resident, streamed = views.Resident(images, GREEN), views.Streamed(images.numpy(), CPU, GREEN)
    sizes = streamed.sizes(rows)
    assert torch.equal(resident.sizes(rows), sizes)
    random = torch.Generator().manual_seed(3)
    boxes = views.random_frames(sizes, config, random) if resized_crop else views.frames(sizes, config)
    expected = streamed.view(rows, boxes, (size, size), interpolation).int()
    assert (resident.view(rows, boxes, (size, size), interpolation).int() - expected).abs().max() <= 1


@pytest.mark.parametrize("fit", views.FRAMES)
def test_random_crops_see_all_of_a_picture(fit: str) -> None:
    sizes = torch.tensor([[30], [90]]).expand(-1, 3000)
    config = TrialConfig(fit=fit, resized_crop=0.2)
    top, left, tall, wide = views.random_frames(sizes, config, torch.Generator().manual_seed(0))
    assert top.min() <= 0 <= left.min() + 60
    assert left.clamp(0).min() == 0
    assert (left + wide).max() >= 89
    assert (top + tall).max() >= 30
    if fit != "pad":
        assert top.min() >= 0
        assert left.min() >= 0
        assert (top + tall).max() <= 30
        assert (left + wide).max() <= 90


def test_random_crops_are_antialiased() -> None:
    """Scale a fine checkerboard down: what is seen must be near its mean, not black and white pixels."""
    board = (np.indices((300, 400)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    made = Batches(np.stack([board] * 8), np.arange(8), [0.0] * 3, [1.0] * 3, CPU)
    config = TrialConfig(image_size=16, normalization="none", resized_crop=0.5)
    ((images, _),) = made.train(torch.arange(8), 8, config, torch.Generator().manual_seed(0))
    assert (images - 0.5).abs().max() < 0.05


def test_more_threads_make_the_same_views() -> None:
    pictures = [noise(*SHAPES[row % len(SHAPES)], seed=row) for row in range(40)]
    expected = seen(pictures)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(seen(pictures), expected)
    finally:
        torch.set_num_threads(threads)


def test_one_ahead_keeps_the_order_and_passes_errors_on() -> None:
    def fail() -> int:
        raise ValueError("third")

    jobs = [(lambda: 1, "a"), (lambda: 2, "b"), (fail, "c")]
    made = views.one_ahead(iter(jobs))
    assert [next(made), next(made)] == [(1, "a"), (2, "b")]
    with pytest.raises(ValueError, match="third"):
        next(made)


def test_models_of_earlier_versions_get_their_images_in_their_shape() -> None:
    images = np.stack([noise(32, 48, seed=seed) for seed in range(3)])
    made = Batches(images, np.arange(3), [0.0] * 3, [1.0] * 3, CPU, shape=(32, 48))
    for side, shape in ((32, (32, 48)), (16, (16, 24))):
        ((found, _),) = made.evaluate(torch.arange(3), TrialConfig(image_size=side))
        assert found.shape[2:] == shape


@pytest.mark.parametrize("fit", views.FRAMES)
@pytest.mark.parametrize("crop", [1.0, 0.75])
def test_predict_sees_what_training_evaluates(
    fit: str, crop: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare the views of files of odd sizes, grey and transparent, with those of the same pictures in the cache."""
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    files = []
    for number, shape in enumerate([*SHAPES, (90, 120), (33, 47), (64, 64)]):
        picture = Image.fromarray(noise(*shape, seed=number))
        if number % 3 == 1:
            picture.putalpha(Image.fromarray(noise(*shape, channels=1, seed=number)[..., 0]))
        files.append(tmp_path / "pets" / "ab"[number % 2] / f"{number}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        (picture.convert("L") if number % 3 == 2 else picture).save(files[-1])
    dataset = load(str(tmp_path / "pets"), Reading(stored_side=30, background="#0ac81e"))
    data = search_data(dataset, opened=True)
    config = TrialConfig(fit=fit, image_size=18, evaluation_crop=crop, batch_size=4)
    stored = Preprocessing(
        height=30,
        width=30,
        channels=3,
        image_size=18,
        evaluation_crop=crop,
        normalization="train",
        mean=tuple(data.mean.tolist()),
        std=tuple(data.std.tolist()),
        stored_side=data.stored_side,
        fit=fit,
        background=data.background,
    )
    model = Classifier(torch.nn.Identity(), config, dataset.classes, stored, None, CPU)
    trained = Batches.of(data, CPU)
    rows = torch.arange(len(data.labels))
    expected = {view.tobytes() for view in trained.views(rows, config).numpy()}
    assert {view.tobytes() for view in model.views(files)} == expected
    assert len(expected) == len(files)
    inputs = {image.numpy().tobytes() for images, _ in trained.evaluate(rows, config) for image in images}
    seen_by_predict = model.batches(gathered([model.stored(file) for file in files])).evaluate(rows, config)
    assert {image.numpy().tobytes() for images, _ in seen_by_predict for image in images} == inputs


@pytest.mark.parametrize("shape", [(20, 30), (160, 150)])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_what_is_scaled_once_is_what_is_scaled_for_every_batch(
    shape: tuple[int, int], fit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, with augmentation and without; and it is scaled only once, for training and for evaluation."""
    pictures = [noise(*shape, seed=seed) for seed in range(12)]
    images = np.stack(pictures)
    config = TrialConfig(image_size=16, batch_size=5, fit=fit, flip=True, rotation=5.0)
    scaled: list[int] = []
    made = Streamed._made

    def counted(self: Streamed, rows: Tensor, *rest: Any) -> Tensor:
        scaled.extend(rows.tolist())
        return made(self, rows, *rest)

    monkeypatch.setattr(Streamed, "_made", counted)

    def epochs() -> list[Tensor]:
        source = Batches(images, np.arange(12), [0.4] * 3, [0.2] * 3, CPU, GREEN)
        order = torch.Generator().manual_seed(0)
        found = [batch for _ in range(3) for batch, _ in source.train(torch.arange(9), 9, config, order)]
        found += [batch for batch, _ in source.evaluate(torch.arange(12), config)]
        return found + [
            batch for batch, _ in source.normalized_by([0.4] * 3, [0.2] * 3).evaluate(torch.arange(12), config)
        ]

    found = epochs()
    assert sorted(scaled) == list(range(12))
    monkeypatch.setattr(views, "MOST_SCALED", 0)
    scaled.clear()
    expected = epochs()
    assert len(scaled) == 3 * 9 + 2 * 12
    assert len(found) == len(expected)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


def test_one_kind_of_scaled_images_is_kept_and_random_crops_are_not() -> None:
    source = Batches(np.stack([noise(20, 30)] * 8), np.arange(8), [0.4] * 3, [0.2] * 3, CPU, GREEN)
    assert isinstance(source.images, Streamed)

    def train(**fields: Any) -> None:
        list(source.train(torch.arange(8), 8, TrialConfig(batch_size=4, **fields), torch.Generator().manual_seed(0)))

    for fields in ({"image_size": 20, "fit": "squash", "resized_crop": 0.5}, {"image_size": 16, "resized_crop": 0.1}):
        train(**fields)
        assert source.images._scaled is None
    list(source.evaluate(torch.arange(8), TrialConfig(image_size=16)))
    assert source.images._scaled is None  # what is seen once is not kept
    for side in (16, 12):
        train(image_size=side)
        assert source.images._scaled is not None
        assert source.images._scaled.views.shape == (8, side, side, 3)
    list(source.evaluate(torch.arange(8), TrialConfig(image_size=16)))
    assert source.images._scaled is not None
    assert source.images._scaled.views.shape == (8, 12, 12, 3)
