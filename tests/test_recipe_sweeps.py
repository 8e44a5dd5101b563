"""Recipes as a user runs them, on small data in the layout of their papers'."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import lookalikes
import pandas as pd
import pytest
from conftest import Command

from orchestrator.record.journal import read
from orchestrator.record.state import replay

TINY = ("--set", "model=resnet8", "image_size=16", "--cpus-per-trial", "1")


@pytest.fixture(scope="module")
def compared(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a recipe whose arms were run with two seeds each."""
    results, data = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("cactus")
    lookalikes.cactus(data, rows=200)
    recipe = ("--recipe", "resnet50-balance", "cactus", "--data-dir", data, "--quick", "--arms", "80:20", "90:10")
    done = command("orchestrator.sweep", *recipe, *TINY, "--results", results, "--name", "arms", "--json")
    assert done.code == 0, done.err
    assert done.result["comparison"] == str(results / "arms" / "comparison.parquet")
    assert "80:20" in done.err
    return results / "arms"


def test_every_arm_is_run_with_the_same_seeds_and_measured(compared: Path) -> None:
    state = replay(read(compared / "journal.jsonl")[0])
    seeds = {arm: sorted(t.config["seed"] for t in state.trials.values() if t.arm == arm) for arm in ("80:20", "90:10")}
    assert len(state.trials) == 4
    assert seeds["80:20"] == seeds["90:10"]
    rows = {t.arm: {part: found.rows for part, found in t.final_metrics.items()} for t in state.trials.values()}
    assert rows == {
        "80:20": {"train": 160, "test": 40, "common": 20},
        "90:10": {"train": 180, "test": 20, "common": 20},
    }


def test_the_comparison_is_that_of_the_leaderboards_metrics(compared: Path) -> None:
    board = pd.read_parquet(compared / "leaderboard.parquet")
    cells = pd.read_parquet(compared / "comparison.parquet").set_index(["arm", "metric"])
    for arm, runs in board.groupby("arm"):
        accuracies = [json.loads(text)["test"]["accuracy"] for text in runs["final_metrics"]]
        assert cells.loc[(arm, "test_accuracy"), "mean"] == pytest.approx(sum(accuracies) / 2)
        assert cells.loc[(arm, "test_accuracy"), "std"] == pytest.approx(pd.Series(accuracies).std())
        assert cells.loc[(arm, "train_s"), "mean"] == pytest.approx(runs["train_s"].mean())
    assert set(board["split_protocol"]) == {"paper"}
    assert cells["paper"].isna().all(), "the paper has no such data"
    assert not cells["as_published"].any()
    assert "| 80:20 | 2 |" in (compared / "comparison.md").read_text()
    assert "Arms beside the paper" in (compared / "report.html").read_text()


@pytest.mark.slow
def test_more_seeds_go_on_where_the_recipe_ended(command: Command, compared: Path) -> None:
    again = ("orchestrator.sweep", "--resume", "arms", "--results", compared.parent)
    refused = command(*again, "--trials", "3")
    assert refused.code == 2
    assert "nothing is searched" in refused.err
    done = command(*again, "--confirm-seeds", "3", "--json")
    assert done.code == 0, done.err
    assert done.result["trials"] == {"completed": 6}
    assert set(pd.read_parquet(compared / "comparison.parquet")["runs"]) == {3}


@pytest.mark.slow
def test_an_arm_can_be_searched_before_it_is_compared(command: Command, tmp_path: Path) -> None:
    """Search sees a validation part; the test part waits for the final runs, which are never stopped."""
    lookalikes.cactus(tmp_path / "data", rows=300)
    asked = ("--recipe", "cactus-features", "--data-dir", tmp_path / "data", "--quick", "--arms", "resnet50")
    search = ("--search", "lr=log(1e-4,1e-2)", "--trials", "4", "--max-epochs", "4")
    done = command("orchestrator.sweep", *asked, *TINY, *search, "--results", tmp_path, "--name", "a", "--json")
    assert done.code == 0, done.err
    searched = pd.read_parquet(tmp_path / "a" / "leaderboard.parquet")
    finals = pd.read_parquet(tmp_path / "a" / "confirmation.parquet")
    assert (len(searched), len(finals)) == (4, 2)
    assert searched["final_metrics"].isna().all()
    assert finals["rank"].isna().all()
    best = searched.sort_values("rank").iloc[0]
    assert set(finals["confirms"]) == {best["trial"]}
    assert set(finals["config.lr"]) == {best["config.lr"]}
    assert set(finals["status"]) == {"completed"}


@pytest.mark.slow
def test_pictures_from_elsewhere_are_tried_at_the_end(command: Command, tmp_path: Path) -> None:
    lookalikes.fruits_360(tmp_path / "data")
    lookalikes.external_test(tmp_path / "outside")
    asked = ("--recipe", "cnn-comparison", "--data-dir", tmp_path / "data", "--quick", "--arms", "simple-cnn")
    external_test = ("--external-test", tmp_path / "outside", "--confirm-seeds", "1", "--max-epochs", "1")
    done = command("orchestrator.sweep", *asked, *external_test, "--results", tmp_path, "--name", "a", "--json")
    assert done.code == 0, done.err
    cells = pd.read_parquet(tmp_path / "a" / "comparison.parquet").set_index("metric")["mean"]
    assert cells["train_external_gap"] == pytest.approx(cells["train_accuracy"] - cells["external_accuracy"])
    assert cells["train_test_gap"] == pytest.approx(cells["train_accuracy"] - cells["test_accuracy"])


def test_wrong_pictures_from_elsewhere_are_reported_before_anything_runs(command: Command, tmp_path: Path) -> None:
    lookalikes.fruits_360(tmp_path / "data")
    lookalikes.external_test(tmp_path / "outside")
    next((tmp_path / "outside").iterdir()).rename(tmp_path / "outside" / "Durian")
    asked = ("--recipe", "cnn-comparison", "--data-dir", tmp_path / "data", "--quick", "--results", tmp_path)
    done = command("orchestrator.sweep", *asked, "--external-test", tmp_path / "outside")
    assert done.code == 2
    assert "Durian" in done.err
    assert not list(tmp_path.glob("cnn-comparison*/journal.jsonl"))


def test_a_split_without_rows_of_a_class_is_reported_before_anything_runs(command: Command, tmp_path: Path) -> None:
    lookalikes.cactus(tmp_path / "data", rows=12)
    asked = ("--recipe", "resnet50-balance", "cactus", "--data-dir", tmp_path / "data", "--quick", "--arms", "90:10")
    done = command("orchestrator.sweep", *asked, "--results", tmp_path)
    assert done.code == 2
    assert "split=90:10" in done.err


# each as it stands, minutes


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("recipe", "make"),
    [
        ("resnet18-binary", lookalikes.ai_vs_human),
        ("cactus-features", lookalikes.cactus),
        ("cnn-comparison", lookalikes.fruits_360),
        ("resnet50-balance fashion-mnist", partial(lookalikes.fashion_mnist, rows=280)),  # each part has every class
    ],
)
def test_the_quick_form_ends_with_a_table(command: Command, tmp_path: Path, recipe: str, make: object) -> None:
    assert callable(make)
    make(tmp_path / "data")
    asked = ("orchestrator.sweep", "--recipe", *recipe.split(), "--quick", "--data-dir", tmp_path / "data")
    done = command(*asked, "--results", tmp_path, "--name", "a", "--json", timeout=560)
    assert done.code == 0, done.err
    assert (tmp_path / "a" / "comparison.md").read_text().startswith("| arm | runs |")
