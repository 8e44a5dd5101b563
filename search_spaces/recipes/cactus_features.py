"""Is there a cactus: a frozen ResNet-50 against EfficientNet-B0 (Pan and Karim 2025), aerial pictures of 32 pixels.

    python -m orchestrator.sweep --recipe cactus-features --data-dir DIR

What the paper did: 17,500 images, 13,136 with a cactus; stratified 70:15:15; normalised by mean and deviation of the
training part; cross-entropy weighted by inverse class frequency; ResNet-50 with all convolutions frozen and a head
that narrows to two outputs; EfficientNet-B0 with the same classifier; 500 epochs at a rate of 0.0005.

What it leaves out, and what was taken: the optimizer and the batch: Adam, 64; whether EfficientNet-B0 is frozen: it
is; the head: 2048 or 1280 → 128 → 2 with two outputs and cross-entropy (the paper says that, and sigmoid as well);
ImageNet weights and stem for both; the epoch: the best on the validation part. Precision, recall and F1 are those of
the minority, no cactus: label 0 of the CSV. The AUC that the paper reports is that of hard labels, which is
`test_balanced_accuracy` here; `test_roc_auc` is that of scores.

The base is frozen and nothing is augmented, so features are computed once a sweep: 500 epochs take minutes on two
cores.

The quick form: no ImageNet weights, 1,500 rows, 20 epochs.

Lab note: see docs/recipes.md.
"""

from search_spaces.recipe import Arm, Recipe
from trainables.config import TrialConfig

FIGURES = ("test_accuracy", "test_f1", "test_precision", "test_recall", "test_balanced_accuracy")
REPORTED = {
    "resnet50": (0.967, 0.934, 0.930, 0.937, 0.957),
    "efficientnet_b0": (0.996, 0.993, 0.986, 1.0, 0.998),
}


def arms(dataset: str) -> dict[str, Arm]:
    """The two nets, alike in all else."""
    base = TrialConfig(
        stem="imagenet",
        weights="imagenet",
        freeze=True,
        head_width=128,
        optimizer="adam",
        lr=0.0005,
        weight_decay=0.0,
        schedule="constant",
        batch_size=64,
        max_epochs=500,
        class_weights="inverse",
        split="70:15:15",
        epoch="rows",
        positive_class="rarest",
    )
    return {
        name: Arm(base.replace(model=name), dict(zip(FIGURES, figures, strict=True)))
        for name, figures in REPORTED.items()
    }


RECIPE = Recipe(
    paper="Pan and Karim 2025",
    datasets={"cactus": 17_500},
    published=arms,
    shown=(*FIGURES, "test_roc_auc", "train_s", "test_s", "peak_memory_mb"),
    quick={"weights": "none", "max_epochs": 20},
    quick_subset=1_500,
)
