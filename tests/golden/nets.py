"""A model that breaks while it is trained: it makes the failed trials of the golden sweep."""

from torch import Tensor, nn


class Breaking(nn.Module):
    """A linear model that raises in its eighth training step."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        self.steps = 0
        self.fc = nn.Linear(in_channels * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        if self.steps == 8:
            raise RuntimeError("this model always breaks in step 8")
        logits: Tensor = self.fc(images.flatten(1))
        return logits


def breaking(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Return a model that breaks."""
    return Breaking(num_classes, in_channels, image_size)
