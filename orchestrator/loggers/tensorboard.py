"""TensorBoard: event files in the sweep's folder, a folder for each trial."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from orchestrator.loggers import run
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState, TrialRecord


class TensorBoard:
    """Writes the files of one command: a later command that sees a trial writes its files again from the journal."""

    def __init__(self, folder: Path, state: SweepState, url: str = "") -> None:
        self._folder = SweepFolder(folder)
        self._state = state
        self._open: dict[int, tuple[SummaryWriter, int]] = {}  # with the last epoch in it

    def update(self, trial: TrialRecord) -> None:
        """Write the epochs that the trial's file does not have, and its end."""
        writer, last = self._open.get(trial.number) or (self._begin(trial), 0)
        for epoch in trial.epochs:
            if epoch["epoch"] > last:
                last = epoch["epoch"]
                for name, value in run.metrics(epoch).items():
                    writer.add_scalar(name, value, last, epoch["ended_at"])
        if trial.end is None:
            self._open[trial.number] = writer, last
            writer.flush()
            return
        metrics = {f"final/{name}": value for name, value in run.final_metrics(trial).items()}
        for name, value in metrics.items():
            writer.add_scalar(name, value, last, trial.ended_at)
        writer.add_text("trial", json.dumps(run.tags(self._state, trial)), last, trial.ended_at)
        for summary in hparams({name: value for name, value in trial.config.items() if value is not None}, metrics):
            writer.file_writer.add_summary(summary)  # `add_hparams` would begin another run
        writer.close()
        self._open.pop(trial.number, None)

    def close(self) -> None:
        """Close the files that are open."""
        for writer, _ in self._open.values():
            writer.close()

    def _begin(self, trial: TrialRecord) -> SummaryWriter:
        folder = self._folder.tensorboard / f"trial-{trial.number}"
        shutil.rmtree(folder, ignore_errors=True)
        return SummaryWriter(str(folder))
