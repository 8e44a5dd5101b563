"""Deliverables: what a sweep owes is in the journal, made in order, made again when it is lost, and said until then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundles
import pytest
from conftest import Command, Finished
from journals import folded
from test_confirmation import sweep_of

from orchestrator import conclusion
from orchestrator.bundle import bundle
from orchestrator.bundle.contents import initial_weights
from orchestrator.bundle.documents import Description, InitialWeights
from orchestrator.bundle.model_card import initial_weights_text
from orchestrator.display.text import owed_line
from orchestrator.plan.plan import Plan
from orchestrator.record import journal
from orchestrator.record.events import (
    Delivered,
    DeliveryFailed,
    TrialAttempt,
    TrialEnded,
    WeightsLost,
    WorkerFound,
    parse,
)
from orchestrator.record.facts import Worker
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import Deliverable, SweepState, TrialRecord, replay
from trainables.models.sources import license_of

TIMEOUT = 300  # seconds, on a busy machine
SEARCHED, RUNS = {0: 0.95}, {0: [0.90, 0.91, 0.89]}


# The record


def test_lost_weights_make_a_run_due_again(tmp_path: Path) -> None:
    state = sweep_of(tmp_path, SEARCHED, RUNS)
    before = state.trials[1]
    folded(Delivered("best/", "0"), WeightsLost(1, "gone"), state=state)
    again = state.trials[1]
    assert (again.status, list(again.epochs), again.score, again.final_metrics) == ("interrupted", [], None, {})
    assert (again.config, again.confirms, again.index, again.final) == (before.config, 0, 0, True)
    assert (state.waiting, state.finished, state.deliverables) == ([1], 3, {})
    folded(TrialAttempt(1, again.attempt + 1), TrialEnded(1, again.attempt + 1, "completed", "budget"), state=state)
    assert (state.waiting, state.finished, state.trials[1].attempt) == ([], 4, 1)


def test_weights_of_searched_trials_are_not_trained_again(tmp_path: Path) -> None:
    """The sampler and the stop rule have decided by what these reached."""
    state = sweep_of(tmp_path, SEARCHED, RUNS)
    folded(WeightsLost(0, "gone"), state=state)
    assert (state.waiting, state.trials[0].score) == ([], 0.95)


def test_what_is_owed_is_known_until_it_is_there_or_more_is_run() -> None:
    state = folded(DeliveryFailed("best/", "disk full"), Delivered("report", "abc"))
    assert state.owed == {"best/": "disk full"}
    assert state.deliverables["report"] == Deliverable("abc")
    folded(Delivered("best/", "def"), state=state)
    assert state.owed == {}


@pytest.mark.parametrize(
    "event",
    [Delivered("best/", "0"), DeliveryFailed("best/", "why"), WeightsLost(1, "gone"), WorkerFound(1, Worker(node="a"))],
)
def test_the_events_are_read_as_they_are_written(event: Any) -> None:
    line = {"n": 5, "t": 1.0, **json.loads(json.dumps(event.content()))}
    assert parse(line) == replace(event, n=5, t=1.0)


def test_the_message_says_what_is_owed_and_what_to_do(tmp_path: Path) -> None:
    line = owed_line({"best/": "[Errno 28] No space left on device"}, SweepFolder(tmp_path / "mine"))
    assert line.startswith(
        "still owed: best/ ([Errno 28] No space left on device); free disk space, then go on with --resume"
    )
    assert line.endswith(f"--results {tmp_path} --resume mine")


def test_a_worker_of_a_damaged_line_comes_from_the_checkpoint(tmp_path: Path) -> None:
    state = sweep_of(tmp_path, SEARCHED, RUNS)
    state.trials[1].worker = Worker()
    folded(WorkerFound(1, Worker(node="a", parameters=7)), state=state)
    assert state.trials[1].worker.parameters == 7


# Card and report


def with_weights(folder: Path, license_text: str | None = None) -> Description:
    """Return the description of a tiny bundle whose model began with a file."""
    weights = InitialWeights(source="resnet18-f37072fd.pth", sha256="f37072fd" * 8, loaded=60, drawn=2)
    return replace(bundle.read(folder).description, initial_weights=replace(weights, license=license_text))


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.make(tmp_path_factory.mktemp("card") / "best").folder


def test_the_card_says_where_initial_weights_came_from(tiny_bundle: Path) -> None:
    assert "## Initial weights\n\nAll were drawn at random." in (tiny_bundle / "README.md").read_text()
    text = initial_weights_text(with_weights(tiny_bundle))
    assert "60 tensors came from `resnet18-f37072fd.pth` (SHA-256 `f37072fdf37072fd`); 2 tensors were drawn" in text
    assert "Their license is not known here" in text
    assert text != initial_weights_text(with_weights(tiny_bundle, "apache-2.0"))
    assert "as their publisher states it: apache-2.0" in initial_weights_text(with_weights(tiny_bundle, "apache-2.0"))


def test_a_path_of_this_machine_is_not_published() -> None:
    noted = {"source": "/home/me/nets/mine.pth", "sha256": "ab" * 32, "loaded": 5, "drawn": 1, "head": 1}
    trial = TrialRecord(
        0, {}, {"model": "resnet18", "weights": "/home/me/nets/mine.pth"}, 0.0, worker=Worker(weights=noted)
    )
    found = initial_weights(trial)
    assert found is not None
    assert (found.source, found.loaded, found.drawn, found.license) == ("mine.pth", 5, 1, None)


def test_timm_states_licenses() -> None:
    pytest.importorskip("timm")
    assert license_of("timm:resnet18.a1_in1k", "imagenet") == "apache-2.0"
    assert license_of("resnet18", "imagenet") is None


# A sweep, copied and damaged


@pytest.fixture(scope="module")
def whole(command: Command, once: Callable[..., tuple[Finished, Path]]) -> Path:
    """Return a quick sweep of digits with confirmation, refit and ensemble, to be left as it is."""
    options = ("digits", "--quick", "--trials", "3", "--confirm", "1", "--confirm-seeds", "2", "--name", "whole")

    def fill(results: Path) -> Finished:
        return command(
            "orchestrator.sweep", *options, "--refit", "--ensemble", "seeds", "--results", results, timeout=TIMEOUT
        )

    return once("deliverables", fill)[1] / "whole"


def resumed(command: Command, folder: Path, code: int = 0) -> Finished:
    done = command("orchestrator.sweep", "--resume", folder.name, "--results", folder.parent, timeout=TIMEOUT)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    return done


def state_of(folder: Path) -> SweepState:
    return replay(journal.read(folder / "journal.jsonl")[0])


def is_delivered(folder: Path) -> bool:
    with closing(journal.Journal(folder / "journal.jsonl")) as opened:
        return conclusion.is_delivered(opened, Plan.from_dict(opened.state.spec.plan))


def cut_before(folder: Path, kind: str) -> None:
    """Have the command been killed before the first event of a kind, without what came after it."""
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if json.loads(line)["event"] == kind)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:place]))
    shutil.rmtree(folder / "best")
    for name in ("final.json", "report.html"):
        (folder / name).unlink()


def damaged(folder: Path, runs: list[int]) -> None:
    """Truncate the weights of the first of `runs`, and delete those of the others."""
    first, *others = (folder / "checkpoints" / str(run) for run in runs)
    for file in first.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for other in others:
        shutil.rmtree(other)


def check_same(folder: Path, whole: Path) -> None:
    """Check that a sweep delivered what the undisturbed one did, to the bit."""
    final, before = (json.loads((one / "final.json").read_bytes()) for one in (folder, whole))
    assert final == before
    page = (folder / "report.html").read_text()
    assert "The model in <code>best/</code> is the mean of trials" in page
    assert "Initial weights: All were drawn at random." in page
    model, other = ((one / "best" / "model.safetensors").read_bytes() for one in (folder, whole))
    assert model == other
    assert (folder / "report.html").is_file()
    state = state_of(folder)
    assert set(state.deliverables) == set(conclusion.DELIVERABLES)
    assert state.owed == {}


def test_a_sweep_says_what_it_delivered(whole: Path) -> None:
    state = state_of(whole)
    assert list(state.deliverables) == list(conclusion.DELIVERABLES)
    assert all(len(found.digest or "") == 64 for found in state.deliverables.values())
    assert is_delivered(whole)


@pytest.mark.slow  # tests/chaos/test_files.py has more
def test_lost_weights_are_trained_again_by_the_next_command(whole: Path, command: Command, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "whole"))
    cut_before(folder, "test_opened")
    runs = [trial.number for trial in state_of(folder).trials.values() if trial.final]
    damaged(folder, runs[1:])
    done = resumed(command, folder)
    assert done.err.count("are gone or damaged, and best/ or the test needs them") == 3
    check_same(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["sweep_ended", "test_measured", "ensemble_measured", "delivered"])
def test_lost_weights_at_any_moment(moment: str, whole: Path, command: Command, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "whole"))
    cut_before(folder, moment)
    state = state_of(folder)
    damaged(folder, [trial.number for trial in state.trials.values() if trial.final])
    resumed(command, folder)
    final, before = (json.loads((one / "final.json").read_bytes()) for one in (folder, whole))
    openings = final.pop("openings"), before.pop("openings")
    assert openings == (1 if moment == "sweep_ended" else 2, 1)
    assert final == before


@pytest.mark.slow
def test_a_damaged_model_is_written_again(whole: Path, command: Command, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "whole"))
    path = folder / "best" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    resumed(command, folder)
    check_same(folder, whole)


def test_weights_that_nothing_needs_may_be_deleted(whole: Path, command: Command, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "whole"))
    shutil.rmtree(folder / "checkpoints")
    events = (folder / "journal.jsonl").read_bytes()
    resumed(command, folder)
    assert (folder / "journal.jsonl").read_bytes() == events
    check_same(folder, whole)


def test_a_model_of_another_sweep_is_noticed(whole: Path, tmp_path: Path) -> None:
    """It is whole, and of a trial of the same number: its digest alone tells."""
    folder = Path(shutil.copytree(whole, tmp_path / "whole"))
    assert is_delivered(folder)
    config = folder / "best" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sweep": "another"}))
    assert bundle.is_complete(folder / "best")
    assert not is_delivered(folder)


@pytest.mark.slow
def test_what_cannot_be_made_is_owed(whole: Path, command: Command, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "whole"))
    shutil.rmtree(folder / "best")
    (folder / ".best.tmp").write_text("in the way")  # no bundle can be prepared
    done = resumed(command, folder, code=1)
    assert "error: still owed: best/ (" in done.err
    assert f"--resume {folder.name}" in done.err.splitlines()[-1]
    final = json.loads((folder / "final.json").read_bytes())
    assert final["best"] is None
    assert list(final["owed"]) == ["best/"]
    (folder / ".best.tmp").unlink()
    resumed(command, folder)
    check_same(folder, whole)
