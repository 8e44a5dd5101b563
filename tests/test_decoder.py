"""Every kind of picture through the one door: formats, colors, sizes, turns, and what is no picture."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.datasets import decoder
from trainables.datasets.decoder import read
from trainables.datasets.formats import PictureError

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (120, 120, 120)


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    image.save(buffer := io.BytesIO(), name, **options)
    return buffer.getvalue()


def halves(mode: str, left: Any, right: Any, size: tuple[int, int] = (32, 16)) -> Image.Image:
    """Return an image of two colors, one beside the other."""
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def palette(transparency: int | None = None) -> Image.Image:
    """Return a palette image: red beside blue, or beside what is transparent."""
    image = halves("P", 0, 1)
    image.putpalette([*RED, *BLUE])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def numbers(values: tuple[float, float], dtype: str) -> Image.Image:
    """Return an image of two numbers, one beside the other."""
    return Image.fromarray(np.repeat(np.array([values], dtype), 16, axis=1).repeat(16, axis=0))


def sixteen_bit_png(left: tuple[int, ...], right: tuple[int, ...], **chunks: bytes) -> bytes:
    """Return a PNG of 16 bits a channel (1: grey, 3: RGB, 4: RGBA), which Pillow cannot write in color."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[len(left)]
    rows = b"".join(
        b"\0" + struct.pack(f">{len(left)}H", *left) * 16 + struct.pack(f">{len(left)}H", *right) * 16
        for _ in range(16)
    )
    header = struct.pack(">IIBBBBB", 32, 16, 16, kind, 0, 0, 0)
    return png(IHDR=header, **chunks, IDAT=zlib.compress(rows), IEND=b"")


