"""Label images with a sweep's best model. Needs no Ray.

    python -m orchestrator.predict results/NAME/best pictures/ --out labels.csv

Heavy libraries are imported where they are needed, so that wrong input is answered before torch is loaded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from trainables import device_choice, memory
from trainables.command_line import DONE, FAILED, INTERRUPTED, complain, option, parse, show, write
from trainables.datasets.reading import Reading
from trainables.device_choice import NAMES
from trainables.errors import ConfigError, DatasetError
from trainables.files import unwritable

if TYPE_CHECKING:
    from orchestrator.bundle.bundle import Bundle
    from trainables.datasets.unlabelled import Found

FORMATS = ("table", "csv", "jsonl", "parquet")
ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet", ".txt": "table"}
"""Endings of a file's name → the format that is meant."""
PATIENCE_S = 2.0  # before a progress bar is drawn
ROOM = "end other programs that use it, give fewer large pictures at a time, or compute on the CPU with --device cpu"
LISTED = 20  # unreadable images, at most, that are named


@dataclass(frozen=True)
class PredictOptions:
    """Label images with a sweep's best model.

    Images that cannot be read are listed at the end; the column error has the reason.

    Exit codes:
      0    done
      1    no image could be read
      2    the command was wrong
      130  interrupted

    Examples:
      python -m orchestrator.predict results/NAME/best one.jpg two.png
      python -m orchestrator.predict results/NAME/best pictures/ --top 3 --out labels.csv
      python -m orchestrator.predict results/NAME/best test.parquet --format jsonl
    """

    bundle: Annotated[Path, Positional, option("BUNDLE")]
    """The sweep's model: the folder best/ in the sweep's folder."""
    paths: Annotated[tuple[Path, ...], Positional, option("PATH…")]
    """Images to label: image files, folders with images at any depth, CSV files that name images, Parquet files."""
    top: Annotated[int, option("K")] = 1
    """Write the K likeliest classes of each image, the likeliest first."""
    format: Annotated[str | None, option("table|csv|jsonl|parquet")] = None
    """Format of the output. Default: that of the file's name (.csv, .jsonl, .parquet; .txt: table), or table."""
    out: Annotated[Path | None, option("FILE")] = None
    """File to write the labels to. An existing file is replaced. Default: standard output."""
    image_column: Annotated[str | None, option("NAME")] = None
    """Column of a CSV or Parquet file that holds the images. Default: found by name and type."""
    data_dir: Annotated[Path | None, option("DIR")] = None
    """Folder with the images that a CSV file names. Default: the folder of the CSV file."""
    device: Annotated[str, option(NAMES)] = "auto"
    """Where to compute. auto is an NVIDIA GPU if there is one, else the CPU; mps, Apple's GPU, was never tried."""
    trust: Annotated[str | None, option("MODULE:FACTORY")] = None
    """Code that builds the bundle's model, if it is not built in. It is imported and run only if you name it here."""
    explain: Annotated[Path | None, option("DIR")] = None
    """Folder for a picture of each image that shows where the model looks (Grad-CAM). Convolutional models only.
    Needs captum: pip install 'sweep-orchestrator[explain]'."""

    @property
    def output_format(self) -> str:
        """The format to write, one of FORMATS; nothing if the file's name does not say it."""
        return self.format or ("table" if self.out is None else ENDINGS.get(self.out.suffix.lower(), ""))


def predict(options: PredictOptions) -> int:
    """Label the images and return the exit code.

    Raises:
        ConfigError, BundleError, DatasetError: an option, the bundle or a path is wrong; every problem is named.
    """
    bundle, sources = _check(options)
    import pyarrow as pa
    import pyarrow.compute as pc

    from orchestrator.bundle import explanation, predictions
    from orchestrator.display.text import counted
    from trainables.datasets.inventory import EXAMPLES
    from trainables.datasets.listing import Joined

    memory.keep_freed()
    classifier = bundle.classifier(str(device_choice.choose(options.device, show)), options.trust)
    images = Joined([source.images for source in sources])
    batches_of_rows, started = [], time.monotonic()
    with _bar(len(images)) as advance:
        overlays = explanation.Overlays(classifier, options.explain) if options.explain is not None else None
        for rows in predictions.label(classifier, images.places(), images.batches(), options.top, overlays):
            batches_of_rows.append(rows)
            advance(len(rows))
    table = pa.Table.from_batches(batches_of_rows, schema=predictions.schema(options.top))
    seconds = time.monotonic() - started
    _write(predictions.encode(table, options.output_format), options.out)
    unreadable = table.filter(pc.is_valid(table["error"])).select(["path", "row", "error"]).to_pylist()
    labelled = len(table) - len(unreadable)
    show(f"{counted(labelled, 'image')} labelled in {seconds:.1f} s" + (f", in {options.out}" if options.out else ""))
    for left in (left for source in sources for left in source.left_out):
        show(f"left out: {left.count:,} × {left.reason} ({', '.join(left.examples)}{' …' * (left.count > EXAMPLES)})")
    for row in unreadable[:LISTED]:
        place = row["path"] if row["row"] is None else f"{row['path']}, row {row['row'] + 1}"
        show(f"{place}: {row['error']}")
    if len(unreadable) > LISTED:
        show(f"… and {len(unreadable) - LISTED:,} more that cannot be read: see the column error")
    return DONE if labelled else FAILED


