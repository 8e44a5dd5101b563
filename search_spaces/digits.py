"""scikit-learn's digits: 1,797 grey images of 8×8. The default sweep, for a first look on any machine.

    python -m orchestrator.sweep digits

Lab note: two CPU cores, 24 trials: 16–19 s from the command to the leaderboard, best validation accuracy 0.990–1.000
over 3 seeds (`benchmarks/evidence/digits_sweep.json`). The core has 288 rows: scores differ by luck below 0.01.
"""

from search_spaces.space import SearchSpace, log, uniform
from trainables.config import TrialConfig


def space(*, gpu: bool, quick: bool) -> SearchSpace:
    """ResNet-8 with shifts and small rotations: small enough for two CPU cores, the same on a GPU."""
    return SearchSpace(
        base=TrialConfig(
            model="resnet8",
            optimizer="sgd",
            schedule="one_cycle",
            warmup=0.2,
            batch_size=64,
            max_epochs=4 if quick else 9,
            shift=0.1,
            rotation=8.0,
        ),
        distributions={
            "lr": log(0.02, 1.0),
            "weight_decay": log(1e-5, 1e-2),
            "dropout": uniform(0.0, 0.3),
            "label_smoothing": uniform(0.0, 0.15),
            "train_fraction": uniform(0.4, 1.0),
        },
        trials=6 if quick else 24,
    )
