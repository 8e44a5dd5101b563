"""A metric of the user's: a function, named as `package.module:function`, that workers compute every epoch.

It is called with the rows' labels, int64 [N], and the model's probabilities, float64 [N, C], whose rows sum to 1, and
returns a finite number; NaN stands for a value that is undefined on these rows.
"""

from __future__ import annotations

import math
import numbers
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables import user_code
from trainables.epoch_metrics import METRICS, RESERVED, TOP, canonical, function_of, is_user_metric, score_name
from trainables.errors import ConfigError, counted, suggestion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

NEEDED = "a function that returns a number"
SYNONYMS = {"log_loss": "val_loss", "cross_entropy": "val_loss", "top5": "val_top5_accuracy", "auc": "val_roc_auc"}
"""Other common names of metrics, for suggestions."""
EXAMPLE = 2**22  # probabilities that a metric is tried on, at most


def problems(text: str) -> list[str]:
    """Return what is wrong with the metric of an option, which may have its direction after it."""
    metric, (name, _, mode) = canonical(text), text.partition(":")
    if name in METRICS and mode and mode != METRICS[name]:
        return [f"--metric {text}: the direction of {name} is always {METRICS[name]}; leave ':{mode}' out"]
    if metric in METRICS:
        return []
    if not is_user_metric(metric):
        meant = SYNONYMS.get(text.removeprefix("val_"), text)
        allowed = f"{', '.join(METRICS)}, or a function of yours, module:function or module:function:min"
        return [f"--metric {text}: unknown{suggestion(meant, METRICS, allowed)}"]
    if score_name(metric) in RESERVED:
        return [f"--metric {text}: {score_name(metric)} is the name of something else; give the function another one"]
    try:
        user_code.find(function_of(metric), f"--metric {text}", NEEDED)
    except ConfigError as error:
        return error.problems
    return []


def problems_with(metric: str, classes: int) -> list[str]:
    """Return why a sweep over so many classes cannot be scored by `metric`; the user's is tried on an example."""
    if metric == "val_top5_accuracy" and classes <= TOP:
        return [
            f"--metric {metric}: of {counted(classes, 'class', 'classes')} all are among the {TOP} likeliest; use "
            f"val_accuracy, or data with more than {TOP} classes"
        ]
    if not is_user_metric(metric):
        return []
    import numpy as np

    rows = min(2 * classes, max(EXAMPLE // classes, 10))
    probabilities = np.random.default_rng(0).random((rows, classes)) + 0.01
    probabilities /= probabilities.sum(1, keepdims=True)
    what = f"--metric {metric}, tried on {counted(rows, 'row')} of {counted(classes, 'class', 'classes')}"
    try:
        found = _value(metric, np.arange(rows, dtype=np.int64) % classes, probabilities, what)
    except ConfigError as error:
        return error.problems
    undefined = f"{what}, returned nan: let it return a finite number where every class has rows"
    return [undefined] if found is None and rows >= classes else []


def source(metric: str) -> Path | None:
    """Return the folder or file with the code of a user's metric; None if it is installed, or no such metric."""
    return user_code.source(function_of(metric)) if is_user_metric(metric) else None


def of_outputs(metric: str, logits: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Return the value of a user's metric under its name, of float logits [N, C] for int64 labels [N]; else nothing.

    It is None where the function returns NaN: undefined.

    Raises:
        ConfigError: the function raised, or returned something other than a finite number.
    """
    if metric in METRICS:
        return {}
    probabilities = logits.double().softmax(1).cpu().numpy()
    return {score_name(metric): _value(metric, labels.cpu().numpy(), probabilities, f"metric={metric}")}


def _value(metric: str, labels: NDArray[np.int64], probabilities: NDArray[np.float64], what: str) -> float | None:
    """Return what the function makes of an example; None for NaN."""
    function = user_code.find(function_of(metric), what, NEEDED)
    with user_code.errors_in(what):
        found: Any = function(labels, probabilities)
    if not isinstance(found, numbers.Real) or isinstance(found, bool) or math.isinf(found):
        shown = f"a {type(found).__name__}" if not isinstance(found, numbers.Real) else repr(found)
        raise ConfigError(f"{what}, returned {shown}: a finite number is needed, such as float(…) of it")
    return None if math.isnan(found) else float(found)