def _check(options: PredictOptions) -> tuple[Bundle, Sequence[Found]]:
    """Return the bundle and the sources of images; raise as `predict`."""
    from orchestrator.bundle.bundle import BundleError, read
    from trainables.datasets.unlabelled import find_images

    problems = _option_problems(options)
    bundle, sources = None, []
    try:
        bundle = read(options.bundle)
        problems += bundle.code_problems(options.trust)
        if options.top > len(bundle.labels):
            problems.append(
                f"--top {options.top}: the model has {len(bundle.labels)} classes; give at most {len(bundle.labels)}"
            )
    except BundleError as error:
        problems += error.problems
    for path in options.paths:
        try:
            sources.append(find_images(path.expanduser(), Reading(options.data_dir, options.image_column)))
        except DatasetError as error:
            problems += error.problems
    if bundle is None or problems:
        raise ConfigError(*problems)
    return bundle, sources


def _option_problems(options: PredictOptions) -> list[str]:
    """Return a message for each wrong option."""
    problems = device_choice.problems(options.device)
    if not options.paths:
        problems.append("nothing to label: give image files, folders, a CSV or Parquet files after the bundle")
    if options.top < 1:
        problems.append(f"--top {options.top}: at least 1 is needed")
    if options.format is not None and options.format not in FORMATS:
        problems.append(f"--format {options.format}: allowed are {', '.join(FORMATS)}")
    if options.output_format == "parquet" and options.out is None:
        problems.append("--format parquet needs a file: give --out FILE")
    if options.out is not None and (problem := unwritable(options.out)):
        problems.append(f"--out {problem}")
    elif not options.output_format:
        problems.append(
            f"--out {options.out}: its ending names no format ({', '.join(ENDINGS)}); give another, or --format"
        )
    if options.data_dir is not None and not options.data_dir.is_dir():
        problems.append(f"--data-dir {options.data_dir}: there is no such folder")
    if options.explain is not None and find_spec("captum") is None:
        problems.append("--explain needs captum: pip install 'sweep-orchestrator[explain]'")
    return problems


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of newly labelled images; after PATIENCE_S a terminal shows a bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, started = Console(stderr=True), time.monotonic()
    columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=console, transient=True)
    task = bars.add_task("", total=total)

    def advance(images: int) -> None:
        bars.advance(task, images)
        if console.is_terminal and time.monotonic() - started > PATIENCE_S:
            bars.start()

    try:
        yield advance
    finally:
        if bars.live.is_started:
            bars.stop()


def _write(content: bytes, out: Path | None) -> None:
    """Write to the file, complete or not at all, or to standard output."""
    from trainables.files import replace_file

    if out is not None:
        try:
            replace_file(out, content)
        except OSError as error:
            reason = f"{out} cannot be written ({error.strerror}); choose another file or free disk space"
            raise ConfigError(f"--out {reason}") from error
        return
    write(content.decode())  # what the terminal cannot show is escaped: see `command_line.parse`


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parse(PredictOptions, "python -m orchestrator.predict", arguments, least={"top": 1})
    from orchestrator.bundle.bundle import BundleError

    try:
        return predict(options)
    except (ConfigError, BundleError, DatasetError) as error:
        return complain(error.problems)
    except OSError as error:
        return complain([str(error)])
    except (RuntimeError, MemoryError) as error:
        if not memory.out_of_memory(error):
            raise
        return complain([f"--device {options.device}: out of memory: {ROOM}"], FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
