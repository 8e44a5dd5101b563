"""Initial weights as tensors, read once a process from a file in which nothing but tensors is opened."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from trainables.errors import WeightsError, shown
from trainables.files import sha256
from trainables.models import inputs, nets, sources
from trainables.models.inputs import Inputs

NESTED = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model_state", "model")
"""Keys under which training scripts keep a state dict, beside other things; averaged weights come first, as in timm."""

CODE = ("GLOBAL", "Unsupported global", "Unsupported class", "TorchScript")
"""What torch's refusal of a file says that names code; it refuses damaged ones as well."""

OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)")
"""Names such as norm.1, with which torchvision's DenseNets were saved; now norm1."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, by name, and where they come from; plain values, which travel between processes."""

    tensors: Mapping[str, NDArray[Any]]  # float32, or integers
    source: str  # name of the file, or of the folder that it was downloaded to
    sha256: str  # of the file
    inputs: Inputs | None

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the names and tensors, which share the arrays' memory and must not be written to."""
        with warnings.catch_warnings():  # arrays in the object store are read-only
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            for name, array in self.tensors.items():
                yield name, torch.from_numpy(array)


_read: dict[tuple[str, str], Weights] = {}  # by model and weights


def read(model: str, weights: str) -> Weights:
    """Return the weights `weights` of `model`, which is not `none`, from this process's memory if they are there.

    Raises:
        ConfigError: there are no such weights.
        WeightsError: they cannot be downloaded or read.
    """
    if (model, weights) not in _read:
        path = sources.file_of(model, weights)
        known = inputs.described_in(nets.description(path.parent)) or inputs.of(model, weights)
        hold(model, weights, Weights(_tensors_of(path), _source(path), sha256(path), known))
    return _read[model, weights]


def hold(model: str, weights: str, content: Weights) -> None:
    """Keep `content`, which may come from another process, as the weights `weights` of `model`."""
    _read[model, weights] = content
    inputs.remember(model, weights, content.inputs)


def is_held(model: str, weights: str) -> bool:
    """Return whether the weights are in this process's memory."""
    return (model, weights) in _read


def release() -> None:
    """Remove all tensors that were read from memory; what images they expect stays known."""
    _read.clear()


def _source(path: Path) -> str:
    return f"{path.parent.name}/{path.name}" if path.name in nets.HUB_FILES else path.name


def _tensors_of(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors in a file of weights, by name; raise WeightsError if it cannot be read."""
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
        tensors = _unnested(content)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file makes torch, pickle and struct raise nearly anything
        raise WeightsError(
            f"weights={shown(path)} cannot be read: {_first_line(error)}; copy the file again"
        ) from error
    if not tensors:
        kind = type(content).__name__
        raise WeightsError(f"weights={shown(path)} holds no tensors by name but a {kind}; save model.state_dict()")
    unusual = (name for name, t in tensors.items() if t.layout != torch.strided or t.is_quantized or t.is_meta)
    if (odd := next(unusual, None)) is not None:
        raise WeightsError(
            f"weights={shown(path)}: {odd} is sparse, quantized or without values; save the model's usual tensors"
        )
    return {OLD_NAME.sub(r"\1\2", name): _array(tensor) for name, tensor in tensors.items()}


def _unpickled(path: Path) -> Any:
    """Return what torch.save put into a file; raise WeightsError if it needs code to be run."""
    try:
        with warnings.catch_warnings():  # of sparse tensors, which are refused
            warnings.filterwarnings("ignore", message="Validating sparse tensor invariants")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        if not any(sign in str(error) for sign in CODE):
            raise RuntimeError("it is no file of torch.save, or only a part of one") from error
        raise WeightsError(
            f"weights={shown(path)} holds more than tensors, and to read it would run code that is in it; if you trust "
            'it, convert it: python -c "import torch; from safetensors.torch import save_file; '
            f"loaded = torch.load('{path.name}', weights_only=False, map_location='cpu'); "
            "save_file({n: t.contiguous().clone() for n, t in (loaded.state_dict() if hasattr(loaded, 'state_dict') "
            f"else loaded['state_dict']).items()}}, '{path.stem}.safetensors')\""
        ) from error


def _unnested(content: Any) -> dict[str, Tensor]:
    """Return the tensors by name in what a file holds, at its top or in the first nested dict that has some."""
    if not isinstance(content, Mapping):
        return {}
    found = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if found and not any(isinstance(content.get(key), Mapping) for key in NESTED):
        return found
    nested = (_unnested(content[key]) for key in (*NESTED, "module") if key in content)
    return next((tensors for tensors in nested if tensors), found)


def _array(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().to(torch.float32) if tensor.is_floating_point() else tensor.detach()
    return np.ascontiguousarray(tensor.numpy()) if tensor.dim() else tensor.numpy()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
