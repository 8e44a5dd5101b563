"""A simple CNN, VGG-16 and ResNet-50 on Fruits-360: which one learns the fruit, and which one the pictures?

    python -m orchestrator.sweep --recipe cnn-comparison --data-dir DIR --external-test OTHER

What the paper did (only its abstract was available): it trained the three nets on Fruits-360, 100×100 pixels, and
tested them on pictures that were taken for the comparison. The large nets do well, and ResNet-50 overfits, since the
training pictures look alike.

What it leaves out, and what this recipe uses: the weights (ImageNet's for VGG-16 and ResNet-50, random ones for the
CNN); the layers that are trained (all); the optimizer and its learning rate (Adam, 0.001 for the CNN and 0.0001 for the
others); batches of 64; 10 epochs; dropout 0.5; no augmentation; the data set's official training and test pictures.

The gaps are the finding: `train_test_gap` is training accuracy minus test accuracy, in evaluation mode, and
`test_external_gap` is test accuracy minus the accuracy on the pictures of `--external-test DIR`, whose class folders
are named like the classes of the data set.

The quick variant: no ImageNet weights, 32 pixels, 600 rows, 2 epochs.

Results: see docs/recipes.md.
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
    interpolation="bilinear",
    normalization="imagenet",
)


def arms(dataset: str) -> dict[str, Arm]:
    """Return an arm for each of the three nets."""
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
