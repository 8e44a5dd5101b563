"""The models of a plan, each built with its weights before trials start, so that wrong ones are reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.cluster.machine import Nodes
from orchestrator.plan import memory_needs
from orchestrator.plan.context import SweepData
from orchestrator.plan.plan import Plan
from orchestrator.record.state import SweepState
from trainables import autos, user_metrics
from trainables.config import TrialConfig
from trainables.errors import ConfigError, WeightsError, listed
from trainables.model_names import WITHOUT_BRANCHES, is_built_in

if TYPE_CHECKING:
    from trainables.models.filling import Filled

BUILDING = ("model", "weights", "stem", "freeze", "head_width", "image_size", "interpolation", "normalization")
"""Fields that decide how a model is built and what images it is given."""

TRIED = dict.fromkeys(("dropout", "stochastic_depth", "base_lr", "lr_decay"), 0.1)
TRIED |= dict.fromkeys(("head_epochs", "unfreeze_epochs"), 1)
"""Fields that a model may refuse, and any value but the default: those that are searched are tried with it."""


def nets(planned: Plan) -> list[tuple[str, str]]:
    """Return each model that a sweep trains, with each of its initial weights."""
    return [net for space in planned.arms.values() for net in space.nets()]


def tried(planned: Plan, loaded: SweepData, resumed: SweepState | None = None, nodes: Nodes = ()) -> SweepData:
    """Return `loaded` with what each model's initial weights fill, after building all models that may be wrong.

    Those are models that are not built in, each tried on two images of the size that trials will see, and all models
    with initial weights. These are read, or downloaded, once; `weights.read` has them from now on. The metric is tried
    on an example with the classes of the data. A constraint on the number of parameters is compared with all models.

    Args:
        resumed: the state of a sweep that is resumed.
        nodes: the machines, whose memory the models must fit into.

    Raises:
        ConfigError: naming the metric if it cannot be used, every model that cannot be built or does not return
            logits, all weights that are missing, damaged, of another model, or not those that a resumed sweep began
            with, the numbers of parameters if no model meets the constraints, and the memory that is missing.
    """
    device, stored = "cuda" if planned.slot_gpus else "cpu", loaded.rows.images.shape[1:3]
    classes = len(loaded.rows.classes)
    problems = user_metrics.problems_with(planned.space.base.metric, classes)
    filled: dict[tuple[str, str], Filled] = {}
    for config in dict.fromkeys(_configs(planned)):
        try:
            found = _built(config, stored, classes, device)
        except (ConfigError, WeightsError) as error:
            problems += error.problems
        else:
            filled |= {(config.model, config.weights): found} if found is not None else {}
    problems += (() if problems else _too_large(planned, stored, classes)) if resumed is None else ()
    problems += [] if resumed is None else _changed_weights(resumed, filled)
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    memory_needs.check(planned, nodes, loaded.rows, resumed is not None)
    return replace(loaded, filled=filled)


def _configs(planned: Plan) -> Iterator[TrialConfig]:
    """Yield the configurations whose models are tried, alike in all that does not decide how they are built."""
    for space in planned.arms.values():
        for params in space.branches(BUILDING):
            drawn = space.config(params)
            searched = {name: TRIED[name] for name in TRIED.keys() & space.distributions if space.active(name, params)}
            config = space.base.replace(**{name: getattr(drawn, name) for name in BUILDING} | searched)
            refused = config.stochastic_depth > 0 and config.model.startswith(WITHOUT_BRANCHES)
            if refused or not is_built_in(config.model) or config.weights != "none":
                yield config


def _too_large(planned: Plan, stored: tuple[int, ...], classes: int) -> list[str]:
    """Return a message if no model of the plan has a number of parameters that the constraints allow."""
    bounds = [bound for bound in planned.constraints if bound.name == "parameters"]
    if not bounds or "head_width" in planned.space.distributions:
        return []
    from trainables.models import build

    sizes: dict[str, int] = {}
    for params in planned.space.branches(("model", "head_width")):
        config = planned.space.config(params).replace(weights="none", image_size=min(stored))
        model = build.build(config, classes, min(stored), initialized=False)
        sizes[config.model] = sum(parameter.numel() for parameter in model.parameters())
        if all(bound.allows(sizes[config.model]) for bound in bounds):
            return []
    given, found = " and ".join(f'"{bound}"' for bound in bounds), listed([f"{n} has {s:,}" for n, s in sizes.items()])
    return [f"--constraint {given}: no model meets that ({found}); give a wider bound, or search other models"]


def _built(config: TrialConfig, stored: tuple[int, ...], classes: int, device: str) -> Filled | None:
    """Build a configuration's model and return what its weights fill; None without weights."""
    from trainables.models import build, weights

    if config.weights != "none":
        weights.read(config.model, config.weights)
    size = autos.image_size(config, stored, device)
    config = autos.resolved(config, size)
    if config.weights == "none":
        build.build(config, classes, size, initialized=False)
        return None
    return build.build_filled(config, classes, size)[1]


def _changed_weights(state: SweepState, filled: Mapping[tuple[str, str], Filled]) -> Iterator[str]:
    """Yield a message for weights that are not those that a resumed sweep's trials began with."""
    for trial in state.trials.values():
        weights = trial.config["weights"]
        now = filled.get((trial.config["model"], weights))
        then = (trial.worker.weights or {}).get("sha256")
        if now is not None and then not in (None, now.sha256):
            yield (
                f"weights={weights}: {now.source} has changed since the sweep began (SHA-256 {now.sha256[:8]}, then "
                f"{str(then)[:8]}); put the old file back, or start a new sweep"
            )
