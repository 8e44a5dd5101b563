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
    initial_weights: str


def kept_model(folder: SweepFolder, confirmed: Confirmation | None) -> KeptModel | None:
    """Return what the report says of the model in `best/`; None if there is none, or an earlier version wrote it."""
    there = bundle.description(folder.bundle)
    if there is None or there.kind is None:
        return None
    runs = [str(member.trial) for member in there.members] or [str(there.trial)]
    title = f"the mean of trials {listed(runs)}" if there.members else f"trial {there.trial}"
    return KeptModel(
        title, KINDS.get(there.kind, KINDS[SEARCHED]), _scores(there, confirmed), initial_weights_text(there)
    )


def _scores(there: Description, confirmed: Confirmation | None) -> str:
    """Return whose the scores are, if they are not the model's, and what it reached itself."""
    own = None if confirmed is None else {ENSEMBLE: confirmed.ensemble, REFIT: confirmed.refit}.get(str(there.kind))
    if confirmed is None or own is None:
        return ""
    result = own.to_dict() if isinstance(own, Ensemble) else refit_result(own)
    tested = "it was not measured there"
    if result["test_accuracy"] is not None:
        tested = f"its accuracy there is {result['test_accuracy']:.4f} {between(result['wilson'])}"
    trained = there.twin is not None
    whose = f"of run {confirmed.model.number}" + (", a twin that did not see the validation set" if trained else "")
    seen = " This model was trained on these rows, and cannot be scored on them." if trained else ""
    return f"The scores on this page are {whose}.{seen} On the test set, which neither saw, {tested}."
