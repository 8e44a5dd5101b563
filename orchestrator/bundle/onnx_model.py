"""A classifier as ONNX: from uint8 images, as they are stored, to probabilities; preprocessing is in the graph."""

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
    """Stored images, uint8 [B, H, W, C] → float32 probabilities [B, classes], at the classifier's temperature."""

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


def encode(classifier: Classifier, description: dict[str, Any]) -> bytes:
    """Return the ONNX file of a classifier on the CPU. It computes in float32, whatever precision was trained in.

    Args:
        description: metadata for the file beside labels and temperature, plain JSON values.

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
    metadata = {"labels": list(classifier.classes), "temperature": classifier.temperature, **description}
    program.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})
    return bytes(program.model_proto.SerializeToString())


def difference(content: bytes, classifier: Classifier) -> float:
    """Return the largest difference, on some images, between an ONNX file's probabilities and torch's in float32."""
    import onnxruntime

    exact = replace(classifier, config=classifier.config.replace(precision="float32"))
    session, images = onnxruntime.InferenceSession(content), _images(classifier.shape)
    batches = (images, images[:1])  # the batch size is free
    differences = [session.run(None, {"images": batch})[0] - exact.probabilities(batch) for batch in batches]
    return max(float(np.abs(difference).max()) for difference in differences)


def _images(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return three images of noise and one that goes from black to white, [4, H, W, C]; always the same."""
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    images[-1] = np.linspace(0, 255, shape[1]).astype(np.uint8)[None, :, None]
    return images
