"""Record a table of learning curves, on which searches are compared without training anything.

    python -m benchmarks.record_curves cifar10 --data-dir DIR    (or BENCHMARK_CIFAR10=DIR; hours; goes on where it was)
    python -m benchmarks.record_curves cifar10 --export              (writes what is there to benchmarks/data, too)

A table has the curves of random settings of a space: a ResNet-8 on a few thousand rows of CIFAR-10 at 16 pixels, or on
digits, one-cycle, one thread, float32. Epochs are scored on the rows that a search may see, as many as a live sweep
has; some of them, and all of the last third, also on others, by which the outcome of a search is judged. Each setting
is trained over the whole schedule, and once more over a whole schedule of a third of the epochs; the best settings, by
the other rows, with three further seeds.

The record is a file of JSON lines in the working folder, one for each run, appended when the run has ended. Runs that
an exported table in benchmarks/data has are not made again.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro

from benchmarks.curve_tables import DATA, TABLES, CurveTable
from benchmarks.record import ROOT, cifar10_files, say
from orchestrator.record import provenance
from orchestrator.search.study import JournalStudy
from trainables import datasets
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.errors import Diverged
from trainables.evaluation import predict
from trainables.loop import TrialData, TrialState, train
from trainables.metrics import scores
from trainables.seeds import seed_for
from trainables.splits import SearchData, search_data

BEST = 20  # settings that are trained with further seeds
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Options:
    """Record the curves of a table, or export what was recorded."""

    table: tyro.conf.Positional[Literal["cifar10", "cifar10_small", "digits"]]
    data_dir: Path | None = None
    """Folder of CIFAR-10's files as Parquet. Default: that of the environment variable BENCHMARK_CIFAR10."""
    lines: Path | None = None
    """File of the runs so far. Default: TABLE.curves.jsonl in the working folder."""
    processes: int = os.cpu_count() or 1
    """Runs at the same time, one thread each."""
    export: bool = False
    """Write the runs so far to benchmarks/data as Parquet, and train nothing."""


class Run(NamedTuple):
    """A run of one setting: over how many epochs its schedule spans, and with which seed (0: the search's)."""

    setting: int
    epochs: int
    seed: int


def main() -> int:
    options = tyro.cli(Options)
    table = TABLES[options.table]
    path = options.lines or Path(f"{options.table}.curves.jsonl")
    if options.export:
        export(table, read(table, path))
        return 0
    data_dir = cifar10_files(options.data_dir) if table.dataset == "cifar10" else None
    if data_dir is None and table.dataset == "cifar10":
        return 0
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        while runs := missing(table, read(table, path)):
            for found in pool.imap_unordered(partial(record, table.name, data_dir), runs):
                with path.open("a") as lines:
                    lines.write(json.dumps(found) + "\n")
                say(f"{found['setting']}: {found['curve'][-1] if found['curve'] else 'diverged at once'}")
    return 0


def read(table: CurveTable, path: Path) -> list[dict[str, Any]]:
    """Return the runs so far: those of the exported table, then those of the file of lines."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    made = {run_of(run) for run in lines}
    return [run for run in exported(table) if run_of(run) not in made] + lines


def run_of(run: dict[str, Any]) -> Run:
    """Return which run a record is of."""
    return Run(run["setting"], run["epochs"], run["seed"])


def exported(table: CurveTable) -> list[dict[str, Any]]:
    """Return the runs of the table in benchmarks/data; none where there is no such table yet."""
    if not table.path.exists():
        return []
    rows = pq.read_table(table.path)
    params = json.loads(rows.schema.metadata[b"about"])["settings"]
    runs: dict[Run, dict[str, Any]] = {}
    for row in rows.to_pylist():
        run = run_of(row)
        found = runs.setdefault(run, {**run._asdict(), "params": params[str(run.setting)], "curve": []})
        epoch = {name: value for name, value in row.items() if name not in run._fields and value is not None}
        found["curve"] += [epoch] if len(epoch) > 1 else []
    return list(runs.values())


def draw(table: CurveTable) -> list[dict[str, Any]]:
    """Return the searched values of the settings, as the random sampler draws them."""
    study = JournalStudy(table.space, "random", seed=0, trials=table.settings)
    proposals = [study.propose(number) for number in range(table.settings)]
    return [proposal.params for proposal in proposals if proposal is not None]


def missing(table: CurveTable, runs: list[dict[str, Any]]) -> list[Run]:
    """Return the runs to make next: all settings in full, the best with further seeds, all over short schedules."""
    made = {run_of(run) for run in runs}
    full, short = table.space.base.max_epochs, table.short_epochs
    ends = {run["setting"]: run["curve"][-1]["other_accuracy"] for run in runs if is_whole(run, full)}
    best = sorted(ends, key=lambda setting: -ends[setting])[:BEST]
    stages = (
        [Run(setting, full, 0) for setting in range(table.settings)],
        [Run(setting, full, seed) for setting in best for seed in SEEDS],
        [Run(setting, short, 0) for setting in range(table.settings)],
    )
    return next((left for stage in stages if (left := [run for run in stage if run not in made])), [])


def is_whole(run: dict[str, Any], epochs: int) -> bool:
    """Return whether a run of the search's own seed came to the end of a schedule of so many epochs."""
    return bool(run["epochs"] == epochs and run["seed"] == 0 and len(run["curve"]) == epochs)


