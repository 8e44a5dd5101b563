"""A classifier as ONNX: from uint8 views of images (`Classifier.views`) to probabilities; normalization is inside."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from orchestrator.bundle.classifier import Classifier
from trainables.batches import normalization, normalize
from trainables.errors import ConfigError
from trainables.operators import from_nhwc
from trainables.views import center_crop


class _Graph(nn.Module):
    """Views of images, uint8 [B, S, S, C] → float32 probabilities [B, classes], at the classifier's temperature."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model, self.config = classifier.module, classifier.config
        self.size = classifier.input_size
        mean, std = normalization(
            self.config.normalization, classifier.preprocessing.mean, classifier.preprocessing.std
        )
        self.mean, self.std = nn.Buffer(torch.tensor(mean)), nn.Buffer(torch.tensor(std))
        self.temperature = classifier.temperature or 1.0

    def forward(self, images: Tensor) -> Tensor:
        inputs = from_nhwc(center_crop(images, self.size))
        logits: Tensor = self.model(normalize(inputs, self.mean, self.std))
        return (logits / self.temperature).softmax(1)


class _MeanGraph(nn.Module):
    """The same of an ensemble: the mean of its members' probabilities, at a temperature of its own."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.members = nn.ModuleList(map(_Graph, (classifier, *classifier.others)))
        self.temperature = classifier.mean_temperature or 1.0

    def forward(self, images: Tensor) -> Tensor:
        mean = torch.stack([member(images) for member in self.members]).mean(0)
        return (mean.clamp_min(torch.finfo(mean.dtype).tiny).log() / self.temperature).softmax(1)


def encode(classifier: Classifier, description: dict[str, Any]) -> bytes:
    """Return the ONNX file of a classifier on the CPU. It computes in float32, as the classifier does.

    All members of an ensemble are in the one graph.

    Args:
        description: metadata for the file beside labels and temperature, plain JSON values.

    Raises:
        ConfigError: the members of an ensemble are not given the same pixels of a picture.
        torch.onnx.errors.OnnxExporterError: the exporter does not know one of the model's operations.
    """
    if len({(one.view_shape, one.config.fit) for one in (classifier, *classifier.others)}) > 1:
        raise ConfigError("its members see pictures in different sizes, and an ONNX file has one input: use predict")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        program: Any = torch.onnx.export(
            (_MeanGraph if classifier.others else _Graph)(classifier).eval(),
            (torch.from_numpy(_images(classifier)),),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    metadata = {"labels": list(classifier.classes), "temperature": _temperature(classifier), **description}
    program.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})
    return bytes(program.model_proto.SerializeToString())


def difference(content: bytes, classifier: Classifier) -> float:
    """Return the largest difference, on some images, between an ONNX file's probabilities and torch's."""
    import onnxruntime

    session, images = onnxruntime.InferenceSession(content), _images(classifier)
    batches = (images, images[:1])  # the batch size is free
    differences = [session.run(None, {"images": batch})[0] - classifier.probabilities(batch) for batch in batches]
    return max(float(np.abs(difference).max()) for difference in differences)


def _temperature(classifier: Classifier) -> float | None:
    """Return the last temperature that is applied: that of the model, or of an ensemble's mean."""
    return classifier.mean_temperature if classifier.others else classifier.temperature


def _images(classifier: Classifier) -> NDArray[np.uint8]:
    """Return views of three images of noise and one that goes from black to white, [4, S, S, C]; always the same."""
    shape = classifier.view_shape
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    images[-1] = np.linspace(0, 255, shape[1]).astype(np.uint8)[None, :, None]
    return images
