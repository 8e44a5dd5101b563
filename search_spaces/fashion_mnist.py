"""Fashion-MNIST: 70,000 grey pictures of clothes, 28×28 pixels, in ten classes.

    python -m orchestrator.sweep fashion-mnist

With a GPU, 30 trials of ResNet-18 and EfficientNet-B0 for 20 epochs; without one, 16 trials of ResNet-20 for 5 epochs.

Lab note: no sweep over this space has been timed. By its pixels and rows an epoch of ResNet-20 costs
28² / 32² × 48,000 / 40,000 = 0.92 of one on CIFAR-10, for which see `cifar10.py`.
"""

from search_spaces.space import SearchSpace, choice, log, uniform
from search_spaces.starts import SGD
from trainables.config import TrialConfig


def space(*, gpu: bool, quick: bool) -> SearchSpace:
    """Return a space with flips, small padded crops and one-cycle SGD."""
    return SearchSpace(
        base=TrialConfig(
            model="resnet18" if gpu else "resnet20",
            optimizer="sgd",
            schedule="one_cycle",
            warmup=0.2,
            batch_size=256 if gpu else 128,
            max_epochs=(5 if quick else 20) if gpu else (3 if quick else 5),
            flip=True,
            crop_padding=2,
        ),
        distributions={
            **({"model": choice("resnet18", "efficientnet_b0")} if gpu and not quick else {}),
            "lr": log(0.01, 0.5),
            "weight_decay": log(1e-5, 5e-3),
            "dropout": uniform(0.0, 0.4),
            "label_smoothing": uniform(0.0, 0.2),
            "train_fraction": uniform(0.5, 1.0),
        },
        trials=(8 if quick else 30) if gpu else (4 if quick else 16),
        subset=None if gpu or not quick else 5_000,
        starts=({**SGD, **({"model": "resnet18"} if gpu and not quick else {})},),
    )
