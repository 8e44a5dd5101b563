"""The formats of pictures that are read, and what a picture's header says before it is decoded."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

READ = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF, HEIC"
"""The formats, for a message; HEIC needs the extra heic. No others are tried: some of Pillow's start programs, and
some have had many holes."""

MOST_PIXELS = 178_956_970
"""Width × height of a picture. It is Pillow's limit, too; the largest usual sensors have 100 to 150 million pixels."""

JPEG_START = b"\xff\xd8"
_OPENERS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")  # that of JPEG also opens MPO
_JPEG_HEADER = 2**18  # bytes in which the EXIF and the frame's header of a JPEG begin, whatever else precedes them
_EXIF_START, _PROGRESSIVE = b"Exif\0\0", b"\xff\xc2"
_PILLOW = re.compile(r"PIL\.")
_ORIENTATION = 0x0112  # the number of the tag in EXIF and TIFF
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")

_DENSEST = {"JPEG": 2000, "PNG": 8 * 1032}
"""Pixels that a byte can hold at most: a Huffman code has at least a bit for the brightness of 8 × 8 pixels, and one
for the rest of them; deflate shrinks by 1,032 at most. Other formats hold any number of equal pixels in few bytes."""
_ALWAYS_PLAUSIBLE = 2**24  # pixels that cost so little memory that a wrong size may show later

BAND = 2**20
"""Pixels of a large picture whose colors are changed at a time."""

_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 4, "I;16B": 4, "I": 12, "F": 12}  # per pixel, with what converts it
_DECODER_BYTES = {"WEBP": 12, "AVIF": 6, "HEIF": 4}  # per pixel, beside what Pillow keeps
_COEFFICIENT_BYTES = {"420": 3, "422": 4, "Gray": 2}  # per pixel of a JPEG in several passes, which keeps them; else 6

SNIFFED = 64
"""Bytes of a file's beginning that `sniff` needs."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (JPEG_START + b"\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    *((b"P%d" % number, "PPM") for number in range(1, 7)),
    (b"Pf", "PPM"),
    (b"PF", "PPM"),
)
"""What files of the formats begin with; WebP, AVIF and HEIC are in containers that hold other things, too."""

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"", "it is empty"),
    (b"version https://git-lfs.github.com/spec/", "it is a Git LFS pointer, not the picture: run git lfs pull"),
    (b"%!ps", "it is a PostScript file"),
    (b"%pdf", "it is a PDF file"),
    (b"<svg", "it is an SVG drawing"),
    (b"<?xml", "it is an XML file"),
    (b"<!doctype html", "it is an HTML page, as servers send instead of a missing picture"),
    (b"<html", "it is an HTML page, as servers send instead of a missing picture"),
    (b"\0\0\0\x0cjp  ", "it is a JPEG 2000"),
    (b"8bps", "it is a Photoshop file"),
    (b"\0\0\1\0", "it is an icon"),
)
"""What a file that is no picture begins with, in lower case, and the reason in words."""


class PictureError(ValueError):
    """A picture that cannot be read; the text is the reason, without the picture's name."""


def opened(encoded: bytes) -> ImageFile:
    """Open an encoded picture of an allowed format with Pillow, which reads its header.

    Raises:
        PictureError: it is in no such format, or too large.
        Exception: whatever Pillow raises for a damaged header.
    """
    from PIL import Image, UnidentifiedImageError

    ignore_warnings()
    names = ("HEIF",) if sniff(encoded[:SNIFFED]) == "HEIF" and _register_heif() else _openers()
    try:
        return Image.open(io.BytesIO(encoded), formats=names)
    except Image.DecompressionBombError as error:
        raise PictureError(_too_large("too many pixels")) from error
    except UnidentifiedImageError as error:  # its own text names the bytes by their address, which changes
        raise PictureError(f"the image cannot be read: {_other_kind(encoded)}") from error


