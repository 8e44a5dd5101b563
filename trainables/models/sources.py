"""Sources of initial weights: the file of a model's weights on this machine, downloaded where it is published."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from trainables.errors import ConfigError, WeightsError, listed
from trainables.field_values import is_place
from trainables.files import sha256
from trainables.model_names import HUB, TIMM, TORCHVISION, is_timm
from trainables.models import nets
from trainables.models.factories import INSTALL_TIMM


def file_of(model: str, weights: str) -> Path:
    """Return the file of the weights `weights` of `model`, after a download if they are published and not here.

    Raises:
        ConfigError: there are no such weights.
        WeightsError: they cannot be downloaded, or the file is damaged.
    """
    if is_place(weights):
        return nets.file_of(model, Path(weights).expanduser())
    if weights.startswith(HUB):
        return _from_hub(weights.removeprefix(HUB), weights)
    if is_timm(weights) or is_timm(model):
        return _of_timm((weights if is_timm(weights) else model).removeprefix(TIMM), weights)
    if model in TORCHVISION:
        return _of_torchvision(model)
    raise ConfigError(f"model={model} has no published ImageNet weights; use weights=none, a file, or another model")


def license_of(model: str, weights: str) -> str | None:
    """Return the license of published weights, as their publisher states it; None if it is not known here."""
    if not (is_timm(weights) or (weights == "imagenet" and is_timm(model))):
        return None
    with contextlib.suppress(ImportError, RuntimeError):
        import timm

        name = (weights if is_timm(weights) else model).removeprefix(TIMM)
        published: Any = timm.get_pretrained_cfg(name, allow_unregistered=True)
        return None if published is None else published.license
    return None


def _of_torchvision(model: str) -> Path:
    """Return the file of torchvision's best weights, from torch.hub's folder or the network."""
    from torchvision.models import get_model_weights

    url = get_model_weights(model).DEFAULT.url
    return downloaded(nets.hub_checkpoints() / Path(urlparse(url).path).name, url)


def _of_timm(name: str, weights: str) -> Path:
    """Return the file of timm's weights NAME, its default ones, or NAME.TAG."""
    try:
        import timm
    except ImportError:
        raise ConfigError(f"weights={weights} needs timm: {INSTALL_TIMM}") from None
    published: Any = None
    with contextlib.suppress(RuntimeError):  # there is no such tag
        published = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if published is None or not (published.hf_hub_id or published.url):
        architecture = name.partition(".")[0]
        tags = [f"{TIMM}{one}" for one in timm.list_pretrained(f"{architecture}.*")]
        allowed = f"allowed: {listed(tags)}" if tags else "it publishes none of this model"
        raise ConfigError(f"weights={weights}: timm has no weights {name} ({allowed})")
    if published.custom_load:
        raise ConfigError(
            f"weights={weights}: {name} is published in a format of its own; use other weights, or a file"
        )
    if published.hf_hub_id:
        return _from_hub(published.hf_hub_id, weights, published.hf_hub_filename)
    return downloaded(nets.hub_checkpoints() / Path(urlparse(published.url).path).name, published.url)


def _from_hub(repository: str, weights: str, name: str | None = None) -> Path:
    """Return the file of weights in a repository of the Hugging Face Hub, ORGANIZATION/NAME or …@REVISION.

    Its `config.json` comes along, as it says what images the weights expect.
    """
    try:
        from huggingface_hub import constants, hf_hub_download
    except ImportError:
        raise ConfigError(f"weights={weights} needs huggingface_hub: {INSTALL_TIMM}") from None
    identity, _, revision = repository.partition("@")
    names = (name,) if name else nets.HUB_FILES
    for wanted in names:
        try:
            path = Path(hf_hub_download(identity, wanted, revision=revision or None))
        except (OSError, ValueError) as error:
            failure = error
            continue
        with contextlib.suppress(OSError, ValueError):  # without it, weights do not say what they are
            hf_hub_download(identity, "config.json", revision=revision or None)
        return path
    reason = " ".join(str(failure).split())[:120]
    raise WeightsError(
        f"weights={weights}: {' or '.join(names)} of {identity} is not in {constants.HF_HUB_CACHE}, and downloading it "
        f"failed ({type(failure).__name__}: {reason}); where there is a network run "
        f"`hf download {identity} {names[0]} config.json --local-dir {identity.rpartition('/')[2]}`, copy the folder "
        f"here and give it as weights=…; with weights=none it needs no network"
    ) from failure


def downloaded(path: Path, url: str) -> Path:
    """Return `path` after downloading `url` to it unless it exists; its SHA-256 must begin as its name says."""
    expected = re.search(r"-([0-9a-f]{8,})\.", path.name)
    prefix = expected.group(1) if expected else ""
    if path.exists():
        digest = sha256(path)
        if not digest.startswith(prefix):
            raise WeightsError(
                f"{path} is damaged: its SHA-256 begins {digest[:8]}, not {prefix}; delete it to download it again"
            )
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), prefix, progress=False)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the ImageNet weights are not at {path}, and downloading {url} failed ({error}); where there is a network "
            f"run `curl -LO {url}` and copy the file to that path, or use weights=none"
        ) from error
    return path
