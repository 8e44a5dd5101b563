"""Share images and weights with all processes of a cluster: through Ray's object store, or images from files."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.cluster.connection import nodes, on_node
from trainables.datasets.cache import identity, local_copy
from trainables.datasets.packed import PackedFile
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import ImageFile, Part, StoredImages

if TYPE_CHECKING:
    import ray

    from trainables.splits import SearchData


STORE_SHARE = 0.5  # of an object store that images may take: when it is full, Ray writes what comes next to disk
BLOCK = 2**24  # bytes of a file in one object
BLOCKS_AHEAD = 2  # one is written while the next come


def share(data: SearchData) -> ray.ObjectRef:
    """Put `data` into the object store, once: the processes of a node read it without copying."""
    import ray

    return ray.put(replace(data, images=sendable(data.images)))


def sendable(images: Pixels | StoredImages) -> Pixels | StoredImages:
    """Return `images` such that the processes of all nodes can read them.

    Pictures of different sizes, and images that would take more than STORE_SHARE of a node's store, stay in their
    files, which the processes of a node map; a node without access to the files copies them, once.
    """
    if not isinstance(images, StoredImages):
        return images
    least = min(node.object_store for node in nodes())
    if images.uniform and images.nbytes <= STORE_SHARE * least:
        return images.held()
    return replace(images, parts=tuple(map(_fetchable, images.parts)))


def share_weights(nets: Iterable[tuple[str, str]]) -> dict[tuple[str, str], ray.ObjectRef]:
    """Put the initial weights of (model, weights) into the object store, each once, and release this process's.

    Those of `none` are left out. What was not read yet is read now.

    Raises:
        ConfigError, WeightsError: weights are not where they should be.
    """
    pairs = [pair for pair in dict.fromkeys(nets) if pair[1] != "none"]
    if not pairs:
        return {}
    import ray

    from trainables.models import weights  # with torch, which takes a second

    shared = {pair: ray.put(weights.read(*pair)) for pair in pairs}
    weights.release()
    return shared


def _fetchable(part: Part) -> Part:
    """Return `part` such that nodes without access to its file fetch it from this one."""
    import ray

    if not isinstance(part, ImageFile | PackedFile):
        return part
    blocks = partial(file_blocks, ray.get_runtime_context().get_node_id())
    return replace(part, locate=partial(local_copy, expected=identity(part.path.parent), blocks=blocks))


def file_blocks(node_id: str, path: Path) -> Iterator[memoryview]:
    """Yield the content of a file on a node of the connected cluster, block by block, through the object store."""
    import ray

    pending: deque[ray.ObjectRef] = deque()
    for start in count(0, BLOCK):
        pending.append(on_node(node_id, _block, path, start, BLOCK))
        if len(pending) > BLOCKS_AHEAD:
            block = ray.get(pending.popleft())
            if not len(block):
                return
            yield block.data


def _block(path: Path, start: int, size: int) -> NDArray[np.uint8]:
    return np.fromfile(path, np.uint8, size, offset=start)
