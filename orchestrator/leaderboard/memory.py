"""Memory: a new sweep begins with settings that were best in earlier ones.

Only ranks within a sweep count, never scores: these are of other rows, other epochs, other pictures. A few points at
most, so that a misleading memory costs little.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.leaderboard import boards
from orchestrator.leaderboard.boards import Board
from orchestrator.plan.plan import Plan
from orchestrator.record.decoding import RecordError
from search_spaces.distributions import fits, unit
from search_spaces.space import SearchSpace
from search_spaces.starts import Start
from trainables.errors import ConfigError, counted, listed

AUTO, NONE = "auto", "none"
SHARED = 3  # searched fields that a sweep must share, at least
EACH = 10  # of a sweep's best trials that are considered
SHARE = 8  # one in so many trials has a remembered setting, at most, but one in any case
SAME_DATA, SAME_MODEL = 4.0, 2.0  # weights of sweeps over the same pictures, and of those with a model in common
TREES = 50


@dataclass(frozen=True, eq=False)
class Earlier:
    """An earlier sweep, as far as a search space can make use of it."""

    board: Board
    points: tuple[Start, ...]  # settings of its ranked trials, the best first; empty ones do not fit the space
    places: NDArray[np.float64]  # [trials, fields], their configurations in the unit cube
    weight: float

    @classmethod
    def of(cls, board: Board, planned: Plan, split: Mapping[str, Any]) -> Earlier | None:
        """Return what a plan can learn from a sweep; None if that is nothing.

        Trials whose model has more or fewer parameters than the plan's constraints allow are left out.
        """
        space, bounds = planned.space, [one for one in planned.constraints if one.name == "parameters"]
        theirs = board.plan.space
        shared = [name for name in space.distributions if name in theirs.distributions]
        if board.metric != space.base.metric or len(shared) < SHARED or board.plan.recipe is not None:
            return None
        columns = [f"config.{name}" for name in space.distributions]
        ranked = [
            row
            for row in board.table.select(["rank", "score", "status", "parameters", *columns])
            .sort_by("rank")
            .to_pylist()
            if row["score"] is not None
            and row["status"] in ("completed", "stopped")
            and (row["parameters"] is None or all(bound.allows(row["parameters"]) for bound in bounds))
        ]
        configs = [{name: row[f"config.{name}"] for name in space.distributions} for row in ranked]
        points = [_point(config, shared, space) for config in configs]
        if not any(points):
            return None
        same_data = board.spec.split.get("data_fingerprint") == split.get("data_fingerprint")
        same_model = bool(set(theirs.values("model")) & set(space.values("model")))
        places = np.array(
            [[unit(config[name], space.hull(name)) for name in space.distributions] for config in configs]
        )
        return cls(board, tuple(points), places, SAME_DATA if same_data else SAME_MODEL if same_model else 1.0)

    def losses(self, candidates: Sequence[tuple[Earlier, int]]) -> NDArray[np.float64]:
        """Return the ranks of settings in this sweep, from 0, the best, to 1: float [candidates].

        Args:
            candidates: a sweep and the place of one of its points; those of other sweeps are predicted.
        """
        known = np.linspace(0, 1, len(self.points))
        found = np.array([known[place] if one is self else np.nan for one, place in candidates])
        if np.isnan(found).any():
            from sklearn.ensemble import RandomForestRegressor  # takes a second to load

            forest = RandomForestRegressor(TREES, random_state=0).fit(self.places, known)
            predicted = forest.predict(np.stack([one.places[place] for one, place in candidates]))
            found = np.where(np.isnan(found), predicted, found)
        return np.asarray(found, dtype=float)


def _point(config: Mapping[str, Any], shared: Sequence[str], space: SearchSpace) -> Start:
    """Return the values of the shared fields that a trial of `space` can have; nothing if they are too few.

    Beside them are those of the fields that conditions depend on, which the earlier sweep may have fixed.
    """
    point: dict[str, Any] = {}
    for name in space.order():
        found = space.parameter(name, point) if name in shared or name in space.conditioning() else None
        if found is not None and fits(config[name], found[1]):
            point[name] = config[name]
    return point if len(point.keys() & set(shared)) >= SHARED else {}


def remember(
    planned: Plan, asked: tuple[str, ...], results: Path, split: Mapping[str, Any]
) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan with settings of earlier sweeps among its start points, and notes about that.

    Args:
        asked: auto (the sweeps in `results`), none, or the paths of sweeps.
        split: of the new sweep's data, as the journal has it.

    Raises:
        ConfigError: a path was given, and nothing can be learned there.
        RecordError: a path was given that cannot be read.
    """
    if not asked or asked == (NONE,) or planned.recipe is not None or not planned.space.distributions:
        return planned, ()
    found = _sweeps(asked, results)
    earlier = [one for board in found if (one := Earlier.of(board, planned, split)) is not None]
    if not earlier:
        return planned, (_nothing(asked, found, planned.space),)
    points = portfolio(earlier, max(planned.trials // SHARE, 1))
    space = planned.space
    known = dataclasses.replace(space, starts=(*space.starts, *points))
    return dataclasses.replace(planned, arms={"": known}), tuple(_notes(earlier, points, space, split))


def check(asked: tuple[str, ...], results: Path) -> list[str]:
    """Return what is wrong with the paths of earlier sweeps, if paths are given."""
    if asked in ((AUTO,), (NONE,)):
        return []
    try:
        _sweeps(asked, results)
    except RecordError as error:
        return error.problems
    return []


def _sweeps(asked: tuple[str, ...], results: Path) -> list[Board]:
    """Return the sweeps that are asked for."""
    try:
        found, skipped = boards.find([str(results)] if asked == (AUTO,) else asked)
    except RecordError as error:
        found, skipped = [], error.problems
    if skipped and asked != (AUTO,):  # else there may be none yet
        raise RecordError(*(f"--warm-start: {problem}" for problem in skipped))
    return found


def _nothing(asked: tuple[str, ...], found: Sequence[Board], space: SearchSpace) -> str:
    """Return that nothing was learned, and why; raise ConfigError with it if paths were given."""
    why = (
        f"of {counted(len(found), 'earlier sweep')} none has the metric {space.base.metric}, {SHARED} searched fields "
        "in common with this one, and trials whose values this space has"
    )
    if asked == (AUTO,):
        return f"memory: {why}" if found else "memory: there is no earlier sweep"
    raise ConfigError(f"--warm-start {' '.join(asked)}: {why}; leave it out")


def _notes(
    earlier: Sequence[Earlier], points: Sequence[Start], space: SearchSpace, split: Mapping[str, Any]
) -> list[str]:
    names = ", ".join(one.board.name for one in earlier[:5]) + (" …" if len(earlier) > 5 else "")
    notes = [f"memory: the search begins with {counted(len(points), 'setting')} more, of {names}"]
    searched = {name for one in earlier for name in one.board.plan.space.distributions} & set(space.distributions)
    missing = {name for point in points for name in searched - set(point) if space.parameter(name, point) is not None}
    if missing:
        notes.append(
            f"memory: {listed(sorted(missing))}: values that this search does not have are left out, and drawn instead"
        )
    theirs = {one.board.name: one.board.spec.split.get("test_fingerprint") for one in earlier}
    foreign = [name for name, test_set in theirs.items() if test_set != split.get("test_fingerprint")]
    if foreign:
        notes.append(
            f"memory: {', '.join(foreign[:5])} had another test set: if pictures of this one were among its rows, "
            "these settings have been chosen with them"
        )
    return notes


def portfolio(earlier: Sequence[Earlier], most: int) -> list[Start]:
    """Return at most `most` settings that together were best in the earlier sweeps.

    Of one sweep these are its best trials. With several, a random forest tells for each sweep how well a setting of
    another one would have ranked there; then the setting is taken again and again that lowers the mean of the best
    rank so far most, sweeps over nearer data counting more.
    """
    candidates = [(one, place) for one in earlier for place, point in enumerate(one.points[:EACH]) if point]
    losses = np.stack([one.losses(candidates) for one in earlier], axis=1)
    weights = np.array([one.weight for one in earlier]) / sum(one.weight for one in earlier)
    chosen, best = list[Start](), np.ones(len(earlier))
    while len(chosen) < most:
        means = np.minimum(losses, best) @ weights
        order = [candidates[i] for i in np.lexsort((losses @ weights, means))]
        point = next((at for at in order if at[0].points[at[1]] not in chosen), None)
        if point is None:
            break
        chosen.append(point[0].points[point[1]])
        best = np.minimum(best, losses[candidates.index(point)])
    return chosen
