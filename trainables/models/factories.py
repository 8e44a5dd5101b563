"""Models that are not built in: made by a function of one's own, `package.module:factory`, or by timm, `timm:NAME`.

Importing this imports nothing heavy; to look for such a model imports its code, and with it torch.
"""

from __future__ import annotations

import importlib
import sysconfig
from collections.abc import Callable
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any

from trainables.config import TrialConfig
from trainables.errors import ConfigError, did_you_mean
from trainables.model_names import TIMM, is_built_in, is_user_model
from trainables.user_code import taken, told

CHANNELS = 3  # of a batch: grey images are repeated
INSTALL_TIMM = "pip install 'sweep-orchestrator[timm]'"


def problems(name: str) -> list[str]:
    """A sentence for each reason why model `name` cannot be made here; built-in ones always can."""
    if is_built_in(name):
        return []
    try:
        _find(name)
    except ConfigError as error:
        return error.problems
    return []


def make(
    config: TrialConfig, classes: int, image_size: int, dropout: float, pretrained: bool = False
) -> tuple[Any, bool]:
    """What makes the configuration's model has made, and whether it takes care of `dropout` itself.

    Args:
        pretrained: with timm's published weights.

    Raises:
        ConfigError: there is no such model, or it cannot be made so.
    """
    factory = _find(config.model)
    if is_user_model(config.model):
        offered = {"in_channels": CHANNELS, "image_size": image_size, "dropout": dropout}
        keywords = {"num_classes": classes, **taken(factory, offered)}
    else:
        sized = {"img_size": image_size} if _has_fixed_size(config.model) else {}
        keywords = {"num_classes": classes, "drop_rate": dropout, "pretrained": pretrained, **sized}
    with told(f"model={config.model} cannot be made with {', '.join(f'{n}={v}' for n, v in keywords.items())}"):
        return factory(**keywords), not is_user_model(config.model) or "dropout" in keywords


def source(name: str) -> Path | None:
    """The folder or file of the code that makes one's own model `name`; None if it is installed, or built in."""
    if not is_user_model(name):
        return None
    spec = find_spec(name.partition(":")[0].partition(".")[0])
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        return None
    path = Path(spec.submodule_search_locations[0] if spec.submodule_search_locations else str(spec.origin)).absolute()
    installed = (sysconfig.get_path(scheme) for scheme in ("stdlib", "platstdlib", "purelib", "platlib"))
    return None if any(path.is_relative_to(place) for place in installed) else path


def _find(name: str) -> Callable[..., Any]:
    """The function that makes model `name`; raises ConfigError."""
    if name.startswith(TIMM):
        return _find_timm(name)
    module_name, _, attribute = name.partition(":")
    try:
        with told(f"model={name}: {module_name} cannot be imported"):
            module = importlib.import_module(module_name)
    except ConfigError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError) and f"{module_name}.".startswith(f"{missing.name}."):
            raise ConfigError(
                f"model={name}: there is no module {missing.name}; it is looked for in this folder, on PYTHONPATH, "
                "and among what is installed"
            ) from error
        raise
    try:
        found = attrgetter(attribute)(module)
    except AttributeError:
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = did_you_mean(attribute, there)
        raise ConfigError(f"model={name}: there is no {attribute} in {module_name}{near}") from None
    if not callable(found):
        kind = type(found).__name__
        raise ConfigError(f"model={name}: {attribute} is a {kind}; a function that returns a model is needed")
    return found  # type: ignore[no-any-return]


def _find_timm(name: str) -> Callable[..., Any]:
    if find_spec("timm") is None:
        raise ConfigError(f"model={name} needs timm: {INSTALL_TIMM}")
    import timm

    asked = name.removeprefix(TIMM)
    architecture, _, tag = asked.partition(".")
    tags = [model.partition(".")[2] for model in timm.list_pretrained(f"{architecture}.*")]
    if timm.is_model(architecture) and tag and tag not in tags:
        raise ConfigError(f"model={name}: {architecture} has no published weights {tag}; it has {', '.join(tags)}")
    if not timm.is_model(architecture):
        near = did_you_mean(asked, timm.list_models())
        raise ConfigError(f"model={name}: timm has no such model{near}; timm.list_models() has all")
    return lambda **keywords: timm.create_model(asked, **keywords)


def _has_fixed_size(name: str) -> bool:
    """Whether timm builds the model for one size of images."""
    import timm

    described = timm.get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
    return described is not None and described.fixed_input_size
