"""Tune's controller and trials, as a sweep needs them: with a cost that does not grow with the number of trials.

The journal is the record, so nothing is kept of trials that have ended, and nothing is counted, printed or saved. What
is changed are private parts of Tune 2.60; in a version without them Tune does as it likes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from ray.air.execution import PlacementGroupResourceManager
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

PARTS = (
    *("_actor_cache", "_actor_manager", "_failed_trials", "_live_trials", "_resetting_trials", "_stopped_trials"),
    *("_trial_to_actor", "_trials", "_trials_to_cache"),
)
"""Attributes of a controller."""
CACHE_PARTS = ("_cached_objects", "_max_num_objects", "_num_cached_objects", "total_max_objects")


def is_known() -> bool:
    """Return whether this version of Ray has what is changed here, as far as that shows before a controller is made."""
    try:
        trial = Trial("a stub", stub=True)
        parts = [(trial.temporary_state, "ray_actor"), (trial.run_metadata, "last_result")]
        cache = _ObjectCache(may_keep_one=True)
    except (TypeError, AttributeError):
        return False
    has = all(hasattr(owner, name) for owner, name in (*parts, *((cache, name) for name in CACHE_PARTS)))
    return has and "resource_manager_factory" in inspect.signature(TuneController.__init__).parameters


class PlacementGroups(PlacementGroupResourceManager):  # type: ignore[misc, unused-ignore]
    """Placement groups that are left to Ray, which removes them with this process.

    Tune frees them when its garbage is collected, whenever that may be. If Ray's processes have died by then, it waits
    a minute for their answer, after which Ray ends this process.
    """

    def __del__(self) -> None:
        """Do nothing."""


class IdleWorkers(_ObjectCache):  # type: ignore[misc, unused-ignore]
    """The workers without a trial, as many as there are trials to come; Tune would keep one, and end the others.

    They make way if a trial waits for a worker of another kind.
    """

    def __init__(self, to_come: Callable[[], int]) -> None:
        """Take what returns how many trials are still to begin."""
        super().__init__(may_keep_one=True)
        self._to_come = to_come

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keep a worker of this kind, and return whether that was done."""
        if super().cache_object(key, obj):
            return True
        if self._is_full(1):
            return False
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        """Yield the workers that are to end."""
        return super().flush_cached_objects(force_all) if force_all or self._is_full(0) else iter(())

    def _is_full(self, more: int) -> bool:
        """Return whether there are too many workers with some more, or others are waited for."""
        kept = {key for key, objects in self._cached_objects.items() if objects}
        others = any(number for key, number in self._max_num_objects.items() if key not in kept)
        return others or len(kept) > 1 or self._num_cached_objects + more > self.total_max_objects + self._to_come()


class SweepTrial(Trial):  # type: ignore[misc, unused-ignore]
    """A trial whose results are read once, and not kept."""

    def set_ray_actor(self, ray_actor: Any) -> None:
        """Note the trial's worker. Tune asks it for metrics besides, each time, which nothing reads."""
        self.temporary_state.ray_actor = ray_actor

    def update_last_result(self, result: dict[str, Any]) -> None:
        """Note the newest result. Tune computes means over the last 5 and 10 results of each metric besides."""
        self.run_metadata.last_result = result


class Controller(TuneController):  # type: ignore[misc, unused-ignore]
    """Runs trials as Tune does, with three differences.

    A worker that has ended a trial is given to one that has no worker yet: Tune gives it to the trial that has waited
    longest, and ends the worker that is starting for that one, so that of brief trials one slot runs all. Workers stay
    while there are trials to come. What is known of trials that have ended is let go: with it each event of a sweep of
    10,000 trials would take longer than the last.
    """

    groups: list[PlacementGroups]  # of all controllers
    to_come: Callable[[], int]

    def __init__(self, **options: Any) -> None:
        groups = PlacementGroups()
        super().__init__(**{**options, "callbacks": [], "resource_manager_factory": lambda: groups})
        self.groups.append(groups)
        self._known = all(hasattr(self, name) for name in PARTS)
        if self._known:
            self._actor_cache = IdleWorkers(self.to_come)

    def add_trial(self, trial: Trial) -> None:
        """Add the trial, and forget those that have ended."""
        ended = self._stopped_trials | self._failed_trials if self._known else ()
        if ended:
            self._trials[:] = [other for other in self._trials if other not in ended]
            self._live_trials -= ended
            self._trials_to_cache -= ended
            self._stopped_trials.clear()
            self._failed_trials.clear()
        super().add_trial(trial)

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Do nothing: the journal is the record."""

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        """Give an idle worker to the trial, unless another one is starting for it; return whether it has one."""
        starting = self._trial_to_actor.get(trial) if self._known else None
        if starting is not None and self._actor_manager.is_actor_started(starting):
            return trial in self._resetting_trials
        return bool(super()._maybe_reuse_cached_actor(trial))
