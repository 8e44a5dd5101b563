"""Made by a machine or by a person? ResNet-18 on pictures of both kinds (Mihai and Filimonova 2025).

    python -m orchestrator.sweep --recipe resnet18-binary --data-dir DIR

What the paper did: it used a stratified split of 80:20 for training and validation; random resized crops to 224 pixels,
flip, rotation within ±30° and color jitter; a pretrained ResNet-18; Adam with a learning rate of 0.001, batches of 64
and at most 30 epochs; a learning rate that is lowered when the loss fluctuates; early stopping with a patience of 5;
mixed precision; class balancing. Training stopped at epoch 24.

What it leaves out, and what this recipe uses: frozen layers (none); the jitter (±0.2 each); the crop of validation
images (the center); the schedule (a tenth of the learning rate after two epochs without a better validation loss); the
balancing (weights by inverse class frequency). The paper's training metrics are those of the augmented images; ours
(`train_…`) are measured in evaluation mode. Its validation part decides when training stops, so metrics on that part
are no test.

Its authors ask for a cyclical learning rate, normalization by the data set's own statistics and a Vision Transformer;
each of these is an arm. Pictures from elsewhere: `--external-test DIR`.

Pictures of different sizes are stored as squares of at most 320 pixels (`--stored-side`).

The quick variant: no ImageNet weights, 64 pixels, 600 rows, 2 epochs; for the transformer 32 pixels, which are four
patches of 16.

Results: see docs/recipes.md.
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
    interpolation="bilinear",
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
    """Return the paper's arm, and one for each change that its authors suggest."""
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
