"""scikit-learn's digits: 1,797 grey images of 8×8 pixels. The default sweep, for a first look on any machine.

    python -m orchestrator.sweep digits

Lab note: on two CPU cores 24 trials took 23.4 to 24.7 s from the command to the leaderboard, with a best validation
accuracy of 0.993 to 0.997 (3 seeds, `benchmarks/evidence/digits_sweep.json`). The validation set has 288 rows, so a
difference of less than 0.01 is luck.
"""

from search_spaces.space import SearchSpace, log, uniform
from search_spaces.starts import SGD
from trainables.config import TrialConfig


def space(*, gpu: bool, quick: bool) -> SearchSpace:
    """Return a space with ResNet-8, shifts and small rotations: small enough for two CPU cores, the same on a GPU."""
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
        starts=(SGD,),
    )
