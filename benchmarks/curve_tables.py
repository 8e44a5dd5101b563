"""Tables of recorded learning curves, in benchmarks/data: what each was recorded with, and how it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold, cross_val_predict

from orchestrator.search.study import JournalStudy
from search_spaces import digits
from search_spaces.distributions import unit
from search_spaces.space import SearchSpace, choice, integer, log, uniform
from search_spaces.starts import SGD
from trainables.config import TrialConfig

CHANCE = 0.1  # of ten classes
DATA = Path(__file__).parent / "data"
SPACE = SearchSpace(
    TrialConfig(
        model="resnet8",
        schedule="one_cycle",
        warmup=0.2,
        max_epochs=12,
        flip=True,
        crop_padding=2,
        image_size=16,
        precision="float32",
        memory_format="channels_last",
        threads=1,
    ),
    {
        "optimizer": choice("sgd", "adamw"),
        "lr": log(1e-3, 1.0),
        "momentum": uniform(0.5, 0.99),
        "weight_decay": log(1e-5, 1e-2),
        "batch_size": integer(32, 256, 32),
        "dropout": uniform(0.0, 0.5),
        "label_smoothing": uniform(0.0, 0.2),
        "train_fraction": uniform(0.5, 1.0),
    },
    conditions={"momentum": {"optimizer": ("sgd",)}},
    starts=({**SGD, "optimizer": "sgd", "momentum": 0.9, "batch_size": 128},),
)
"""The space of the recorded tables: eight fields, one of them a choice, one under a condition."""


@dataclass(frozen=True)
class CurveTable:
    """How a table is recorded."""

    name: str
    rows: int  # trained and scored on, one in five of them scored on
    settings: int
    space: SearchSpace = SPACE
    dataset: str = "cifar10"

    @property
    def path(self) -> Path:
        """The table's file."""
        return DATA / f"{self.name}.parquet"

    @property
    def short_epochs(self) -> int:
        """The epochs of the short schedule."""
        return self.space.base.max_epochs // 3

    @staticmethod
    def schema() -> pa.Schema:
        """Return the columns of a table's file, which has a row for each epoch of each run.

        A run that diverged at once has one row, without metrics.
        """
        whole = [pa.field(name, pa.int32()) for name in ("setting", "epochs", "seed", "epoch")]
        metrics = ("train_loss", "val_loss", "val_accuracy", "other_loss", "other_accuracy", "train_s")
        return pa.schema([*whole, *(pa.field(name, pa.float32()) for name in metrics)])


DIGITS = digits.space(gpu=False, quick=False)
EXACT = {"precision": "float32", "memory_format": "contiguous", "threads": 1}
TABLES = {
    table.name: table
    for table in (
        CurveTable("cifar10", 8_000, 300),
        CurveTable("cifar10_small", 2_000, 150),
        CurveTable("digits", 1_150, 300, replace(DIGITS, base=DIGITS.base.replace(**EXACT)), "digits"),
    )
}


@dataclass(frozen=True, eq=False)
class Curves:
    """A recorded table, in memory, to search on; equal to itself alone.

    `searched` and `others` hold the score of each setting after each epoch, float [settings, epochs], as more is
    better: on the rows that a search sees, and on other rows; NaN where a run had diverged, or was not scored.
    """

    name: str
    space: SearchSpace
    params: list[dict[str, Any]]
    searched: NDArray[np.float64]
    others: NDArray[np.float64]
    short: NDArray[np.float64] | None = None  # [settings, short epochs]: `searched` of whole short schedules
    best: float | None = None  # on other rows: the mean over seeds of the best settings; None: the best one's
    step: float = 0.01  # a point of the score

    @property
    def max_epochs(self) -> int:
        """The epochs of a run in full."""
        return int(self.searched.shape[1])

    @property
    def regrets(self) -> NDArray[np.float64]:
        """What is lost by choosing each setting, in points: float [settings]; the best score minus its own."""
        last = self.others[:, -1]
        best = np.nanmax(last) if self.best is None else self.best
        worst = np.nanmin(last)
        return (best - np.where(np.isnan(last), worst, last)) / self.step

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """Every setting as a point of the unit cube: float [settings, fields]."""
        return np.array([self.place(params) for params in self.params])

    def place(self, params: Mapping[str, Any]) -> list[float]:
        """Return searched values as a point of the unit cube; a field that is not searched there is in its middle."""
        return [
            unit(params[name], distribution) if name in params else 0.5
            for name, distribution in self.space.distributions.items()
        ]


