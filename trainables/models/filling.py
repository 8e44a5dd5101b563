"""Filling a model with its initial weights: names are mapped, what fits is loaded, and what was drawn is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.errors import WeightsError, counted
from trainables.field_values import is_place
from trainables.model_names import is_user_model
from trainables.models import heads
from trainables.models.weights import Weights

PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.", "network.")
"""What wrappers put before the names of tensors: parallel and compiled models, and scripts with a head of their own."""

NAMED = 8  # tensors in a record, at most
SHOWN = 3  # tensors in a message


@dataclass(frozen=True)
class Filled:
    """The tensors of a model that came from its initial weights, and those that were drawn."""

    source: str  # as in `Weights`
    sha256: str
    loaded: int  # tensors of the model that came from the file
    drawn: tuple[str, ...]  # names of those that did not, counters aside
    head: tuple[str, ...]  # of the drawn, those of the head
    left: int  # tensors of the file that the model does not have
    prefix: str  # what was removed from the file's names or, after a +, put before them

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with the names of the first few drawn tensors."""
        return {**vars(self), "drawn": len(self.drawn), "drawn_names": list(self.drawn[:NAMED]), "head": len(self.head)}

    def __str__(self) -> str:
        base = [name for name in self.drawn if name not in self.head]
        texts = [f"{counted(self.loaded, 'tensor')} from {self.source} (SHA-256 {self.sha256[:8]})"]
        texts += [
            f"{self.prefix.removeprefix('+')!r} {'put' if '+' in self.prefix else 'taken'} before the names"
        ] * bool(self.prefix)
        texts += [f"drawn at random: {_some(base)}"] if base else []
        texts += ["a new head"] if self.head else []
        return ", ".join(texts)


class Filling:
    """The initial weights of a model that is being built, and which of its tensors they have filled."""

    def __init__(self, config: TrialConfig, weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.tensors = dict(weights.items())  # under the model's names, once `map_names` knows them
        self.prefix: str | None = None  # not known yet
        self._filled: dict[int, Tensor] = {}  # by identity, as the model may change around them

    def map_names(self, state: Mapping[str, Tensor]) -> None:
        """Rename the file's tensors, once, so that as many as possible fit those of a model's `state`."""
        if self.prefix is None:
            self.prefix, self.tensors = best_names(self.tensors, state) or ("", self.tensors)

    def fill(self, model: nn.Module, head: bool = True) -> None:
        """Copy every tensor that fits by name and shape into `model`; those of its head only if `head` is true."""
        state = model.state_dict(keep_vars=True)
        self.map_names(state)
        spared = set() if head else _head_names(model)
        with torch.no_grad():
            for name, target in state.items():
                if self.fits(name, target) and name not in spared and id(target) not in self._filled:
                    target.copy_(self.tensors[name])
                    self.mark(target)

    def fits(self, name: str, tensor: Tensor) -> bool:
        """Return whether the weights have a tensor of this name and shape."""
        return name in self.tensors and self.tensors[name].shape == tensor.shape

    def mark(self, *tensors: Tensor) -> None:
        """Note that these tensors of the model come from the weights."""
        self._filled |= {id(tensor): tensor for tensor in tensors}

    def finish(self, model: nn.Module) -> Filled:
        """Copy what the built `model` still lacks, and return what came from where.

        Raises:
            WeightsError: the weights are another net's, or a frozen base would keep tensors that were drawn.
        """
        self.fill(model, head=is_place(self.config.weights))
        state = model.state_dict(keep_vars=True)
        in_head = _head_names(model)
        drawn = tuple(name for name, tensor in state.items() if id(tensor) not in self._filled and tensor.dim())
        head = tuple(name for name in drawn if name in in_head)
        left = len(self.weights.tensors) - sum(name in state for name in self.tensors)
        loaded = sum(id(tensor) in self._filled for tensor in state.values())
        made = Filled(self.weights.source, self.weights.sha256, loaded, drawn, head, left, self.prefix or "")
        self._check(made, state, [name for name in drawn if name not in head])
        return made

    def _check(self, made: Filled, state: Mapping[str, Tensor], lacking: list[str]) -> None:
        """Raise WeightsError if what the base lacks, `lacking`, shows that it should not be trained so."""
        config = self.config
        matrices = sum(id(tensor) in self._filled and tensor.dim() > 1 for tensor in state.values())
        small = config.stem == "small" and len(lacking) <= SHOWN
        partial = matrices and (small or is_user_model(config.model))
        if lacking and not partial:
            raise WeightsError(f"{self._named()} are another net's: {self._differences(lacking, state)}")
        if lacking and config.freeze:
            advice = "use stem=imagenet, or freeze=false" if small else "use freeze=false, or weights that have them"
            raise WeightsError(
                f"{self._named()} lack {_some(lacking)}, which would stay as drawn at random with freeze=true; {advice}"
            )

    def _named(self) -> str:
        return f"weights={self.config.weights} for model={self.config.model}"

    def _differences(self, lacking: list[str], state: Mapping[str, Tensor]) -> str:
        """Return how the names and shapes of the model and of the file differ first, and what to do."""
        wrong = [name for name in lacking if name in self.tensors]
        if wrong:
            pairs = [f"{name} is {_shape(self.tensors[name])}, not {_shape(state[name])}" for name in wrong[:SHOWN]]
            return f"in the file {', '.join(pairs)}; use the weights of the same model"
        ours = ", ".join(f"{name} {_shape(state[name])}" for name in lacking[:SHOWN])
        others = [name for name in self.tensors if name not in state]
        theirs = ", ".join(f"{name} {_shape(self.tensors[name])}" for name in others[:SHOWN]) or "no other tensors"
        return (
            f"{counted(len(lacking), 'tensor')} of the model {'is' if len(lacking) == 1 else 'are'} not in the file, "
            f"first {ours}; it has {theirs}; use the weights of the same model"
        )


def best_names(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]] | None:
    """Return the prefix, as in `Filled`, with which most of `tensors` fit `state`, and these; None if none fits.

    Of several with which as many fit, the shortest is taken: no change, if possible.
    """
    chains = [""] + ["".join(chain) for length in (1, 2, 3) for chain in product(PREFIXES, repeat=length)]
    removed = [chain for chain in chains if any(name.startswith(chain) for name in tensors)]
    added = [prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in state)]
    candidates = [
        (chain, {n.removeprefix(chain): t for n, t in tensors.items() if n.startswith(chain)}) for chain in removed
    ]
    candidates += [(f"+{prefix}", {prefix + name: tensor for name, tensor in tensors.items()}) for prefix in added]
    counts = [_fitting(candidate, state) for _, candidate in candidates]
    most = max(counts, default=0)
    return candidates[counts.index(most)] if most else None


def _fitting(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> int:
    """Return how many tensors fit by name and shape; counters fit anything, and do not count."""
    return sum(
        tensor.dim() > 0 and name in state and state[name].shape == tensor.shape for name, tensor in tensors.items()
    )


def _head_names(model: nn.Module) -> set[str]:
    """Return the names of the tensors of a model's head, or of its heads, as timm names them; none if it has none."""
    modules = dict(model.named_modules())
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    found = [modules[name] for name in ((named,) if isinstance(named, str) else named) if name in modules]
    with suppress(StopIteration):
        found.append(heads.head_of(model))
    within = {id(tensor) for head in found for tensor in head.state_dict(keep_vars=True).values()}
    return {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in within}


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
