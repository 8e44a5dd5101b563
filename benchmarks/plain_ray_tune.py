"""A sweep as in Ray Tune's guide for PyTorch: the baseline of `against_plain_ray`, which runs it.

    python benchmarks/plain_ray_tune.py --data DIR --trials 16 --max-epochs 5 --lr 0.01 0.5

A function trainable that loads its data itself, `torch.utils.data.DataLoader` with torchvision's transforms for each
sample, torchvision's ResNet-18, stock `OptunaSearch` and `ASHAScheduler`, `tune.report` each epoch. It imports nothing
of this project. Faster than in the guide: no checkpoint each epoch, two trials at a time though a searcher gets one by
default, evaluation under `torch.inference_mode`, and images that are handed to it decoded and as RGB.

DIR holds train_images.npy, train_labels.npy, val_images.npy, val_labels.npy (uint8 [N, H, W, 3], int64 [N]) and
statistics.json (mean, std). The last line of output is a JSON object with what was run.
"""

# mypy: ignore-errors
# ^ a script as users write it, without annotations
# ruff: noqa: E402

import time

STARTED = time.time()  # before imports that take seconds

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import ray
import torch
from PIL import Image
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import resnet18


class Images(Dataset):
    """Images and labels from files, with a transform for each sample."""

    def __init__(self, folder, part, transform):
        self.images = np.load(Path(folder) / f"{part}_images.npy")
        self.labels = np.load(Path(folder) / f"{part}_labels.npy")
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def load_data(config):
    statistics = json.loads((Path(config["data"]) / "statistics.json").read_text())
    plain = [transforms.ToTensor(), transforms.Normalize(statistics["mean"], statistics["std"])]
    augmented = list(plain)
    if config["flip"]:
        augmented.insert(0, transforms.RandomHorizontalFlip())
    if config["crop_padding"]:
        size = np.load(Path(config["data"]) / "train_images.npy", mmap_mode="r").shape[1]
        augmented.insert(0, transforms.RandomCrop(size, padding=config["crop_padding"]))
    train_set = Images(config["data"], "train", transforms.Compose(augmented))
    val_set = Images(config["data"], "val", transforms.Compose(plain))
    return train_set, val_set


def train_model(config):
    """Train a model; `config` has the searched values and the fixed ones."""
    train_set, val_set = load_data(config)
    train_loader = DataLoader(train_set, batch_size=config["batch_size"], shuffle=True)
    val_loader = DataLoader(val_set, batch_size=config["batch_size"])

    model = resnet18(num_classes=10)
    model.fc = nn.Sequential(nn.Dropout(config["dropout"]), nn.Linear(model.fc.in_features, 10))
    criterion = nn.CrossEntropyLoss(label_smoothing=config["label_smoothing"])
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config["lr"], momentum=0.9, nesterov=True, weight_decay=config["weight_decay"]
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config["lr"],
        epochs=config["max_epochs"],
        steps_per_epoch=len(train_loader),
        pct_start=config["warmup"],
        cycle_momentum=False,
    )
    best, steps_s, train_s, eval_s = 0.0, 0.0, 0.0, 0.0
    for _ in range(config["max_epochs"]):
        started = time.perf_counter()
        model.train()
        for inputs, labels in train_loader:
            step_started = time.perf_counter()
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            steps_s += time.perf_counter() - step_started
        trained = time.perf_counter()
        accuracy = evaluate(model, val_loader)
        train_s += trained - started
        eval_s += time.perf_counter() - trained
        best = max(best, accuracy)
        tune.report(
            {
                "accuracy": accuracy,
                "best_accuracy": best,
                "steps_s": steps_s,
                "train_s": train_s,
                "eval_s": eval_s,
                "threads": torch.get_num_threads(),
                "train_rows": len(train_set),
                "val_rows": len(val_set),
            }
        )


def evaluate(model, loader):
    model.eval()
    correct, total = 0, 0
    with torch.inference_mode():
        for inputs, labels in loader:
            correct += (model(inputs).argmax(1) == labels).sum().item()
            total += len(labels)
    return correct / total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seconds", type=float, help="end then, imports included; --trials does not count")
    parser.add_argument("--max-epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--grace", type=int, default=1)
    parser.add_argument("--factor", type=float, default=4)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--warmup", type=float, default=0.2)
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--crop-padding", type=int, default=0)
    parser.add_argument("--lr", type=float, nargs=2, required=True)
    parser.add_argument("--weight-decay", type=float, nargs=2, required=True)
    parser.add_argument("--dropout", type=float, nargs=2, required=True)
    parser.add_argument("--label-smoothing", type=float, nargs=2, required=True)
    args = parser.parse_args()

    ray.init(num_cpus=args.slots, num_gpus=0)
    tuner = tune.Tuner(
        tune.with_resources(train_model, {"cpu": 1}),
        param_space={
            "lr": tune.loguniform(*args.lr),
            "weight_decay": tune.loguniform(*args.weight_decay),
            "dropout": tune.uniform(*args.dropout),
            "label_smoothing": tune.uniform(*args.label_smoothing),
            "data": args.data,
            "batch_size": args.batch_size,
            "max_epochs": args.max_epochs,
            "warmup": args.warmup,
            "flip": args.flip,
            "crop_padding": args.crop_padding,
        },
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(seed=args.seed),
            scheduler=ASHAScheduler(max_t=args.max_epochs, grace_period=args.grace, reduction_factor=args.factor),
            num_samples=args.trials if args.seconds is None else -1,
            time_budget_s=None if args.seconds is None else args.seconds - (time.time() - STARTED),
            max_concurrent_trials=args.slots,
        ),
        run_config=tune.RunConfig(name="plain", storage_path=args.storage),
    )
    results = tuner.fit()
    for error in results.errors:
        print(error, file=sys.stderr)
    if results.errors:
        sys.exit(1)
    best = results.get_best_result("best_accuracy", "max")
    last = [result.metrics for result in results if "accuracy" in (result.metrics or {})]
    print(
        json.dumps(
            {
                "trials": len(last),
                "epochs": sum(metrics["training_iteration"] for metrics in last),
                "best_score": best.metrics["best_accuracy"],
                "best": {name: best.config[name] for name in ("lr", "weight_decay", "dropout", "label_smoothing")},
                **{name: sum(metrics[name] for metrics in last) for name in ("steps_s", "train_s", "eval_s")},
                **{name: sorted({m[name] for m in last}) for name in ("threads", "train_rows", "val_rows")},
            }
        )
    )


if __name__ == "__main__":
    main()
