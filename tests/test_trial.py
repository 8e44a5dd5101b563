"""`python -m trainables`: one trial without Ray; wrong input is reported before torch is loaded."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

from trainables.__main__ import TrialOptions, main, suited_to, wanted_fields
from trainables.config import check_values

FAST = ("--set", "precision=float32", "memory_format=contiguous", "threads=1", "lr=0.1")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))


def test_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", "--quick", "--json", "--subset", "300", *FAST]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert [epoch["epoch"] for epoch in result["epochs"]] == [1, 2]
    assert result["config"]["model"] == "resnet8"
    assert result["score"] == max(epoch["val_accuracy"] for epoch in result["epochs"])
    assert sum(line.startswith("epoch ") for line in printed.err.splitlines()) == 2


def test_a_trial_over_a_split_of_all_rows_ends_with_final_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    split = ("split=70:15:15", "selection=last", "epoch=rows")
    assert main(["digits", "--quick", "--json", *FAST, *split]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["best_epoch"], result["score"]) == (2, result["epochs"][-1]["val_accuracy"])
    assert list(result["final_metrics"]) == ["train", "test"]
    assert [len(part["confusion"]) for part in result["final_metrics"].values()] == [10] * 2
    lines = [line for line in printed.err.splitlines() if line.startswith(("train:", "test:"))]
    assert [line.partition(" rows")[0].replace(",", "") for line in lines] == [
        f"{name}: {part['rows']}" for name, part in result["final_metrics"].items()
    ]


def test_a_trial_from_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    made = tiny.config(optimizer="adamw", max_epochs=1, lr=0.3)
    file.write_text(json.dumps({"schema_version": 1, "config": made.to_dict()}))
    assert main(["digits", "--subset", "200", "--config", str(file), "--set", "lr=0.01", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"] == made.replace(lr=0.01).to_dict()


def test_what_is_set_takes_precedence_over_quick() -> None:
    assert wanted_fields(TrialOptions("digits", quick=True)) == {"max_epochs": 2}
    fields = wanted_fields(TrialOptions("digits", quick=True, set=(("max_epochs=5", "flip=true"), ("lr=1",))))
    assert fields == {"max_epochs": 5, "flip": True, "lr": 1.0}


@pytest.mark.parametrize("size", [8, 28, 32, 224])
def test_the_default_is_a_configuration(size: int) -> None:
    assert suited_to(size).model.startswith("resnet")


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options.pop("python", ()), "-m", "trainables", *arguments],
        capture_output=True, text=True, check=False, timeout=60, **options,
    )  # fmt: skip


def test_a_configuration_that_cannot_be_read_is_named_with_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "sweep" / "best").mkdir(parents=True)
    (tmp_path / "sweep" / "best" / "config.json").write_text("{}")
    (tmp_path / "words").write_text("lr=0.1")
    such = "give the JSON file of a configuration, such as results/NAME/best/config.json"
    for name, message in {
        "gone.json": f"there is no such file; {such}",
        "empty": f"this is a folder; {such}",
        "sweep": f"this is a folder; give {tmp_path / 'sweep' / 'best' / 'config.json'}",
        "sweep/best": f"this is a folder; give {tmp_path / 'sweep' / 'best' / 'config.json'}",
        "words": "this is not JSON (Expecting value: line 1 column 1 (char 0)); give the JSON file",
    }.items():
        assert main(["digits", "--config", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.startswith(f"error: --config {tmp_path / name}: {message}")


def test_wrong_input_is_answered_at_once_without_torch(tmp_path: Path) -> None:
    wrong = ("digit", "--subset", "1", "--config", str(tmp_path), "--set", "lr=x", "optimiser=sgd", "--set", "flip=2")
    done = command(*wrong, python=("-X", "importtime"))
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert all(line.startswith("error: ") for line in lines)
    for named in ("'digit'; did you mean digits", "--subset 1", str(tmp_path), "lr='x'", "optimiser", "flip='2'"):
        assert any(named in line for line in lines)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert imported.isdisjoint({"torch", "torchvision", "sklearn", "ray", "pandas"})
    started = time.perf_counter()
    assert command(*wrong).returncode == 2
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--subset", "5"), "subset=5"),
        (("--quick", "--set", "model=vgg11"), "model=vgg11"),
        (("--quick", "--set", "weights=gone.safetensors"), "weights=gone.safetensors: there is no such file"),
    ],
)
def test_what_shows_only_with_the_data(
    arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["digits", *arguments, *FAST]) == 2
    assert named in capsys.readouterr().err


def test_pictures_that_cannot_be_read_are_left_out_if_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        place = tmp_path / "pets" / ("cat" if number % 2 else "dog") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * number).save(place)
    (tmp_path / "pets" / "cat" / "broken.png").write_bytes(b"no picture")
    asked = [str(tmp_path / "pets"), *FAST]
    assert main(asked) == 2
    assert "--on-bad-image skip" in capsys.readouterr().err
    assert main([*asked, "--on-bad-image", "skip"]) == 0
    assert main([*asked, "--on-bad-image", "drop"]) == 2
    assert "--on-bad-image drop: unknown (allowed: fail, skip)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "meant"), [("learning_rate", "lr"), ("epochs", "max_epochs"), ("optimiser", "optimizer")]
)
def test_names_that_other_projects_use_are_understood(name: str, meant: str) -> None:
    (problem,) = check_values({name: 1})
    assert f"did you mean {meant}?" in problem


def test_divergence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", "--quick", *FAST[:-1], "lr=1e30"]) == 1
    assert "diverged: training loss is not finite in epoch 1" in capsys.readouterr().err


def test_no_data_set_is_a_wrong_command() -> None:
    done = command()
    assert done.returncode == 2
    assert "DATASET" in done.stderr + done.stdout


def test_ctrl_c() -> None:
    line = [sys.executable, "-m", "trainables", "digits", *FAST, "max_epochs=100000"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("epoch 1/"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(20) == 130
    assert "Traceback" not in rest