def png(**chunks: bytes) -> bytes:
    parts = [
        struct.pack(">I", len(content))
        + name.encode()
        + content
        + struct.pack(">I", zlib.crc32(name.encode() + content))
        for name, content in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def colors_of(picture: decoder.Picture) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the colors in the middle of both halves."""
    height, width = picture.pixels.shape[:2]
    row = picture.pixels[height // 2]
    return tuple(map(int, row[width // 4])), tuple(map(int, row[-width // 4]))


RED_BLUE = halves("RGB", RED, BLUE)
KINDS: dict[str, tuple[Callable[[], bytes], tuple[int, ...], tuple[int, ...], tuple[str, ...]]] = {
    # name: how to make it, color on the left, color on the right, what was done to it
    "JPEG": (lambda: encoded(RED_BLUE, "JPEG", quality=95), RED, BLUE, ()),
    "JPEG grey": (lambda: encoded(halves("L", 10, 200), "JPEG"), (10,), (200,), ()),
    "JPEG CMYK": (lambda: encoded(RED_BLUE.convert("CMYK"), "JPEG", quality=95), RED, BLUE, ()),
    "JPEG progressive": (lambda: encoded(RED_BLUE, "JPEG", quality=95, progressive=True), RED, BLUE, ()),
    "JPEG RGB": (lambda: encoded(RED_BLUE, "JPEG", quality=95, keep_rgb=True), RED, BLUE, ()),
    "MPO": (lambda: encoded(RED_BLUE, "MPO", quality=95, save_all=True, append_images=[RED_BLUE]), RED, BLUE, ()),
    "PNG": (lambda: encoded(RED_BLUE, "PNG"), RED, BLUE, ()),
    "PNG grey": (lambda: encoded(halves("L", 10, 200), "PNG"), (10,), (200,), ()),
    "PNG 1 bit": (lambda: encoded(halves("1", 0, 1), "PNG"), (0,), (255,), ()),
    "PNG palette": (lambda: encoded(palette(), "PNG"), RED, BLUE, ()),
    "PNG palette with a transparent entry": (
        lambda: encoded(palette(), "PNG", transparency=1),
        RED,
        WHITE,
        ("on background",),
    ),
    "PNG palette with alpha": (
        lambda: encoded(palette(), "PNG", transparency=b"\xff\x80"),
        RED,
        (127, 127, 255),
        ("on background",),
    ),
    "PNG with alpha": (lambda: encoded(halves("RGBA", (*RED, 255), (*BLUE, 0)), "PNG"), RED, WHITE, ("on background",)),
    "PNG with alpha, all opaque": (lambda: encoded(halves("RGBA", (*RED, 255), (*BLUE, 255)), "PNG"), RED, BLUE, ()),
    "PNG grey with alpha": (
        lambda: encoded(halves("LA", (10, 255), (10, 0)), "PNG"),
        (10,),
        (255,),
        ("on background",),
    ),
    "PNG with a transparent color": (
        lambda: encoded(RED_BLUE, "PNG", transparency=BLUE),
        RED,
        WHITE,
        ("on background",),
    ),
    "PNG grey with a transparent value": (
        lambda: encoded(halves("L", 10, 200), "PNG", transparency=10),
        (255,),
        (200,),
        ("on background",),
    ),
    "PNG 1 bit with a transparent value": (
        lambda: encoded(halves("1", 0, 1), "PNG", transparency=0),
        (255,),
        (255,),
        ("on background",),
    ),
    "PNG animated": (
        lambda: encoded(RED_BLUE, "PNG", save_all=True, append_images=[halves("RGB", GREEN, GREEN)]),
        RED,
        BLUE,
        ("animation",),
    ),
    "PNG 16 bits, grey": (lambda: encoded(numbers((0, 51400), "u2"), "PNG"), (0,), (200,), ("scaled",)),
    "PNG 16 bits, dark": (lambda: encoded(numbers((129, 128), "u2"), "PNG"), (1,), (0,), ("scaled",)),
    "PNG 16 bits, RGB": (lambda: sixteen_bit_png((65535, 0, 0), (0, 0, 51400)), RED, (0, 0, 200), ("scaled",)),
    "PNG 16 bits, RGBA": (
        lambda: sixteen_bit_png((65535, 0, 0, 65535), (0, 0, 51400, 0)),
        RED,
        WHITE,
        ("on background", "scaled"),
    ),
    "PNG 16 bits, RGB with a transparent color": (
        lambda: sixteen_bit_png((65535, 0, 0), (0, 0, 51401), tRNS=struct.pack(">HHH", 0, 0, 51401)),
        RED,
        WHITE,
        ("on background", "scaled"),
    ),
    "PNG 16 bits, grey with a transparent value": (
        lambda: sixteen_bit_png((0,), (51400,), tRNS=struct.pack(">H", 51400)),
        (0,),
        (255,),
        ("on background", "scaled"),
    ),
    "PNG 16 bits, grey with alpha": (
        lambda: sixteen_bit_png((0, 65535), (51400, 0)),
        (0, 0, 0),
        WHITE,
        ("on background", "scaled"),
    ),
    "WebP": (lambda: encoded(RED_BLUE, "WEBP", lossless=True), RED, BLUE, ()),
    "WebP with alpha": (
        lambda: encoded(halves("RGBA", (*RED, 255), (*BLUE, 0)), "WEBP", lossless=True),
        RED,
        WHITE,
        ("on background",),
    ),
    "WebP animated": (
        lambda: encoded(
            RED_BLUE, "WEBP", lossless=True, save_all=True, append_images=[halves("RGB", GREEN, GREEN)], duration=100
        ),
        RED,
        BLUE,
        ("animation",),
    ),
    "BMP": (lambda: encoded(RED_BLUE, "BMP"), RED, BLUE, ()),
    "BMP 1 bit": (lambda: encoded(halves("1", 0, 1), "BMP"), (0,), (255,), ()),
    "BMP palette": (lambda: encoded(palette(), "BMP"), RED, BLUE, ()),
    "GIF": (lambda: encoded(palette(), "GIF"), RED, BLUE, ()),
    "GIF transparent": (lambda: encoded(palette(), "GIF", transparency=1), RED, WHITE, ("on background",)),
    "GIF animated": (
        lambda: encoded(RED_BLUE, "GIF", save_all=True, append_images=[halves("RGB", GREEN, GREEN)]),
        RED,
        BLUE,
        ("animation",),
    ),
    "TIFF": (lambda: encoded(RED_BLUE, "TIFF"), RED, BLUE, ()),
    "TIFF LZW": (lambda: encoded(RED_BLUE, "TIFF", compression="tiff_lzw"), RED, BLUE, ()),
    "TIFF G4": (lambda: encoded(halves("1", 0, 1), "TIFF", compression="group4"), (0,), (255,), ()),
    "TIFF of two pages": (
        lambda: encoded(RED_BLUE, "TIFF", save_all=True, append_images=[halves("RGB", GREEN, GREEN)]),
        RED,
        BLUE,
        ("pages",),
    ),
    "TIFF CMYK": (lambda: encoded(RED_BLUE.convert("CMYK"), "TIFF"), RED, BLUE, ()),
    "TIFF LAB": (lambda: encoded(halves("LAB", (0, 128, 128), (255, 128, 128)), "TIFF"), (0, 0, 0), WHITE, ()),
    "TIFF YCbCr": (lambda: encoded(RED_BLUE.convert("YCbCr"), "TIFF"), (254, 0, 0), (0, 0, 254), ()),
    "TIFF with alpha": (
        lambda: encoded(halves("RGBA", (*RED, 255), (*BLUE, 0)), "TIFF"),
        RED,
        WHITE,
        ("on background",),
    ),
    "TIFF 16 bits": (lambda: encoded(numbers((0, 51400), "u2"), "TIFF"), (0,), (200,), ("scaled",)),
    "TIFF 16 bits, big-endian": (lambda: encoded(numbers((0, 51400), ">u2"), "TIFF"), (0,), (200,), ("scaled",)),
    "TIFF 32 bits, small": (lambda: encoded(numbers((7, 200), "i4"), "TIFF"), (7,), (200,), ("scaled",)),
    "TIFF 32 bits": (lambda: encoded(numbers((0, 51400), "i4"), "TIFF"), (0,), (200,), ("scaled",)),
    "TIFF 32 bits, negative": (lambda: encoded(numbers((-100000, 100000), "i4"), "TIFF"), (0,), (255,), ("scaled",)),
    "TIFF of floats to 1": (lambda: encoded(numbers((0.0, 0.6), "f4"), "TIFF"), (0,), (153,), ("scaled",)),
    "TIFF of floats to 255": (lambda: encoded(numbers((7.0, 200.2), "f4"), "TIFF"), (7,), (200,), ("scaled",)),
    "TIFF of floats, negative": (lambda: encoded(numbers((-3.0, 2.5), "f4"), "TIFF"), (0,), (255,), ("scaled",)),
    "TIFF of floats, none": (lambda: encoded(numbers((np.nan, 1.0), "f4"), "TIFF"), (0,), (255,), ("scaled",)),
    "PPM": (lambda: encoded(RED_BLUE, "PPM"), RED, BLUE, ()),
    "PGM": (lambda: encoded(halves("L", 10, 200), "PPM"), (10,), (200,), ()),
    "PGM 16 bits": (lambda: b"P5 2 1 65535\n" + struct.pack(">HH", 257, 51400), (1,), (200,), ("scaled",)),
    "PBM": (lambda: encoded(halves("1", 0, 1), "PPM"), (0,), (255,), ()),
    "PFM": (lambda: encoded(numbers((0.0, 0.6), "f4"), "PPM"), (0,), (153,), ("scaled",)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_becomes_of_a_picture(kind: str) -> None:
    make, left, right, treatments = KINDS[kind]
    picture = read(content := make())
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape == (*picture.size[::-1], len(left))
    found = colors_of(picture)
    assert np.abs(np.subtract(found, (left, right))).max() <= 2, found
    assert picture.treatments == treatments
    name = {"MPO": "JPEG", "PFM": "PPM", "PGM": "PPM", "PBM": "PPM"}.get(kind[:3], kind.partition(" ")[0].upper())
    assert picture.format == name
    small = read(content, side=8)
    assert min(small.pixels.shape[:2]) == min(8, *picture.size)
    assert np.abs(np.subtract(colors_of(small), (left, right))).max() <= 3


@pytest.mark.parametrize(("background", "shown"), [("black", (0, 0, 0)), ("#7f0000", (127, 0, 0)), ("lime", GREEN)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pictures_are_put_on_the_background(mode: str, background: str, shown: tuple[int, ...]) -> None:
    see_through = (*RED, 0) if mode == "RGBA" else (77, 0)
    found = read(encoded(Image.new(mode, (8, 8), see_through), "PNG"), background).pixels
    assert found.shape[2] == (1 if (mode, background) == ("LA", "black") else 3)
    assert (found == shown[: found.shape[2]]).all()


def test_heic_and_avif_are_read_where_their_plug_ins_are() -> None:
    for name, module in (("HEIF", "pillow_heif"), ("AVIF", "PIL._avif")):
        pytest.importorskip(module).__dict__.get("register_heif_opener", lambda: None)()
        picture = read(encoded(RED_BLUE, name, quality=95))
        assert (picture.format, picture.size) == (name, (32, 16))
        assert np.abs(np.subtract(colors_of(picture), (RED, BLUE))).max() <= 12


def test_a_heic_without_its_plug_in_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureError, match=r"HEIC.*pip install 'sweep-orchestrator\[heic\]'"):
        read(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


# Turns

CORNERS = Image.new("RGB", (160, 80), WHITE)
CORNERS.paste(RED, (0, 0, 80, 40))
CORNERS.paste(BLUE, (80, 40, 160, 80))


def exif(orientation: int, order: str = "<") -> bytes:
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return b"Exif\0\0" + tiff + struct.pack(f"{order}HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_pictures_are_turned_as_their_exif_says(name: str, orientation: int, order: str) -> None:
    """They are stored turned the other way, so that each is `CORNERS` again."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    stored = CORNERS if back is None else CORNERS.transpose(Image.Transpose(back))
    options: dict[str, Any] = {"exif": exif(orientation, order)}
    if name == "TIFF":
        options = {"tiffinfo": {0x0112: orientation}}
    if name == "MPO":
        options |= {"save_all": True, "append_images": [stored]}
    for side, size in ((None, (160, 80)), (20, (40, 20))):
        picture = read(encoded(stored, name, quality=95, **options), side=side)
        assert (picture.size, picture.pixels.shape[1::-1]) == ((160, 80), size)
        assert picture.treatments == (("turned",) if orientation > 1 else ())
        expected = np.asarray(CORNERS.resize(size, Image.Resampling.BOX)).astype(int)
        assert np.abs(picture.pixels.astype(int) - expected).mean() < 12


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "damaged", [b"XX*\0", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", exif(6)[6:20], b"M", bytes(30)]
)
def test_damaged_exif_is_left_alone(name: str, damaged: bytes, recwarn: pytest.WarningsRecorder) -> None:
    picture = read(encoded(CORNERS, name, exif=b"Exif\0\0" + damaged))
    assert (picture.size, picture.treatments) == ((160, 80), ("damaged EXIF",))
    assert not recwarn.list


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    assert read(encoded(CORNERS, "JPEG", exif=exif(orientation))).treatments == ()


def test_a_pillow_image_is_read_as_its_file() -> None:
    for content in (encoded(halves("RGBA", (*RED, 255), (*BLUE, 0)), "PNG"), encoded(CORNERS, "JPEG", exif=exif(6))):
        with Image.open(io.BytesIO(content)) as image:
            np.testing.assert_array_equal(decoder.convert(image, "lime"), read(content, "lime").pixels)
            assert min(decoder.convert(image, side=8).shape[:2]) == 8
