"""`python -m orchestrator.predict`: images from files, folders and tables; a row for each image."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bundles
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from bundles import Made
from conftest import ROOT, Command, Finished
from lookalikes import CIFAR10_VARIABLE
from PIL import Image

from orchestrator.bundle import bundle, classifier
from orchestrator.bundle.contents import choices
from orchestrator.bundle.documents import SEARCHED
from orchestrator.bundle.explanation import maps
from orchestrator.predict import FORMATS, main
from orchestrator.record.epochs import Epochs
from orchestrator.record.facts import Worker
from orchestrator.record.kept_weights import Weights
from orchestrator.record.state import End, TrialRecord
from trainables import device_choice, memory
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.datasets import Reading, load, open_test
from trainables.errors import ConfigError
from trainables.evaluation import predict
from trainables.models import build
from trainables.splits import search_data

CUT = "cut.tiff"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return bundles.make(tmp_path_factory.mktemp("bundle") / "best")


@pytest.fixture
def best(made: Made) -> str:
    return str(made.folder)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the validation set as pictures into a folder and one below it, in its order."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "2").mkdir()
    for number, image in enumerate(made.validation):
        (folder / ("2" if number >= 20 else "") / f"{number:02}.png").write_bytes(png(image))
    return folder


@pytest.fixture
def odd(pictures: Path, tmp_path: Path) -> Path:
    """Make a folder with a good picture between a file that is none and a picture of a kind that cannot be read."""
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a.png").write_bytes(b"nothing")
    (tmp_path / "odd" / "b.png").write_bytes((pictures / "00.png").read_bytes())
    (tmp_path / "odd" / CUT).write_bytes(b"II*\0\x08\0\0\0")
    return tmp_path / "odd"


def rows(capsys: pytest.CaptureFixture[str]) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(capsys.readouterr().out))


def test_a_folder_at_any_depth(made: Made, best: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([best, str(pictures), "--format", "csv"]) == 0
    found = list(rows(capsys))
    assert [row["label"] for row in found] == made.labels
    assert [Path(row["path"]).stem for row in found] == [f"{number:02}" for number in range(len(made.labels))]
    expected = bundle.load(made.folder).predict(made.validation).probabilities.max(1)
    assert [float(row["probability"]) for row in found] == expected.tolist()
    assert {(row["row"], row["error"]) for row in found} == {("", "")}


def test_every_format_says_the_same(
    best: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {form: tmp_path / f"labels.{'txt' if form == 'table' else form}" for form in FORMATS}
    for file in files.values():
        assert main([best, str(pictures), "--top", "3", "--out", str(file)]) == 0
    assert "24 images labelled in" in capsys.readouterr().err
    table = pq.read_table(files["parquet"])
    names = ["path", "row", "label", "probability", "label_2", "probability_2", "label_3", "probability_3", "error"]
    assert table.column_names == names
    expected = table.to_pylist()
    as_typed = pa.csv.ConvertOptions(column_types=table.schema, strings_can_be_null=True)
    assert [json.loads(line) for line in files["jsonl"].read_text().splitlines()] == expected
    assert pa.csv.read_csv(files["csv"], convert_options=as_typed).to_pylist() == expected
    lines = [line.split() for line in files["table"].read_text().splitlines()]
    assert lines[0] == [name for name in names if name not in ("row", "error")]
    assert [line[:2] for line in lines[1:]] == [[row["path"], row["label"]] for row in expected]


def test_the_likeliest_classes_in_order(
    made: Made, best: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([best, str(pictures / "00.png"), "--top", "3", "--format", "jsonl"]) == 0
    row = json.loads(capsys.readouterr().out)
    chances = dict(
        zip(made.data.classes, bundle.load(made.folder).predict(made.validation[:1]).probabilities[0], strict=True)
    )
    order = sorted(chances, key=lambda name: -chances[name])
    assert [row["label"], row["label_2"], row["label_3"]] == order
    assert [row["probability"], row["probability_2"], row["probability_3"]] == pytest.approx(
        [chances[n] for n in order]
    )


def test_a_csv_and_parquet_files_by_row(
    made: Made, best: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "some.csv"
    table.write_text("n,picture\n" + "".join(f"{n},0{n}.png\n" for n in range(3)))
    packed = tmp_path / "more.parquet"
    pq.write_table(pa.table({"x": [1, 2], "img": [{"bytes": png(image)} for image in made.validation[:2]]}), packed)
    options = ["--image-column", "picture", "--data-dir", str(pictures)]
    assert main([best, str(table), "--format", "csv", *options]) == 0
    found = list(rows(capsys))
    assert [(row["path"], row["row"]) for row in found] == [(str(pictures / f"0{n}.png"), str(n)) for n in range(3)]
    assert [row["label"] for row in found] == made.labels[:3]
    (pictures / "names.csv").write_text("file,label\n05.png,a\n")
    try:
        assert main([best, str(pictures / "names.csv"), str(packed), "--format", "csv"]) == 0
    finally:
        (pictures / "names.csv").unlink()
    found = list(rows(capsys))
    assert [(row["path"], row["row"]) for row in found[1:]] == [(str(packed), "0"), (str(packed), "1")]
    assert [row["label"] for row in found] == [made.labels[5], *made.labels[:2]]


def test_a_folder_of_parquet_files(made: Made, best: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, images in (("a", made.validation[:2]), ("b", made.validation[2:4])):
        pq.write_table(pa.table({"image": [png(image) for image in images]}), tmp_path / f"{name}.parquet")
    assert main([best, str(tmp_path), "--format", "csv"]) == 0
    assert [(Path(row["path"]).name, row["row"], row["label"]) for row in rows(capsys)] == [
        (name, row, label)
        for (name, row), label in zip(
            [("a.parquet", "0"), ("a.parquet", "1"), ("b.parquet", "0"), ("b.parquet", "1")],
            made.labels[:4],
            strict=True,
        )
    ]


def test_what_cannot_be_read_is_listed(made: Made, best: str, odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([best, str(odd), "--format", "jsonl"]) == 0
    printed = capsys.readouterr()
    found = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["label"] for row in found] == [None, made.labels[0], None]
    assert "in no format that is known here" in found[0]["error"]
    assert "begins as a picture of the format TIFF, and is damaged" in found[2]["error"]
    assert found[1]["error"] is None
    lines = printed.err.splitlines()
    assert lines[0].startswith("1 image labelled in")
    assert [line.partition(": ")[0] for line in lines[1:]] == [str(odd / "a.png"), str(odd / CUT)]


def test_nothing_that_can_be_read(best: str, odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([best, str(odd / "a.png")]) == 1
    printed = capsys.readouterr()
    assert "0 images labelled" in printed.err
    assert "known here" in printed.out


def test_explanations_are_named_by_row_and_file(
    made: Made, best: str, pictures: Path, odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("captum")
    assert main([best, str(odd), str(pictures), "--explain", str(tmp_path / "maps")]) == 0
    written = sorted((tmp_path / "maps").iterdir())
    assert [path.name for path in written[:2]] == ["000001-b.png", "000003-00.png"]  # the number of the row
    assert len(written) == len(made.validation) + 1
    with Image.open(written[0]) as picture:
        assert (picture.size, picture.mode) == ((224, 224), "RGB")


def test_maps_are_the_activations_that_speak_for_the_label() -> None:
    """With one channel for each class, a class's map is its channel divided by the number of pixels."""
    pytest.importorskip("captum")
    pooled, last = (
        torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        torch.nn.Linear(3, 3, bias=False),
    )
    last.weight.data = torch.eye(3)
    inputs, labels = torch.rand(2, 3, 4, 5), torch.tensor([1, 0])
    found = maps(torch.nn.Sequential(torch.nn.ReLU(), pooled, last), inputs, labels)
    torch.testing.assert_close(found[:, 0], inputs[[0, 1], labels] / 20)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_nets_without_a_spatial_feature_map_are_refused(name: str) -> None:
    pytest.importorskip("captum")
    module = pytest.importorskip("timm").create_model(name, num_classes=3).eval()
    with pytest.raises(ConfigError, match="no layer with a spatial feature map"):
        maps(module, torch.rand(1, 3, 224, 224), torch.tensor([0]))


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_b0", "vgg11", "swin_t"])
def test_nets_have_maps(name: str) -> None:
    pytest.importorskip("captum")
    module = build.build(TrialConfig(model=name), 3, 64, initialized=False).eval().requires_grad_(False)
    heat = maps(module, torch.rand(2, 3, 64, 64), torch.tensor([0, 2]))
    assert heat.shape[:2] == (2, 1)
    assert min(heat.shape[2:]) > 1
    assert heat.isfinite().all()
    assert (heat >= 0).all()


