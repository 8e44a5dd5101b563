"""Plans and validation: every wrong option is named at once, before anything starts."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from orchestrator import validation
from orchestrator.cluster.machine import Nodes, Resources
from orchestrator.plan import plan, resumption, time_budget
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request
from orchestrator.record.state import SweepState
from trainables.errors import ConfigError

TWO_CORES = [Resources(cpus=2, gpus=0)]


def options(tmp_path: Path, **given: Any) -> SweepOptions:
    return SweepOptions(**{"dataset": "digits", "results": tmp_path, **given})


def refused(tmp_path: Path, nodes: Nodes = TWO_CORES, **given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        made(tmp_path, nodes, **given)
    return "\n".join(caught.value.problems)


def made(tmp_path: Path, nodes: Nodes = TWO_CORES, **given: Any) -> Plan:
    validation.check(options(tmp_path, **given), nodes)
    return plan.make(Request(options(tmp_path, **given)), nodes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "digitz"}, "did you mean digits?"),
        ({"sampler": "tpee"}, "did you mean tpe?"),
        ({"scheduler": "ahsa"}, "did you mean asha?"),
        ({"metric": "accuracy"}, "did you mean val_accuracy?"),
        ({"metric": "val_loss:max"}, "the direction of val_loss is always min"),
        ({"trials": 0}, "--trials 0: at least 1"),
        ({"seed": -1}, "--seed -1: at least 0"),
        ({"max_epochs": 0}, "--max-epochs 0"),
        ({"factor": 1.0}, "--factor 1: a number above 1"),
        ({"time_budget": "soon"}, "1h30m"),
        ({"time_budget": "0s"}, "1h30m"),
        ({"time_budget": "30"}, "--time-budget '30' is not a time (allowed: 90s, 30m, 2h, 1h30m)"),
        ({"fit": "pad", "set": ("fit=crop",)}, "fit is set twice, to crop and to pad; leave one out"),
        ({"weights": "none", "set": ("weights=imagenet",)}, "weights is set twice, to imagenet and to none; leave"),
        ({"set": (("lr=0.1", "dropout=0"), ("lr=0.2",))}, "lr is set twice, to 0.1 and to 0.2; leave one out"),
        ({"try_": (("lr=0.1 lr=0.2",),)}, "--try lr=0.1 lr=0.2: lr is set twice, to 0.1 and to 0.2; leave one out"),
        ({"target_score": 98.0}, "--target-score 98: no trial can reach that, as val_accuracy is from 0 to 1"),
        ({"target_score": -1.0, "metric": "val_loss"}, "--target-score -1: no trial can reach that, as val_loss is fr"),
        ({"grace": 20, "max_epochs": 9}, "--grace 20: trials have 9 epochs at most, so none would be stopped"),
        ({"grace": 9, "max_epochs": 9, "scheduler": "median"}, "--grace 9: trials have 9 epochs at most"),
        ({"grace": 2, "scheduler": "none"}, "--grace 2: --scheduler none has no use for it; leave it out"),
        ({"factor": 4, "scheduler": "median"}, "--factor 4: --scheduler median has no use for it; leave it out"),
        ({"gpus_per_trial": 1.0}, "no machine here has more than 0"),
        ({"gpus_per_trial": 2.0}, "allowed are 0 to 1"),
        ({"gpus_per_trial": float("nan")}, "allowed are 0 to 1"),
        ({"factor": float("nan")}, "--factor nan"),
        ({"cpus_per_trial": 3}, "no machine here has more than 2"),
        ({"slots": 3}, "at most 2 fit"),
        ({"address": "ray://head:10001"}, "ray job submit"),
        ({"address": "head"}, "HOST:PORT"),
        ({"name": "../up"}, "letters, digits"),
        ({"resume": "nothing"}, "no such sweep"),
        ({"set": ((),)}, "--set: nothing follows it"),
        ({"search": ((),)}, "--search: nothing follows it"),
        ({"try_": ((),)}, "--try: nothing follows it; for example --try "),
        ({"warm_start": ((),)}, "--warm-start: nothing follows it; for example --warm-start "),
        ({"storage": "ftp://host/here"}, "--storage ftp://host/here: allowed are a folder, s3://"),
        ({"storage": "s3://key:secret@bucket/here"}, "credentials belong in the environment"),
        ({"subset": 1}, "--subset 1"),
        ({"sampler": "grid"}, "a grid needs steps"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    assert message in refused(tmp_path, **given)


def test_the_same_value_may_be_given_twice(tmp_path: Path) -> None:
    assert made(tmp_path, fit="pad", set=("fit=pad", "lr=0.1", "lr=1e-1")).space.base.fit == "pad"


def test_what_can_be_reached_or_stops_some_is_taken(tmp_path: Path) -> None:
    for given in ({"target_score": 1.0}, {"target_score": 0.0, "metric": "val_loss"}, {"grace": 1, "max_epochs": 1}):
        made(tmp_path, **given)
    made(tmp_path, grace=2, scheduler="median")


def test_a_resumed_sweep_has_a_target_of_its_own_metric(tmp_path: Path) -> None:
    began = made(tmp_path, metric="val_loss")
    assert resumed(tmp_path, began, target_score=3.0) == began
    with pytest.raises(ConfigError, match="no trial can reach that, as val_loss is from 0"):
        resumed(tmp_path, began, target_score=-1.0)


def test_texts_from_python(tmp_path: Path) -> None:
    """One text, a tuple without its comma, and lists are what they mean."""
    for given in ("optimizer=adamw", ("optimizer=adamw"), ["optimizer=adamw"], [["optimizer=adamw"]]):
        assert made(tmp_path, set=given).space.base.optimizer == "adamw"
    assert "lr" in made(tmp_path, search="lr=log(0.1,0.2)").space.distributions
    assert options(tmp_path, classes="cat").reading.classes == ("cat",)
    assert options(tmp_path, log="tensorboard").log == ("tensorboard",)


def test_values_of_another_type_from_python_are_named_at_once(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "trials": "3",
        "seed": 1.5,
        "set": ("lr=0.1", 3),
        "min_rows": "dorp",
        "quick": 1,
        "factor": "3",
    }
    assert sorted(refused(tmp_path, **wrong).splitlines()) == [
        "factor='3': of the wrong type (allowed: a number)",
        "min_rows='dorp': of the wrong type (allowed: a whole number or 'drop' or None)",
        "quick=1: of the wrong type (allowed: True or False)",
        "seed=1.5: of the wrong type (allowed: a whole number)",
        "set=('lr=0.1', 3): of the wrong type (allowed: texts)",
        "trials='3': of the wrong type (allowed: a whole number or None)",
    ]


def test_all_problems_at_once(tmp_path: Path) -> None:
    found = refused(tmp_path, dataset="digitz", sampler="x", trials=0, set=(("lr=-1",),), gpus_per_trial=1.0)
    for part in ("digitz", "--sampler x", "--trials 0", "lr=-1", "--gpus-per-trial 1"):
        assert part in found


def test_wrong_parts_are_reported_without_what_follows_from_them(tmp_path: Path) -> None:
    """Read with the wrong parts, the folder would have one class alone."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "1.png").touch()
    found = refused(tmp_path, dataset=str(tmp_path / "pets"), parts="training=cat")
    assert found.startswith("--parts: unknown part 'training'; did you mean train?")
    assert "\n" not in found


