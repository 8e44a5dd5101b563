"""CIFAR-10: 60,000 color images of 32×32 pixels in ten classes.

    python -m orchestrator.sweep cifar10

With a GPU, 40 trials of ResNet-18 and EfficientNet-B0 for 30 epochs; without one, 16 trials of ResNet-20 for 6 epochs.

Lab note: on two CPU cores (AMD EPYC with AVX-512 BF16, torch 2.15) 16 trials took 25 min 20 s under `asha-stopping`
(n = 1). They trained 51 epochs of about 55 s each in slots of one core; 5 trials completed. The best validation
accuracy was 0.782, that of the other completed trials 0.769 to 0.780. Under `asha` they train 34 epochs, three trials
in full.
"""

from search_spaces.space import SearchSpace, choice, log, uniform
from search_spaces.starts import SGD
from trainables.config import TrialConfig


def space(*, gpu: bool, quick: bool) -> SearchSpace:
    """Return a space with flips, padded crops and one-cycle SGD; the machine decides which models are searched."""
    epochs = (10 if quick else 30) if gpu else (3 if quick else 6)
    base = TrialConfig(
        model="resnet18" if gpu else "resnet20",
        optimizer="sgd",
        schedule="one_cycle",
        warmup=0.2,
        batch_size=256 if gpu else 128,
        max_epochs=epochs,
        flip=True,
        crop_padding=4,
    )
    models = {"model": choice("resnet18", "efficientnet_b0")} if gpu and not quick else {}
    return SearchSpace(
        base=base,
        distributions={
            **models,
            "lr": log(0.01, 0.5),
            "weight_decay": log(1e-5, 5e-3),
            "dropout": uniform(0.0, 0.4),
            "label_smoothing": uniform(0.0, 0.2),
            "train_fraction": uniform(0.5, 1.0),
        },
        trials=(8 if quick else 40) if gpu else (4 if quick else 16),
        subset=None if gpu or not quick else 5_000,
        starts=({**SGD, **({"model": "resnet18"} if models else {})},),
    )
