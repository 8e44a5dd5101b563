"""One command of ours against AutoGluon MultiModal's defaults: the same pictures, weights and wall clock, two cores.

    python -m venv autogluon && autogluon/bin/pip install autogluon.multimodal
    python -m benchmarks.against_autogluon --pictures stamps/usr/share/tuxpaint/stamps \
        --weights nets --python autogluon/bin/python

The pictures are read once, put on white and written as PNG files in `train/` and `test/`, which both sides get: a
fifth is the test set, and the rest is for either side to divide. AutoGluon fine-tunes one net, the first of the folder
of weights, with its default settings for images; its time limit is what our command took. Both know no test label.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from safetensors.torch import load_file

from benchmarks import command
from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, Target, two_cores
from orchestrator.assessment.intervals import of_share
from trainables import datasets
from trainables.datasets.stored_images import StoredImages

THEIRS = """
import json, sys, warnings
import pandas as pd
from autogluon.multimodal import MultiModalPredictor
folder, net, seconds, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
train, test = (pd.read_csv(f"{folder}/{part}.csv") for part in ("train", "test"))
predictor = MultiModalPredictor(label="label", problem_type="multiclass", path=f"{folder}/model-{seed}", verbosity=1)
fixed = {"model.names": ["timm_image"], "model.timm_image.checkpoint_name": net, "env.num_workers": 0}
predictor.fit(train, time_limit=seconds, seed=seed, hyperparameters=fixed)
correct = predictor.predict(test[["image"]]).to_numpy() == test["label"].to_numpy()
print(json.dumps({"accuracy": float(correct.mean()), "rows": len(test)}))
"""
"""AutoGluon's side, run by its own Python: only the net is named, all else is its default."""


@dataclass(frozen=True)
class Options:
    """Compare a sweep with AutoGluon MultiModal."""

    pictures: Path
    """Folder of class folders."""
    weights: Path
    """Folder of pretrained nets, as safetensors with timm's names."""
    python: Path
    """The Python that AutoGluon is installed for."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, a run of each side for each."""
    lines: Path | None = None
    """File that keeps the figures of each seed; the same command goes on from it."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("against_autogluon", {"seeds": str(options.seeds)}, lines=options.lines)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        write_pictures(options.pictures, folder)
        net = write_net(sorted(options.weights.glob("*.safetensors"))[0], folder / "net")
        for seed in options.seeds:
            record.once({"seed": seed}, partial(measure, options, folder, net, seed))
    figures = [
        Figure("ours less AutoGluon's accuracy", "", [run["gain"] for run in record.runs], Target(0, at_most=False)),
        Figure("ours: accuracy on the test set", "", [run["ours"] for run in record.runs]),
        Figure("AutoGluon: accuracy on the test set", "", [run["theirs"] for run in record.runs]),
        Figure("ours: command to leaderboard", "s", [run["ours_s"] for run in record.runs]),
    ]
    return 0 if record.write(options.evidence, figures) else 1


def write_pictures(source: Path, folder: Path) -> None:
    """Write all rows as PNG files, in `train/` and the sealed ones in `test/`, and a table of each."""
    dataset = datasets.load(str(source))
    rows = np.setdiff1d(np.arange(len(dataset.labels)), dataset.duplicates)
    sealed, labels = datasets.open_test(dataset)
    everything = np.arange(len(labels))
    parts = {
        "train": (StoredImages.of(dataset.images).pictures(rows), dataset.labels[rows]),
        "test": (StoredImages.of(sealed).pictures(everything), labels),
    }
    for part, (pictures, numbers) in parts.items():
        lines = ["image,label"]
        for i, (picture, number) in enumerate(zip(pictures, numbers.tolist(), strict=True)):
            path = folder / "pictures" / part / dataset.classes[number] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.squeeze(np.asarray(picture))).save(path)  # grey ones have one channel
            lines.append(f"{path},{dataset.classes[number]}")
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")


def write_net(weights: Path, folder: Path) -> Path:
    """Write a net without its head in the form in which AutoGluon reads a local one; return the folder."""
    import timm

    model = timm.create_model(weights.stem, num_classes=0)
    state = {name: tensor for name, tensor in load_file(weights).items() if name in model.state_dict()}
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin")
    described = {"architecture": weights.stem, "num_features": model.num_features, "pretrained_cfg": model.default_cfg}
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def measure(options: Options, folder: Path, net: Path, seed: int) -> dict[str, Any]:
    """Run both sides, ours first, as its wall clock is the other's limit."""
    run = command.sweep(
        [str(folder / "pictures"), "--weights", str(options.weights.absolute()), "--seed", str(seed)],
        folder / "results",
        f"seed-{seed}",
    )
    ours = accuracy_of(folder / "results" / f"seed-{seed}" / "best", folder / "test.csv")
    asked = [str(options.python), "-c", THEIRS, str(folder), str(net), f"{run.done.wall_s:.0f}", str(seed)]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=folder, timeout=command.LIMIT_S)
    if done.returncode:
        raise BenchmarkError(f"AutoGluon failed: {done.stderr[-2000:]}")
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    shares = {"ours": ours, "theirs": theirs["accuracy"]}
    bounds = {f"{name}_wilson": of_share(share, theirs["rows"]) for name, share in shares.items()}
    return {
        "ours_s": round(run.done.wall_s, 1),
        "gain": shares["ours"] - shares["theirs"],
        **shares,
        **bounds,
    }


def accuracy_of(bundle: Path, table: Path) -> float:
    """Return the accuracy of the model in a bundle on the pictures of a table."""
    from orchestrator.bundle import load

    rows = [line.rsplit(",", 1) for line in table.read_text().splitlines()[1:]]
    labels = load(bundle).predict([path for path, _ in rows]).labels
    return float(np.mean([label == truth for label, (_, truth) in zip(labels, rows, strict=True)]))


if __name__ == "__main__":
    sys.exit(main())
