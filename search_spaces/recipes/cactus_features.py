"""Is there a cactus? Frozen ResNet-50 against frozen EfficientNet-B0 (Pan and Karim 2025), aerial pictures, 32 pixels.

    python -m orchestrator.sweep --recipe cactus-features --data-dir DIR

What the paper did: it used 17,500 images, 13,136 of them with a cactus; a stratified split of 70:15:15; normalization
by mean and standard deviation of the training part; cross-entropy weighted by inverse class frequency; ResNet-50 with
all convolutions frozen and a head that narrows to two outputs; EfficientNet-B0 with the same classifier; 500 epochs
with a learning rate of 0.0005.

What it leaves out, and what this recipe uses: the optimizer and the batch size (Adam, 64); whether EfficientNet-B0 is
frozen (yes); the head (2048 or 1280 → 128 → 2 with two outputs and cross-entropy; the paper names this, and a sigmoid
as well); weights and stem (those of ImageNet for both nets); the epoch that is measured (the best one on the validation
part). Precision, recall and F1 are those of the rarer class, "no cactus", which is label 0 in the CSV. The AUC that the
paper reports is computed from hard labels, which is `test_balanced_accuracy` here; `test_roc_auc` is computed from
scores.

The base is frozen and no image is augmented, so the features are computed once a sweep: 500 epochs take minutes on two
cores.

The quick variant: no ImageNet weights, 1,500 rows, 20 epochs.

Results: see docs/recipes.md.
"""

from search_spaces.recipe import Arm, Recipe
from trainables.config import TrialConfig

METRICS = ("test_accuracy", "test_f1", "test_precision", "test_recall", "test_balanced_accuracy")
REPORTED = {
    "resnet50": (0.967, 0.934, 0.930, 0.937, 0.957),
    "efficientnet_b0": (0.996, 0.993, 0.986, 1.0, 0.998),
}


def arms(dataset: str) -> dict[str, Arm]:
    """Return an arm for each of the two nets, alike in all other settings."""
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
        image_size=32,
        interpolation="bilinear",
        normalization="train",
        positive_class="rarest",
    )
    return {
        name: Arm(base.replace(model=name), dict(zip(METRICS, values, strict=True)))
        for name, values in REPORTED.items()
    }


RECIPE = Recipe(
    paper="Pan and Karim 2025",
    datasets={"cactus": 17_500},
    published=arms,
    shown=(*METRICS, "test_roc_auc", "train_s", "test_s", "peak_memory_mb"),
    quick={"weights": "none", "max_epochs": 20},
    quick_subset=1_500,
)