def test_a_results_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(tmp_path, results=tmp_path / "file" / "results")


def resumed(folder: Path, began: Plan, **fields: Any) -> Plan:
    request = Request(options(folder, resume="old", **{"dataset": None, **fields}))
    recorded = Plan.from_dict(json.loads(json.dumps(began.to_dict())))
    return resumption.resume(request, recorded, SweepState(), [Resources(2, 0)])


def test_a_sweep_goes_on_as_it_began(tmp_path: Path) -> None:
    began = made(tmp_path, seed=3, set=(("optimizer=adamw",),), max_epochs=9, metric="val_f1")
    assert resumed(tmp_path, began) == began
    same = resumed(
        tmp_path, began, dataset="digits", seed=3, max_epochs=9, metric="val_f1:max", set=(("optimizer=adamw",),)
    )
    assert same == began
    assert resumed(tmp_path, began, trials=100).trials == 100


def test_options_that_were_given_may_be_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may be written in another way, and an aim be what is the metric of other sweeps."""
    monkeypatch.chdir(tmp_path)
    Path("resnet18.safetensors").touch()
    given: dict[str, Any] = {"set": (("model=resnet18", "weights=resnet18.safetensors"),), "also": ("val_accuracy",)}
    began = made(tmp_path, metric="val_f1", **given)
    again = resumed(tmp_path, began, **given)
    assert (again.space.base.weights, again.also) == (str(tmp_path / "resnet18.safetensors"), ("val_accuracy:max",))
    with pytest.raises(ConfigError, match="val_accuracy is the metric already"):
        _ = Request(options(tmp_path, also=("val_accuracy",))).aims
    assert Request(options(tmp_path, resume="old", also=("val_accuracy",))).aims


def test_where_the_data_lies_may_change(tmp_path: Path) -> None:
    began = made(tmp_path)
    assert resumed(tmp_path, began, data_dir=tmp_path).data_dir == str(tmp_path)


def pets(folder: Path) -> Path:
    """Write class folders with pictures that are never decoded."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.png").write_bytes(b"a picture")
    return folder


