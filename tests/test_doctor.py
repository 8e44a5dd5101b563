"""The doctor: each fault is found, named with its fix, and has an exit code of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Command, Finished
from ray_cluster import free_port, ray_cluster
from test_imports import HEAVY
from test_parquet import encoded, pictures, write

from orchestrator.cluster.machine import Node, Resources
from orchestrator.doctor import __main__ as doctor
from orchestrator.doctor import libraries
from orchestrator.doctor.finding import CODES, Finding, failed
from orchestrator.doctor.libraries import requirements, unmet
from orchestrator.doctor.resources import check_memory
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import make
from orchestrator.plan.request import Request

GB = 10**9


@pytest.fixture
def examined(command: Command, tmp_path: Path) -> Any:
    """Run the doctor with a results folder of this test."""

    def run(*arguments: str | Path) -> Finished:
        return command("orchestrator.doctor", *arguments, "--json", "--results", tmp_path / "results")

    return run


def failures(done: Finished) -> dict[str, dict[str, Any]]:
    """Return the failed findings by check; every one has a fix or names what is allowed, and none is a traceback."""
    assert "Traceback" not in done.err
    failed = [finding for finding in done.result["findings"] if finding["status"] == "failed"]
    assert all(finding["fix"] or "allowed" in finding["what"] for finding in failed)
    assert done.result["exit_code"] == done.code
    return {finding["check"]: finding for finding in failed}


def test_all_is_well(examined: Any, tmp_path: Path) -> None:
    started = time.monotonic()
    done = examined("digits", "--search", "model=choice(resnet8,resnet18)")
    assert time.monotonic() - started < 40  # some 10 s, when nothing else runs
    assert done.code == 0, done.err
    assert done.result["ok"]
    found = {finding["check"]: finding for finding in done.result["findings"]}
    assert set(found) == set(CODES) - {"command"}
    assert any("10 classes of" in finding["what"] for finding in done.result["findings"] if finding["check"] == "data")
    assert sum(finding["check"] == "model" for finding in done.result["findings"]) == 2
    assert done.err.count("\n") >= len(done.result["findings"])
    assert len(done.out.splitlines()) == 1
    assert not list((tmp_path / "results").iterdir())


def test_help_is_fast_and_names_the_codes() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "orchestrator.doctor", "--help"],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert not loaded & HEAVY
    assert all(str(code) in done.stdout for code in CODES.values())
    assert "--dry-run" not in done.stdout


# A wrong command


@pytest.mark.parametrize(
    ("arguments", "what", "fix"),
    [
        (["digitz"], "unknown data set", "did you mean digits"),
        (["digits", "--set", "lr=-1"], "lr=-1.0 is not allowed (allowed: above 0)", "; None"),
        (["nowhere"], "'nowhere' (allowed: digits, ", "; None"),
        (["digits", "--address", "ray://head:10001"], "ray://head:10001", "ray job submit"),
        (["digits", "--storage", "http://host/x"], "--storage http://host/x", "s3://BUCKET/PATH"),
        (["--resume", "gone"], "no such sweep", ""),
    ],
)
def test_a_command_that_a_sweep_would_refuse(examined: Any, arguments: list[str], what: str, fix: str) -> None:
    done = examined(*arguments)
    assert done.code == 2
    found = failures(done)["command"]
    assert what in found["what"]
    assert fix in f"{found['what']}; {found['fix']}"
    assert what in done.err


@pytest.mark.parametrize(
    ("problem", "what", "fix"),
    [
        ("lr: wrong; use 0.1", "lr: wrong", "use 0.1"),
        ("a; b; use c", "a; b", "use c"),
        ("unknown; did you mean a? (allowed: a, b; see docs)", "unknown", "did you mean a? (allowed: a, b; see docs)"),
        ("unknown (allowed: a (one; two), b; see docs)", "unknown (allowed: a (one; two), b; see docs)", "else"),
        ("nothing else to say", "nothing else to say", "else"),
    ],
)
def test_a_fix_is_what_follows_the_last_semicolon_outside_parentheses(problem: str, what: str, fix: str) -> None:
    assert failed("command", problem, "else") == Finding("command", "failed", what, fix)


def test_a_folder_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command("orchestrator.doctor", "digits", "--json", "--results", tmp_path / "file" / "results")
    assert done.code == 2
    assert failures(done)["command"]["fix"] == "choose another folder or free disk space"


# Libraries


def test_libraries_that_are_old_or_missing() -> None:
    assert unmet(requirements()) == []
    old, missing = unmet(["numpy>=999", "no-such-library>=1", "ray[tune]>=2", "python>=3.11", "pip"])
    assert old.startswith(f"numpy {np.__version__} is too old, 999 or newer is needed; pip install")
    assert missing == "no-such-library is not installed; pip install --upgrade 'no-such-library>=1'"
    assert "a new environment" in unmet(["python>=99"])[0]
    (new,) = unmet(["ray[tune]<2,>=1", "optuna<999,>=1"])
    assert new.endswith("is too new, a version before 2 is needed; pip install --upgrade 'ray>=1,<2'")


@pytest.mark.parametrize("tested", ["9.9", "5"])
def test_another_release_than_the_tested_one_is_a_warning(tested: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "TESTED_WITH", {"optuna": tested})
    warnings = [finding for finding in libraries.check_environment() if finding.status == "warning"]
    assert [finding.check for finding in warnings] == (["environment"] if tested == "9.9" else [])
    assert all("optuna==9.9.*" in str(finding.fix) for finding in warnings)


# Ray, its token and its GPUs


def test_an_address_where_nothing_listens(examined: Any) -> None:
    done = examined("digits", "--quiet", "--address", f"127.0.0.1:{free_port()}")
    assert done.code == CODES["ray"]
    found = failures(done)["ray"]
    assert "nothing answers there" in found["what"]
    assert "ray start --head" in found["fix"]
    lines = done.err.splitlines()
    assert [line.split()[0] for line in lines] == ["failed", "→"]  # quiet: only what failed is shown


@pytest.mark.cluster
@pytest.mark.slow  # half a minute
@pytest.mark.skipif(bool(list(Path("/proc/driver").glob("nvidia"))), reason="this machine has a GPU")
def test_gpus_that_only_ray_sees(examined: Any, environment: dict[str, str]) -> None:
    with ray_cluster(2, "--num-gpus=1") as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setitem(environment, name, value)
        done = examined("digits", "--address", cluster.address)
        on_cpus = examined("digits", "--address", cluster.address, "--gpus-per-trial", "0")
        assert cluster.token is not None
        token = cluster.token.read_text()
    assert done.code == CODES["gpu"], done.err
    assert set(failures(done)) == {"gpu"}
    assert "torch cannot use" in failures(done)["gpu"]["what"]
    assert "--gpus-per-trial 0" in failures(done)["gpu"]["fix"]
    ray = next(finding["what"] for finding in done.result["findings"] if finding["check"] == "ray")
    assert f"the token is taken from {cluster.token}" in ray
    assert token not in done.out + done.err
    assert on_cpus.code == 0, on_cpus.err


# Storage


@pytest.mark.slow
def test_a_storage_that_refuses(examined: Any, environment: dict[str, str]) -> None:
    uri = f"s3://bucket/x?scheme=http&endpoint_override=127.0.0.1:{free_port()}&region=us-east-1"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setitem(environment, name, "testing")
        patch.setitem(environment, "AWS_EC2_METADATA_DISABLED", "true")
        done = examined("digits", "--storage", uri)
    assert done.code == CODES["storage"], done.err
    assert set(failures(done)) == {"storage"}
    assert "connect" in failures(done)["storage"]["what"].lower()
    assert "AWS_ACCESS_KEY_ID" in failures(done)["storage"]["fix"]


# Disk and memory


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 4 MB with some free kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        (folder / "filler").write_bytes(bytes(4 * 2**20 - 2**17))
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full(full_disk: Path, command: Command) -> None:
    done = command("orchestrator.doctor", "digits", "--json", "--results", full_disk)
    assert done.code == CODES["disk"], done.err
    assert set(failures(done)) == {"disk"}
    assert str(full_disk) in failures(done)["disk"]["what"]
    assert "--results" in failures(done)["disk"]["fix"]


def test_memory_that_does_not_suffice(tmp_path: Path) -> None:
    planned = make(Request(SweepOptions(results=tmp_path)), [Resources(4, 0)])
    nodes = [
        Node("a", "large", Resources(4, 0, memory=8 * GB), 4 * GB),
        Node("b", "small", Resources(4, 0, memory=3 * GB), GB),
    ]

    def found(images: float, trial: float) -> list[Finding]:
        return list(check_memory(planned, nodes, int(images), int(trial)))

    assert [finding.status for finding in found(0.5 * GB, 0.1 * GB)] == ["ok"]
    (small,) = found(0.5 * GB, 0.5 * GB)
    assert (small.check, small.status) == ("memory", "failed")
    assert "node small has 3.0 GB for 4 trials" in small.what
    assert "--slots 3" in str(small.fix)
    slow, streamed, enough = found(2 * GB, 0)  # more than half of what the small one shares
    assert (slow.status, streamed.status, enough.status) == ("warning", "ok", "ok")
    assert "node small has 1.1 GB beside its trials" in slow.what
    assert "--subset N" in str(slow.fix)
    assert "trials read them from files" in streamed.what
    assert [finding.status for finding in found(1 * GB, 0)] == ["ok", "ok"]  # its memory keeps what was read


# Data


@pytest.mark.slow
def test_an_image_that_cannot_be_read(examined: Any, tmp_path: Path) -> None:
    images: list[Any] = [{"bytes": encoded(picture), "path": None} for picture in pictures(40)]
    images[17] = {"bytes": images[17]["bytes"][:40], "path": None}
    write(tmp_path / "few" / "train.parquet", images, [0, 1] * 20)
    done = examined(tmp_path / "few")
    assert done.code == CODES["data"], done.err
    assert "train.parquet, row 17" in done.err
    assert "--on-bad-image skip" in failures(done)["data"]["fix"]
    done = examined(tmp_path / "few", "--on-bad-image", "skip", "--set", "model=resnet8")
    assert done.code == 0, done.err
    (left_out,) = (finding for finding in done.result["findings"] if "left out" in finding["what"])
    assert left_out["status"] == "warning"
    assert "train.parquet, row 17" in left_out["what"]


@pytest.mark.slow
def test_a_class_with_too_few_images(examined: Any, tmp_path: Path) -> None:
    done = examined(write(tmp_path / "few.parquet", pictures(40), ["cat"] * 38 + ["dog"] * 2))
    assert done.code == CODES["data"]
    assert "'dog' has 2" in failures(done)["data"]["what"]
    assert failures(done)["data"]["fix"].startswith("every class needs at least 3")


@pytest.mark.slow
def test_images_that_appear_twice(examined: Any, tmp_path: Path) -> None:
    images = pictures(200)
    images[0] = images[190]  # in the test part, too
    images[2:150:2] = [images[2]] * 74
    write(tmp_path / "hub" / "train.parquet", images[:160], [0] * 80 + [1] * 80)
    write(tmp_path / "hub" / "test.parquet", images[160:], [0, 1] * 20)
    done = examined(tmp_path / "hub", "--set", "model=resnet8")
    assert done.code == 0, done.err
    warnings = " ".join(finding["what"] for finding in done.result["findings"] if finding["status"] == "warning")
    assert "1 training image left out that the test set has, too" in warnings
    assert "images appear in both training and validation rows: scores are optimistic" in warnings
    assert "again with another label" in warnings


# Models


@pytest.mark.slow
def test_a_model_that_cannot_take_the_images(examined: Any) -> None:
    done = examined("digits", "--search", "model=choice(resnet8,inception_v3)")
    assert done.code == CODES["model"], done.err
    found = failures(done)["model"]
    assert "model=inception_v3" in found["what"]
    assert "cannot take images of 8×8 pixels" in found["what"]
    assert "resnet18" in found["fix"]


def test_the_first_kind_that_failed_is_the_exit_code() -> None:
    assert doctor.exit_code([]) == 0
    found = [Finding("model", "failed", ""), Finding("data", "failed", ""), Finding("ray", "warning", "")]
    assert doctor.exit_code(found) == CODES["data"]
