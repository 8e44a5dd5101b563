"""Nets that a place offers weights of: which models, and the file of each. Importing this imports no torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from trainables.errors import ConfigError, did_you_mean, listed, shown
from trainables.model_names import BUILT_IN_MODELS, TIMM, TORCHVISION
from trainables.models.factories import INSTALL_TIMM

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""Endings of files of weights; of two files that differ in it alone, the one whose ending comes first here is taken."""

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights beside a `config.json`, in a download from the Hugging Face Hub or in a bundle."""

UNKNOWN = ""  # stands for the model of a file whose name only timm may know

LONGEST_HEADER = 2**27  # bytes of a safetensors file's header


def available(where: str, models: Collection[str] = TORCHVISION) -> dict[str, str]:
    """Return the models that `where` has weights of, each with the path of its file.

    Args:
        where: a file; a folder of files that are named after models (`resnet18-f37072fd.pth`,
            `tf_efficientnet_lite0.safetensors`) or of downloads with a `config.json`; or `imagenet`, torchvision's best
            weights as far as they have been downloaded.
        models: those to look for under `imagenet`.

    Raises:
        ConfigError: there is no such place, it has no weights, it does not say of which model they are, or some may be
            of timm's models and timm is not installed.
    """
    if where == "imagenet":
        return dict(_downloaded(models))
    path = Path(where).expanduser()
    if not path.is_file():
        found, unknown = _in_folder(path)
        if unknown:
            raise ConfigError(_needs_timm(unknown))
        return found
    beside = _in_description(path.parent) if path.name in HUB_FILES else None
    model = beside[0] if beside else _named(path)
    if model is None:
        raise ConfigError(
            f"weights={shown(where)}: neither its name nor its metadata say of which model it is; name the model, as "
            "in --set model=resnet18, or rename the file after it"
        )
    if model == UNKNOWN:
        raise ConfigError(_needs_timm([path]))
    return {model: str(path)}


def file_of(model: str, where: Path) -> Path:
    """Return the file with the weights of `model`: `where` itself, or the one of that model in the folder `where`.

    Raises:
        ConfigError: there is no such file.
    """
    if where.is_file():
        return where
    found, unknown = _in_folder(where)
    if model in found:
        return Path(found[model])
    has = f"{did_you_mean(model, found)} (it has {listed(found)})" if found else ""
    needed = [_needs_timm(unknown)] if unknown else []
    raise ConfigError(f"weights={shown(where)} has no weights of model={model}{has}", *needed)


def description(folder: Path) -> dict[str, Any]:
    """Return the contents of a folder's `config.json`; an empty dict if there is none, or none that can be read."""
    try:
        values = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def metadata(path: Path) -> dict[str, Any]:
    """Return the metadata in the header of a safetensors file; an empty dict for another or a damaged file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            values = json.loads(file.read(length)) if length <= LONGEST_HEADER else {}
    except (OSError, ValueError):
        return {}
    found = values.get("__metadata__") if isinstance(values, dict) else None
    return found if isinstance(found, dict) else {}


def hub_checkpoints() -> Path:
    """Return the folder in which torch.hub keeps what it downloads, as `torch.hub.get_dir` has it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub" / "checkpoints"


def _downloaded(models: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield those of torchvision's `models` whose best weights lie in torch.hub's folder, with their files."""
    folder = hub_checkpoints()
    names = [name for name in models if name in TORCHVISION and any(folder.glob(f"{name}[-_]*.pth"))]
    if not names:
        return
    from torchvision.models import get_model_weights  # there is something to use, so it is needed anyway

    for name in names:
        path = folder / Path(urlparse(get_model_weights(name).DEFAULT.url).path).name
        if path.is_file():
            yield name, str(path)


def _in_folder(folder: Path) -> tuple[dict[str, str], list[Path]]:
    """Return the models that a folder has weights of, with their files, and the files that may be of timm's models.

    Raises:
        ConfigError: there is no such folder, it has no weights, or two files are of one model.
    """
    if not folder.is_dir():
        raise ConfigError(f"weights={shown(folder)}: there is no such file or folder")
    whole = _in_description(folder)
    if whole is not None:
        return dict([whole]), []
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir(), key=_by_ending):
        inner = _in_description(path) if path.is_dir() else None
        model = inner[0] if inner else _named(path)
        if model is not None:
            found.setdefault(model, []).append(Path(inner[1]) if inner else path)
    unknown = found.pop(UNKNOWN, [])
    if not found and not unknown:
        raise ConfigError(
            f"weights={shown(folder)}: no file there is named after a model, as resnet18.pth or "
            "tf_efficientnet_lite0.safetensors are; rename the files, or name one of them"
        )
    twice = [(model, paths) for model, paths in found.items() if len({path.with_suffix("") for path in paths}) > 1]
    if twice:
        raise ConfigError(
            *(
                f"weights={shown(folder)}: {' and '.join(path.name for path in paths)} are all of model={model}; name "
                "one of them, or move the others away"
                for model, paths in twice
            )
        )
    return {model: str(paths[0]) for model, paths in sorted(found.items())}, unknown


def _by_ending(path: Path) -> tuple[int, Path]:
    return (*SUFFIXES, path.suffix).index(path.suffix), path


def _in_description(folder: Path) -> tuple[str, str] | None:
    """Return the model that a folder's `config.json` names, and the file beside it; None without either."""
    values = description(folder)
    own, architecture = values.get("config"), values.get("architecture")
    model = own.get("model") if isinstance(own, dict) else architecture and f"{TIMM}{architecture}"
    path = next((folder / name for name in HUB_FILES if (folder / name).is_file()), None)
    return None if path is None or not isinstance(model, str) else (model, str(path))


def _named(path: Path) -> str | None:
    """Return the model that a file says it is of, in its metadata or by its name; None if it does not.

    Without timm it is UNKNOWN for a name that timm may have.
    """
    if path.suffix not in SUFFIXES or not path.is_file():
        return None
    architecture = metadata(path).get("architecture") if path.suffix == ".safetensors" else None
    for text in (str(architecture or ""), re.sub(r"-[0-9a-f]{6,}$", "", path.name.removesuffix(path.suffix))):
        name = text.removeprefix(TIMM)
        if name == text and name in BUILT_IN_MODELS:
            return name
        if re.fullmatch(r"\w[\w.]*", name) is None:
            continue
        if find_spec("timm") is None:
            return UNKNOWN
        import timm

        if timm.is_model(name.partition(".")[0]):
            return f"{TIMM}{name.partition('.')[0]}"
    return None


def _needs_timm(paths: Sequence[Path]) -> str:
    """Return the message about files that may be of timm's models where timm is not installed."""
    verb = "is" if len(paths) == 1 else "are"
    return (
        f"{listed([path.name for path in paths])} {verb} of no model of torchvision's; if timm has such a model: "
        f"{INSTALL_TIMM}"
    )
