"""The colors of pictures: all kinds of them become grey or RGB in 8 bits, transparent ones on a background."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainables.errors import did_you_mean

if TYPE_CHECKING:
    from PIL import Image

_GREY = ("1", "L", "LA", "La", "I", "F")
_SIXTEEN_BITS = 2**16 - 1


@cache
def parse(color: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of a color's name, or of a text such as `#f0f0f0` or `rgb(240, 240, 240)`.

    Raises:
        ValueError: it is none, or a transparent one.
    """
    from PIL import ImageColor

    red, green, blue, *alpha = ImageColor.getrgb(color)
    if alpha:
        raise ValueError(f"{color!r} is transparent")
    return red, green, blue


def check_background(color: str) -> list[str]:
    """Return a message if `--background` is no color."""
    if color in ("white", "black"):  # no need to load Pillow
        return []
    from PIL import ImageColor

    try:
        parse(color)
    except ValueError:
        nearest = did_you_mean(color.lower(), ImageColor.colormap)
        return [
            f"--background {color}: no color{nearest} (allowed: white, black, other names of CSS colors, '#f0f0f0')"
        ]
    return []


class Plain:
    """Makes parts of one loaded image plain: mode "L" if it is grey, else "RGB".

    Attributes:
        transparent: whether a part was transparent anywhere.
        scaled: whether it has more than 8 bits a channel.
    """

    def __init__(self, image: Image.Image, background: str, bits: int = 8) -> None:
        """Find out what has to be done to the parts of `image`, which has `bits` bits a channel."""
        self._background = parse(background)
        self._see_through = image.has_transparency_data
        grey = image.mode in _GREY or image.mode.startswith("I;")
        self._mode = "L" if grey and (not self._see_through or len(set(self._background)) == 1) else "RGB"
        self._range = value_range(image, bits) if grey and image.mode not in ("1", "L", "LA", "La") else None
        self._key = image.info.get("transparency") if self._range else None  # the value that is transparent
        self.transparent, self.scaled = False, bits > 8 or self._range is not None
        if bits > 8 and isinstance(key := image.info.get("transparency"), tuple):
            image.info["transparency"] = tuple(value >> 8 for value in key)  # Pillow has cut the pixels likewise

    def __call__(self, part: Image.Image) -> Image.Image:
        """Return a part of the image, plain."""
        if self._range is not None:
            part = self._eight_bits(part)
        if not self._see_through:
            return part if part.mode == self._mode else part.convert(self._mode)
        if part.mode in ("La", "RGBa"):
            part = part.convert(part.mode.replace("a", "A"))
        return self._flat(part if part.mode == "RGBA" else part.convert("RGBA"))

    def _flat(self, part: Image.Image) -> Image.Image:
        """Return an RGBA image on the background."""
        from PIL import Image

        if part.getchannel("A").getextrema()[0] == 255:
            return part.convert(self._mode)
        self.transparent = True
        ground = Image.new("RGBA", part.size, (*self._background, 255))
        ground.alpha_composite(part)
        return ground.convert(self._mode)

    def _eight_bits(self, part: Image.Image) -> Image.Image:
        """Return an image of numbers as "L", or as "LA" if one of them stands for transparency."""
        from PIL import Image

        low, high = self._range or (0, 255)
        values = np.asarray(part)
        scaled = (np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low) - low) * (
            255 / ((high - low) or 1)
        )
        grey = Image.fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8))
        if isinstance(self._key, int):
            grey.putalpha(Image.fromarray(np.where(values == self._key, 0, 255).astype(np.uint8)))
        return grey


def value_range(image: Image.Image, bits: int) -> tuple[float, float]:
    """Return the values that become 0 and 255 in a grey image of integers of more than 8 bits, or of floats.

    Of unsigned integers of at most 16 bits they are the least and the greatest that the format can hold. Of others they
    are the ends of the smallest of the ranges 0 to 1 (floats), 0 to 255 and 0 to 65,535 that holds all the image's
    values, else its least and greatest value.
    """
    inverted = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0  # "white is zero"
    if image.mode.startswith("I;") or (image.format == "PPM" and image.mode == "I"):
        top = 2**bits - 1 if 8 < bits < 16 else _SIXTEEN_BITS
        return (top, 0) if inverted else (0, top)
    values: NDArray[Any] = np.asarray(image)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0, 1
    low, high = float(finite.min()), float(finite.max())
    tops = (1, 255, _SIXTEEN_BITS) if image.mode == "F" else (255, _SIXTEEN_BITS)
    return next(((0, top) for top in tops if low >= 0 and high <= top), (low, high))
