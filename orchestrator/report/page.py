"""The page of a report: what its template is given, all of it from the journal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from orchestrator.assessment import comparison, fraction_curve, tables
from orchestrator.assessment.confirmation import Confirmation, confirmation_of, unconfirmed
from orchestrator.assessment.rung_trust import rung_trust
from orchestrator.display.aims import unmet
from orchestrator.display.text import duration, failures, short
from orchestrator.plan.plan import Plan
from orchestrator.plan.public_command import COMMAND
from orchestrator.record.journal_lines import Lines
from orchestrator.record.paths import SweepFolder
from orchestrator.record.ranking import best_trial, count_statuses, slot_use
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.report import aims, confusions, contact_sheet, estimates, reliability, timeline, trials
from orchestrator.report.figures import Figure, sample_note
from orchestrator.report.kept_model import KeptModel, kept_model
from orchestrator.report.rendering import environment, read_own, read_style
from trainables.config import FIELDS
from trainables.datasets.inventory import Inventory
from trainables.epoch_metrics import direction_of

CONFIRM = 3  # trials, where the page says how to confirm
ENDS = {
    "finished": "finished",
    "sweep_budget": "its time budget was spent",
    "signal": "interrupted",
    "failed": "failed",
}


@dataclass(frozen=True)
class Sweep:
    """The data that a report is made from."""

    folder: SweepFolder
    events: Lines
    state: SweepState
    planned: Plan
    now: float  # seconds since 1970

    @property
    def running(self) -> bool:
        """True while the journal has no end of the sweep."""
        return self.state.ended is None

    @cached_property
    def confirmation(self) -> Confirmation | None:
        return confirmation_of(self.state, self.planned)

    @cached_property
    def kept(self) -> KeptModel | None:
        return kept_model(self.folder, self.confirmation)

    @cached_property
    def leaderboard(self) -> pa.Table:
        return tables.leaderboard(self.state, self.confirmation)

    @cached_property
    def best(self) -> TrialRecord | None:
        """The trial whose model is kept in best/, else the first of the leaderboard."""
        if self.confirmation is not None:
            return self.confirmation.model
        try:
            kept = json.loads((self.folder.bundle / "config.json").read_bytes())["trial"]
        except (OSError, ValueError, LookupError, TypeError):
            kept = None
        return self.state.trials.get(kept) or best_trial(self.state)


def render(sweep: Sweep) -> str:
    """Return the complete page: HTML with its styles, scripts, data and pictures."""
    figures: dict[str, Figure] = {}
    context = {
        **_head(sweep),
        "confirmed": _figure(
            figures, "confirmed", None if sweep.confirmation is None else estimates.confirmed(sweep.confirmation)
        ),
        "comparison": _comparison(sweep, figures),
        "aims": _aims(sweep, figures),
        "best": _best(sweep, figures),
        "data_set": _data_set(sweep),
        "curves": _curves(sweep, figures),
        "influences": _influences(sweep, figures),
        "labels": _labels(sweep),
        "timeline": _figure(figures, "timeline", timeline.figure(sweep.events, sweep.state)),
        "run": _run(sweep),
    }
    columns = trials.columns(sweep.leaderboard, sweep.state, sweep.planned)
    return (
        environment()
        .get_template("report.html")
        .render(
            **context,
            trials=len(columns[0]["values"]),
            about=[(column["name"], column["about"]) for column in columns],
            statuses=list(count_statuses(sweep.state)),
            style=read_style(),
            scripts=[read_own(name) for name in ("table.js", "plots.js")],
            plotly=Markup(get_plotlyjs()),  # noqa: S704
            data={"columns": _script(columns), "figures": _script(figures)},
        )
    )


def _labels(sweep: Sweep) -> dict[str, Any] | None:
    """Return a table per arm of the score against the number of labels; None where the train fraction is not
    searched.
    """
    found = fraction_curve.curves(sweep.planned, sweep.leaderboard)
    arms = {arm: [one.cells() for one in bins] for arm, bins in found.items()}
    return {"heading": fraction_curve.HEADING, "note": fraction_curve.NOTE, "arms": arms} if arms else None


def _script(content: Any) -> Markup:
    """Return plain JSON values as they may stand in a page's script."""
    return Markup(json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))  # noqa: S704


def _figure(figures: dict[str, Figure], name: str, figure: Figure | None) -> str | None:
    """Add a figure to the page's data, and return its name, if there is one."""
    if figure is None:
        return None
    figures[name] = figure
    return name


