"""An improved ResNet-50 by transfer learning (Shi, Hu, Yu, Jiang 2025): plain against improved, on CIFAR-10.

    python -m orchestrator.sweep --recipe improved-resnet50

What the paper did: it trained ResNet-50 on the official 50,000 and tested it on the official 10,000 images, with
batches of 64, for 50 epochs. Its improvements are ImageNet weights, flip and padded crop, smoothed labels (ε/(c − 1) on
each wrong class) and a cosine schedule. They raised test accuracy, the mean of the classes' accuracies, from 87.50 % to
93.75 %.

What it leaves out, and what this recipe uses: the plain arm, "original ResNet50" (random weights, no augmentation,
one-hot targets, a constant learning rate); frozen layers (none); ε (0.1); the optimizer (SGD with Nesterov momentum
0.9, learning rate 0.01, to 0 with the cosine schedule, no weight decay); the stem (the net's original one, made for 224
pixels, on images of 32). Mean and standard deviation are 0.5 in all arms. Each of the four changes also has an arm in
which it is the only one.

The quick variant: ResNet-8, for which there are no weights to transfer, so it has no arm for them; 2,000 rows, 4
epochs. It shows that everything runs, not the paper's effect. `benchmarks/improved_resnet.py` runs a reduced version
that is large enough to compare the arms.

Results: see docs/recipes.md.
"""

from typing import Any

from search_spaces.recipe import Arm, Recipe
from trainables.config import TrialConfig

PLAIN = TrialConfig(
    model="resnet50",
    stem="imagenet",
    optimizer="sgd",
    lr=0.01,
    weight_decay=0.0,
    schedule="constant",
    batch_size=64,
    max_epochs=50,
    selection="last",
    split="official",
    epoch="rows",
    image_size=32,
    interpolation="bilinear",
    normalization="half",
)
CHANGES: dict[str, dict[str, Any]] = {
    "transfer": {"weights": "imagenet"},
    "augmentation": {"flip": True, "crop_padding": 4},
    "label-smoothing": {"label_smoothing": 0.1, "smoothed_over": "others"},
    "cosine": {"schedule": "cosine"},
}


def arms(dataset: str) -> dict[str, Arm]:
    """Return the plain arm, one for each change alone, and one for all four together."""
    single = {name: Arm(PLAIN.replace(**change)) for name, change in CHANGES.items()}
    every = {field: value for change in CHANGES.values() for field, value in change.items()}
    return {
        "plain": Arm(PLAIN, {"test_balanced_accuracy": 0.8750}),
        **single,
        "improved": Arm(PLAIN.replace(**every), {"test_balanced_accuracy": 0.9375}),
    }


RECIPE = Recipe(
    paper="Shi, Hu, Yu, Jiang 2025",
    datasets={"cifar10": 60_000},
    published=arms,
    shown=("test_balanced_accuracy", "test_accuracy", "test_f1", "test_loss", "train_test_gap", "train_s"),
    quick={"model": "resnet8", "weights": "none", "max_epochs": 4},
    quick_subset=2_000,
    quick_arms={"transfer": None},
)
