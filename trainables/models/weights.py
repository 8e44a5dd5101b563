"""Initial weights: ImageNet's, whose hash is checked, or a safetensors file of the user's."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables.errors import WeightsError

_log = logging.getLogger(__name__)


def load_imagenet(model: nn.Module, pretrained: Any) -> None:
    """Load torchvision's best weights, `pretrained`, into the model, from torch.hub's folder or the network.

    Raises:
        WeightsError: they cannot be downloaded, are damaged, or some of the model's are missing.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(pretrained.url).path).name
    _ensure_file(path, pretrained.url)
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in list(state):  # torchvision's DenseNets were saved with names such as norm.1, now norm1
        renamed = re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)", r"\1\2", key)
        if renamed != key:
            state[renamed] = state.pop(key)
    missing = model.load_state_dict(state, strict=False).missing_keys  # auxiliary classifiers are left over
    if missing:
        raise WeightsError(f"{path} lacks {missing[0]} and {len(missing) - 1} more; delete it to download it again")


def _ensure_file(path: Path, url: str) -> None:
    """Download `url` unless `path` exists; either way its SHA-256 must begin as its name says."""
    expected = re.search(r"-([0-9a-f]{8,})\.", path.name)
    prefix = expected.group(1) if expected else ""
    if path.exists():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not digest.startswith(prefix):
            raise WeightsError(
                f"{path} is damaged: its SHA-256 begins {digest[:8]}, not {prefix}; delete it to download it again"
            )
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), prefix, progress=False)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the ImageNet weights are not at {path}, and downloading {url} failed ({error}); "
            f"download the file where there is a network and copy it to that path, or use weights=none"
        ) from error


def load_from_file(model: nn.Module, path: Path) -> None:
    """Load every tensor of the file whose name and shape the model has; the model's others stay as drawn.

    Raises:
        WeightsError: the file cannot be read, or nothing in it fits the model.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"weights={path} cannot be read: {error}") from error
    state = model.state_dict()
    fitting = {name: t for name, t in tensors.items() if name in state and t.shape == state[name].shape}
    if not any(tensor.dim() > 1 for tensor in fitting.values()):  # counters of batch norm fit anything
        raise WeightsError(
            f"nothing in weights={path} fits the model: the file has {_sample(tensors)}, "
            f"the model {_sample(state)}; use the weights of the same model"
        )
    _log.info("%s: %d of the model's %d tensors loaded", path, len(fitting), len(state))
    model.load_state_dict({**state, **fitting})


def _sample(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:3]) + ", …"
