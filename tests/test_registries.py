"""Registries, the tables beside what they list: each name works, and the factory itself refuses an unknown one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.model_names import BUILT_IN_MODELS
from trainables.models.build import builder_of


@dataclass(frozen=True)
class Registry:
    """A table, and the function that takes a name from a user and runs what the table has for it."""

    table: Mapping[str, Any]
    use: Callable[[str], Any]


def unchecked(**fields: Any) -> TrialConfig:
    """Return a configuration whose values were not checked: what a factory gets if a list of names is wrong."""
    config = TrialConfig()
    for name, value in fields.items():
        object.__setattr__(config, name, value)
    return config


REGISTRIES = {
    "built-in models": Registry(BUILT_IN_MODELS, builder_of),
}
EVERY_NAME = [(registry, name) for registry in REGISTRIES for name in REGISTRIES[registry].table]


@pytest.mark.parametrize(("registry", "name"), EVERY_NAME)
def test_every_name_works(registry: str, name: str) -> None:
    assert REGISTRIES[registry].use(name) is not None


@pytest.mark.parametrize("registry", REGISTRIES)
def test_the_factory_itself_refuses_an_unknown_name(registry: str) -> None:
    """With the nearest name; and with all of them where none is near, so that a reader knows what is allowed."""
    table, use = REGISTRIES[registry].table, REGISTRIES[registry].use
    name = max(table, key=len)
    with pytest.raises(ConfigError, match=f"{name}z.*did you mean") as raised:
        use(f"{name}z")
    assert name in str(raised.value).partition("did you mean")[2]
    with pytest.raises(ConfigError, match="§§§") as raised:
        use("§§§")
    assert all(allowed in str(raised.value) for allowed in table)
