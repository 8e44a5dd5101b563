"""The model that stands in `best/`: which it is, why, whose the scores on the page are, and what it began with."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.assessment.confirmation import Confirmation
from orchestrator.assessment.ensemble import Ensemble, refit_result
from orchestrator.bundle import bundle
from orchestrator.bundle.documents import ENSEMBLE, KINDS, REFIT, SEARCHED, Description
from orchestrator.bundle.model_card import initial_weights_text
from orchestrator.display.text import between
from orchestrator.record.paths import SweepFolder
from trainables.errors import listed


@dataclass(frozen=True)
class KeptModel:
    """Sentences about a model in a bundle."""

    title: str
    why: str
    scores: str  # empty where the scores on the page are its own
    tested: str  # its accuracy on the test set, where it is none of the runs that the page is about
    initial_weights: str


def kept_model(folder: SweepFolder, confirmed: Confirmation | None) -> KeptModel | None:
    """Return what the report says of the model in `best/`; None if there is none, or an earlier version wrote it."""
    there = bundle.description(folder.bundle)
    if there is None or there.kind is None:
        return None
    runs = [str(member.trial) for member in there.members] or [str(there.trial)]
    title = f"the mean of trials {listed(runs)}" if there.members else f"trial {there.trial}"
    own = None if confirmed is None else {ENSEMBLE: confirmed.ensemble, REFIT: confirmed.refit}.get(there.kind)
    scores = tested = ""
    if confirmed is not None and own is not None:
        result = own.to_dict() if isinstance(own, Ensemble) else refit_result(own)
        tested = "no measured accuracy"
        if result["test_accuracy"] is not None:
            tested = f"accuracy {result['test_accuracy']:.4f} {between(result['wilson'])}"
        scores = _scores(there, confirmed, tested)
    why = KINDS.get(there.kind, KINDS[SEARCHED])
    return KeptModel(title, why, scores, tested, initial_weights_text(there))


def _scores(there: Description, confirmed: Confirmation, tested: str) -> str:
    """Return whose the scores on the page are, as they are not the model's, and what it reached itself."""
    run, rows = f"run {confirmed.model.number}", ""
    if there.twin is not None:
        run, rows = f"{run}, which trained on fewer rows", " This model was trained on the rows that they are of."
    return f"The other numbers here are of {run}.{rows} On the test set, which neither saw, it has {tested}."