class Rows(NamedTuple):
    """The data of a search, and other rows to judge it by."""

    search: SearchData
    other: torch.Tensor


def select(table: CurveTable, dataset: datasets.Dataset) -> Rows:
    """Return the rows of a table: the first ones of the pool to train on, the next to score on; others are the
    validation set of the whole data set. No test row is used.
    """
    whole = search_data(dataset)
    trained, scored = table.rows - table.rows // 5, table.rows
    pool, validation = whole.pool[:trained], whole.pool[trained:scored]
    return Rows(dataclasses.replace(whole, pool=pool, validation=validation), torch.from_numpy(whole.validation))


class Recorder:
    """What a process needs for its runs."""

    def __init__(self, table: CurveTable, data_dir: Path | None) -> None:
        self.table = table
        self.data = select(table, datasets.load(table.dataset, datasets.Reading(data_dir)))
        self.batches = Batches.of(self.data.search, torch.device("cpu"))
        self.settings = draw(table)


@cache
def recorder(table: str, data_dir: Path | None) -> Recorder:
    """Return what this process needs for the runs of a table."""
    torch.set_num_threads(1)
    return Recorder(TABLES[table], data_dir)


def record(table_name: str, data_dir: Path | None, run: Run) -> dict[str, Any]:
    """Train a run, and return its curve; it ends early where the training diverges."""
    own = recorder(table_name, data_dir)
    table, data, batches, params = own.table, own.data, own.batches, own.settings[run.setting]
    seed = seed_for(run.seed, "curve", run.setting)
    config = table.space.config(params, seed=seed).replace(max_epochs=run.epochs)
    trial = TrialData.select(config, data.search, batches)
    state = TrialState.start(config, trial, batches.labels.device)
    curve = []
    try:
        for epoch in train(trial, state):
            values = epoch.to_dict()
            kept = {name: values[name] for name in ("epoch", "train_loss", "val_loss", "val_accuracy", "train_s")}
            if epoch.epoch in (1, table.short_epochs) or epoch.epoch > run.epochs * 2 / 3:
                other = others(config, trial, state, data.other)
                kept |= {"other_accuracy": other.accuracy, "other_loss": other.loss}
            curve.append(kept)
    except Diverged as error:
        say(f"{run}: {error}")
    return {**run._asdict(), "params": params, "curve": curve}


def others(config: TrialConfig, trial: TrialData, state: TrialState, rows: torch.Tensor) -> Any:
    """Return the scores of the newest model on the other rows."""
    return scores(*predict(config, trial.batches, rows, state.learners[0].predictor), trial.positive)


def export(table: CurveTable, runs: list[dict[str, Any]]) -> None:
    """Write the table's Parquet file: a row for each epoch of each run, with the setting's searched values."""
    rows = [
        {**{name: run[name] for name in ("setting", "epochs", "seed")}, **epoch}
        for run in runs
        for epoch in (run["curve"] or [{"epoch": 1}])
    ]
    settings = {run["setting"]: run["params"] for run in runs}
    described = provenance.describe().to_dict()
    described["hardware"].pop("host")
    about = {"space": table.space.to_dict(), "rows": table.rows, "settings": settings, **described}
    columns = pa.Table.from_pylist(rows, schema=CurveTable.schema())
    found = columns.replace_schema_metadata({"about": json.dumps(about)})
    DATA.mkdir(exist_ok=True)
    pq.write_table(found, table.path, compression="zstd")
    say(f"{table.path.relative_to(ROOT)}: {len(runs)} runs, {len(rows)} epochs")


if __name__ == "__main__":
    sys.exit(main())
