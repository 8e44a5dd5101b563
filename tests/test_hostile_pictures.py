"""What is no picture, or costs more than it seems: named within its time and its memory, and never run."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from test_decoder import encoded, png

from trainables.datasets import colors, formats
from trainables.datasets.decoder import LARGEST_FILE, read
from trainables.datasets.formats import PictureError
from trainables.datasets.inventory import Inventory, Tally

NOISE = Image.effect_noise((64, 48), 100)


def claiming(width: int, height: int) -> bytes:
    """Return a JPEG whose header claims a size that it does not have."""
    content = bytearray(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def claiming_png(width: int, height: int) -> bytes:
    return png(IHDR=struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), IDAT=b"x\x9c", IEND=b"")


CONTENTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "it is empty"),
    "text": (lambda: b"no picture", "it is in no format that is known here; read are JPEG, PNG"),
    "zeros": (lambda: bytes(1000), "no format"),
    "HTML": (lambda: b"<!DOCTYPE html><html><body>404", "an HTML page, as servers send"),
    "HTML after blanks": (lambda: b"\n <html>404", "an HTML page"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "SVG in XML": (lambda: b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg/>', "an SVG drawing"),
    "PDF": (lambda: b"%PDF-1.7\n", "a PDF file"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "a PostScript file"),
    "PSD": (lambda: b"8BPS\0\1" + bytes(100), "a Photoshop file"),
    "icon": (lambda: encoded(Image.new("RGB", (16, 16)), "ICO"), "an icon"),
    "JPEG 2000": (lambda: encoded(NOISE, "JPEG2000"), "a JPEG 2000"),
    "TGA": (lambda: encoded(NOISE, "TGA"), "no format"),
    "Git LFS pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        "a Git LFS pointer, not the picture: run git lfs pull$",
    ),
    "start of a JPEG": (lambda: encoded(NOISE, "JPEG")[:3], "begins as a picture of the format JPEG, and is damaged"),
    "JPEG cut short": (lambda: encoded(NOISE, "JPEG")[:-100], "truncated"),
    "PNG cut short": (lambda: encoded(NOISE, "PNG")[:-100], "truncated"),
    "WebP cut short": (lambda: encoded(NOISE, "WEBP")[:-100], ""),
    "GIF cut short": (lambda: encoded(NOISE, "GIF")[:-100], "truncated"),
    "TIFF cut short": (lambda: encoded(NOISE, "TIFF")[:500], ""),
    "BMP cut short": (lambda: encoded(NOISE, "BMP")[:-100], "truncated"),
    "PPM cut short": (lambda: encoded(NOISE, "PPM")[:-100], ""),
    "AVIF cut short": (lambda: encoded(NOISE, "AVIF")[:-100], ""),
    "JPEG that claims 400 million pixels": (
        lambda: claiming(20000, 20000),
        "its header claims 20,000 × 20,000 pixels; at most 178,956,970 in all are read",
    ),
    "JPEG that claims 100 million pixels": (
        lambda: claiming(10000, 10000),
        "claims 10,000 × 10,000 pixels, more than its [0-9]+ bytes hold",
    ),
    "PNG that claims 400 million pixels": (lambda: claiming_png(20000, 20000), "claims too many pixels"),
    "PNG that claims 100 million pixels": (lambda: claiming_png(10000, 10000), "more than its [0-9]+ bytes hold"),
    "PNG that claims no pixels": (lambda: claiming_png(0, 8), ""),
    "PPM that claims 10^12 pixels": (lambda: b"P6 1000000 1000000 255\n", "claims too many pixels"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_no_picture_is_named(kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    make, reason = CONTENTS[kind]
    (tmp_path / "0.jpg").write_bytes(make())
    for source in (make(), tmp_path / "0.jpg"):
        with pytest.raises(PictureError, match=f"^the image cannot be read: .*{reason}"):
            read(source)
    assert not recwarn.list


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened, contextlib.chdir(path.parent):  # its path has at most 107 bytes
        opened.bind(path.name)


def linked_pipe(path: Path) -> None:
    os.mkfifo(path.parent / "pipe")
    path.symlink_to("pipe")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)


PATHS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "^there is no such file$"),
    "in a file": (lambda path: path.parent.joinpath("1.png").write_bytes(b""), "^there is no such file$"),
    "folder": (Path.mkdir, "^a folder, not a file$"),
    "pipe": (os.mkfifo, "^a named pipe, not a file$"),
    "socket": (bound_socket, "^a socket, not a file$"),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), "^a device, not a file$"),
    "terminal": (lambda path: path.symlink_to("/dev/tty"), "^a device, not a file$"),
    "dangling link": (lambda path: path.symlink_to("nowhere.png"), "^a link to a file that is not there$"),
    "link to itself": (lambda path: path.symlink_to(path.name), "^a link that leads back to itself$"),
    "link to a pipe": (linked_pipe, "^a named pipe, not a file$"),
    "too long": (sparse, "^the file has 1,073,741,825 bytes, and a picture has at most 1,073,741,824$"),
    "kernel's file": (lambda path: path.symlink_to("/proc/self/status"), "it is empty"),
}


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.timeout(10)
def test_what_is_no_file_is_named(kind: str, tmp_path: Path) -> None:
    make, reason = PATHS[kind]
    make(tmp_path / "0.png")
    with pytest.raises(PictureError, match=reason):
        read(tmp_path / "0.png")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a" * 300 + ".png", "name is too long"),
        ("a\0.png", "no file can have this name"),
        ("\ud800.png", "no file can have this name"),
        ("\udcff.png", "no such file"),
    ],
)
def test_names_that_no_file_has_are_named(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=reason):
        read(tmp_path / name)


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(encoded(NOISE, "PNG"))
    (tmp_path / "0.png").chmod(0)
    if os.access(tmp_path / "0.png", os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(PictureError, match="no permission to read it"):
        read(tmp_path / "0.png")


def test_a_name_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:  # noqa: PTH123 - a name of bytes
        file.write(encoded(NOISE, "PNG"))
    assert read(Path(os.fsdecode(path))).size == (64, 48)


@pytest.mark.parametrize("name", ["x.png", "x.eps", "x.jpg"])
def test_no_interpreter_is_started(name: str, tmp_path: Path) -> None:
    """A program that leaves a mark is on the path under the names that Pillow starts."""
    for program in ("gs", "gswin32c", "djpeg", "convert"):
        (tmp_path / program).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / name).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"
    )
    script = (
        f"from pathlib import Path; from trainables.datasets.decoder import read; read(Path({str(tmp_path / name)!r}))"
    )
    search = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / name], env=search, capture_output=True, text=True, timeout=60
    )
    assert "it is a PostScript file" in done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda: claiming(20000, 20000),
        lambda: claiming(13000, 13000),
        lambda: claiming_png(13000, 13000),
        lambda: claiming_png(20000, 20000),
    ],
)
def test_a_claimed_size_costs_nothing(make: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(make())
    started = time.perf_counter()
    before = peak()
    with pytest.raises(PictureError, match="claims"):
        read(tmp_path / "0.jpg")
    assert time.perf_counter() - started < 0.2
    assert peak() - before < 20e6


def peak() -> int:
    """Return the most bytes that this process has had in memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    ("start", "name"),
    [
        *(
            (encoded(NOISE.convert("RGB"), name), name)
            for name in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
        ),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", None),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"BMW is a make of cars", None),
        (b"P5 and other notes", "PPM"),
        (b"P5: notes", None),
        (b"", None),
    ],
)
def test_formats_are_known_by_their_beginning(start: bytes, name: str | None) -> None:
    assert formats.sniff(start[: formats.SNIFFED]) == name