def _head(sweep: Sweep) -> dict[str, Any]:
    """Return the head of the page."""
    state, planned = sweep.state, sweep.planned
    counts, best = count_statuses(state), best_trial(state)
    use, rungs = slot_use(state), rung_trust(state, planned)
    seconds = max((state.last_t or 0.0) - (state.first_proposal or state.last_t or 0.0) - state.idle_s, 0.0)
    facts = [
        ("trials", f"{sum(counts.values()):,}: " + ", ".join(f"{n:,} {status}" for status, n in counts.items())),
        ("epochs run", f"{sum(len(trial.epochs) for trial in state.trials.values()):,}"),
        ("time", duration(seconds)),
        ("slots", f"{state.spec.slots or '–'}, {planned.slot_text()}"),
        ("slot use", "–" if use is None else f"{use:.0%}"),
        ("first rung", "" if rungs is None else rungs.short()),
    ]
    return {
        "name": planned.name,
        "dataset": Path(planned.dataset).name,
        "recipe": planned.recipe,
        "metric": planned.space.base.metric,
        "better": "higher" if direction_of(planned.space.base.metric) == "max" else "lower",
        "running": sweep.running,
        "ended": ENDS.get(state.ended or "", state.ended),
        "as_of": _time(state.last_t or sweep.now),
        "made": _time(sweep.now),
        "again": shlex.join(["python", "-m", "orchestrator.report", str(sweep.folder.path)]),
        "next": _next(sweep),
        "facts": [(name, value) for name, value in facts if value],
        "failures": failures(state),
        "estimates": [] if planned.recipe else estimates.estimates(sweep.confirmation, state, best, sweep.kept),
        "unmet": unmet(state),
        "worth": str(sweep.confirmation.worth or "") if sweep.confirmation is not None else "",
        "final": unconfirmed(state) if sweep.confirmation is None else sweep.confirmation.to_dict(),
    }


def _next(sweep: Sweep) -> tuple[str, str] | None:
    """Return what remains to be done with the sweep, and the command for it."""
    command = [*COMMAND, "--results", str(sweep.folder.path.parent), "--resume", sweep.folder.name]
    if sweep.state.ended in ("signal", "sweep_budget"):
        return "It can go on where it was", shlex.join(command)
    if sweep.running or sweep.planned.recipe or sweep.planned.confirm or best_trial(sweep.state) is None:
        return None
    why = "The best of many scores is partly luck, and the test set is still sealed. To run the best trials again with "
    return f"{why}other seeds and open it once", shlex.join([*command, "--confirm", str(CONFIRM)])


def _comparison(sweep: Sweep, figures: dict[str, Figure]) -> dict[str, Any] | None:
    """Return a recipe's arms beside the paper's metrics."""
    if sweep.planned.recipe is None:
        return None
    found = comparison.compare(sweep.state, sweep.planned)
    drawn = {f"comparison {name}": figure for name, figure in estimates.compared(found).items() if figure["data"]}
    figures.update(drawn)
    return {"heading": found.heading(), "rows": found.rows(), "note": found.note(), "figures": list(drawn)}


def _aims(sweep: Sweep, figures: dict[str, Figure]) -> dict[str, Any] | None:
    """Return the Pareto front, where there are aims beside the metric."""
    found = aims.section(sweep.state, sweep.planned)
    return None if found is None else {**found, "name": _figure(figures, "front", found.pop("figure"))}


def _best(sweep: Sweep, figures: dict[str, Figure]) -> dict[str, Any] | None:
    """Return the best model: its settings, and what it confuses."""
    trial = sweep.best
    if trial is None:
        return None
    labels = confusions.read_labels(sweep.folder)
    space = sweep.planned.arms.get(trial.arm, sweep.planned.space)
    drawn = (*space.distributions, *space.ties)
    searched = [(name, short(trial.config.get(name)), space.describe(name)) for name in drawn]
    others = [
        (name, short(value), "")
        for name, value in trial.config.items()
        if name not in drawn and (name in ("model", "seed") or name not in FIELDS or value != FIELDS[name].default)
    ]
    return {
        "trial": trial,
        "kept": sweep.kept,
        "settings": [*searched, *others],
        "parameters": trial.worker.parameters,
        "rows": trial.worker.train_rows,
        "folds": 1 if sweep.confirmation is None else sweep.confirmation.winner.folds,
        "named": bool(labels),
        "matrices": confusions.matrices(trial, labels),
        "pairs": confusions.pairs(trial, labels, sweep.folder),
        "by_class": confusions.by_class(trial, labels),
        "reliability": _figure(figures, "reliability", reliability.diagram(trial)),
    }