def test_all_mistakes_are_reported_at_once(best: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere, empty = tmp_path / "nowhere.png", tmp_path / "empty"
    empty.mkdir()
    arguments = [best, str(nowhere), str(empty), "--top", "4", "--format", "xml", "--out", str(nowhere / "labels")]
    assert main([*arguments, "--data-dir", str(nowhere)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    for problem in (
        "nowhere.png: there is no such file or folder",
        "empty: no images there (looked for",
        "--top 4: the model has 3 classes",
        "--format xml: allowed are table, csv, jsonl, parquet",
        "there is no folder",
        "--data-dir",
    ):
        assert len([line for line in lines if problem in line]) == 1, problem
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to label"),
        (["x.png", "--top", "0"], "--top 0: at least 1"),
        (["x.png", "--device", "gpu"], "--device gpu: allowed are auto (a GPU if there is one), cpu, cuda, cuda:N"),
        (["x.png", "--device", "cuda:"], "--device cuda:: allowed are"),
        (["{pictures}", "--format", "parquet"], "give --out FILE"),
        (["x.png", "--out", "{pictures}"], "is a folder; name a file"),
        (["x.png", "--out", "labels.xlsx"], "labels.xlsx: its ending names no format (.csv, .jsonl, .parquet, .txt)"),
        (["x.png", "--out", "labels"], "labels: its ending names no format"),
        (
            ["x.png", "--out", "x" * 250, "--format", "csv"],
            "cannot be written (File name too long); choose another file",
        ),
        (["{pictures}/broken.csv"], "broken.csv: which column has the images? Name it with --image-column"),
        (["{pictures}/broken.parquet"], "broken.parquet: not a Parquet file"),
    ],
)
def test_one_sentence_for_a_mistake(
    best: str, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    (tmp_path / "broken.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.parquet").write_bytes(b"nothing")
    filled = [text.format(pictures=tmp_path) if "{" in text else text for text in arguments]
    filled = [str(tmp_path / text) if text == "x.png" else text for text in filled]
    assert main([best, *filled]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not printed.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "finds no NVIDIA GPU"), ("cuda:3", "finds no NVIDIA GPU"), ("mps", "finds no GPU of Apple's")],
)
def test_a_device_that_is_not_there(
    device: str, message: str, best: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([best, str(pictures), "--device", device]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --device {device}: ")
    assert message in line
    assert "--device cpu computes on the processor" in line


def with_a_gpu(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Have torch say that there is one GPU, on which nothing can be computed."""

    def compute(device: torch.device) -> None:
        if device.type == "cuda":
            raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(memory, "_is_full", lambda device: False)
    monkeypatch.setattr(memory, "compute", compute)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("no kernel image is available\nmore"),
            "nothing can be computed there (no kernel image is available)",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"), "its memory is full: end other"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_a_sentence(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with_a_gpu(monkeypatch, error)
    with pytest.raises(ConfigError, match="--device cuda: ") as raised:
        device_choice.choose("cuda", said.append)
    assert message in raised.value.problems[0]
    with pytest.raises(ConfigError, match="--device cuda:1: there is 1 GPU; --device cpu"):
        device_choice.choose("cuda:1", said.append)
    assert said == []
    assert device_choice.choose("auto", said.append) == torch.device("cpu")
    assert len(said) == 1
    assert said[0].startswith("computing on the CPU, as the GPU cannot be used: ")
    assert message in said[0]


def test_memory_that_runs_out_is_a_sentence(
    best: str, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(classifier, "predict", full)
    assert main([best, str(pictures), "--device", "cpu"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --device cpu: out of memory: end other programs")


def test_what_is_no_bundle(made: Made, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pictures), str(pictures / "00.png")]) == 2
    assert main([str(made.folder.parent), str(pictures / "00.png")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "is no bundle: no config.json there (name one, as results/NAME/best)" in first
    assert "the bundle is in it: best/" in second


def test_a_reader_that_has_seen_enough(best: str, pictures: Path) -> None:
    command = [sys.executable, "-m", "orchestrator.predict", best, str(pictures)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.close()
        lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 0
    assert lines[0].startswith("24 images labelled")
    assert len(lines) == 1


def test_a_wrong_command_loads_no_torch_and_none_needs_ray(best: str) -> None:
    code = """
import sys; sys.modules["ray"] = sys.modules["optuna"] = None
from orchestrator.predict import main
assert main([sys.argv[1], "nowhere.png"]) == 2
assert "torch" not in sys.modules
assert main([sys.argv[1], sys.argv[2]]) == 1
"""
    subprocess.run([sys.executable, "-c", code, best, "README.md"], cwd=ROOT, timeout=60, check=True)


def test_as_a_user_runs_it(finished: tuple[Finished, Path], command: Command, tmp_path: Path) -> None:
    data = load("digits")
    for row in range(10):
        (tmp_path / f"{row}.png").write_bytes(png(data.images[row]))
    done = command("orchestrator.predict", finished[1] / "best", tmp_path)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["path", "label", "probability"]
    assert sum(label == data.classes[data.labels[row]] for row, (_, label, _) in enumerate(lines[1:])) >= 9
    assert "10 images labelled" in done.err


@pytest.mark.slow
def test_the_whole_test_set_of_cifar10(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The probabilities of 10,000 encoded images are those of the loop's evaluation of decoded ones, bit for bit."""
    files = os.environ.get(CIFAR10_VARIABLE)
    if files is None or not (Path(files) / "test.parquet").exists():
        pytest.skip(f"{CIFAR10_VARIABLE} names no folder with CIFAR-10 as Parquet")
    dataset = load("cifar10", Reading(Path(files)))
    data, (images, labels) = search_data(dataset, subset=1000), open_test(dataset)
    config = TrialConfig(model="resnet8", precision="float32", memory_format="channels_last")
    model = build.build(config, 10, 32)
    trial = TrialRecord(
        0, {}, config.to_dict(), 0.0, score=0.1, best_epoch=1, epochs=Epochs([{"epoch": 1, "val_accuracy": 0.1}])
    )
    trial.worker = Worker(format={"precision": "float32", "memory_format": "channels_last"}, image_size=32)
    trial.end = End("completed", "budget")
    weights = Weights({name: tensor.numpy() for name, tensor in model.state_dict().items()})
    assert bundle.write(choices([trial], SEARCHED), data, lambda _: weights, tmp_path / "best")
    out = tmp_path / "labels.parquet"
    assert main([str(tmp_path / "best"), str(Path(files) / "test.parquet"), "--out", str(out)]) == 0
    batches = Batches(images, labels, data.mean, data.std, torch.device("cpu"))
    expected = predict(config, batches, torch.arange(len(labels)), model)[0].double().softmax(1).numpy()
    found = pq.read_table(out)
    assert found["label"].to_pylist() == [dataset.classes[number] for number in expected.argmax(1)]
    assert found["probability"].to_pylist() == expected.max(1).tolist()


def test_names_of_every_kind_are_shown_and_other_files_counted(
    best: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, whole = tmp_path / "given", (pictures / "00.png").read_bytes()
    (folder / ".thumbnails").mkdir(parents=True)
    for name in (b"caf\xe9.png", b"a\x1b[31m\nerror: b.png", "é.png".encode(), b"without a suffix"):
        (folder / os.fsdecode(name)).write_bytes(whole)
    (folder / ".thumbnails" / "0.png").write_bytes(whole)
    (folder / "notes.txt").write_text("text")
    (folder / "broken\nname.png").write_bytes(b"text")
    assert main([best, str(folder), "--format", "csv"]) == 0
    printed = capsys.readouterr()
    found = [Path(row["path"]).name for row in csv.DictReader(io.StringIO(printed.out))]
    assert found == ["a\\x1b[31m\\nerror: b.png", "broken\\nname.png", "caf\\xe9.png", "without a suffix", "é.png"]
    assert "left out: 1 × in the hidden folder .thumbnails (.thumbnails/0.png)" in printed.err
    assert "left out: 1 × not a picture: .txt (notes.txt)" in printed.err
    assert "broken\\nname.png: the image cannot be read" in printed.err
    assert "\x1b" not in printed.err


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_a_stream_of_ascii_gets_escapes(best: str, pictures: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "🦊é.png").write_bytes((pictures / "00.png").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.predict", best, str(tmp_path), "--format", form],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"Traceback" not in done.stderr
    assert b"U0001f98a" in done.stdout or b"ud83e" in done.stdout


def test_a_pipe_is_no_image(best: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert main([best, str(tmp_path / "pipe.png")]) == 2
    assert main([best, str(tmp_path)]) == 1
