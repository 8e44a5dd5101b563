"""The reliability diagram: how often predictions are right, by the probability that they are given."""

from __future__ import annotations

from orchestrator.record.state import TrialRecord
from orchestrator.report.figures import BLUE, GREY, Figure, plain


def diagram(trial: TrialRecord) -> Figure | None:
    """Plot the share of correct predictions against their mean probability, bin by bin, on the test set.

    None if the trial was not measured there, or by an earlier version. (DeGroot and Fienberg 1983; the bins are those
    of the expected calibration error.)
    """
    test = trial.final_metrics.get("test")
    if test is None or not test.reliability:
        return None
    rows, probabilities, shares = zip(*test.reliability, strict=True)
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [0, 1],
            "y": [0, 1],
            "name": "as often as stated",
            "line": {"color": GREY, "dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": probabilities,
            "y": shares,
            "customdata": rows,
            "name": "test set",
            "cliponaxis": False,
            "line": {"color": BLUE},
            "marker": {"color": BLUE, "size": [6 + 18 * (n / max(rows)) ** 0.5 for n in rows]},
            "hovertemplate": "%{customdata} rows with a probability of %{x:.2f}: %{y:.2f} correct<extra></extra>",
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "probability of the prediction"}, "range": [0, 1.02]},
        "yaxis": {"title": {"text": "share that is correct"}, "range": [0, 1.02]},
        "height": 340,
    }
    return plain({"data": traces, "layout": layout})  # type: ignore[no-any-return]
