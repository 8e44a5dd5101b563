"""Label images by a sweep's best model. Needs no Ray.

    python -m orchestrator.predict results/NAME/best pictures/ --out labels.csv

What is heavy is imported where it is needed, so that wrong input is answered before torch is loaded.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from trainables.command_line import DONE, FAILED, INTERRUPTED, complain, parse, say
from trainables.datasets.source import Columns
from trainables.errors import ConfigError, DatasetError
from trainables.files import unwritable

if TYPE_CHECKING:
    from orchestrator.bundle.bundle import Bundle
    from trainables.datasets.unlabelled import Unlabelled

FORMATS = ("table", "csv", "jsonl", "parquet")
PATIENCE_S = 2.0  # before a progress bar is drawn
LISTED = 20  # unreadable images, at most, by name


@dataclass(frozen=True)
class PredictOptions:
    """Label images by a sweep's best model.

    What cannot be read is listed, and has its reason in the column error. Exit codes: 0 done; 1 nothing could be read;
    2 the command was wrong; 130 interrupted.

    Examples:
      python -m orchestrator.predict results/NAME/best one.jpg two.png
      python -m orchestrator.predict results/NAME/best pictures/ --top 3 --out labels.csv
      python -m orchestrator.predict results/NAME/best test.parquet --format jsonl
    """

    bundle: Annotated[Path, Positional, arg(metavar="BUNDLE")]
    """The folder best/ of a sweep."""
    paths: Annotated[tuple[Path, ...], Positional, arg(metavar="PATH…")]
    """Pictures, folders with pictures at any depth, CSVs that name pictures, Parquet files."""
    top: Annotated[int, arg(metavar="K")] = 1
    """So many classes of each image, the likeliest first."""
    format: Annotated[str | None, arg(metavar="table|csv|jsonl|parquet")] = None
    """Of what is written. Default: as the name of the file says, else a table."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Where to. Default: standard output."""
    image_column: Annotated[str | None, arg(metavar="NAME")] = None
    """Which column of a CSV or of Parquet files has the images. Default: found by name and type."""
    data_dir: Annotated[Path | None, arg(metavar="DIR")] = None
    """Where the pictures are that a CSV names. Default: beside it."""
    trust: Annotated[str | None, arg(metavar="MODULE:FACTORY")] = None
    """The code that makes the bundle's model, if it is not built in: it is imported only if you name it."""
    explain: Annotated[Path | None, arg(metavar="DIR")] = None
    """A folder for pictures of where the model looked, by Grad-CAM; of convolutional nets. Needs the extra explain."""

    @property
    def form(self) -> str:
        """The format that is asked for."""
        suffix = self.out.suffix.removeprefix(".") if self.out is not None else ""
        return self.format or (suffix if suffix in FORMATS else "table")


def predict(options: PredictOptions) -> int:
    """Label what is asked for; the exit code.

    Raises:
        ConfigError, BundleError, DatasetError: naming everything that is wrong.
    """
    bundle, given = _check(options)
    import pyarrow as pa
    import pyarrow.compute as pc

    from orchestrator.bundle import explanation, predictions
    from trainables import memory

    memory.keep_freed()
    classifier = bundle.classifier(trust=options.trust)
    total, found, started = sum(map(len, given)), [], time.monotonic()
    with _bar(total) as advance:
        places = chain.from_iterable(one.places() for one in given)
        batches = chain.from_iterable(one.batches() for one in given)
        overlays = explanation.Overlays(classifier, options.explain) if options.explain is not None else None
        for rows in predictions.label(classifier, places, batches, options.top, overlays):
            found.append(rows)
            advance(len(rows))
    table = pa.Table.from_batches(found, schema=predictions.schema(options.top))
    seconds = time.monotonic() - started
    _write(predictions.encoded(table, options.form), options.out)
    unreadable = table.filter(pc.is_valid(table["error"])).select(["path", "row", "error"]).to_pylist()
    labelled = len(table) - len(unreadable)
    say(
        f"{labelled:,} {'image' if labelled == 1 else 'images'} labelled in {seconds:.1f} s"
        + (f", in {options.out}" if options.out else "")
    )
    for row in unreadable[:LISTED]:
        place = row["path"] if row["row"] is None else f"{row['path']}, row {row['row']}"
        say(f"{place}: {row['error']}")
    if len(unreadable) > LISTED:
        say(f"… and {len(unreadable) - LISTED:,} more that cannot be read: see the column error")
    return DONE if labelled else FAILED


def _check(options: PredictOptions) -> tuple[Bundle, Sequence[Unlabelled]]:
    """The bundle, and where the images are; raises as `predict`."""
    from orchestrator.bundle.bundle import BundleError, read
    from trainables.datasets.unlabelled import find_images

    problems = _option_problems(options)
    bundle, given = None, []
    try:
        bundle = read(options.bundle)
        problems += bundle.code_problems(options.trust)
        if options.top > len(bundle.labels):
            problems.append(f"--top {options.top}: the model knows {len(bundle.labels)} classes; give at most so many")
    except BundleError as error:
        problems += error.problems
    for path in options.paths:
        try:
            given.append(find_images(path.expanduser(), options.data_dir, Columns(options.image_column)))
        except DatasetError as error:
            problems += error.problems
    if bundle is None or problems:
        raise ConfigError(*problems)
    return bundle, given


def _option_problems(options: PredictOptions) -> list[str]:
    problems = []
    if not options.paths:
        problems.append("nothing to label: give pictures, folders, a CSV or Parquet files after the bundle")
    if options.top < 1:
        problems.append(f"--top {options.top}: at least 1 is needed")
    if options.format is not None and options.format not in FORMATS:
        problems.append(f"--format {options.format}: allowed are {', '.join(FORMATS)}")
    if options.form == "parquet" and options.out is None:
        problems.append("--format parquet needs a file: give --out FILE")
    if options.out is not None and (problem := unwritable(options.out)):
        problems.append(f"--out {problem}")
    if options.data_dir is not None and not options.data_dir.is_dir():
        problems.append(f"--data-dir {options.data_dir}: there is no such folder")
    if options.explain is not None and find_spec("captum") is None:
        problems.append("--explain needs captum: pip install 'sweep-orchestrator[explain]'")
    return problems


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with how many more images are done; draws a bar on a terminal, for what takes a while."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    people, started = Console(stderr=True), time.monotonic()
    columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=people, transient=True)
    task = bars.add_task("", total=total)

    def advance(images: int) -> None:
        bars.advance(task, images)
        if people.is_terminal and time.monotonic() - started > PATIENCE_S:
            bars.start()

    try:
        yield advance
    finally:
        if bars.live.is_started:
            bars.stop()


def _write(content: bytes, out: Path | None) -> None:
    """To the file, whole or not at all, or to standard output."""
    from trainables.files import replace_file

    if out is not None:
        try:
            replace_file(out, content)
        except OSError as error:
            reason = f"{out} cannot be written ({error.strerror}); choose another file or make room"
            raise ConfigError(f"--out {reason}") from error
        return
    try:
        sys.stdout.write(content.decode())
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has seen enough; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: list[str] | None = None) -> int:
    """The command line; its exit code."""
    options = parse(PredictOptions, "python -m orchestrator.predict", arguments)
    from orchestrator.bundle.bundle import BundleError

    try:
        return predict(options)
    except (ConfigError, BundleError, DatasetError) as error:
        return complain(error.problems)
    except OSError as error:
        return complain([str(error)])
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
