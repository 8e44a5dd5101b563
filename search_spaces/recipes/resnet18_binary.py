"""Made by a machine or by a person: ResNet-18 on pictures of both (Mihai and Filimonova 2025).

    python -m orchestrator.sweep --recipe resnet18-binary --data-dir DIR

What the paper did: stratified 80:20, training and validation; random resized crops to 224, flip, rotation within
±30°, colour jitter; a pretrained ResNet-18; Adam, 0.001, batches of 64, at most 30 epochs; the rate lowered on
fluctuations of the loss; early stopping with patience 5; mixed precision; class balancing. It stopped at epoch 24.

What it leaves out, and what was taken: frozen or not: all layers are trained; jitter: ±0.2 each; the crop of
validation images: the middle; the schedule: a plateau of the validation loss, a tenth of the rate after two epochs
without a better one; the balancing: weights by inverse frequency. Its training figures are those of the augmented
images, ours (`train_…`) are in evaluation mode; its validation part decides when to stop, so figures on it are no
test.

Asked for by its authors, and arms here: a cyclical learning rate, normalisation by the data set's own statistics, a
Vision Transformer. Pictures from elsewhere: `--external-test DIR`.

Pictures of many sizes are stored as squares of at most 320 pixels (`--stored-side`).

The quick form: no ImageNet weights, 64 pixels, 600 rows, 2 epochs; 32 pixels, four patches of 16, for the transformer.

Lab note: see docs/recipes.md.
"""

from search_spaces.recipe import Arm, Recipe
from trainables.config import TrialConfig

PAPER = TrialConfig(
    model="resnet18",
    stem="imagenet",
    weights="imagenet",
    optimizer="adam",
    lr=0.001,
    weight_decay=0.0,
    schedule="plateau",
    batch_size=64,
    max_epochs=30,
    patience=5,
    class_weights="inverse",
    split="80:20",
    epoch="rows",
    image_size=224,
    evaluation_crop=224 / 256,
    normalization="imagenet",
    flip=True,
    resized_crop=0.08,
    rotation=30.0,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
)
REPORTED = {
    "train_accuracy": 0.9539,
    "train_loss": 0.1159,
    "validation_accuracy": 0.9525,
    "validation_loss": 0.1201,
    "epochs": 24,
}


def arms(dataset: str) -> dict[str, Arm]:
    """The paper's, and what its authors would like to see tried, each alone."""
    return {
        "resnet18": Arm(PAPER, REPORTED),
        "cyclic": Arm(PAPER.replace(schedule="cyclic")),
        "own-normalization": Arm(PAPER.replace(normalization="train")),
        "vit": Arm(PAPER.replace(model="vit_b_16")),
    }


RECIPE = Recipe(
    paper="Mihai and Filimonova 2025",
    datasets={"ai-vs-human": None},
    published=arms,
    shown=(
        "validation_accuracy",
        "validation_loss",
        "train_accuracy",
        "train_loss",
        "validation_f1",
        "validation_roc_auc",
        "external_accuracy",
        "epochs",
        "train_s",
    ),
    quick={"weights": "none", "image_size": 64, "max_epochs": 2},
    quick_subset=600,
    quick_arms={"vit": {"image_size": 32}},
)
