"""Fine-tuning by parts: which layers of a model learn in which epoch.

The head learns alone for `head_epochs`; then, over `unfreeze_epochs`, layer after layer joins it, the last ones first
(Howard and Ruder 2018, arXiv 1801.06146). Layers that do not learn yet are in evaluation mode: batch norm keeps its
statistics.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from trainables.config import TrialConfig
from trainables.models import heads, layers


def in_epoch(config: TrialConfig, epoch: int) -> TrialConfig:
    """Return the configuration, with `freeze` if the head learns alone in `epoch`, counted from 1."""
    return config.replace(freeze=True) if epoch <= config.head_epochs and not config.freeze else config


def set_training(config: TrialConfig, model: nn.Module, epoch: int, learning: Collection[nn.Parameter]) -> None:
    """Switch what learns in `epoch` to training mode, with gradients, and all else to evaluation mode.

    Parameters that are not among `learning`, those of the optimizer, stay fixed, as the model has them. Layers with
    statistics alone learn once all others do.
    """
    if config.freeze or not (config.head_epochs or config.unfreeze_epochs):
        heads.set_training(config, model)
        return
    depths, ids = layers.depths(model), set(map(id, learning))
    whole = max(depths.values())
    deepest = _deepest(config, epoch, whole)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) in ids and depths[name] <= deepest)
    learns = {"": True}
    for name, module in model.named_modules():
        parameters = list(module.parameters())
        if parameters:
            learns[name] = any(parameter.requires_grad for parameter in parameters)
        else:
            learns[name] = learns[name.rpartition(".")[0]] and (
                deepest == whole or next(module.buffers(), None) is None
            )
        module.training = learns[name]


def _deepest(config: TrialConfig, epoch: int, layers_of_base: int) -> int:
    """Return the number of layers of the base, counted from the head, that learn in `epoch`."""
    since = epoch - config.head_epochs
    if since <= 0:
        return 0
    return layers_of_base if since >= config.unfreeze_epochs else -(-layers_of_base * since // config.unfreeze_epochs)
