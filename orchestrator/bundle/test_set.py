"""The sealed test set: opened once for the winner's runs, their refits and their ensemble, which are measured on it.

Models are run by workers with a slot's resources, as many at a time as there are slots.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.assessment.confirmation import Confirmation
from orchestrator.assessment.ensemble import Ensemble
from orchestrator.cluster import shared_images
from orchestrator.cluster.slot_tasks import Slots, TaskError
from orchestrator.plan.context import SweepContext
from orchestrator.record.events import EnsembleMeasured, TestMeasured, TestOpened
from orchestrator.record.facts import Measured
from orchestrator.record.kept_weights import Weights
from orchestrator.record.state import TrialRecord
from trainables import datasets
from trainables.config import TrialConfig
from trainables.trial_rows import TrialRows, trial_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console


START_S = 2.0  # that a worker takes to start: as long, models wait for one that is there
Show = Callable[["Console", int, int, int], AbstractContextManager[Callable[[], None]]]
"""Shows that the test set is opened, for which time, its rows, and the progress over models: `progress.testing`."""


class UnmeasuredError(Exception):
    """A model cannot be measured; the message says which and why."""


def measure(confirmed: Confirmation, context: SweepContext, show: Show) -> None:
    """Open the test set for all models of the winner, and put what they reach there into the journal.

    What a command measured before it was killed is not measured again.

    Raises:
        UnmeasuredError: weights are gone, or a worker could not run a model; the others were measured.
        OSError: weights cannot be read.
        DatasetError: the test set is missing.
    """
    untested, members = confirmed.untested(), confirmed.unmeasured_members()
    if not untested and not members:
        return
    runs = list({run.number: run for run in (*untested, *members)}.values())
    numbers = [run.number for run in untested]
    if not context.state.opened.issuperset(numbers):  # else a command opened it for them and was killed then
        context.journal.append(TestOpened(numbers, context.state.openings + 1))
    test = datasets.open_test(context.plan.load())
    examiner = _Examiner(confirmed, context)
    with show(context.console, context.state.openings, len(test[1]), len(runs)) as advance:
        found = examiner.logits(runs, test, advance)
    if confirmed.ensemble is not None and members:
        examiner.ensemble(confirmed.ensemble, found, test[1])


@dataclass(frozen=True)
class _Examiner:
    """Measures models of the winner on the test set."""

    confirmed: Confirmation
    context: SweepContext

    def logits(
        self, runs: Sequence[TrialRecord], test: tuple[Any, NDArray[np.int64]], advance: Callable[[], None]
    ) -> dict[int, NDArray[np.float32]]:
        """Return the logits of each run for the test rows, by its number, and record what the untested ones reach.

        Raises:
            UnmeasuredError: some could not be run; the others are recorded.
        """
        context = self.context
        found: dict[int, NDArray[np.float32]] = {}
        failed: list[str] = []
        at_a_time = min(context.state.spec.slots or 1, math.ceil(self._seconds(runs, len(test[1])) / START_S))
        slots = Slots(at_a_time, context.plan.slot_cpus, context.plan.slot_gpus)
        untested = {run.number for run in self.confirmed.untested()}
        for number, result in slots.run(evaluation_task, self._calls(runs, test, failed), context.console.print):
            if isinstance(result, TaskError):
                failed.append(f"trial {number} cannot be tested: {result}")
                continue
            metrics, found[number] = result
            if number in untested:
                context.journal.append(TestMeasured(number, Measured.of(metrics)))
            advance()
        if failed:
            raise UnmeasuredError("; ".join(failed))
        return found

    def _seconds(self, runs: Sequence[TrialRecord], rows: int) -> float:
        """Return how long it takes to run the models on so many rows, by their evaluations of other rows."""
        scored = [len(_config_and_rows(run, self.context)[1].scored) for run in runs]
        took = [run.total("eval_s") / max(len(run.epochs), 1) for run in runs]
        return sum(seconds * rows / max(there, 1) for seconds, there in zip(took, scored, strict=True))

    def _calls(
        self, runs: Sequence[TrialRecord], test: tuple[Any, NDArray[np.int64]], failed: list[str]
    ) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yield the number of each run and the arguments of `evaluation_task`; add what lacks weights to `failed`."""
        import ray

        context, data = self.context, self.context.data
        images, labels = ray.put(shared_images.sendable(test[0])), ray.put(test[1])
        for run in runs:
            weights = context.weights(run)
            if weights is None:
                failed.append(f"the weights of trial {run.number} are gone: it is not tested")
                continue
            config, rows = _config_and_rows(run, context)
            known = (rows.mean, rows.std), len(data.classes), data.background, rows.positive
            of_rows = weights.tensors, images, labels, *known, self._of_twin(run).temperature
            yield run.number, (config, *of_rows, context.plan.slot_gpus)

    def _of_twin(self, run: TrialRecord) -> Weights:
        """Return what a run, or a refit's twin, kept: rows that a model was trained on give too low a temperature."""
        return self.context.weights(self.confirmed.twin(run)) or Weights({})

    def ensemble(self, ensemble: Ensemble, found: Mapping[int, NDArray[np.float32]], labels: NDArray[np.int64]) -> None:
        """Record what the mean of an ensemble's members reaches on the test set, and that of their twins on the rows
        that they were scored on, by which the mean gets a temperature of its own.
        """
        import torch

        from trainables.calibration import fit_temperature, log_probabilities, mean_probabilities
        from trainables.evaluation import measured

        started, temperature, context = time.perf_counter(), None, self.context
        twins = [self._of_twin(run)._replace(tensors={}) for run in ensemble.runs]
        temperatures = [twin.temperature for twin in twins]
        config, rows = _config_and_rows(self.confirmed.model, context)
        scored = [torch.tensor(twin.logits) for twin in twins if twin.logits is not None]
        if len(scored) == len(twins):
            mean = log_probabilities(mean_probabilities(scored, temperatures))
            truth = torch.from_numpy(context.data.labels[rows.scored])
            temperature = fit_temperature(mean, truth)
            metrics = measured(mean, truth, rows.positive, temperature, time.perf_counter() - started, config.metric)
            context.journal.append(EnsembleMeasured(ensemble.numbers, "validation", Measured.of(metrics)))
        logits = [torch.tensor(found[number]) for number in ensemble.numbers]  # a copy: Ray's arrays are read-only
        mean = log_probabilities(mean_probabilities(logits, temperatures))
        seconds = time.perf_counter() - started
        metrics = measured(mean, torch.from_numpy(labels), rows.positive, temperature, seconds, config.metric)
        context.journal.append(EnsembleMeasured(ensemble.numbers, "test", Measured.of(metrics)))


def evaluation_task(config: TrialConfig, *arguments: Any) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Do as `trainables.evaluation.on_images`, with as many threads as the trial had."""
    import torch

    from trainables import evaluation

    torch.set_num_threads(config.threads)
    return evaluation.on_images(config, *arguments)


def _config_and_rows(run: TrialRecord, context: SweepContext) -> tuple[TrialConfig, TrialRows]:
    config = TrialConfig.from_dict(run.worker.resolve(run.config))
    return config, trial_rows(context.data, config)
