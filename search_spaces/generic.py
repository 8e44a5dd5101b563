"""Any other data set without pretrained nets: a space that suits images of any kind.

    python -m orchestrator.sweep path/to/parquet --weights none

With a GPU, 30 trials of ResNet-18 and EfficientNet-B0 for 20 epochs; without one, 16 trials of ResNet-20 for 9 epochs.
"""

from search_spaces.space import SearchSpace, choice, log, uniform
from search_spaces.starts import ADAMW
from trainables.config import TrialConfig


def space(*, gpu: bool, quick: bool) -> SearchSpace:
    """Return a space with AdamW, flips, small shifts and zooms; the machine decides which models are searched."""
    epochs = 3 if quick else (20 if gpu else 9)
    return SearchSpace(
        base=TrialConfig(
            model="resnet18" if gpu else "resnet20",
            optimizer="adamw",
            schedule="one_cycle",
            warmup=0.2,
            batch_size=64,
            max_epochs=epochs,
            flip=True,
            shift=0.1,
            scale=0.1,
        ),
        distributions={
            **({"model": choice("resnet18", "efficientnet_b0")} if gpu and not quick else {}),
            "lr": log(1e-4, 1e-2),
            "weight_decay": log(1e-5, 1e-1),
            "dropout": uniform(0.0, 0.4),
            "label_smoothing": uniform(0.0, 0.2),
            "train_fraction": uniform(0.5, 1.0),
        },
        trials=4 if quick else (30 if gpu else 16),
        starts=({**ADAMW, **({"model": "resnet18"} if gpu and not quick else {})},),
    )
