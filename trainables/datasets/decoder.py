"""The one door for pictures: every file or block of bytes that may be one is opened here.

`read` gives the whole picture, in 8 bits a channel, grey or RGB, upright, on a background, scaled down if its shorter
side is longer than asked for, and never cropped. `convert` does the same to a picture that a program has made. What is
allowed is in `formats`, what becomes of colors in `colors`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.datasets import formats
from trainables.datasets.colors import Plain
from trainables.datasets.formats import PictureError
from trainables.datasets.source import Pixels
from trainables.errors import shown
from trainables.files import UnreadableError, open_regular

if TYPE_CHECKING:
    from PIL import Image

DIGEST_BYTES = 16
LARGEST_FILE = 2**30
"""Bytes. A longer file is no picture, and is not read."""

_PLAIN_SPACES = {"Gray": "Gray", "YCbCr": "RGB", "RGB": "RGB"}  # of a JPEG: what it is decoded to
_THUMBNAIL = 2**16  # pixels of a picture that needs no memory to speak of
_GAP = 2  # a picture that is scaled down by more than twice this is reduced by a whole number first, as Pillow advises

_SIDEWAYS = 5  # EXIF's orientations from here on exchange width and height
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF's orientations, and the numbers of Pillow's `Transpose` that make them upright."""

Reserve = Callable[[int], None]
"""Called with a number of bytes before so many are needed; it may wait until they are free."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it was read."""

    pixels: Pixels  # uint8 [h, w, C]; C is 1 if the picture is grey, else 3
    format: str  # Pillow's name, such as "JPEG" or "PNG"
    size: tuple[int, int]  # width and height in pixels, upright and before it was scaled
    treatments: tuple[str, ...]  # what else was done to it: keys of `inventory.TREATMENTS`
    digest: bytes  # the first bytes of the SHA-256 of what was encoded: equal for equal files

    @property
    def nbytes(self) -> int:
        """The bytes of its pixels."""
        return self.pixels.nbytes


def no_limit(needed: int) -> None:
    """Reserve memory without a limit."""


def read(
    source: bytes | Path, background: str = "white", side: int | None = None, reserve: Reserve = no_limit
) -> Picture:
    """Read an encoded picture, or the file that holds it.

    It is turned as its EXIF says. Of an animation the first frame is read. More than 8 bits a channel are scaled as
    `colors.value_range` says. The size that the header claims is checked before anything is decoded.

    Args:
        background: what transparent pictures are put on; see `colors.parse`.
        side: pixels; a picture whose shorter side is longer is scaled down to that, its longer side in proportion.
        reserve: called once the header is read, for what the decoding needs.

    Raises:
        PictureError: it cannot be read; the message is the reason, without the file's name.
    """
    encoded = source if isinstance(source, bytes) else content(source)
    try:
        pixels, name, size, treatments = _plain_jpeg(encoded, side, reserve) or _any(encoded, background, side, reserve)
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError("the image cannot be read: there is not enough memory") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        raise PictureError(f"the image cannot be read: {shown(error) or type(error).__name__}") from error
    return Picture(pixels, name, size, treatments, hashlib.sha256(encoded).digest()[:DIGEST_BYTES])


def convert(image: Image.Image, background: str = "white", side: int | None = None) -> Pixels:
    """Return the pixels of a picture that Pillow has opened or made, uint8 [h, w, C], as those of `read`.

    Raises:
        PictureError: it cannot be read.
    """
    if not image.width * image.height:
        raise PictureError("the image cannot be read: it has no pixels")
    try:
        image.load()
        small = _scaled(image, Plain(image, background), image.size, _target(image.size, side))
        return _upright(small, image)[0]
    except Exception as error:  # it may be a file that Pillow has opened only
        raise PictureError(f"the image cannot be read: {shown(error) or type(error).__name__}") from error


def content(file: Path, reserve: Reserve = no_limit) -> bytes:
    """Return the content of a file that may be a picture; `reserve` is called with its length.

    Raises:
        PictureError: it is no regular file, may not be read or is too long.
    """
    try:
        with open_regular(file) as opened:
            length = os.fstat(opened.fileno()).st_size
            if length > LARGEST_FILE:
                raise PictureError(f"the file has {length:,} bytes, and a picture has at most {LARGEST_FILE:,}")
            reserve(length)
            return opened.read(length)
    except UnreadableError as error:
        raise PictureError(str(error)) from error
    except OSError as error:
        raise PictureError(f"the file cannot be read: {error.strerror or error}") from error


_Decoded = tuple[Pixels, str, tuple[int, int], tuple[str, ...]]  # the fields of a `Picture`, without its digest


