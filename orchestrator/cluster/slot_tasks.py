"""Functions that run on the connected cluster with the resources of a slot, as many at a time as there are slots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

PATIENCE_S = 60.0  # without a result, after which a message names what is waited for


class TaskError(Exception):
    """A function raised, or the worker that ran it died; the message says which."""


@dataclass(frozen=True)
class Slots:
    """Slots for tasks: their number, and the CPUs and GPUs of each."""

    number: int
    cpus: float
    gpus: float

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[int, tuple[Any, ...]]],
        report: Callable[[str], object],
    ) -> Iterator[tuple[int, Any]]:
        """Yield the number and the result of each call as they come; a TaskError in place of those that failed.

        Args:
            calls: pairs of a number and arguments, of which the next is taken when a slot is free.
            report: takes what a user should know if nothing comes for a while.
        """
        import ray

        remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=1)(function)
        coming, pending = iter(calls), dict[ray.ObjectRef, int]()
        while True:
            for number, arguments in islice(coming, max(self.number, 1) - len(pending)):
                pending[remote.remote(*arguments)] = number
            if not pending:
                return
            done, _ = ray.wait([*pending], timeout=PATIENCE_S)
            if not done:
                gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
                report(f"waiting for a worker with {self.cpus:g} CPU{gpus}, or for its result")
            for reference in done:
                yield pending.pop(reference), _result(reference)


def begin(function: Callable[..., Any], *arguments: Any) -> None:
    """Have a worker call `function` beside all slots; what becomes of it does not matter.

    If no worker is free one starts, and is there for the next task.
    """
    import ray

    ray.remote(num_cpus=0, max_retries=0)(function).remote(*arguments)


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return TaskError(str(error.cause) or type(error.cause).__name__)
    except ray.exceptions.RayError as error:
        return TaskError(f"the worker died: {str(error).splitlines()[0]}")