# What is reported


def test_a_tally_sums_up_pictures() -> None:
    tally = Tally()
    for name, size, treatments in (
        ("JPEG", (40, 30), ("turned",)),
        ("PNG", (10, 10), ("on background",)),
        ("JPEG", (30, 50), ("turned", "damaged EXIF")),
        ("GIF", (20, 20), ("animation", "on background")),
    ):
        tally.add(name, size, treatments)
    found = tally.complete(Inventory("class folders", notes=("read twice",)), "white")
    assert (found.layout, dict(found.formats)) == ("class folders", {"JPEG": 2, "PNG": 1, "GIF": 1})
    assert (found.smallest, found.largest) == ((10, 10), (30, 50))
    assert found.notes == (
        "read twice",
        "1 animation: its first frame is used",
        "2 pictures turned as their EXIF says",
        "1 picture with damaged EXIF, not turned",
        "2 transparent pictures on white",
    )
    assert Tally().complete(Inventory(), "white") == Inventory()


@pytest.mark.parametrize(
    ("color", "message"),
    [
        ("whit", "--background whit: no color; did you mean white?"),
        ("#12345", "--background #12345: no color (allowed: white"),
        ("#ffffff80", "no color"),
        ("", "no color"),
        ("rgb(300%,0,0", "no color"),
    ],
)
def test_a_wrong_background_is_named(color: str, message: str) -> None:
    (problem,) = colors.check_background(color)
    assert message in problem


@pytest.mark.parametrize("color", ["white", "black", "LightGrey", "#fff", "#F0F0F0", "rgb(1,2,3)", "hsl(0,100%,50%)"])
def test_a_background_is_a_color(color: str) -> None:
    assert colors.check_background(color) == []
    assert all(0 <= value <= 255 for value in colors.parse(color))