def read(name: str, path: Path | None = None) -> Curves:
    """Return a recorded table; its settings are those that were trained in full."""
    table = pq.read_table(path or DATA / f"{name}.parquet")
    about = json.loads(table.schema.metadata[b"about"])
    space = SearchSpace.from_dict(about["space"])
    rows = table.to_pandas()
    full = space.base.max_epochs
    settings = sorted(rows[(rows.epochs == full) & (rows.seed == 0)].setting.unique())

    def scores(column: str, epochs: int) -> NDArray[np.float64]:
        of_runs = rows[(rows.epochs == epochs) & (rows.seed == 0)]
        wide = of_runs.pivot(index="setting", columns="epoch", values=column)
        return np.asarray(wide.reindex(index=settings, columns=range(1, epochs + 1)), dtype=float)

    again = rows[(rows.epochs == full) & (rows.seed > 0) & (rows.epoch == full)]
    best = float(again.groupby("setting").other_accuracy.mean().max()) if len(again) else None
    short = min(rows.epochs.unique())
    return Curves(
        name,
        space,
        [about["settings"][str(setting)] for setting in settings],
        scores("val_accuracy", full),
        scores("other_accuracy", full),
        scores("val_accuracy", short) if short < full else None,
        best,
    )


DENSE = 6_000  # settings
FOREST: Mapping[str, Any] = {"n_estimators": 300, "min_samples_leaf": 2, "n_jobs": 2}


def densified(table: Curves, rows: int, seed: int = 0) -> Curves:
    """Return a table of many random settings, with the scores that a forest predicts from the recorded ones.

    In the recorded table the nearest setting to a proposal is often far from it, which takes from a sampler what it
    knows. The forest (extremely randomized trees) predicts each setting's scores on other rows after every epoch; what
    the search sees is that, with the noise of so many `rows` that are scored on. Runs that diverge score as chance
    does.
    """
    known = np.nan_to_num(table.searched, nan=CHANCE)
    ends = np.nan_to_num(table.others[:, -1:], nan=CHANCE)
    forest = ExtraTreesRegressor(**FOREST, random_state=seed)
    forest.fit(table.places, np.hstack([known[:, :-1], ends]))
    study = JournalStudy(table.space, "random", seed=seed + 1, trials=DENSE)
    params = [found.params for number in range(DENSE) if (found := study.propose(number)) is not None]
    dense = replace(table, params=params, short=None, best=None)
    scores = forest.predict(dense.places)
    noise = np.random.default_rng(seed).normal(size=scores.shape) * np.sqrt(scores * (1 - scores) / rows)
    return replace(dense, searched=scores + noise, others=scores)


KINDS: Mapping[str, Callable[[str], Curves]] = {
    "recorded": read,
    "dense": lambda name: densified(read(name), TABLES[name].rows // 5),
}
"""How a table is searched on, by its name: as it was recorded, or dense, as `densified` makes it."""


def forest_error(table: Curves) -> float:
    """Return the mean absolute error of the forest's predictions of final scores, in points, over ten folds."""
    ends = np.nan_to_num(table.others[:, -1], nan=CHANCE)
    forest = ExtraTreesRegressor(**FOREST, random_state=0)
    predicted = cross_val_predict(forest, table.places, ends, cv=KFold(10, shuffle=True, random_state=0))
    return float(np.abs(predicted - ends).mean() / table.step)


TASKSET_FIELDS = ("dropout", "stochastic_depth", "label_smoothing", "erasing", "ema", "momentum", "warmup", "mixup")


def read_taskset(path: Path, epochs: int = 9) -> list[Curves]:
    """Return tables of Adam's settings on text classifiers, of which only methods are chosen, never figures made.

    Their fields are no fields of trials here: each stands for one that takes values from 0 to 1. Of the 51 points of
    a curve, `epochs` are taken. A score is minus a loss; a point is a hundredth of the way from the median to the best.
    """
    rows = pq.read_table(path).to_pandas()
    fields = [name for name in rows.columns if name not in ("task", "setting") and not name.endswith("_loss")]
    space = SearchSpace(
        TrialConfig(model="resnet8", max_epochs=epochs, metric="val_loss"),
        {name: uniform(0.0, 0.999) for name in TASKSET_FIELDS[: len(fields)]},
    )
    found = []
    for task, of_task in rows.groupby("task"):
        units = of_task[fields].rank(pct=True).to_numpy() * 0.999
        at = np.linspace(0, 50, epochs + 1).round().astype(int)[1:]
        searched, others = (
            -np.nan_to_num(np.stack(of_task[column].to_list())[:, at].astype(float), nan=10.0, posinf=10.0)
            for column in ("valid_loss", "test_loss")
        )
        step = (np.max(others[:, -1]) - np.median(others[:, -1])) / 100
        params = [dict(zip(space.distributions, map(float, row), strict=True)) for row in units]
        found.append(Curves(str(task), space, params, searched, others, step=float(step)))
    return found
