"""Nets for small images: the residual nets of He et al. 2015 (arXiv 1512.03385, section 4.2), and a plain CNN."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, pairwise

from torch import Tensor, nn
from torch.nn import functional

from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.models.filling import Filling
from trainables.models.heads import new_head


class CifarBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut without parameters (option A): strided, new channels zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = outputs // inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """Depth 6n + 2: three stages of n blocks with 16, 32 and 64 channels; takes images of any size."""

    def __init__(self, depth: int, make_head: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = [16, *(width for width in (16, 32, 64) for _ in range((depth - 2) // 6))]
        self.blocks = nn.Sequential(*(CifarBlock(*pair) for pair in pairwise(channels)))
        self.fc = make_head(64)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # arXiv:1502.01852, equation 10
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)), inplace=True)
        return self.fc(self.blocks(x).mean((2, 3)))  # type: ignore[no-any-return]


class SimpleCNN(nn.Module):
    """The plain CNN of published comparisons: three times convolution, ReLU and max pooling, then a hidden layer.

    The maps that are flattened for the hidden layer have at most 4 × 4 pixels, averaged from more: it stays small.
    """

    def __init__(self, image_size: int, make_head: Callable[[int], nn.Module]) -> None:
        super().__init__()
        pairs = pairwise((3, 32, 64, 128))
        layers = ((nn.Conv2d(*pair, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for pair in pairs)
        self.features = nn.Sequential(*chain.from_iterable(layers))
        side = min(image_size // 8, 4)
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.hidden = nn.Linear(128 * side**2, 128)
        self.fc = make_head(128)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.features(images)).flatten(1)
        return self.fc(functional.relu(self.hidden(x)))  # type: ignore[no-any-return]


def cifar_resnet(config: TrialConfig, classes: int, image_size: int, filling: Filling | None) -> nn.Module:
    """Build the residual net of the depth in its name; see `build.build`."""
    return CifarResNet(int(config.model.removeprefix("resnet")), lambda inputs: new_head(inputs, classes, config))


def simple_cnn(config: TrialConfig, classes: int, image_size: int, filling: Filling | None) -> nn.Module:
    """Build the plain CNN; see `build.build`."""
    if image_size < 8:
        raise ConfigError(
            f"model={config.model} cannot take images of {image_size}×{image_size} pixels; use images of 8 or more"
        )
    return SimpleCNN(image_size, lambda inputs: new_head(inputs, classes, config))