def _plain_jpeg(encoded: bytes, side: int | None, reserve: Reserve) -> _Decoded | None:
    """Decode a JPEG without EXIF, grey or in color, with libjpeg-turbo, which Pillow uses, too.

    Return None for all other pictures, and for a damaged one. For a thumbnail Pillow takes five times as long, most of
    it in Python, so that a model that runs at the same time has to wait.
    """
    import simplejpeg

    if not encoded.startswith(formats.JPEG_START) or formats.has_exif(encoded):
        return None
    try:
        height, width, space, sampling = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return None
    if space not in _PLAIN_SPACES:
        return None
    size = width, height
    target = _target(size, side)
    factor = _jpeg_factor(size, target)
    if width * height > _THUMBNAIL:
        formats.check_size("JPEG", size, len(encoded))
        passes = sampling if formats.is_progressive(encoded) else None
        reserve(formats.memory("JPEG", "RGB", size, factor, passes))
    least = (-(-height // factor), -(-width // factor)) if factor > 1 else (0, 0)
    try:
        decoded: Pixels = simplejpeg.decode_jpeg(encoded, _PLAIN_SPACES[space], min_height=least[0], min_width=least[1])
    except ValueError:
        return None
    return _scaled_array(decoded, (width / factor, height / factor), target), "JPEG", size, ()


def _any(encoded: bytes, background: str, side: int | None, reserve: Reserve) -> _Decoded:
    """Decode a picture of any format with Pillow."""
    with formats.opened(encoded) as image:
        name, size = formats.name(image), image.size
        formats.check_size(name, size, len(encoded))
        found = [formats.frames(image), "turned" if formats.tiff_orientation(image) > 1 else None]
        factor = _jpeg_factor(size, _target(size, side)) if name == "JPEG" else 1
        reserve(formats.memory(name, image.mode, size, factor, "444" if "progressive" in image.info else None))
        bits = formats.bits(image, encoded)
        if factor > 1:
            image.draft(None, (image.width // factor, image.height // factor))
        image.load()
        plain = Plain(image, background, bits)
        small = _scaled(image, plain, (size[0] / factor, size[1] / factor), _target(size, side))
        pixels, orientation = _upright(small, image)
    found += ["turned" if (orientation or 1) > 1 else None, "damaged EXIF" if orientation is None else None]
    found += ["on background" if plain.transparent else None, "scaled" if plain.scaled else None]
    upright = size[::-1] if (orientation or 1) >= _SIDEWAYS else size
    return pixels, name, upright, tuple(treatment for treatment in found if treatment)


def _jpeg_factor(size: tuple[int, int], target: tuple[int, int]) -> int:
    """Return by what a JPEG's sides can be divided as it is decoded, for nothing, and still reach `target`."""
    if size == target:
        return 1
    most = min(size[0] // target[0], size[1] // target[1])
    return max(factor for factor in (1, 2, 4, 8) if factor <= max(1, most))


def _target(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Return the width and height of a picture of `size` whose shorter side is at most `side`."""
    short = min(size)
    if side is None or short <= side:
        return size
    return max(1, round(size[0] * side / short)), max(1, round(size[1] * side / short))


def _scaled_array(pixels: Pixels, box: tuple[float, float], target: tuple[int, int]) -> Pixels:
    """Return plain pixels [h, w, C] scaled to the width and height `target`; `box` of them are used."""
    if pixels.shape[1::-1] == target:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return _array(_scaled(image, lambda part: part, box, target))


def _scaled(
    image: Image.Image, plain: Callable[[Image.Image], Image.Image], box: tuple[float, float], target: tuple[int, int]
) -> Image.Image:
    """Return a loaded picture, plain and scaled to the width and height `target`; `box` of its pixels are used.

    A large one is made plain band by band, so that there is never a second one of its size.
    """
    from PIL import Image

    whole = max(1, int(min(image.width / target[0], image.height / target[1]) / _GAP))
    rows = max(1, formats.BAND // (image.width * whole)) * whole
    bands = []
    for top in range(0, image.height, rows):
        part = plain(
            image if rows >= image.height else image.crop((0, top, image.width, min(top + rows, image.height)))
        )
        bands.append(part.reduce(whole) if whole > 1 else part)
    reduced = bands[0] if len(bands) == 1 else Image.fromarray(np.concatenate([np.asarray(band) for band in bands]))
    if reduced.size == target:
        return reduced
    return reduced.resize(target, Image.Resampling.BICUBIC, (0, 0, box[0] / whole, box[1] / whole))


def _upright(small: Image.Image, image: Image.Image) -> tuple[Pixels, int | None]:
    """Return the pixels of `small`, turned as the EXIF of `image` says, and the orientation there; None if damaged."""
    from PIL import Image

    orientation = formats.orientation(image)
    turn = _TURNS.get(orientation or 1)
    return _array(small if turn is None else small.transpose(Image.Transpose(turn))), orientation


def _array(image: Image.Image) -> Pixels:
    """Return the pixels of a plain image, [h, w, C]."""
    array = np.asarray(image)
    return array[..., np.newaxis] if array.ndim == 2 else array
