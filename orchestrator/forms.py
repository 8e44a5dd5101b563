"""The form of each model's computation: precision and memory format, resolved once a sweep in a slot like a trial's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

from orchestrator.plan import Plan
from trainables.config import TrialConfig

if TYPE_CHECKING:
    from trainables.splits import SearchData

Form = dict[str, str]


class Resolving:
    """Measures in the background while the driver gets ready; `result` waits for it."""

    def __init__(self, plan: Plan, data: ray.ObjectRef) -> None:
        """Start for every model that `plan` may try; `data` is a `SearchData` in the object store."""
        base = plan.space.base.replace(threads=plan.slot_cpus)
        measure = ray.remote(num_cpus=plan.slot_cpus, num_gpus=plan.slot_gpus, max_retries=0)(_measure)
        self._running = {
            model: measure.remote(base.replace(model=model).to_dict(), data) for model in plan.space.values("model")
        }

    def result(self) -> dict[str, Form]:
        """`precision` and `memory_format` by model. A model that cannot be run has the plain form: its trials will say
        what is wrong with it."""
        found = {}
        for model, ref in self._running.items():
            try:
                found[model] = ray.get(ref)
            except ray.exceptions.RayError:
                found[model] = {"precision": "float32", "memory_format": "contiguous"}
        return found


def _measure(config: dict[str, Any], data: SearchData) -> Form:
    import torch

    from trainables import precision

    torch.set_num_threads(config["threads"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    form = precision.resolve(TrialConfig.from_dict(config), data, device)
    return {"precision": form.precision, "memory_format": form.memory_format}
