"""A simple CNN, VGG-16 and ResNet-50 on Fruits-360: who learns the fruit, and who the pictures.

    python -m orchestrator.sweep --recipe cnn-comparison --data-dir DIR --external-test OTHER

What the paper did (only its abstract is at hand): trained the three on Fruits-360, 100×100 pixels, and tried them on
pictures made for the comparison; the big nets do well, and ResNet-50 over-fits, since the training pictures look
alike.

What it leaves out, and what was taken: ImageNet weights for VGG-16 and ResNet-50, random ones for the CNN; all layers
trained; Adam, 0.001 for the CNN and 0.0001 for the others; batches of 64, 10 epochs, dropout 0.5, no augmentation;
the data set's own training and test pictures.

The gaps are the finding: `train_test_gap` is training accuracy less test accuracy, in evaluation mode, and
`test_external_gap` test accuracy less that on the pictures of `--external-test DIR`, class folders named as those of
the data set.

The quick form: no ImageNet weights, 32 pixels, 600 rows, 2 epochs.

Lab note: see docs/recipes.md.
"""

from search_spaces.recipe import Arm, Recipe
from trainables.config import TrialConfig

CNN = TrialConfig(
    model="simple_cnn",
    optimizer="adam",
    lr=0.001,
    weight_decay=0.0,
    schedule="constant",
    batch_size=64,
    max_epochs=10,
    dropout=0.5,
    selection="last",
    split="official",
    epoch="rows",
    image_size=100,
    normalization="imagenet",
)


def arms(dataset: str) -> dict[str, Arm]:
    """The three nets."""
    large = CNN.replace(stem="imagenet", weights="imagenet", lr=0.0001)
    return {
        "simple-cnn": Arm(CNN),
        "vgg16": Arm(large.replace(model="vgg16")),
        "resnet50": Arm(large.replace(model="resnet50")),
    }


RECIPE = Recipe(
    paper="a simple CNN, VGG-16 and ResNet-50 on Fruits-360",
    datasets={"fruits-360": None},
    published=arms,
    shown=(
        "train_accuracy",
        "test_accuracy",
        "external_accuracy",
        "train_test_gap",
        "test_external_gap",
        "test_f1",
        "train_s",
        "test_s",
        "peak_memory_mb",
    ),
    quick={"weights": "none", "image_size": 32, "max_epochs": 2},
    quick_subset=600,
)
