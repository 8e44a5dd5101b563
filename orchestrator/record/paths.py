"""The names of all files and folders of a sweep, as docs/formats.md describes them. Nowhere else are they spelled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

JOURNAL = "journal.jsonl"
DAMAGED_LINES = "journal.damaged.jsonl"
CONFUSIONS = "confusions.bin"
SPEC = "sweep.json"
LOCK = "sweep.lock"
LEADERBOARD = "leaderboard.parquet"
HISTORY = "history.parquet"
CONFIRMATION = "confirmation.parquet"
COMPARISON = "comparison.parquet"
COMPARISON_PAGE = "comparison.md"
FINAL = "final.json"
BUNDLE = "best"
FORMER_BUNDLE = "former-best"
REPORT = "report.html"
CONFUSED = "confused"
CONTACT = "contact.json"
CHECKPOINTS = "checkpoints"
LOGS = "logs"
TENSORBOARD = "tensorboard"
MLFLOW = "mlflow.db"
MLFLOW_ARTIFACTS = "mlflow-artifacts"
WANDB = "wandb"


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep on this machine. Of a sweep in a bucket the same names lie below its URI."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the sweep."""
        return self.path.name

    @property
    def journal(self) -> Path:
        """The record, an event a line; everything else follows from it."""
        return self.path / JOURNAL

    @property
    def damaged_lines(self) -> Path:
        """The lines of the journal that could not be read when it was opened."""
        return self.path / DAMAGED_LINES

    @property
    def confusions(self) -> Path:
        """The confusions after each epoch, to which the journal refers."""
        return self.path / CONFUSIONS

    @property
    def spec(self) -> Path:
        """The sweep's specification, with every auto as it was resolved; it repeats the first line of the journal."""
        return self.path / SPEC

    @property
    def lock(self) -> Path:
        """The name of the process that works on the sweep."""
        return self.path / LOCK

    @property
    def leaderboard(self) -> Path:
        """A row a trial."""
        return self.path / LEADERBOARD

    @property
    def history(self) -> Path:
        """A row an epoch."""
        return self.path / HISTORY

    @property
    def confirmation(self) -> Path:
        """A row a confirmation run."""
        return self.path / CONFIRMATION

    @property
    def comparison(self) -> Path:
        """A recipe's arms × metrics."""
        return self.path / COMPARISON

    @property
    def comparison_page(self) -> Path:
        """The comparison as a Markdown table."""
        return self.path / COMPARISON_PAGE

    @property
    def final(self) -> Path:
        """The winner with its intervals and test metrics; there once the sweep has been concluded."""
        return self.path / FINAL

    @property
    def bundle(self) -> Path:
        """The folder of the best trial's model, or the winner's."""
        return self.path / BUNDLE

    @property
    def former_bundle(self) -> Path:
        """The model that was in `best/`, if it is not the sweep's best one, and that one's weights are gone."""
        return self.path / FORMER_BUNDLE

    @property
    def report(self) -> Path:
        """The page that shows all of it."""
        return self.path / REPORT

    @property
    def confused(self) -> Path:
        """The folder of images that the best trial takes for another class."""
        return self.path / CONFUSED

    @property
    def contact(self) -> Path:
        """Some pictures of each class, as the net sees them."""
        return self.path / CONTACT

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, unless another storage was asked for."""
        return self.path / CHECKPOINTS

    @property
    def logs(self) -> Path:
        """The folder of what the trackers' clients print."""
        return self.path / LOGS

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / TENSORBOARD

    @property
    def mlflow(self) -> Path:
        """MLflow's database."""
        return self.path / MLFLOW

    @property
    def mlflow_artifacts(self) -> Path:
        """The folder of MLflow's artifacts."""
        return self.path / MLFLOW_ARTIFACTS

    @property
    def wandb(self) -> Path:
        """The folder of W&B's runs."""
        return self.path / WANDB

    def is_begun(self) -> bool:
        """Return whether a sweep has a line in its journal here, or something else has taken the name."""
        if self.journal.is_file():
            return b"\n" in self.journal.read_bytes()
        killed_at_once = self.path.is_dir() and {path.name for path in self.path.iterdir()} <= {LOCK}
        return self.path.exists() and not killed_at_once


def sweeps_in(results: Path) -> list[str]:
    """Return the names of the sweeps in the folder `results`, sorted."""
    return sorted(journal.parent.name for journal in results.glob(f"*/{JOURNAL}"))
