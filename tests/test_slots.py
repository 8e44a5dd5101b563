"""Slots: how many a sweep begins with and asks for, what it waits for, and what a resumed one may change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import validation
from orchestrator.cluster import connection
from orchestrator.cluster.machine import Nodes, Resources, Slot, widest
from orchestrator.display.summary import supply_line
from orchestrator.plan import plan, resumption
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request
from orchestrator.plan.slot_range import SlotRange
from orchestrator.record.events import (
    AttemptLost,
    Event,
    SlotsChanged,
    SweepEnded,
    SweepResumed,
    SweepStarted,
    TrialAttempt,
    TrialEnded,
    TrialProposed,
)
from orchestrator.record.facts import Place, Spec
from orchestrator.record.journal import Journal, read
from orchestrator.record.ranking import slot_use
from orchestrator.record.state import SweepState, replay
from orchestrator.search.slots import REPORTED_AFTER_S, GrowingSlots
from orchestrator.search.workers import Workers
from trainables.config import TrialConfig
from trainables.errors import ConfigError

HEAD, SMALL, LARGE = Resources(0, 0), Resources(2, 0), Resources(4, 1)
CLUSTER = {"address": "head:6379"}


def made(folder: Path, nodes: Nodes, **given: Any) -> Plan:
    options = SweepOptions(**{"dataset": "digits", "results": folder, "confirm": 0, **given})
    request = validation.check(options, nodes if options.address == "local" else None)
    return plan.make(request, nodes)


def refused(folder: Path, nodes: Nodes, **given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        made(folder, nodes, **given)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", SlotRange(1, None)),
        (4, SlotRange(4, 4)),
        ("4", SlotRange(4, 4)),
        ("2..8", SlotRange(2, 8)),
        ("0..8", SlotRange(0, 8)),
        ("8..", None),
        ("-1", None),
        ("1..2..3", None),
        ("many", None),
    ],
)
def test_a_range_is_a_number_or_two(text: str | int, expected: SlotRange | None) -> None:
    assert SlotRange.parse(text) == expected


@pytest.mark.parametrize(
    ("nodes", "given", "message"),
    [
        ([SMALL], {"slots": "many"}, "--slots many: allowed are a number, such as 4, MIN..MAX"),
        ([SMALL], {"slots": "4..2"}, "--slots 4..2: MAX is 2; at least 4 is needed"),
        ([SMALL], {"slots": 0}, "--slots 0: MAX is 0; at least 1 is needed"),
        ([SMALL], {"slots": -3}, "--slots -3: allowed are a number"),
        ([SMALL], {"slots": "0..2"}, "--slots 0..2: only a cluster can begin without slots"),
        ([SMALL], {"slots": "1..3"}, "3 are asked for, and at most 2 fit at a time, 1 CPU each; ask for --slots 2"),
        ([SMALL], {"slots": 3}, "3 are asked for, and at most 2 fit at a time"),
        ([SMALL, SMALL], {"slots": 5, **CLUSTER}, "at most 4 fit at a time, 1 CPU each; ask for --slots 4..5"),
        ([SMALL], {"cpus_per_trial": 3, **CLUSTER}, "--cpus-per-trial 3: no machine here has more than 2"),
        ([HEAD], {"slots": 4, **CLUSTER}, "(the largest has 0 CPUs and 0 GPUs): ask for less"),
        ([HEAD], {"slots": 4, **CLUSTER}, "--slots 0..MAX begins without any"),
        ([HEAD], {"slots": "0..4", **CLUSTER}, "say what a trial needs: --cpus-per-trial N --gpus-per-trial F"),
        ([HEAD], {"slots": "0..4", "cpus_per_trial": 2, **CLUSTER}, "say what a trial needs"),
    ],
)  # fmt: skip
def test_slots_that_cannot_be_had_are_refused_with_numbers(
    tmp_path: Path, nodes: Nodes, given: dict[str, Any], message: str
) -> None:
    assert message in refused(tmp_path, nodes, **given)


def test_a_cluster_may_have_none_yet(tmp_path: Path) -> None:
    given = {"slots": "0..8", "cpus_per_trial": 4, **CLUSTER}
    planned = made(tmp_path, [HEAD], gpus_per_trial=1.0, **given)
    assert (planned.slots([HEAD]), planned.slots([LARGE, LARGE]), planned.slots([LARGE] * 9)) == (0, 2, 8)
    assert (planned.slot_cpus, planned.slot_gpus, planned.least_slots, planned.concurrency) == (4, 1.0, 0, 8)
    assert planned.space == made(tmp_path, [LARGE], **CLUSTER).space  # the space for GPUs, though none is there


def test_a_plan_of_a_sweep_without_these_keys_is_read(tmp_path: Path) -> None:
    before = made(tmp_path, [SMALL], slots=2).to_dict()
    del before["least_slots"]
    assert Plan.from_dict(before).concurrency == 2
    assert Plan.from_dict(before).least_slots == 1


# A cluster that grows and shrinks


@dataclass
class FakeCluster:
    """Machines that a test sets, and what was asked of them."""

    machines: list[Resources] = field(default_factory=list)
    asked: list[tuple[dict[str, float], int]] = field(default_factory=list)  # the last bundle, and how many
    bundles: list[dict[str, float]] = field(default_factory=list)  # that were asked for last
    now: float = 100.0
    said: list[str] = field(default_factory=list)

    def request(self, bundles: Sequence[Mapping[str, float]]) -> None:
        self.bundles = [dict(bundle) for bundle in bundles]
        self.asked.append((self.bundles[-1] if bundles else {}, len(bundles)))

    def after(self, seconds: float, slots: GrowingSlots, *machines: Resources) -> int:
        """Let time pass and return the slots that there are then."""
        self.now += seconds
        self.machines = list(machines)
        return slots()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def journal(tmp_path: Path, cluster: FakeCluster) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal.jsonl", lambda: cluster.now)) as opened:
        opened.append(SweepStarted(Spec()))
        yield opened


def slots_of(planned: Plan, journal: Journal, cluster: FakeCluster) -> GrowingSlots:
    return GrowingSlots(
        planned.slots, planned.slot, planned.concurrency, journal, planned.queue(),
        cluster.said.append, cluster.request, lambda: cluster.machines, lambda: cluster.now,
    )  # fmt: skip


def begin(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        journal.append(TrialProposed(number, {}, TrialConfig().to_dict()), TrialAttempt(number, 0))


def end(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        journal.append(TrialEnded(number, 0, "completed", "budget"))


def test_what_comes_is_used_and_no_more_is_asked_for_than_there_are_trials_for(
    tmp_path: Path, journal: Journal, cluster: FakeCluster
) -> None:
    planned = made(tmp_path, [SMALL], trials=6, slots="0..4", cpus_per_trial=2, gpus_per_trial=0.0, **CLUSTER)
    slots = slots_of(planned, journal, cluster)
    assert cluster.after(0, slots, HEAD) == 0
    assert cluster.asked == [({"CPU": 2, "GPU": 0.0}, 4)]
    assert slots() == 0
    assert len(cluster.asked) == 1  # the count is used for a second
    assert cluster.after(2, slots, HEAD, *[SMALL] * 3) == 3
    begin(journal, 0, 1, 2)
    assert cluster.after(2, slots, HEAD, *[SMALL] * 9) == 4
    begin(journal, 3, 4, 5)
    end(journal, 0, 1, 2)
    cluster.after(2, slots, HEAD, *[SMALL] * 4)
    assert cluster.asked[-1][1] == 3  # nothing is left to propose
    end(journal, 3, 4)
    cluster.after(2, slots, HEAD, *[SMALL] * 4)
    assert cluster.asked[-1][1] == 1
    changes = [(e.slots, e.nodes, e.asked) for e in events(journal) if isinstance(e, SlotsChanged)]
    assert changes == [(0, 0, 4), (3, 3, 4), (4, 9, 4), (4, 4, 3), (4, 4, 1)]


def events(journal: Journal) -> list[Event]:
    return list(read(journal.path)[0])


def test_auto_asks_for_as_many_as_there_were(tmp_path: Path, journal: Journal, cluster: FakeCluster) -> None:
    """Machines that were lost are asked for again; what was never there is not."""
    planned = made(tmp_path, [SMALL], trials=9, cpus_per_trial=2, **CLUSTER)
    slots = slots_of(planned, journal, cluster)
    for machines in ([SMALL], [SMALL] * 3, [], [SMALL]):
        cluster.after(2, slots, HEAD, *machines)
    assert [count for _, count in cluster.asked] == [1, 3, 3, 3]


def test_after_a_minute_it_is_said_what_is_missing(tmp_path: Path, journal: Journal, cluster: FakeCluster) -> None:
    planned = made(tmp_path, [SMALL], trials=9, slots="0..4", cpus_per_trial=2, **CLUSTER)
    slots = slots_of(planned, journal, cluster)
    for _ in range(int(REPORTED_AFTER_S / 2)):
        cluster.after(2, slots, HEAD)
    assert cluster.said == []
    for _ in range(9):
        cluster.after(2, slots, HEAD)
    (said,) = cluster.said
    assert said == "waiting for machines: 4 slots of 2 CPUs asked for, 0 there; what comes is used"
    cluster.after(2, slots, HEAD, SMALL)
    assert cluster.said[1:] == ["waiting for machines: 4 slots of 2 CPUs asked for, 1 there; what comes is used"]
    cluster.after(2, slots, HEAD, *[SMALL] * 4)
    cluster.after(2, slots, HEAD)  # all are gone: another minute
    assert len(cluster.said) == 2
    cluster.after(REPORTED_AFTER_S, slots, HEAD)
    assert len(cluster.said) == 3


def test_node_hours_are_counted_over_all_commands() -> None:
    """The time between two commands does not count, nor does what was there when one was killed."""
    story: list[Event] = [
        SweepStarted(Spec(slots=0), t=0),
        SlotsChanged(0, 0, 4, t=0),
        SlotsChanged(4, 2, 4, t=1800),
        SlotsChanged(0, 0, 4, t=5400),
        SweepEnded("signal", t=7200),
        SweepResumed(Spec(slots=2), t=90000),
        SlotsChanged(2, 1, 2, t=90000),
        TrialProposed(0, {}, TrialConfig().to_dict(), t=90000),
        TrialAttempt(0, 0, t=93600),  # and then it was killed
        SweepResumed(Spec(slots=2), t=200000),
    ]
    state = replay(replace(event, n=n) for n, event in enumerate(story))
    supply = state.supply
    assert (supply.node_s, supply.slot_s, supply.asked_s) == (2 * 3600 + 3600, 4 * 3600 + 2 * 3600, 4 * 7200 + 2 * 3600)
    assert (supply.nodes, supply.slots, supply.asked) == (0, 0, 0)
    assert supply_line(supply) == "machines: 3.00 node-hours; 6.00 slot-hours there, 10.00 asked for"
    assert supply_line(replay([story[0], SweepEnded("finished", t=7200)]).supply) == ""
    assert slot_use(state) == 0


# Resumed


def resumed(folder: Path, began: Plan, nodes: Nodes, **given: Any) -> Plan:
    options = SweepOptions(**{"results": folder, "resume": "old", **given})
    return resumption.resume(Request(options), began, SweepState(), nodes)


def test_a_resumed_sweep_may_have_other_slots(tmp_path: Path) -> None:
    began = made(tmp_path, [Resources(16, 0)], slots=2, cpus_per_trial=8, trials=16)
    same = resumed(tmp_path, began, [Resources(16, 0)])
    assert same == began
    fewer = resumed(tmp_path, began, [Resources(16, 0)], slots=1)
    assert fewer == replace(began, concurrency=1, least_slots=1)
    smaller = resumed(tmp_path, began, [Resources(16, 0)], cpus_per_trial=4, slots="1..4")
    assert smaller == replace(began, slot_cpus=4, concurrency=4, least_slots=1)
    elsewhere = resumed(tmp_path, began, [HEAD], slots="0..4", **CLUSTER)
    assert elsewhere == replace(began, concurrency=4, least_slots=0)


def test_a_resumed_sweep_follows_the_machine(tmp_path: Path) -> None:
    """On a smaller machine slots get smaller, if no size is asked for; a machine without any capacity is refused."""
    began = made(tmp_path, [Resources(16, 0)], cpus_per_trial=8, trials=16)
    here = resumed(tmp_path, began, [Resources(4, 0)])
    assert (here.slot_cpus, here.slots([Resources(4, 0)])) == (1, 4)
    two = resumed(tmp_path, replace(began, concurrency=2), [Resources(4, 0)])
    assert (two.slot_cpus, two.slots([Resources(4, 0)])) == (2, 2)
    with pytest.raises(ConfigError, match="--cpus-per-trial 8: no machine here has more than 4"):
        resumed(tmp_path, began, [Resources(4, 0)], cpus_per_trial=8)
    with pytest.raises(ConfigError, match="3 are asked for, and at most 2 fit"):
        resumed(tmp_path, began, [Resources(16, 0)], slots=3)
    with pytest.raises(ConfigError, match="no machine has the capacity"):
        resumed(tmp_path, began, [HEAD], **CLUSTER)
    with pytest.raises(ConfigError, match="no machine has the capacity"):
        resumed(tmp_path, replace(began, least_slots=0), [HEAD])  # on this machine none will come


def test_a_resumed_sweep_keeps_to_its_kind_of_device(tmp_path: Path) -> None:
    on_gpus = made(tmp_path, [Resources(8, 2)])
    assert resumed(tmp_path, on_gpus, [Resources(8, 2)], gpus_per_trial=0.5).slot_gpus == 0.5
    with pytest.raises(ConfigError, match="this sweep's trials run on GPUs"):
        resumed(tmp_path, on_gpus, [Resources(8, 2)], gpus_per_trial=0.0)
    on_cpus = made(tmp_path, [Resources(8, 0)])
    with pytest.raises(ConfigError, match="this sweep's trials run on CPUs"):
        resumed(tmp_path, on_cpus, [Resources(8, 2)], gpus_per_trial=1.0)


def failed_on(*nodes: str) -> list[AttemptLost]:
    return [AttemptLost(0, 0, "x", "error", True, Place(node, node)) for node in nodes]


@pytest.mark.parametrize(
    ("began", "failed", "expected"),
    [
        ("a1", [], ["t1"]),
        ("t1", [], ["a1", "a2"]),
        ("gone", [], ["t1"]),  # a node of a kind that others have, too
        ("a1", ["a1"], ["a1", "t1"]),
        ("t1", ["t1"], ["t1"]),  # it failed on the only one of its kind: any other will do
        ("last", [], []),
        ("cpus", [], []),
        (None, [], []),
        ("of an earlier command", [], []),
    ],
)
def test_a_trial_goes_on_with_a_gpu_of_its_kind(began: str | None, failed: list[str], expected: list[str]) -> None:
    kinds = {"a1": "A100", "a2": "A100", "t1": "T4", "gone": "A100", "last": "V100", "cpus": None}
    workers = Workers(lambda: {"a1": 1, "a2": 2, "t1": 4}, kinds=kinds)
    assert workers.room(began, failed_on(*failed), {}) == (expected, [], None, ())


NODES = {"h1": 8, "h2": 8, "t1": 2}
KINDS = {"h1": "H200", "h2": "H200", "t1": "T4", "gone": "H200"}
SHARES = Slot(1, 0.5, {"H200": 0.125})


@pytest.mark.parametrize(
    ("began", "failed", "taken", "gpus", "only"),
    [
        (None, [], {}, 0.125, ["h1", "h2"]),  # where most are free
        (None, [], {0.125: 14}, 0.5, ["t1"]),
        (None, [], {0.125: 15, 0.5: 1}, 0.5, ["t1"]),
        (None, [], {0.125: 14, 0.5: 1}, 0.125, ["h1", "h2"]),
        (None, ["h1"], {0.125: 5}, 0.125, ["h2"]),
        (None, ["h1"], {0.125: 9}, 0.5, ["t1"]),  # eight of them may be on h2
        (None, ["h1", "h2"], {}, 0.5, ["t1"]),
        ("h1", [], {0.125: 15}, 0.125, ["h1", "h2"]),  # it goes on with its kind
        ("h1", [], {0.125: 16}, 0.5, ["t1"]),  # unless nothing of it is free
        ("t1", [], {}, 0.5, ["t1"]),
        ("t1", ["t1"], {}, 0.125, ["h1", "h2"]),
        ("gone", [], {0.125: 9}, 0.125, ["h1", "h2"]),
        (None, ["h1", "h2", "t1"], {}, 0.125, ["h1", "h2"]),  # it has failed everywhere
    ],
)
def test_an_attempt_gets_a_free_slot_of_its_kind_or_of_that_with_most(
    began: str | None, failed: list[str], taken: dict[float | None, int], gpus: float, only: list[str]
) -> None:
    room = Workers(lambda: NODES, SHARES, kinds=KINDS).room(began, failed_on(*failed), taken)
    assert (room.gpus, room.only) == (gpus, only)
    alike = Workers(lambda: NODES, Slot(1, 0.5), kinds=KINDS).room(began, failed_on(*failed), taken)
    assert (alike.gpus, alike.only) == (None, ())


def test_what_is_held_or_set_aside_is_not_free() -> None:
    workers = Workers(lambda: {"h1": 8, "h2": 8, "t1": 7}, SHARES, kinds=KINDS)
    assert workers.room(None, [], {0.125: 8}).gpus == 0.125
    for number in range(2):
        workers.hold(f"ray-{number}", Place("h1", "h1", "GPU 0"))
    assert workers.room(None, [], {0.125: 8}).gpus == 0.5
    workers.release("ray-0")
    workers.dismiss("ray-2", Place("h1", "h1"))
    assert workers.room(None, [], {0.125: 8}).gpus == 0.5
    workers.release("ray-1")
    workers.release("ray-2")
    workers.fail(Place("h1", "h1"))
    workers.begin(0, 0, Place("t1", "t1"))
    workers.work(0, 0)
    for _ in range(2):
        workers.fail(Place("h1", "h1"))
    room = workers.room(None, [], {0.125: 2})
    assert (room.gpus, room.only, room.avoid) == (0.5, ["t1"], ["h1"])
    assert workers.room(None, [], {}).only == ["h2"]


@pytest.mark.parametrize(
    ("there", "avoid", "only", "left"),
    [
        (["a", "b"], [], ["a"], False),
        (["b"], [], ["a"], True),
        ([], [], ["a"], True),
        (["a", "b"], ["a"], [], False),
        (["a"], ["a", "b"], [], True),
        ([], ["a"], [], False),  # a machine that comes will do
    ],
)
def test_nodes_that_an_attempt_waits_for_may_leave(
    there: list[str], avoid: list[str], only: list[str], left: bool
) -> None:
    assert Workers(lambda: dict.fromkeys(there, 1)).has_left(avoid, only) is left


def test_what_is_asked_for_holds_the_slots_of_each_kind(tmp_path: Path, journal: Journal, cluster: FakeCluster) -> None:
    """Ask for what is there, all of a machine at once, and for further slots with the largest share."""
    planned = made(tmp_path, [LARGE], trials=30, gpus_per_trial=1.0, slots="1..16", cpus_per_trial=2, **CLUSTER)
    slots = slots_of(planned.with_slot(Slot(2, 0.5, {"H200": 0.125})), journal, cluster)
    fast, slow = Resources(16, 1, kind="H200"), Resources(4, 1, kind="T4")
    assert cluster.after(0, slots, fast, slow) == 10
    assert cluster.bundles == [{"CPU": 16, "GPU": 1.0}, {"CPU": 4, "GPU": 1.0}] + [{"CPU": 2, "GPU": 0.5}] * 6
    assert cluster.after(2, slots, fast, fast) == 16
    assert cluster.bundles == [{"CPU": 16, "GPU": 1.0}] * 2


def test_shares_are_said_and_counted_by_kind() -> None:
    fast, slow, unnamed = Resources(16, 2, kind="H200"), Resources(8, 2, kind="T4"), Resources(8, 1)
    assert str(SHARES) == "1 CPU and 0.5 GPUs (H200: 0.125)"
    assert [node.capacity(SHARES) for node in (fast, slow, unnamed)] == [16, 4, 2]
    assert widest(SHARES, [fast, slow], 100).cpus == 1
    assert widest(SHARES, [fast, slow], 12) == replace(SHARES, cpus=2)


def test_ray_names_the_kind_of_a_nodes_gpus() -> None:
    has = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9, "object_store_memory": 1e9, "node:10.0.0.7": 1.0}
    described = {"NodeID": "1", "NodeName": "a", "Resources": {**has, "accelerator_type:A100": 1.0}}
    assert connection._node(described).resources.kind == "A100"
    assert connection._node({**described, "Resources": has}).resources.kind is None
