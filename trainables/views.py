"""Views: what a model sees of a picture, always a square. Which part of the picture that is, and the pixels of it.

A view's part is a box (top, left, height, width) in pixels of the stored picture; it may reach beyond the picture,
where there is background. Pixels are scaled with antialiasing, bilinear or bicubic, to 8 bits, as torchvision's and
Pillow's `resize` do it: on the CPU picture by picture, on another device for a batch of images of one shape.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainables.augmentation import crop_boxes
from trainables.config import TrialConfig
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import StoredImages
from trainables.errors import look_up

Color = Sequence[int]
"""Red, green and blue, 0 to 255."""

ROWS_A_THREAD = 4  # of a batch, at least: for fewer another thread does not pay
MOST_THREADS = 32
MOST_SCALED = 2**29  # bytes of scaled images that a process keeps
THUMBNAIL = 2**16  # bytes; smaller images of one shape are scaled together, as calls for each would take longer


def _center(height: Tensor, width: Tensor) -> Tensor:
    side = torch.minimum(height, width)
    return torch.stack(((height - side) // 2, (width - side) // 2, side, side))


def _around(height: Tensor, width: Tensor) -> Tensor:
    side = torch.maximum(height, width)
    return torch.stack((-((side - height) // 2), -((side - width) // 2), side, side))


def _all(height: Tensor, width: Tensor) -> Tensor:
    return torch.stack((torch.zeros_like(height), torch.zeros_like(width), height, width))


FRAMES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"crop": _center, "pad": _around, "squash": _all}
"""Values of `fit` → heights and widths, int64 [B] each, to the boxes that are evaluated, int64 [4, B]."""


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Return the cubic convolution of Keys 1981 (doi 10.1109/TASSP.1981.1163711) with a = -1/2, as Pillow has it."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0))


KERNELS: dict[str, Callable[[Tensor], Tensor]] = {"bilinear": _triangle, "bicubic": _cubic}
"""Values of `interpolation` → the weight of a pixel by its distance, at least 0, in pixels of the coarser grid."""


def frames(sizes: Tensor, config: TrialConfig) -> Tensor:
    """Return the boxes that are evaluated of pictures with these `sizes`, int64 [2, B], as int64 [4, B]."""
    return look_up(FRAMES, config.fit, "fit")(*sizes)


def random_frames(sizes: Tensor, config: TrialConfig, generator: torch.Generator) -> Tensor:
    """Draw the boxes of random resized crops, int64 [4, B], from pictures with these `sizes`, int64 [2, B].

    Under `fit=crop` they are drawn from the whole picture, under `pad` from the padded square, and under `squash` from
    the picture that was squashed to a square. See `crop_boxes` for what is drawn.
    """
    height, width = sizes
    if config.fit == "crop":
        return crop_boxes(height, width, config.resized_crop, generator)
    side = torch.maximum(height, width)
    boxes = crop_boxes(side, side, config.resized_crop, generator)
    if config.fit == "pad":
        boxes[:2] += frames(sizes, config)[:2]
        return boxes
    scale = torch.stack((height, width, height, width)).double() / side
    return torch.cat(((boxes * scale)[:2].floor(), (boxes * scale)[2:].round().clamp(min=1))).long()


def rendered(
    images: StoredImages, rows: Tensor, boxes: Tensor, size: tuple[int, int], background: Color, interpolation: str
) -> Tensor:
    """Return the views of `rows`, int64 [B], as uint8 [B, H, W, C] of `size` H × W, on the CPU's threads."""
    views = np.empty((len(rows), *size, images.shape[3]), dtype=np.uint8)
    numbers, places = rows.numpy(), boxes.T.tolist()

    def render(part: slice) -> None:
        for picture, box, view in zip(images.pictures(numbers[part]), places[part], views[part], strict=True):
            render_one(picture, box, view, background, interpolation)

    threads = max(1, min(torch.get_num_threads(), MOST_THREADS, len(rows) // ROWS_A_THREAD))
    ends = np.linspace(0, len(rows), threads + 1).astype(int).tolist()
    parts = [slice(start, stop) for start, stop in pairwise(ends)]
    for _ in map(render, parts) if threads == 1 else _threads().map(render, parts):
        pass
    return torch.from_numpy(views)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_THREADS)


def render_one(
    picture: Pixels, box: Sequence[int], view: Pixels, background: Color, interpolation: str = "bilinear"
) -> None:
    """Write the part `box` of a picture [h, w, c] into `view`, uint8 [H, W, C]; a grey one may become colored."""
    (top, bottom, first, last), (left, right, start, stop) = (
        _overlap(begin, length, total, out)
        for begin, length, total, out in zip(box[:2], box[2:], picture.shape[:2], view.shape[:2], strict=True)
    )
    if (last - first, stop - start) != view.shape[:2]:
        view[:] = background[: view.shape[2]]
    if first == last or start == stop:
        return
    part = picture[top:bottom, left:right]
    if part.shape[:2] != (last - first, stop - start):
        part = _interpolated(np.array(part)[None], (last - first, stop - start), interpolation)[0].numpy()
    view[first:last, start:stop] = part


def _interpolated(images: Pixels, size: tuple[int, int], interpolation: str) -> Tensor:
    """Return images [B, h, w, C], which may be written to, scaled to `size` H × W: uint8 [B, H, W, C]."""
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    return functional.interpolate(tensor, size, mode=interpolation, antialias=True).permute(0, 2, 3, 1)


def _overlap(begin: int, length: int, total: int, out: int) -> tuple[int, int, int, int]:
    """Return where a box of `length` from `begin` lies in `total` pixels, and where that lies in the view's `out`."""
    first, last = max(begin, 0), min(begin + length, total)
    if first >= last:
        return 0, 0, 0, 0
    start = min(round((first - begin) * out / length), out - 1)
    return first, last, start, max(round((last - begin) * out / length), start + 1)


def resampled(images: Tensor, boxes: Tensor, size: tuple[int, int], color: Tensor, interpolation: str) -> Tensor:
    """Return the parts `boxes`, int64 [4, B] on the CPU, of `images`, uint8 [B, H, W, C], as uint8 [B, h, w, C].

    It is what `rendered` returns, but for rounding, as two products with matrices: that suits a GPU.

    Args:
        color: the background's, int64 [C], on the device of the images.
    """
    height, width = images.shape[1:3]
    kernel = look_up(KERNELS, interpolation, "interpolation")
    down = _weights(boxes[0], boxes[2], height, size[0], kernel, images.device)
    across = _weights(boxes[1], boxes[3], width, size[1], kernel, images.device)
    pixels = images.permute(0, 3, 1, 2).float()
    seen = down[:, None] @ (pixels @ across[:, None].mT).clamp_(0, 255)
    covered = down.sum(2)[:, None, :, None] * across.sum(2)[:, None, None, :]
    return (seen + (1 - covered) * color[:, None, None]).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _weights(
    begin: Tensor,
    length: Tensor,
    total: int,
    out: int,
    kernel: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Tensor:
    """Return the shares of `total` source pixels in each of `out` pixels of the boxes' views, float32 [B, out, total].

    They are the kernel's, in source pixels or, if the view is smaller, in its pixels; a pixel beyond the picture has
    none. The device computes them from four numbers a view.
    """
    places = [
        _overlap(first, pixels, total, out) for first, pixels in zip(begin.tolist(), length.tolist(), strict=True)
    ]
    first, last, start, stop = (
        torch.tensor(values).to(device, non_blocking=True)[:, None, None] for values in zip(*places, strict=True)
    )
    scale = (last - first) / (stop - start).clamp(min=1)
    outer = torch.arange(out, device=device)[None, :, None]
    inner = torch.arange(total, device=device)[None, None, :]
    distance = inner + 0.5 - ((outer - start + 0.5) * scale + first)
    shares = kernel(distance.abs() / scale.clamp(min=1))
    shares = shares * ((inner >= first) & (inner < last) & (outer >= start) & (outer < stop))
    return shares / shares.sum(2, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def center_crop(views: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the center of views [B, H, W, C], `size` pixels high and wide."""
    top, left = (round((length - wanted) / 2) for length, wanted in zip(views.shape[1:3], size, strict=True))
    return views[:, top : top + size[0], left : left + size[1]]


class Streamed:
    """Images that stay where they are, in files or in memory: their views are made when they are needed."""

    device = torch.device("cpu")  # where row numbers must be

    def __init__(self, images: Pixels | StoredImages, target: torch.device, background: Color) -> None:
        self.stored, self._target, self._background = StoredImages.of(images), target, background
        self.shape = images.shape
        self._scaled: _Scaled | None = None

    def sizes(self, rows: Tensor) -> Tensor:
        """Return height and width of the pictures of `rows`, int64 [2, B]."""
        return torch.from_numpy(self.stored.sizes(rows.numpy()))

    def view(
        self, rows: Tensor, boxes: Tensor, size: tuple[int, int], interpolation: str = "bilinear", keep: bool = False
    ) -> Tensor:
        """Return the views of `rows`, uint8 [B, H, W, C], on the CPU; in pinned memory if they are for a GPU.

        Args:
            keep: scaled images of one shape, of all of which the same box is seen, are kept, as they will be asked for
                again. Whoever asks for them later gets those.
        """
        if self.stored.uniform and _whole(boxes, self.shape, size):
            views = torch.from_numpy(self.stored[rows.numpy()])
        else:
            kept = self._kept(boxes, size, interpolation, keep)
            views = self._made(rows, boxes, size, interpolation) if kept is None else self._known(kept, rows, boxes)
        return views.pin_memory() if self._target.type == "cuda" else views

    def _kept(self, boxes: Tensor, size: tuple[int, int], interpolation: str, keep: bool) -> _Scaled | None:
        """Return what is kept of such views, of one kind at a time; None if nothing is."""
        if not self.stored.uniform or boxes.shape[1] < 2 or not bool((boxes == boxes[:, :1]).all()):
            return None
        kind = (*boxes[:, 0].tolist(), *size, interpolation)
        if self._scaled is not None and self._scaled.kind == kind:
            return self._scaled
        shape = (self.shape[0], *size, self.shape[3])
        if not keep or math.prod(shape) > MOST_SCALED:
            return None
        self._scaled = _Scaled(kind, np.empty(shape, np.uint8), np.zeros(shape[0], np.bool_))
        return self._scaled

    def _known(self, kept: _Scaled, rows: Tensor, boxes: Tensor) -> Tensor:
        """Return the views of `rows`, and keep those that are made for it."""
        missing = rows[torch.from_numpy(~kept.known[rows.numpy()])]
        if len(missing):
            height, width, interpolation = kept.kind[4:]
            made = self._made(missing, boxes[:, : len(missing)], (height, width), interpolation)
            kept.views[missing.numpy()], kept.known[missing.numpy()] = made.numpy(), True
        return torch.from_numpy(kept.views[rows.numpy()])

    def _made(self, rows: Tensor, boxes: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
        one = self.stored.uniform and math.prod(self.shape[1:]) <= THUMBNAIL and _common(boxes, self.shape)
        if one:
            return _interpolated(self.stored[rows.numpy()][:, one[0], one[1]], size, interpolation)
        return rendered(self.stored, rows, boxes, size, self._background, interpolation)


class _Scaled(NamedTuple):
    """Views of one kind of all images, so far as they are known."""

    kind: tuple[Any, ...]  # box, height and width, interpolation
    views: Pixels  # uint8 [N, H, W, C]
    known: NDArray[np.bool_]  # [N]


class Resident:
    """Images of one shape that are all on a device."""

    def __init__(self, images: Tensor, background: Color) -> None:
        self.images, self._color = images, torch.tensor(background[: images.shape[3]], device=images.device)
        self.shape, self.device = images.shape, images.device

    def sizes(self, rows: Tensor) -> Tensor:
        """Return height and width of the images of `rows`, int64 [2, B]."""
        return torch.tensor(self.shape[1:3])[:, None].expand(-1, len(rows))

    def view(
        self, rows: Tensor, boxes: Tensor, size: tuple[int, int], interpolation: str = "bilinear", keep: bool = False
    ) -> Tensor:
        """Return the views of `rows`, uint8 [B, H, W, C], on the device; none is kept, as a GPU scales fast."""
        images = self.images.index_select(0, rows.to(self.device, non_blocking=True))
        if _whole(boxes, self.shape, size):
            return images
        return resampled(images, boxes, size, self._color, interpolation)


def _common(boxes: Tensor, shape: Sequence[int]) -> tuple[slice, slice] | None:
    """Return the rows and columns of the only box, if all are the same and lie in images of this shape."""
    if not bool((boxes == boxes[:, :1]).all()):
        return None
    top, left, tall, wide = boxes[:, 0].tolist()
    inside = min(top, left) >= 0 and top + tall <= shape[1] and left + wide <= shape[2]
    return (slice(top, top + tall), slice(left, left + wide)) if inside else None


def _whole(boxes: Tensor, shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Return whether the views are the whole images of this `shape`, [N, H, W, C], as they are."""
    whole = torch.tensor((0, 0, *shape[1:3]))[:, None]
    return tuple(shape[1:3]) == size and bool((boxes == whole).all())


Made = TypeVar("Made")
Extra = TypeVar("Extra")


def one_ahead(jobs: Iterable[tuple[Callable[[], Made], Extra]]) -> Iterator[tuple[Made, Extra]]:
    """Yield the result of each job with what comes with it; the next job runs in another thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        running: deque[tuple[Future[Made], Extra]] = deque()
        for job, extra in jobs:
            running.append((pool.submit(job), extra))
            if len(running) > 1:
                future, of_future = running.popleft()
                yield future.result(), of_future
        for future, of_future in running:
            yield future.result(), of_future
