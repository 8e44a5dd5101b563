"""Every file of a sweep, damaged: cut at random places, or with zeros in place of content, as after a loss of power."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from conftest import Command as Run

from chaos.conftest import Report, SweepMaker
from chaos.sweeps import WAITING, Sweep, check, check_kept, check_plain, check_tables, wait_for
from orchestrator.bundle import bundle
from orchestrator.record.journal import read
from orchestrator.record.lock import Holder
from orchestrator.record.state import SweepState, replay

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

SEED = 0
DERIVED = (
    "leaderboard.parquet", "history.parquet", "final.json", "sweep.json", "sweep.lock",
    "best/model.safetensors", "best/config.json", "best/labels.json", "best/preprocessing.json", "best/metrics.json",
)  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """A file cut at `at`, or with zeros from there on."""

    file: str
    at: int
    zeros: bool = False

    def inflict(self, folder: Path) -> None:
        path = folder / self.file
        content = path.read_bytes()
        path.write_bytes(content[: self.at] + (bytes(len(content) - self.at) if self.zeros else b""))

    def __str__(self) -> str:
        return f"{self.file} {'zeros from' if self.zeros else 'cut at'} byte {self.at}"


def draw(random: Random, folder: Path, file: str, zeros: bool = False) -> Damage:
    return Damage(file, random.randrange((folder / file).stat().st_size), zeros)


def lock_of_the_dead(folder: Path) -> None:
    """Write `sweep.lock` as a killed command leaves it: it names a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        holder = replace(Holder.this_process(), pid=process.pid)
    (folder / "sweep.lock").write_text(json.dumps(asdict(holder)))


def ended_in(content: bytes) -> set[int]:
    """Return the trials whose end is on a complete line, read without this project's code."""
    ended = set()
    for line in content.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["event"] == "trial_ended":
            ended.add(event["trial"])
    return ended


Copies = Callable[[Sweep, str], Sweep]


@pytest.fixture
def copies(environment: dict[str, str], tmp_path: Path) -> Copies:
    """Return a function that copies a sweep."""

    def copy(sweep: Sweep, name: str) -> Sweep:
        home = tmp_path / "copies" / name
        shutil.copytree(sweep.folder, home / "results" / "sweep")
        return Sweep(home / "results", home, environment)

    return copy


def test_files_of_a_finished_sweep(
    sweeps: SweepMaker, copies: Copies, command: Run, short: bool, report: Report
) -> None:
    random = Random(SEED)
    sweep = sweeps()
    check_plain(sweep.start("--trials", "4", "--max-epochs", "2", "--scheduler", "none").wait(), 0)
    undamaged = check(sweep, 4)
    tables = {name: pq.read_table(sweep.folder / f"{name}.parquet") for name in ("leaderboard", "history")}
    lock_of_the_dead(sweep.folder)
    state = next((sweep.folder / "checkpoints").rglob("*.safetensors"))
    last = sweep.journal.read_bytes().rindex(b"\n", 0, -1) + 1  # `sweep_ended`: without it no trial is missing
    files = (*DERIVED, str(state.relative_to(sweep.folder)))
    damages = [draw(random, sweep.folder, file) for file in (random.sample(files, 3) if short else files)]
    damages += [draw(random, sweep.folder, file, zeros=True) for file in random.sample(files, 1 if short else 3)]
    damages += [Damage("journal.jsonl", random.randrange(last, sweep.journal.stat().st_size - 1))]
    for i, damage in enumerate(damages):
        torn = copies(sweep, str(i))
        damage.inflict(torn.folder)
        left = torn.journal.read_bytes()
        shown = command("orchestrator.leaderboard", torn.folder)
        check_plain(shown, 0)
        done = torn.resume().wait(60)
        check_plain(done, 0)
        check_aside(left, torn)
        after = torn.state()
        assert {n: trial.end for n, trial in after.trials.items()} == {n: t.end for n, t in undamaged.trials.items()}, (
            damage
        )
        for name, table in tables.items():
            assert pq.read_table(torn.folder / f"{name}.parquet").equals(table), damage
        for name in ("final.json", "sweep.json"):
            assert isinstance(json.loads((torn.folder / name).read_bytes()), dict), damage
        assert bundle.is_complete(torn.folder / "best"), damage
    report(
        "a file of a finished sweep damaged, --resume and the leaderboard command",
        len(damages),
        tracebacks=0,
        finished_trials_lost=0,
        files=len({damage.file for damage in damages}),
    )


def check_aside(left: bytes, sweep: Sweep) -> None:
    """Check that the damaged last line of the journal that the fault left is kept aside."""
    torn = left[left.rfind(b"\n") + 1 :]
    if torn and not torn.endswith(b"}"):  # else the line is complete, except for its end
        assert torn in (sweep.folder / "journal.damaged.jsonl").read_bytes().split(b"\n")


@pytest.mark.usefixtures("long")
def test_files_of_an_interrupted_sweep(sweeps: SweepMaker, copies: Copies, command: Run, report: Report) -> None:
    """Several files are damaged at a time, and the sweep is resumed."""
    trials, random = 8, Random(SEED)
    sweep = sweeps(epoch_s={"*": 0.5, "2": 5.0})
    running = sweep.start("--trials", str(trials), "--max-epochs", "4", "--scheduler", "none")
    states = sweep.folder / "checkpoints" / "2"
    wait_for(lambda: [*states.glob("[0-9]*.safetensors")], running)
    running.kill()
    running.wait_until_gone(but=WAITING)
    assert sweep.count("trial_ended") >= 2
    tables = [name for name in ("leaderboard.parquet", "history.parquet") if (sweep.folder / name).exists()]
    state = str(next(states.glob("[0-9]*.safetensors")).relative_to(sweep.folder))
    first = sweep.journal.read_bytes().index(b"\n") + 1
    size = sweep.journal.stat().st_size
    rounds = [
        [Damage("journal.jsonl", random.randrange(first, size)), draw(random, sweep.folder, "sweep.json")],
        [draw(random, sweep.folder, file) for file in (state, "sweep.lock", *tables)],
        [Damage("journal.jsonl", random.randrange(first, size), zeros=True), draw(random, sweep.folder, state)],
        [Damage("journal.jsonl", size - 1), draw(random, sweep.folder, "sweep.lock", zeros=True)],
    ]
    for i, damages in enumerate(rounds):
        torn = copies(sweep, str(i))
        for damage in damages:
            damage.inflict(torn.folder)
        left = torn.journal.read_bytes()
        before = only(sweep.state(), ended_in(left))
        check_plain(command("orchestrator.leaderboard", torn.folder), 0)
        check_plain(torn.resume("--quiet").wait(), 0)
        after = replay(read(torn.journal)[0])
        assert (sorted(after.trials), after.finished) == (list(range(trials)), trials), damages
        check_kept(before, after)
        check_tables(torn.folder, after)
        assert not {line["trial"] for line in torn.witness()} & set(before.trials), "a trial that had ended ran again"
        assert bundle.is_complete(torn.folder / "best")
        check_aside(left, torn)
    report(
        "files of an interrupted sweep damaged, and the sweep gone on with",
        sum(map(len, rounds)),
        resumptions=len(rounds),
        tracebacks=0,
        finished_trials_lost=0,
    )


def only(state: SweepState, numbers: set[int]) -> SweepState:
    """Return `state` with these trials only."""
    return SweepState(trials={n: trial for n, trial in state.trials.items() if n in numbers})
