"""Models that are not built in: a function of the user's builds them, `package.module:factory`, or timm, `timm:NAME`.

Importing this imports nothing heavy; looking for such a model imports its code, and with it torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainables import user_code
from trainables.config import TrialConfig
from trainables.errors import ConfigError, did_you_mean
from trainables.model_names import TIMM, is_built_in, is_user_model
from trainables.user_code import accepted_keywords, errors_in

CHANNELS = 3  # of every batch: gray images are repeated
INSTALL_TIMM = "pip install 'sweep-orchestrator[timm]'"


def problems(name: str) -> list[str]:
    """Return a message for each reason why model `name` cannot be built here; built-in ones always can."""
    if is_built_in(name):
        return []
    try:
        _find(name)
    except ConfigError as error:
        return error.problems
    return []


def make(
    config: TrialConfig, classes: int, image_size: int, dropout: float, tensors: Mapping[str, Any] | None = None
) -> tuple[Any, bool]:
    """Return what the function behind the configuration's model builds, and whether it applies `dropout` itself.

    Args:
        tensors: weights for timm to load, but for the head's, by names that it knows.

    Raises:
        ConfigError: there is no such function, or it cannot be called so.
    """
    factory = _find(config.model)
    if is_user_model(config.model):
        offered = {"in_channels": CHANNELS, "image_size": image_size, "dropout": dropout}
        offered["stochastic_depth"] = config.stochastic_depth
        keywords = {"num_classes": classes, **accepted_keywords(factory, offered)}
    else:
        sized = {"img_size": image_size} if _has_fixed_size(config.model) else {}
        depth = {"drop_path_rate": config.stochastic_depth} if config.stochastic_depth else {}
        keywords = {"num_classes": classes, "drop_rate": dropout, **sized, **depth}
    try:
        if tensors is not None:
            return _with_tensors(config.model, factory, keywords, tensors), True
        shown = ", ".join(f"{n}={v}" for n, v in keywords.items())
        with errors_in(f"model={config.model} cannot be built with {shown}"):
            return factory(**keywords), not is_user_model(config.model) or "dropout" in keywords
    except ConfigError as error:
        if "unexpected keyword argument 'drop_path_rate'" in str(error):
            raise ConfigError(no_branches(config)) from error
        raise


def takes(name: str, keyword: str) -> bool:
    """Return whether the function of the user's model `name` takes `keyword`."""
    return is_user_model(name) and keyword in accepted_keywords(_find(name), {keyword: None})


def no_branches(config: TrialConfig) -> str:
    """Return the message about a model that cannot have stochastic depth."""
    return (
        f"stochastic_depth={config.stochastic_depth:g}: model={config.model} has no residual branches that rows could "
        "skip; set it to 0, or use a model such as resnet18 or efficientnet_b0"
    )


def _with_tensors(name: str, factory: Callable[..., Any], keywords: dict[str, Any], tensors: Mapping[str, Any]) -> Any:
    """Return timm's model with `tensors`, after its own conversion of their names and sizes."""
    overlay = {"state_dict": dict(tensors), "num_classes": -1, "label_offset": 0}  # of no width: the head is left out
    with errors_in(f"model={name} cannot take the weights"):
        model = factory(**keywords, pretrained=True, pretrained_cfg_overlay=overlay)
    model.pretrained_cfg.pop("state_dict", None)  # else they stay in memory
    return model


def source(name: str) -> Path | None:
    """Return the folder or file with the code of the user's model `name`; None if it is installed, or no such model."""
    return user_code.source(name) if is_user_model(name) else None


def _find(name: str) -> Callable[..., Any]:
    """Return the function that builds model `name`; raise ConfigError if there is none."""
    if name.startswith(TIMM):
        return _find_timm(name)
    return user_code.find(name, f"model={name}", "a function that returns a model")


def _find_timm(name: str) -> Callable[..., Any]:
    """Return timm's function for model `name`; raise ConfigError if timm or the model is missing."""
    if find_spec("timm") is None:
        raise ConfigError(f"model={name} needs timm: {INSTALL_TIMM}")
    import timm

    full_name = name.removeprefix(TIMM)
    architecture, _, tag = full_name.partition(".")
    tags = [model.partition(".")[2] for model in timm.list_pretrained(f"{architecture}.*")]
    if timm.is_model(architecture) and tag and tag not in tags:
        raise ConfigError(f"model={name}: {architecture} has no published weights {tag} (allowed: {', '.join(tags)})")
    if not timm.is_model(architecture):
        nearest = did_you_mean(full_name, timm.list_models())
        raise ConfigError(f"model={name}: timm has no such model{nearest}; timm.list_models() returns all of them")
    return lambda **keywords: timm.create_model(full_name, **keywords)


def _has_fixed_size(name: str) -> bool:
    """Return whether timm builds the model for one size of images."""
    import timm

    published = timm.get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
    return published is not None and published.fixed_input_size
