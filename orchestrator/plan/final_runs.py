"""The runs after the search: how many of the best trials are run again with which number of seeds, and the refit."""

from __future__ import annotations

from orchestrator.plan.options import ENSEMBLES, SweepOptions
from trainables import datasets
from trainables.errors import suggestion

CONFIRM, CONFIRM_SEEDS = 3, {"quick": 2, "good": 3, "best": 5}  # the best trials, or a recipe's arms; seeds by preset

REFIT = {"split": "all", "train_fraction": 1.0, "selection": "last", "patience": 0}
"""Fields in which a refit differs from the run that it repeats; there is no score to choose an epoch by."""


def check(options: SweepOptions) -> list[str]:
    """Return what is wrong with the options about refit and ensemble."""
    asked = {"--refit": options.refit, "--ensemble seeds": options.ensemble == "seeds"}
    given = [option for option, wanted in asked.items() if wanted]
    problems = ["--refit --no-refit: give one of them"] if options.refit and options.no_refit else []
    if options.ensemble is not None and options.ensemble not in ENSEMBLES:
        problems.append(f"--ensemble {options.ensemble}: unknown{suggestion(options.ensemble, ENSEMBLES)}")
    if options.recipe is not None:
        problems += [
            f"{option}: a recipe's arms are compared on the rows of its paper; leave it out" for option in given
        ]
    elif options.confirm == 0:
        problems += [f"{option}: it needs a confirmed winner; leave --confirm 0 out" for option in given]
    return problems


def confirmation(options: SweepOptions, trials: int) -> tuple[int, int]:
    """Return how many of the best of `trials` are confirmed, with how many seeds; of a recipe, 0 and an arm's seeds.

    By default there are at most a third as many confirmation runs as searched trials, but at least two: one run has no
    interval.
    """
    seeds = options.confirm_seeds or CONFIRM_SEEDS[options.preset]
    if options.recipe is not None:
        return 0, seeds
    if options.confirm is not None:
        return min(options.confirm, trials), seeds if options.confirm else 0
    runs = max(trials // 3, 2)
    if options.confirm_seeds is None:
        seeds = min(seeds, runs)
    return min(max(runs // seeds, 1), CONFIRM), seeds


def refit(options: SweepOptions, dataset: str, confirm: int) -> bool:
    """Return whether the winner is trained once more: by default, of pictures of one's own if trials are confirmed."""
    usual = dataset not in datasets.SOURCES and not options.no_refit
    return bool(confirm) and options.recipe is None and (options.refit or usual)


def ensemble(options: SweepOptions, dataset: str, confirm: int) -> str:
    """Return which models of the winner are kept, one of `ENSEMBLES`: by default all with `--preset best`.

    An average takes as many times as long to predict as it has members; so by default one's own pictures alone have it.
    """
    usual = "seeds" if options.preset == "best" and dataset not in datasets.SOURCES else "none"
    return (options.ensemble or usual) if confirm and options.recipe is None else "none"