def sniff(start: bytes) -> str | None:
    """Return Pillow's name of the allowed format that a file seems to have by its first `SNIFFED` bytes."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp":
        if b"avif" in start[8:SNIFFED] or b"avis" in start[8:SNIFFED]:
            return "AVIF"
        return "HEIF" if start[8:12] in _HEIF_BRANDS else None
    found = next((name for magic, name in _MAGIC if start.startswith(magic)), None)
    if found == "PPM" and not start[2:3].isspace():
        return None
    return None if found == "BMP" and start[6:10] != bytes(4) else found


def ignore_warnings() -> None:
    """Have Pillow's warnings ignored in this process: they name no file, and what matters is found without them."""
    if not any(found[3] == _PILLOW for found in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def check_size(kind: str, size: tuple[int, int], length: int) -> None:
    """Raise PictureError if a picture of the format `kind` and of `length` bytes has a size that is not decoded."""
    pixels = size[0] * size[1]
    claimed = f"{size[0]:,} × {size[1]:,} pixels"
    if pixels > MOST_PIXELS:
        raise PictureError(_too_large(claimed))
    if pixels > _ALWAYS_PLAUSIBLE and pixels > _DENSEST.get(kind, pixels) * length > 0:
        raise PictureError(
            f"the image cannot be read: its header claims {claimed}, more than its {length:,} bytes hold"
        )


def _too_large(claimed: str) -> str:
    return f"the image cannot be read: its header claims {claimed}; at most {MOST_PIXELS:,} in all are read"


def memory(kind: str, mode: str, size: tuple[int, int], factor: int = 1, passes: str | None = None) -> int:
    """Return about how many bytes the decoding of a picture needs at once.

    Args:
        kind: the format.
        mode: Pillow's name of its colors.
        factor: by which the sides of a JPEG are divided as it is decoded.
        passes: how the colors of a JPEG are sampled that is stored in several passes; None: it is not.
    """
    decoded = _MODE_BYTES.get(mode, 4) + _DECODER_BYTES.get(kind, 0)
    kept = _COEFFICIENT_BYTES.get(passes, 6) if passes is not None else 0
    return size[0] * size[1] * decoded // factor**2 + size[0] * size[1] * kept + BAND * 12


def has_exif(jpeg: bytes) -> bool:
    """Return whether a JPEG may have EXIF."""
    return jpeg.find(_EXIF_START, 0, _JPEG_HEADER) >= 0


def is_progressive(jpeg: bytes) -> bool:
    """Return whether a JPEG may be stored in several passes."""
    return jpeg.find(_PROGRESSIVE, 0, _JPEG_HEADER) >= 0


def name(image: Image.Image) -> str:
    """Return Pillow's name of a picture's format; JPEG for one that holds further ones, such as those of phones."""
    return (image.format or "").replace("MPO", "JPEG")


def frames(image: Image.Image) -> str | None:
    """Return "animation" or "pages" if a picture has more frames than the first; None if not."""
    try:
        several = bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame is not read
        return None
    return {"TIFF": "pages", "HEIF": "pages", "JPEG": None}.get(name(image), "animation") if several else None


def orientation(image: Image.Image) -> int | None:
    """Return the orientation that the EXIF of a loaded picture gives, 1 to 8; None if the EXIF is damaged.

    Pillow's reader of EXIF warns without the file's name, and does not say what it left out.
    """
    exif = image.info.get("exif") or b""
    try:
        value = _exif_orientation(exif[len(_EXIF_START) :] if exif.startswith(_EXIF_START) else exif)
    except (struct.error, KeyError):
        return None
    return value if 1 <= value <= 8 else 1


def tiff_orientation(image: Image.Image) -> int:
    """Return the orientation of a TIFF, 1 to 8, before it is loaded, which turns it; 1 for other pictures."""
    value = getattr(image, "tag_v2", {}).get(_ORIENTATION, 1) if image.format == "TIFF" else 1
    return value if value in range(1, 9) else 1


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation in a block of EXIF; 1 if it has none. Raise struct.error or KeyError if it is damaged."""
    if not exif:
        return 1
    order = {b"II": "<", b"MM": ">"}[exif[:2]]
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (entries,) = struct.unpack_from(f"{order}H", exif, start)
    for entry in range(entries):
        place = start + 2 + 12 * entry
        tag, kind = struct.unpack_from(f"{order}HH", exif, place)
        if tag == _ORIENTATION:
            return int(struct.unpack_from(order + ("I" if kind == 4 else "H"), exif, place + 8)[0])
    return 1


def bits(image: Image.Image, encoded: bytes) -> int:
    """Return how many bits a channel of an opened picture has; Pillow has cut those of colors to 8."""
    if image.format == "PNG":
        return encoded[24]  # of the header, which is always first
    if image.format == "TIFF":
        return int(max(getattr(image, "tag_v2", {}).get(258, (8,))))  # BitsPerSample
    return 8


@cache
def _openers() -> tuple[str, ...]:
    """Return the names of the openers that this Pillow has, of those allowed."""
    from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401 - they are opened by name

    with suppress(ImportError):
        from PIL import AvifImagePlugin  # noqa: F401
    Image.preinit()
    return tuple(name for name in _OPENERS if name in Image.OPEN)


def _register_heif() -> bool:
    """Teach Pillow to open HEIC and return True; raise PictureError where that is not installed."""
    from PIL import Image

    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        need = "it is a HEIC picture; to read those: pip install 'sweep-orchestrator[heic]'"
        raise PictureError(f"the image cannot be read: {need}") from error
    if "HEIF" not in Image.OPEN:
        register_heif_opener(thumbnails=False)
    return True


def _other_kind(encoded: bytes) -> str:
    """Return why a file is not opened, in words."""
    if begun := sniff(encoded[:SNIFFED]):
        return f"it begins as a picture of the format {begun}, and is damaged"
    start = encoded[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    known: Callable[[bytes], bool] = lambda first: start.startswith(first) if first else not encoded  # noqa: E731
    if encoded[:1] in (b"<", b"\xef") and b"<svg" in encoded[:4096].lower():
        return f"it is an SVG drawing; read are {READ}"
    reason = next((reason for first, reason in _OTHERS if known(first)), "it is in no format that is known here")
    return reason if "; " in reason or "git" in reason or not encoded else f"{reason}; read are {READ}"
