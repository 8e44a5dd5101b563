"""Recipes: the settings that their papers fix, and how their arms are run and compared."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from journals import folded, trial

from orchestrator import validation
from orchestrator.assessment import comparison
from orchestrator.cluster import machine
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.events import Event, SweepStarted, TrialProposed
from orchestrator.record.facts import Spec
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState
from orchestrator.search.trial_queue import NextTrial, TrialQueue
from search_spaces import recipes
from search_spaces.recipe import searched_split
from search_spaces.space import SearchSpace, log
from trainables.config import TrialConfig
from trainables.epoch_metrics import FINAL_METRICS
from trainables.errors import ConfigError

HERE = [machine.Resources(2, 0)]


def made(folder: Path, **options: Any) -> plan.Plan:
    return plan.make(Request(SweepOptions(results=folder, **options)), HERE)


# what the papers fix


@pytest.mark.parametrize("name", recipes.RECIPES)
@pytest.mark.parametrize("quick", [False, True])
def test_a_recipe_has_its_papers_protocol_and_names_its_source(name: str, quick: bool) -> None:
    recipe = recipes.load(name)
    for dataset in recipe.datasets:
        spaces = recipe.spaces(dataset, quick=quick)
        assert len(spaces) >= 2
        for space in spaces.values():
            assert space.base.split != "core"
            assert space.base.epoch == "rows"
            assert not quick or (space.base.weights == "none" and space.base.max_epochs <= 20 and space.subset)
    module = recipes.__name__ + "." + name.replace("-", "_")
    lab_note = importlib.import_module(module).__doc__
    assert lab_note is not None
    assert f"--recipe {name}" in lab_note
    assert "What it leaves out" in lab_note


def test_every_reported_figure_has_a_name_that_ours_have() -> None:
    known = {f"{part}_{name}" for part in ("train", "validation", "test") for name in (*FINAL_METRICS, "s")}
    known |= {"epochs", "peak_memory_mb"}
    for name in recipes.RECIPES:
        recipe = recipes.load(name)
        for dataset in recipe.datasets:
            for arm in recipe.arms(dataset).values():
                assert set(arm.reported) <= known


def test_the_improved_arm_is_the_plain_one_with_all_four_changes() -> None:
    arms = recipes.load("improved-resnet50").arms("cifar10")
    plain, improved = arms["plain"].config.to_dict(), arms["improved"].config.to_dict()
    changed = {name: value for name, value in improved.items() if value != plain[name]}
    single: dict[str, Any] = {}
    for name in ("transfer", "augmentation", "label-smoothing", "cosine"):
        own = arms[name].config.to_dict()
        single |= {field: value for field, value in own.items() if value != plain[field]}
    assert changed == single
    assert changed == {
        "weights": "imagenet", "flip": True, "crop_padding": 4, "label_smoothing": 0.1, "smoothed_over": "others",
        "schedule": "cosine",
    }  # fmt: skip


def test_balance_has_the_papers_splits_for_both_data_sets() -> None:
    recipe = recipes.load("resnet50-balance")
    cifar, fashion = recipe.arms("cifar10"), recipe.arms("fashion-mnist")
    for name in ("50:50", "60:40", "70:30", "80:20", "90:10"):
        assert cifar[name].config.split == fashion[name].config.split == name
    assert (cifar["balanced"].config.max_epochs, fashion["balanced"].config.max_epochs) == (25, 5)
    assert fashion["imbalanced"].config.max_epochs == 7
    assert {"l1", "l2", "dropout-0.3", "dropout-0.5", "dropout-0.7"} <= set(fashion)


# searching around a recipe


@pytest.mark.parametrize(
    ("split", "searched"),
    [("official", "core"), ("80:20", "16:4:5"), ("50:50", "4:1:5"), ("70:15:15", "70:15:15")],
)
def test_settings_are_searched_on_rows_that_they_are_not_tested_on(split: str, searched: str) -> None:
    assert searched_split(split) == searched
    TrialConfig(split=searched)


def test_arms_take_turns_and_final_runs_come_last() -> None:
    space = SearchSpace(TrialConfig(max_epochs=1), {"lr": log(0.1, 1.0)})
    queue = TrialQueue({"a": space, "b": space}, trials=2, seeds=2)
    state, proposed = SweepState(), []
    while (due := queue.next(state)) is not None:
        number = state.next_trial
        proposed.append((due.arm, due.final, due.index, due.confirms))
        params = due.params if due.params is not None else {"lr": 0.1 + number}
        config = space.config(params).to_dict()
        folded(*trial(number, [number / 10], config=config, due=due, params=params), state=state)
    search = [("a", False, 0, None), ("b", False, 0, None), ("a", False, 1, None), ("b", False, 1, None)]
    assert proposed == [*search, ("a", True, 0, 2), ("b", True, 0, 3), ("a", True, 1, 2), ("b", True, 1, 3)]
    assert len(state.trials) == queue.total()


def test_final_runs_wait_for_their_arms_search() -> None:
    space = SearchSpace(TrialConfig(), {"lr": log(0.1, 1.0)})
    queue = TrialQueue({"a": space}, trials=1, seeds=1)
    config = space.config({"lr": 0.2}).to_dict()
    state = folded(TrialProposed(0, {"lr": 0.2}, config, "a"))
    assert queue.next(state) is None


def test_a_lost_line_costs_its_own_final_run_alone() -> None:
    """Drop one line of the journal: the other runs are known by the seeds in their own lines."""
    space = SearchSpace(TrialConfig())
    queue = TrialQueue({"a": space}, trials=1, seeds=3)
    config = space.base.to_dict()
    lines = [NextTrial("a", n, {}).proposal(n, {}, config) for n in range(3)]
    assert queue.next(folded(lines[0], lines[2])) == NextTrial("a", 1, {})


def test_runs_have_the_same_seeds_in_every_arm_and_search_others(tmp_path: Path) -> None:
    planned = made(tmp_path, recipe="improved-resnet50", search=(("lr=log(1e-3,1e-1)",),))
    runs = [[planned.config(n, NextTrial(arm, s, {}), {}).seed for s in range(3)] for n, arm in enumerate(planned.arms)]
    assert len(set(map(tuple, runs))) == 1
    assert len(set(runs[0])) == 3
    assert planned.config(0, NextTrial("plain", 0), {}).seed not in runs[0]
    assert planned.config(0, NextTrial("plain", 0), {"lr": 0.1}).split == "core"
    assert planned.config(0, NextTrial("plain", 0, {"lr": 0.1}, 0), {"lr": 0.1}).split == "official"


def test_what_is_set_is_set_in_every_arm(tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipe": "improved-resnet50", "set": (("model=resnet20", "weights=none"),)}
    planned = made(tmp_path, **options, arms=("plain", "improved"), max_epochs=7)
    assert {space.base.model for space in planned.arms.values()} == {"resnet20"}
    assert {space.base.max_epochs for space in planned.arms.values()} == {7}
    with pytest.raises(ConfigError, match="arms plain and transfer are equal"):
        made(tmp_path, **options)


def test_a_plan_comes_back_from_its_record(tmp_path: Path) -> None:
    planned = made(tmp_path, recipe="cactus-features", data_dir=tmp_path, quick=True)
    assert plan.Plan.from_dict(json.loads(json.dumps(planned.to_dict()))) == planned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "improved-resnet"}, "--recipe improved-resnet: unknown; did you mean improved-resnet50?"),
        ({"recipe": "improved-resnet50", "arms": ("plane",)}, "--arms plane: unknown; did you mean plain?"),
        ({"recipe": "improved-resnet50", "arms": ("plain", "plain")}, "name each arm once"),
        ({"recipe": "improved-resnet50", "quick": True, "arms": ("transfer",)}, "--arms transfer: unknown"),
        ({"recipe": "improved-resnet50", "trials": 4}, "nothing is searched in improved-resnet50"),
        (
            {"recipe": "improved-resnet50", "external_test": Path("nowhere")},
            "--external-test nowhere: there is no such folder",
        ),
        ({"recipe": "cactus-features"}, "cactus has to be downloaded manually"),
        ({"dataset": "digits", "confirm": 0, "confirm_seeds": 2}, "nothing is run again with --confirm 0"),
        ({"recipe": "improved-resnet50", "confirm": 0}, "--confirm 0: a recipe's arms are all run again"),
        ({"dataset": "digits", "arms": ("plain",)}, "--arms needs a recipe"),
        (
            {"dataset": "digits", "set": (("split=80:20",),)},
            "split=80:20: a sweep scores all trials on one validation set",
        ),
        ({"recipe": "improved-resnet50", "search": (("split=choice(80:20,70:30)",),)}, "split cannot be searched"),
        ({"recipe": "improved-resnet50", "confirm_seeds": 0}, "--confirm-seeds 0: at least 1 is needed"),
    ],
)
def test_what_a_recipe_cannot_do_is_reported_at_once(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        validation.check(SweepOptions(results=tmp_path, **options), HERE)
    assert any(message in problem for problem in refused.value.problems), refused.value.problems


def test_an_unknown_recipe_is_reported_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        validation.check(SweepOptions(results=tmp_path, recipe="resnet50"), HERE)
    (problem,) = refused.value.problems
    assert problem.startswith("--recipe resnet50: unknown; did you mean resnet50-balance?")


# the comparison


def run_of(number: int, arm: str, index: int, accuracy: float, config: TrialConfig) -> list[Event]:
    """Return the events of a final training run that measured `accuracy` on the test part."""
    measured = dict.fromkeys(("balanced_accuracy", "f1", "precision", "recall", "roc_auc", "loss", "seconds"), 0.5)
    measured_on = {
        "train": {**measured, "rows": 50, "accuracy": 1.0},
        "test": {**measured, "rows": 10, "accuracy": accuracy, "f1": None, "balanced_accuracy": accuracy},
    }
    return trial(
        number,
        [accuracy],
        config=config.to_dict(),
        due=NextTrial(arm, index, {}),
        params={},
        final_metrics=measured_on,
    )


def state_of(planned: plan.Plan, rows: int, *runs: list[Event]) -> SweepState:
    split = {"search_rows": rows * 5 // 6, "test_rows": rows // 6}
    started = SweepStarted(Spec(plan=planned.to_dict(), split=split))
    return folded(started, *(event for run in runs for event in run))


def test_the_paper_stands_beside_means_and_deviations(tmp_path: Path) -> None:
    planned = made(tmp_path, recipe="improved-resnet50", arms=("plain", "improved"))
    config = planned.arms["plain"].base
    found = comparison.compare(
        state_of(
            planned, 60_000, run_of(0, "plain", 0, 0.80, config), run_of(1, "improved", 0, 0.90, config),
            run_of(2, "plain", 1, 0.84, config),
        ),
        planned,
    )  # fmt: skip
    cell = found.cell("plain", "test_accuracy")
    assert cell is not None
    assert cell.mean == pytest.approx(0.82)
    assert cell.std == pytest.approx(0.02 * 2**0.5)
    assert cell.runs == 2
    gap = found.cell("improved", "train_test_gap")
    assert gap is not None
    assert gap.mean == pytest.approx(0.1)
    assert gap.std is None, "one run has no deviation"
    undefined = found.cell("plain", "test_f1")
    assert undefined is not None
    assert undefined.mean is None
    assert found.differences == ()
    assert "| plain | 2 | 0.8200 ± 0.0283 (0.8750) |" in found.markdown()


def test_another_experiment_is_called_one(tmp_path: Path) -> None:
    planned = made(tmp_path, recipe="improved-resnet50", quick=True, set=(("lr=0.05",),))
    found = comparison.compare(state_of(planned, 60_000), planned)
    assert "another experiment" in found.note()
    assert {"model=resnet8", "max_epochs=4", "lr=0.05"} <= set(found.differences)
    assert "2,000 of 50,000 rows used" in found.differences
    fewer = made(tmp_path, recipe="improved-resnet50")
    assert comparison.compare(state_of(fewer, 600), fewer).differences == ("600 rows, where the paper has 60,000",)


def test_it_is_kept_as_parquet_and_markdown(tmp_path: Path) -> None:
    planned = made(tmp_path, recipe="improved-resnet50", arms=("plain",))
    state = state_of(planned, 60_000, run_of(0, "plain", 0, 0.80, planned.arms["plain"].base))
    comparison.write(state, planned, SweepFolder(tmp_path))
    rows = {row["metric"]: row for row in pq.read_table(tmp_path / "comparison.parquet").to_pylist()}
    assert rows["test_balanced_accuracy"] == {
        "arm": "plain", "metric": "test_balanced_accuracy", "mean": 0.80, "std": None, "runs": 1, "paper": 0.8750,
        "as_published": True,
    }  # fmt: skip
    assert json.loads(pq.read_schema(tmp_path / "comparison.parquet").metadata[b"sweep"])["plan"]["recipe"]
    assert (tmp_path / "comparison.md").read_text().startswith("| arm | runs |")
