"""Export a sweep's best model to one ONNX file, to be run without torch.

    python -m orchestrator.onnx results/NAME/best model.onnx

Heavy libraries are imported where they are needed, so that wrong input is answered before torch is loaded.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from trainables.command_line import DONE, FAILED, INTERRUPTED, complain, option, parse, show
from trainables.errors import ConfigError
from trainables.files import replace_file, unwritable

if TYPE_CHECKING:
    from orchestrator.bundle.bundle import Bundle

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of probabilities: ONNX Runtime sums in another order than torch
LARGEST = 2**31 - 2**20  # bytes of weights: an ONNX file in one piece holds less than 2 GiB


class ExportError(RuntimeError):
    """The model cannot be exported, or the ONNX file computes other probabilities than the model."""


@dataclass(frozen=True)
class OnnxOptions:
    """Export a sweep's best model to one ONNX file, and check that the file computes the same.

    It needs onnx, onnxscript and onnxruntime: pip install 'sweep-orchestrator[onnx]'.

    The file computes in float32, crop, views, normalization and temperature included; see docs/formats.md:
      images         the squares that the model sees of pictures, uint8 [batch, S, S, channels]: of bundle.load(…).views
      probabilities  float32 [batch, classes], in the order of the labels
      metadata       labels and origin

    Exit codes:
      0    done
      1    the model cannot be exported, or its probabilities differ; nothing is written
      2    the command was wrong
      130  interrupted

    Examples:
      python -m orchestrator.onnx results/NAME/best model.onnx
    """

    bundle: Annotated[Path, Positional, option("BUNDLE")]
    """The sweep's model: the folder best/ in the sweep's folder."""
    file: Annotated[Path, Positional, option("FILE.onnx")]
    """File to write. An existing file is replaced."""
    trust: Annotated[str | None, option("MODULE:FACTORY")] = None
    """Code that builds the bundle's model, if it is not built in. It is imported and run only if you name it here."""


def export(options: OnnxOptions) -> None:
    """Write the ONNX file, complete and checked, or not at all.

    Raises:
        ConfigError, BundleError: an option or the bundle is wrong; every problem is named.
        ExportError: the model cannot be exported, or its probabilities differ.
        OSError: the disk is full or cannot be written.
    """
    bundle = _check(options)
    from torch.onnx.errors import OnnxExporterError

    from orchestrator.bundle import onnx_model

    classifier, name = bundle.classifier("cpu", options.trust), bundle.config.model
    try:
        content = onnx_model.encode(classifier, {"model": name, **bundle.description.origin})
    except OnnxExporterError as error:
        raise ExportError(f"{name} cannot be exported to ONNX: {str(error).splitlines()[0]}") from error
    difference = onnx_model.difference(content, classifier)
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{name} as ONNX has probabilities that differ from torch's by {difference:.2g}, over {TOLERANCE:g}"
        )
    replace_file(options.file, content)
    height, width, channels = classifier.view_shape
    show(
        f"{options.file}: {len(content) / 2**20:.1f} MiB, uint8 [batch, {height}, {width}, {channels}] → "
        f"float32 [batch, {len(classifier.classes)}]; its probabilities differ from torch's by {difference:.1g} at most"
    )


def _check(options: OnnxOptions) -> Bundle:
    """Return the bundle; raise as `export`."""
    from orchestrator.bundle.bundle import BundleError, read

    problems, bundle = [], None
    try:
        bundle = read(options.bundle)
        problems += bundle.code_problems(options.trust)
        if len(bundle.weights) > LARGEST:
            problems.append(
                f"{options.bundle}: its weights have {len(bundle.weights):,} bytes; an ONNX file holds {LARGEST:,}"
            )
    except BundleError as error:
        problems += error.problems
    if options.file.suffix != ".onnx":
        problems.append(f"{options.file}: the file's name must end in .onnx")
    if problem := unwritable(options.file):
        problems.append(problem)
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        problems.append(f"ONNX needs {', '.join(missing)}: pip install 'sweep-orchestrator[onnx]'")
    if bundle is None or problems:
        raise ConfigError(*problems)
    return bundle


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parse(OnnxOptions, "python -m orchestrator.onnx", arguments)
    from orchestrator.bundle.bundle import BundleError

    try:
        export(options)
    except (ConfigError, BundleError) as error:
        return complain(error.problems)
    except OSError as error:
        return complain([str(error)])
    except ExportError as error:
        return complain([str(error)], FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
