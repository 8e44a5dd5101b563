"""The sealed test set: opened once for the winner's runs, their refits and their ensemble, which are measured on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from orchestrator.assessment.confirmation import Confirmation
from orchestrator.assessment.ensemble import Ensemble
from orchestrator.plan.context import SweepContext
from orchestrator.record.events import EnsembleMeasured, TestMeasured, TestOpened
from orchestrator.record.facts import Measured
from orchestrator.record.state import TrialRecord
from trainables import datasets
from trainables.config import TrialConfig
from trainables.trial_rows import TrialRows, trial_rows

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor


Show = Callable[["Console", int, int, int], AbstractContextManager[Callable[[], None]]]
"""Shows that the test set is opened, for which time, its rows, and the progress over models: `progress.testing`."""


def measure(confirmed: Confirmation, context: SweepContext, show: Show) -> None:
    """Open the test set for all models of the winner, and put what they reach there into the journal.

    What a command measured before it was killed is not measured again.
    """
    untested = [run for run in (*confirmed.winner.runs, *confirmed.refits) if "test" not in run.final_metrics]
    ensemble = confirmed.ensemble
    members = ensemble.runs if ensemble is not None and "test" not in ensemble.parts else ()
    if not untested and not members:
        return
    numbers = [run.number for run in untested]
    if not context.state.opened.issuperset(numbers):  # else a command opened it for them and was killed then
        context.journal.append(TestOpened(numbers, context.state.openings + 1))
    images, labels = datasets.open_test(context.plan.load())
    found: dict[int, Tensor] = {}
    runs = {run.number: run for run in (*untested, *members)}
    with show(context.console, context.state.openings, len(labels), len(runs)) as advance:
        for run in runs.values():
            logits = _test(run, context, (images, labels), confirmed, measured=run in untested)
            if logits is not None:
                found[run.number] = logits
            advance()
    if ensemble is not None and members and len(found) >= len(members):
        _test_ensemble(ensemble, confirmed, context, found, labels)


def _test(
    run: TrialRecord, context: SweepContext, test: tuple[Any, Any], confirmed: Confirmation, *, measured: bool
) -> Tensor | None:
    """Return a run's logits for the test rows, and record what it reaches if it is to be `measured`; None if its
    weights are gone.
    """
    from trainables import evaluation

    weights = context.weights(run)
    if weights is None:
        context.console.print(f"the weights of trial {run.number} are gone: it is not tested")
        return None
    config, rows = _config_and_rows(run, context)
    data, started = context.data, time.perf_counter()
    statistics = (rows.mean, rows.std)
    logits, labels = evaluation.logits_of_images(
        config, weights.tensors, *test, statistics, len(data.classes), data.background
    )
    if measured:
        seconds = time.perf_counter() - started
        temperature = _temperature(run, context, confirmed)
        metrics = evaluation.measured(logits, labels, rows.positive, temperature, seconds, config.metric)
        context.journal.append(TestMeasured(run.number, Measured.of(metrics)))
    return logits.cpu()


def _test_ensemble(
    ensemble: Ensemble, confirmed: Confirmation, context: SweepContext, found: dict[int, Tensor], labels: Any
) -> None:
    """Record what the mean of an ensemble's members reaches on the test set, and that of their twins on the rows that
    they were scored on, by which the mean gets a temperature of its own.
    """
    import torch

    from trainables.calibration import fit_temperature, log_probabilities, mean_probabilities
    from trainables.evaluation import measured

    started, temperature = time.perf_counter(), None
    temperatures = [_temperature(run, context, confirmed) for run in ensemble.runs]
    twins = [context.weights(confirmed.twin(run)) for run in ensemble.runs]
    config, rows = _config_and_rows(confirmed.model, context)
    scored = [torch.from_numpy(twin.logits) for twin in twins if twin is not None and twin.logits is not None]
    if len(scored) == len(twins):
        mean = log_probabilities(mean_probabilities(scored, temperatures))
        truth = torch.from_numpy(context.data.labels[rows.scored])
        temperature = fit_temperature(mean, truth)
        metrics = measured(mean, truth, rows.positive, temperature, time.perf_counter() - started, config.metric)
        context.journal.append(EnsembleMeasured(ensemble.numbers, "validation", Measured.of(metrics)))
    mean = log_probabilities(mean_probabilities([found[number] for number in ensemble.numbers], temperatures))
    seconds = time.perf_counter() - started
    metrics = measured(mean, torch.from_numpy(labels), rows.positive, temperature, seconds, config.metric)
    context.journal.append(EnsembleMeasured(ensemble.numbers, "test", Measured.of(metrics)))


def _config_and_rows(run: TrialRecord, context: SweepContext) -> tuple[TrialConfig, TrialRows]:
    config = TrialConfig.from_dict(run.worker.resolve(run.config))
    return config, trial_rows(context.data, config)


def _temperature(run: TrialRecord, context: SweepContext, confirmed: Confirmation) -> float | None:
    """Return the temperature of a run, or of a refit's twin: rows that a model was trained on give too low a one."""
    weights = context.weights(confirmed.twin(run))
    return None if weights is None else weights.temperature