def test_data_that_moved_are_found_at_their_new_place(tmp_path: Path) -> None:
    began = made(tmp_path, dataset=str(pets(tmp_path / "here")))
    there = str(pets(tmp_path / "there"))
    assert resumed(tmp_path, began, dataset=there) == dataclasses.replace(began, dataset=there)
    assert resumed(tmp_path, began, data_dir=Path(there)) == dataclasses.replace(began, dataset=there)
    table = dataclasses.replace(began, dataset=str(tmp_path / "rows.csv"))
    assert resumed(tmp_path, table, data_dir=Path(there)) == dataclasses.replace(table, data_dir=there)


def test_how_data_are_read_may_be_said_again(tmp_path: Path) -> None:
    read: dict[str, Any] = {
        "parts": "train=a,test=b",
        "classes": (("cat", "dog"),),
        "min_rows": "drop",
        "on_bad_image": "skip",
    }
    began = made(tmp_path, dataset="digits", **read)
    assert resumed(tmp_path, began, **read) == began
    with pytest.raises(ConfigError, match="--min-rows"):
        resumed(tmp_path, began, min_rows=3)


@pytest.mark.parametrize("given", ["results/old", "results/old/", "{tmp}/results/old", "old/"])
def test_a_sweep_may_be_named_by_its_folder(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results" / "old").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = SweepOptions(resume=given.format(tmp=tmp_path))
    assert (found.resume, found.results.absolute()) == ("old", tmp_path / "results")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 3}, "--seed 3: this sweep began with 0"),
        ({"max_epochs": 40}, "--max-epochs 40: this sweep began with"),
        ({"dataset": "cifar10"}, "the data set cifar10: this sweep began with digits"),
        ({"set": (("optimizer=adamw",),)}, "optimizer=adamw: this sweep began with sgd"),
        ({"set": (("lr=0.1",),)}, "lr=0.1: this sweep began with log("),
        ({"search": (("momentum=uniform(0.8,0.9)",),)}, "momentum=uniform("),
        ({"storage": "s3://bucket/here"}, "--storage s3://bucket/here: this sweep began with none"),
        ({"fit": "pad"}, "fit=pad: this sweep began with crop"),
        ({"quick": True}, "--preset quick: this sweep began with good"),
    ],
)
def test_going_on_with_other_settings_is_refused_with_the_difference(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as found:
        resumed(tmp_path, made(tmp_path), **fields)
    assert message in str(found.value)
    assert "or start a new sweep" in str(found.value)


def test_fit_is_an_option_that_sets_the_field(tmp_path: Path) -> None:
    began = made(tmp_path, fit="pad")
    assert began.space.base.fit == "pad"
    assert resumed(tmp_path, began, fit="pad") == resumed(tmp_path, began) == began
    assert made(tmp_path, search=(("fit=choice(crop,pad)",),)).space.distributions["fit"]
    assert "fit='stretch' is not allowed" in refused(tmp_path, fit="stretch")
    assert "fit" in refused(tmp_path, fit="pad", search=(("fit=choice(crop,pad)",),))


def test_a_sweep_over_pictures_that_were_cut_at_storage_is_not_resumed() -> None:
    resumption.check_same_data({"rows": 1}, {"rows": 1})
    resumption.check_same_data({"rows": 1, "pictures": "whole"}, {"rows": 1, "pictures": "whole"})
    with pytest.raises(ConfigError, match=r"earlier version.*start a new sweep"):
        resumption.check_same_data({"rows": 1}, {"rows": 1, "pictures": "whole"})


def test_all_differences_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        resumed(tmp_path, made(tmp_path), seed=3, max_epochs=40, set=(("lr=0.1",),))
    assert len(found.value.problems) == 3


@pytest.mark.parametrize(
    ("nodes", "given", "slot", "slots"),
    [
        ([Resources(2, 0)], {}, (1, 0), 2),
        ([Resources(2, 0)], {"slots": 1}, (2, 0), 1),
        ([Resources(2, 0)], {"trials": 1}, (2, 0), 1),
        ([Resources(64, 0)], {}, (2, 0), 32),
        ([Resources(16, 4)], {}, (4, 1), 4),
        ([Resources(16, 1)], {"gpus_per_trial": 0.25}, (4, 0.25), 4),
        ([Resources(16, 2)], {"gpus_per_trial": 0.4}, (4, 0.4), 4),
        ([Resources(16, 1)], {"gpus_per_trial": 0.0, "trials": 16}, (1, 0), 16),
        ([Resources(16, 1)], {"slots": 4}, (4, 0.25), 4),
        ([Resources(16, 2)], {"slots": 3}, (5, 0.5), 3),
        ([Resources(16, 2)], {"slots": 2}, (8, 1), 2),
        ([Resources(8, 2)], {"cpus_per_trial": 1, "slots": 1}, (1, 1), 1),
        ([Resources(32, 0), Resources(8, 1), Resources(8, 1)], {}, (8, 1), 2),
        ([Resources(4, 0)] * 4, {"trials": 1}, (4, 0), 4),
        ([Resources(0, 0), Resources(2, 0)], {}, (1, 0), 2),
    ],
)
def test_slots(tmp_path: Path, nodes: Nodes, given: dict[str, Any], slot: tuple[int, float], slots: int) -> None:
    planned = made(tmp_path, nodes, **given)
    assert (planned.slot_cpus, planned.slot_gpus) == slot
    assert planned.slots(nodes) == slots


@pytest.mark.parametrize("nodes", [[], [Resources(0, 0)], [Resources(0, 1), Resources(8, 0)]])
def test_too_little_capacity_is_named(tmp_path: Path, nodes: Nodes) -> None:
    with pytest.raises(ConfigError, match="no machine has the capacity"):
        plan.make(Request(options(tmp_path)), nodes)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    assert "there is no such file" in refused(tmp_path, set=(("weights=mine.safetensors",),))


def test_sweeps_begun_in_one_second_have_different_names(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        names.add(made(tmp_path).name)
        (tmp_path / max(names, key=len)).mkdir(exist_ok=True)
    assert len(names) >= 2


def test_defaults(tmp_path: Path) -> None:
    planned = made(tmp_path)
    assert (planned.grace, planned.factor, planned.sampler, planned.scheduler) == (1, 3, "tpe", "asha")
    assert planned.name.startswith("digits-2")
    assert made(tmp_path, max_epochs=30).grace == 3
    assert made(tmp_path, metric="val_loss:min").space.base.metric == "val_loss"


def test_a_plan_is_plain_json(tmp_path: Path) -> None:
    planned = made(tmp_path, time_budget="1h", set=(("lr=0.1", "flip=true"), ("dropout=0.2",)))
    assert Plan.from_dict(json.loads(json.dumps(planned.to_dict()))) == planned


def test_a_grid_has_no_more_trials_than_points(tmp_path: Path) -> None:
    fixed = ("dropout=0", "weight_decay=0", "label_smoothing=0", "train_fraction=1")
    planned = made(tmp_path, sampler="grid", set=(fixed,), search=(("lr=choice(0.1,0.2,0.3)",),))
    assert planned.trials == 3


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2h", 7200), ("45", None)]
)
def test_times(text: str, expected: float | None) -> None:
    assert time_budget.parsed(text) == expected


def test_wrong_input_is_answered_without_a_traceback(command: Command, tmp_path: Path) -> None:
    done = command("orchestrator.sweep", "cifar11", "--set", "lr=-1", "--results", tmp_path)
    assert done.code == 2
    assert done.err.count("error:") == 2
    assert "Traceback" not in done.err


def test_a_missing_data_folder_says_what_was_looked_for(command: Command, tmp_path: Path) -> None:
    done = command("orchestrator.sweep", "cifar10", "--data-dir", tmp_path / "none", "--results", tmp_path)
    assert done.code == 2
    assert str(tmp_path / "none") in done.err
    assert "cifar-10-batches-py" in done.err


def test_a_command_that_ray_cannot_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "orchestrator.sweep", os.fsdecode(b"caf\xe9")])
    assert r"caf\xe9: Ray cannot be started by a command with bytes that are no UTF-8" in refused(tmp_path)
    assert made(tmp_path, dry_run=True)


def test_an_empty_data_set_is_not_the_default() -> None:
    assert Request(SweepOptions(dataset="")).dataset == ""
    assert Request(SweepOptions()).dataset == "digits"
