"""One damaged line of a journal costs one line: whatever is hit, nothing else is lost, changed or refused."""

from __future__ import annotations

import json
import random
from io import BytesIO
from pathlib import Path

import journals
import pytest

from orchestrator import report
from orchestrator.assessment import refits, tables
from orchestrator.assessment.confirmation import confirmation_of
from orchestrator.plan import recorded
from orchestrator.record.decoding import RecordError
from orchestrator.record.events import SweepEnded, TrialProposed
from orchestrator.record.journal import Journal, read
from orchestrator.record.journal_lines import Lines, decode, encode
from orchestrator.record.state import replay
from orchestrator.search.study import JournalStudy

EVENTS = journals.confirm(journals.sweep(5, confirm=2, confirm_seeds=2))
FLIPS = 400


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sweep that was confirmed and tested."""
    folder = journals.write(EVENTS, tmp_path_factory.mktemp("sweep"))
    state = replay(read(folder / "journal.jsonl")[0])
    (folder / "sweep.json").write_text(json.dumps(state.record()))
    return folder


def lines_of(content: bytes) -> Lines:
    return Lines(lambda: BytesIO(content), "journal.jsonl")


def flips(content: bytes, count: int) -> None:
    """Flip single bits at random; check that each costs at most the line that it is in."""
    fate, whole = random.Random(count), list(lines_of(content))
    starts = [0, *(at + 1 for at, byte in enumerate(content[:-1]) if byte == 10)]
    for _ in range(count):
        at, bit = fate.randrange(len(content)), fate.randrange(8)
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        hit = sum(start <= at for start in starts) - 1
        found = lines_of(bytes(changed))
        expected = whole if content[at] == 10 else [*whole[:hit], *whole[hit + 1 :]]
        assert list(found) == expected, (at, bit)
        lost = [hit + 1] if content[at] != 10 else []
        assert sorted({one.line for one in found.damage}) in (lost, [*lost, hit + 2]), (at, bit)  # a line cut in two


def test_a_flipped_bit_costs_its_line_alone(sweep: Path) -> None:
    flips((sweep / "journal.jsonl").read_bytes(), FLIPS)


@pytest.mark.slow
def test_ten_thousand_flipped_bits_cost_their_lines_alone(sweep: Path) -> None:
    flips((sweep / "journal.jsonl").read_bytes(), 10_000)


def test_every_bit_of_a_line_is_under_its_checksum() -> None:
    line = encode({"v": 4, "g": 1, "n": 0, "t": 1.5, "event": "sweep_ended", "reason": "signal"})[:-1]
    assert decode(line) is not None
    for at in range(len(line)):
        for bit in range(8):
            assert decode(line[:at] + bytes([line[at] ^ 1 << bit]) + line[at + 1 :]) is None, (at, bit)


def read_by_all(folder: Path) -> None:
    """Read a sweep as every command does that needs no data."""
    found = recorded.read(folder)
    state, planned = found.state, found.plan
    confirmed = confirmation_of(state, planned)
    if confirmed is not None:
        json.dumps(confirmed.to_dict())
    tables.leaderboard(state, confirmed)
    tables.confirming(state)
    tables.history(state)
    refits.queue(planned).next(state)
    journal = Journal(folder / "journal.jsonl")
    study = JournalStudy(planned.space, planned.sampler, planned.seed, "", planned.trials)
    journal.subscribe(study.observe)
    assert study.propose(journal.state.next_trial)
    journal.close()


def test_whatever_line_is_lost_the_sweep_is_read(sweep: Path, tmp_path: Path) -> None:
    lines = (sweep / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "sweep.json").write_bytes((sweep / "sweep.json").read_bytes())
    kinds: dict[tuple[str, bool], list[int]] = {}
    for at, line in enumerate(lines):  # of lines of one kind some: they are lost alike
        kinds.setdefault((json.loads(line)["event"], "worker" in json.loads(line)), []).append(at)
    for at in sorted(at for places in kinds.values() for at in {places[0], places[len(places) // 2], places[-1]}):
        (tmp_path / "journal.jsonl").write_bytes(b"".join([*lines[:at], b"#" + lines[at][1:], *lines[at + 1 :]]))
        read_by_all(tmp_path)


@pytest.mark.slow
def test_whatever_line_is_lost_there_is_a_report(sweep: Path, tmp_path: Path) -> None:
    lines = (sweep / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "sweep.json").write_bytes((sweep / "sweep.json").read_bytes())
    for at in range(len(lines)):
        (tmp_path / "journal.jsonl").write_bytes(b"".join([*lines[:at], b"#" + lines[at][1:], *lines[at + 1 :]]))
        assert report.write(tmp_path).is_file()


def test_lines_out_of_order_are_sorted_and_copies_dropped(sweep: Path, tmp_path: Path) -> None:
    content = (sweep / "journal.jsonl").read_bytes()
    whole, fate = list(lines_of(content)), random.Random(0)
    for _ in range(20):
        lines = content.splitlines(keepends=True)
        fate.shuffle(lines)
        again = fate.sample(range(len(lines)), 3)
        copies = [lines[at] for at in again]
        path = tmp_path / "journal.jsonl"
        path.write_bytes(b"".join(lines + copies))
        assert read(path)[0] == whole
        journal = Journal(path)
        journal.close()
        assert path.read_bytes() == content
        assert [one.line for one in journal.damage] == [len(lines) + 1, len(lines) + 2, len(lines) + 3]
        assert {one.problem for one in journal.damage} == {f"it repeats line {at + 1}" for at in again}


def test_what_is_cut_out_is_all_that_is_lost(sweep: Path) -> None:
    content = (sweep / "journal.jsonl").read_bytes()
    whole, fate = list(lines_of(content)), random.Random(0)
    starts = [0, *(at + 1 for at, byte in enumerate(content) if byte == 10)]
    for _ in range(100):
        begin = fate.randrange(len(content) - 1)
        end = min(begin + fate.choice((1, 30, 3000)), len(content) - 1)  # the last line keeps its end
        found = list(lines_of(content[:begin] + content[end:]))
        inside = [n for n in range(len(whole)) if starts[n + 1] - 1 > begin and starts[n] < end]
        assert found == [event for event in whole if event.n not in inside], (begin, end)


def test_a_line_is_found_behind_the_beginning_of_another(sweep: Path) -> None:
    lines = (sweep / "journal.jsonl").read_bytes().splitlines(keepends=True)
    found = lines_of(b"".join([*lines[:4], lines[4][:60], *lines[5:]]))
    assert [event.n for event in found] == [n for n in range(len(lines)) if n != 4]


def test_damage_is_described(sweep: Path, tmp_path: Path) -> None:
    content = (sweep / "journal.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)
    at = next(at for at, line in enumerate(lines) if b'"trial_epoch"' in line)
    number = json.loads(lines[at])["trial"]
    (one,) = lines_of(content.replace(lines[at], lines[at].replace(b'"epoch": 1', b'"epoch": 3'))).damage
    assert one.line == at + 1
    assert one.problem == f"it is damaged; it seems to hold `trial_epoch` of trial {number}"


def test_a_group_is_whole_although_its_last_line_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(EVENTS[0])
    journal.append(*EVENTS[1:3])
    journal.close()
    content = path.read_bytes()
    damaged = content[:-9] + b"#" + content[-8:]
    assert len(list(lines_of(damaged))) == 2, "the line that is damaged was written: the group was complete"
    assert len(list(lines_of(content[:-9]))) == 1, "torn: neither of the two is there"


@pytest.mark.parametrize("wrong", [0, 3, 10**9])
def test_a_wrong_number_in_an_older_journal_costs_its_line_alone(wrong: int, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = [{"v": 3, "n": n, "t": n, "event": "sweep_ended", "reason": str(n)} for n in range(9)]
    lines[5]["n"] = wrong
    journals.write_lines(path, lines)
    assert [event.n for event in read(path)[0]] == [0, 1, 2, 3, 4, 6, 7, 8]
    journal = Journal(path)
    journal.append(SweepEnded("signal"))
    journal.close()
    assert [event.n for event in read(path)[0]] == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_a_wrong_version_in_one_line_refuses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = [{"v": 3, "n": n, "t": n, "event": "sweep_ended", "reason": str(n)} for n in range(9)]
    lines[5]["v"] = 7
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    assert [event.n for event in read(path)[0]] == [0, 1, 2, 3, 4, 6, 7, 8]
    with path.open("ab") as file:
        file.write(encode({"v": 6, "g": 1, "n": 9, "t": 9}))  # a newer version has gone on with it
    with pytest.raises(RecordError, match="has schema 6, this version reads 2, 3, 4 and 5; use a newer"):
        read(path)


def test_an_event_of_an_unknown_kind_is_passed_over_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(EVENTS[0])
    journal.close()
    with path.open("ab") as file:
        file.write(encode({"v": 4, "g": 1, "n": 1, "t": 9, "event": "of a later version"}))
    before = path.read_bytes()
    journal = Journal(path)
    assert not journal.damage
    assert path.read_bytes() == before
    journal.append(EVENTS[1])
    journal.close()
    assert [event.n for event in read(path)[0]] == [0, 2]


def test_a_lost_proposal_leaves_the_others_their_places(sweep: Path) -> None:
    content = (sweep / "journal.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)
    searched = [n for n, event in enumerate(EVENTS) if isinstance(event, TrialProposed) and not event.final]
    state = replay(lines_of(b"".join(line for n, line in enumerate(lines) if n != searched[1])))
    lost = EVENTS[searched[1]]
    assert isinstance(lost, TrialProposed)
    before = {number: trial.index for number, trial in replay(lines_of(content)).trials.items() if number != lost.trial}
    assert {number: trial.index for number, trial in state.trials.items()} == before
    assert state.arm("").next_index == lost.index, "the one that is missing is proposed again"
