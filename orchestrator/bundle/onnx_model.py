"""A classifier as ONNX: uint8 images as they are stored in, probabilities out; preprocessing is in the graph."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from orchestrator.bundle.classifier import Classifier
from trainables.batches import center_crop, normalization, normalize


class _Graph(nn.Module):
    """uint8 [B, H, W, C], as they are stored → float32 probabilities [B, classes], at the classifier's temperature."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model, self.config = classifier.module, classifier.config
        mean, std = normalization(self.config.normalization, classifier.mean, classifier.std)
        self.mean, self.std = nn.Buffer(torch.tensor(mean)), nn.Buffer(torch.tensor(std))
        self.temperature = classifier.temperature or 1.0

    def forward(self, images: Tensor) -> Tensor:
        inputs = center_crop(images.permute(0, 3, 1, 2), self.config, self.config.image_size)
        logits: Tensor = self.model(normalize(inputs, self.mean, self.std))
        return (logits / self.temperature).softmax(1)


def encode(classifier: Classifier, described: dict[str, Any]) -> bytes:
    """The ONNX file of a classifier on the CPU. It computes in float32, whatever precision the model was trained in.

    Args:
        described: what the file's metadata shall say, plain JSON values, beside labels and temperature.

    Raises:
        torch.onnx.errors.OnnxExporterError: the exporter does not know one of the model's operations.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        program: Any = torch.onnx.export(
            _Graph(classifier).eval(),
            (torch.from_numpy(_images(classifier.shape)),),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    metadata = {"labels": list(classifier.classes), "temperature": classifier.temperature, **described}
    program.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})
    return bytes(program.model_proto.SerializeToString())


def difference(content: bytes, classifier: Classifier) -> float:
    """The largest one, on some images, between an ONNX file's probabilities and those of prediction in float32."""
    import onnxruntime

    exact = replace(classifier, config=classifier.config.replace(precision="float32"))
    session, images = onnxruntime.InferenceSession(content), _images(classifier.shape)
    some = (images, images[:1])  # the batch is free
    found = [session.run(None, {"images": part})[0] - exact.probabilities(part) for part in some]
    return max(float(np.abs(part).max()) for part in found)


def _images(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Three of noise and one that goes from black to white, [4, H, W, C]; the same whenever."""
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    images[-1] = np.linspace(0, 255, shape[1]).astype(np.uint8)[None, :, None]
    return images