def _data_set(sweep: Sweep) -> dict[str, Any] | None:
    """Return what the data set was read as, with some of its pictures once the sweep has ended."""
    recorded = sweep.state.spec.inventory
    inventory = Inventory.from_dict(recorded) if recorded else Inventory()
    return contact_sheet.section(contact_sheet.read(sweep.folder.contact), inventory)


def _curves(sweep: Sweep, figures: dict[str, Figure]) -> dict[str, Any] | None:
    found = trials.curves(sweep.state, sweep.planned)
    if found is None:
        return None
    figure, shown, there = found
    return {"name": _figure(figures, "curves", figure), "sample_note": sample_note(shown, there)}


def _influences(sweep: Sweep, figures: dict[str, Figure]) -> list[dict[str, Any]]:
    """Return which settings mattered, arm by arm; nothing where nothing is searched."""
    if not any(space.distributions for space in sweep.planned.arms.values()):
        return []
    from orchestrator.report import influence  # loads Optuna's plots

    found = []
    for one in influence.influences(sweep.state, sweep.planned):
        of = f"{one.arm} " if one.arm else ""
        for kind, made in (("slice", one.slices), ("contour", one.contours)):
            figures.update({f"{of}{kind} {name}": figure for name, figure in made.items()})
        found.append(
            {
                "arm": one.arm,
                "trials": one.trials,
                "sample_note": sample_note(one.shown, one.trials),
                "lines": sample_note(min(one.trials, 2 * influence.LINES), one.trials),
                "few": sample_note(min(one.trials, 2 * influence.CONTOUR), one.trials),
                "importances": _figure(figures, f"{of}importances", one.importances),
                "slices": [f"{of}slice {name}" for name in one.slices],
                "parallel": _figure(figures, f"{of}parallel", one.parallel),
                "contours": {name: f"{of}contour {name}" for name in one.contours},
            }
        )
    return found


def _run(sweep: Sweep) -> dict[str, Any]:
    """Return how the sweep was run, and how to run it again."""
    spec, planned = sweep.state.spec, sweep.planned
    tables: dict[str, Mapping[str, Any]] = {
        "data": {"data set": planned.dataset, "folder": planned.data_dir, "subset": planned.subset, **spec.split},
        "search": {
            "trials": planned.trials,
            "aims": ", ".join(map(str, planned.aims)),
            "constraints": ", ".join(map(str, planned.constraints)),
            "sampler": planned.sampler,
            "stopped by": planned.stopping(),
            "seed": planned.seed,
            "formats": ", ".join(f"{key}: {' '.join(form.values())}" for key, form in sweep.state.formats.items()),
            "events lost to damage of the journal": sweep.events.missing or None,
        },
        "hardware": spec.hardware,
        "versions": spec.versions,
        "code": {"revision": spec.revision, "changed since": "yes" if spec.dirty else "no"},
    }
    return {
        "tables": {
            title: [
                (name.replace("_", " "), _as_text(value))
                for name, value in table.items()
                if value not in (None, "", [])
            ]
            for title, table in tables.items()
        },
        "commands": [spec.command, *(again.command for again in spec.resumed)],
        "replay": shlex.join(["python", "-m", "orchestrator.leaderboard", str(sweep.folder.path), "--replay"]),
        "again": _again(spec.command, planned.seed),
        "revision": spec.revision,
        "dirty": spec.dirty,
    }


def _as_text(value: Any) -> str:
    """Return a value of the record as text; of a list, which may name thousands of unreadable rows, the beginning."""
    return ", ".join(map(str, value[:5])) + (" …" if len(value) > 5 else "") if isinstance(value, list) else str(value)


def _again(command: str | None, seed: int) -> str | None:
    """Return the command that runs the same search anew, under a new name."""
    words = shlex.split(command or "")
    if tuple(words[:3]) == COMMAND:
        words = words[3:]
    elif words and words[0] in ("sweep.py", "__main__.py"):  # as earlier versions recorded it
        words = words[1:]
    else:
        return None
    kept: list[str] = []
    for word in words:
        named = bool(kept) and kept[-1] == "--name"
        if named:
            kept.pop()
        elif not word.startswith("--name="):
            kept.append(word)
    given = any(word == "--seed" or word.startswith("--seed=") for word in kept)
    return shlex.join([*COMMAND, *kept, *([] if given else ["--seed", str(seed)])])


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
