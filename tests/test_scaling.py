"""Pictures that are scaled down as they are decoded: their sizes, and that nothing else about them changes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from test_decoder import RED, encoded, exif

from trainables.datasets import formats
from trainables.datasets.decoder import read


@pytest.mark.parametrize("name", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((300, 200), 100, (150, 100)),
        ((200, 300), 100, (100, 150)),
        ((300, 200), 200, (300, 200)),
        ((300, 200), 500, (300, 200)),
        ((301, 203), 100, (148, 100)),
        ((1, 400), 100, (1, 400)),
        ((2000, 3), 2, (1333, 2)),
        ((800, 801), 100, (100, 100)),
        ((1600, 1200), 9, (12, 9)),
    ],
)
def test_the_shorter_side_is_limited(name: str, size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    picture = read(encoded(Image.new("RGB", size, RED), name), side=side)
    assert (picture.size, picture.pixels.shape) == (size, (*expected[::-1], 3))


def photograph(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Return smooth colors with circles in them."""
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for x, y in random.integers(0, min(size), (20, 2)):
        draw.ellipse((x, y, x + size[0] // 10, y + size[1] // 8), fill=tuple(random.integers(0, 256, 3)))
    return image.convert(mode)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(401, 307), (1500, 1111)])
def test_a_scaled_picture_is_as_scaled_at_once(name: str, mode: str, size: tuple[int, int]) -> None:
    """Neither a JPEG's decoding at a smaller size nor the reduction of large pictures shifts or blurs them."""
    if (name, mode) == ("PNG", "CMYK"):
        return
    image = photograph(size, mode)
    content = encoded(image, name, **({"quality": 95} if name == "JPEG" else {}))
    found = read(content, side=80).pixels
    plain = image.convert("RGB" if mode == "CMYK" else mode)
    expected = np.asarray(plain.resize(found.shape[1::-1], Image.Resampling.BICUBIC)).reshape(found.shape)
    assert np.abs(found.astype(int) - expected).mean() < 2.5


def test_a_picture_is_the_same_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("RGBA", "P", "L", "I;16"):
        image = photograph((203, 155), "RGBA") if mode == "RGBA" else photograph((203, 155), "L")
        if mode == "RGBA":
            image.putalpha(photograph((203, 155), "L"))
        elif mode != "L":
            image = image.convert("P") if mode == "P" else Image.fromarray(np.asarray(image).astype("u2") * 257)
        content = encoded(image, "PNG")
        whole = [read(content, side=side).pixels for side in (None, 70, 20)]
        monkeypatch.setattr(formats, "BAND", 1000)
        banded = [read(content, side=side).pixels for side in (None, 70, 20)]
        monkeypatch.undo()
        for one, other in zip(whole, banded, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_the_same_with_exif_and_without(mode: str, factor: int) -> None:
    """Those without are decoded by another library."""
    image = photograph((403, 301), mode)
    for options in ({"quality": 30, "progressive": True}, {"subsampling": 0, "optimize": True}):
        side = None if factor == 1 else 301 // factor
        fast, slow = (read(encoded(image, "JPEG", **options, **more), side=side) for more in ({}, {"exif": exif(1)}))
        np.testing.assert_array_equal(fast.pixels, slow.pixels)
        assert (fast.format, fast.size, fast.digest != slow.digest) == (slow.format, slow.size, True)
