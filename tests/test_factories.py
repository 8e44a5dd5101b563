"""Models that are not built in, from a user's function or from timm, take the same paths as those that are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bundles
import pytest
import tiny
import torch
from torch import nn

from orchestrator import predict, validation
from orchestrator.bundle import bundle
from orchestrator.cluster.machine import Resources
from orchestrator.plan import models, plan
from orchestrator.plan.context import SweepData
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from trainables import __main__ as one_trial
from trainables.config import TrialConfig
from trainables.datasets.inventory import Inventory
from trainables.errors import ConfigError, WeightsError
from trainables.loop import prepared, train
from trainables.models import factories, heads
from trainables.models.build import build
from trainables.models.heads import DenseHead, Head

CLASSES = 7
NETS = """
from torch import nn

def small(*, num_classes, in_channels=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, num_classes, bias=False),
    )

def head_first(num_classes):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(num_classes, num_classes)
            self.first = nn.Linear(3, num_classes)
        def forward(self, images):
            return self.last(self.first(images.mean((2, 3))))
    return Net()

def careful(num_classes, dropout, image_size):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.Dropout(dropout), nn.Linear(4, num_classes))

def convolution(num_classes):
    return nn.Sequential(nn.Conv2d(3, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def halved(num_classes):
    class Net(nn.Sequential):
        def forward(self, images):
            return super().forward(images) / 2
    return Net(nn.Flatten(), nn.LazyLinear(num_classes))

def raises(num_classes):
    raise RuntimeError("no luck\\nat all")

def grey(num_classes):
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.LazyLinear(num_classes))

def wrong(num_classes):
    return nn.Flatten()

def nothing(num_classes):
    return 3

def other(classes):
    return small(num_classes=classes)

three = 3
"""


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the module `nets` into a folder on the path, and `broken`, which raises when it is imported."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "nets.py").write_text(NETS)
    (folder / "broken.py").write_text("import torch\nimport nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("nets", "broken"):
        sys.modules.pop(name, None)


def problem(model: str, size: int = 8, **fields: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build(TrialConfig(model=model, **fields), CLASSES, size)
    (found,) = caught.value.problems
    return found


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere:net", "there is no module nowhere in this folder, on PYTHONPATH or among the installed packages"),
        ("nets.inner:net", "there is no module nets.inner"),
        ("broken:net", "broken.py, line 2: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("nets:smal", "there is no smal in nets; did you mean small?"),
        ("nets:three", "three is a int; a function that returns a model is needed"),
        ("nets:raises", "nets.py, line 33: RuntimeError: no luck at all"),
        ("nets:other", "cannot be built with num_classes=7: TypeError: other() got an unexpected keyword"),
        ("nets:nothing", "returned a int; a torch.nn.Module is needed"),
        ("nets:grey", "cannot take a batch [2, 3, 8, 8] (another image_size may do): RuntimeError"),
        ("nets:wrong", "returns [2, 192] for a batch [2, 3, 8, 8]; logits [2, 7] are needed"),
        ("timm:resnet10", "timm has no such model; did you mean resnet10t?"),
        ("timm:resnet10t.nonsense", "resnet10t has no published weights nonsense (allowed: c3_in1k"),
        ("timm:vit_tiny_patch16_224", "cannot take a batch [2, 3, 8, 8]"),
        ("small", "is not allowed (allowed: one of simple_cnn"),
        ("timm:hf-hub:someone/else", "timm:NAME or package.module:factory"),
        ("timm:", "is not allowed"),
    ],
)
def test_a_model_that_cannot_be_built_is_explained(model: str, message: str) -> None:
    assert message in problem(model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dropout": 0.1}, "dropout=0.1 needs"),
        ({"freeze": True, "head_width": 3}, "head_width=3, freeze=true needs"),
        ({"head_l1": 0.5}, "head_l1=0.5 needs"),
        ({"stem": "small"}, "used as its function builds it; leave stem out"),
        ({"weights": "imagenet"}, "has no published ImageNet weights; use weights=none"),
    ],
)
@pytest.mark.parametrize("model", ["nets:convolution", "nets:halved"])
def test_fields_that_do_not_apply_to_a_model_are_refused(model: str, fields: dict[str, Any], message: str) -> None:
    assert message in problem(model, **fields)
    build(TrialConfig(model=model), CLASSES, 8)


def test_a_missing_timm_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert factories.problems("timm:resnet10t") == [
        "model=timm:resnet10t needs timm: pip install 'sweep-orchestrator[timm]'"
    ]


@pytest.mark.parametrize("model", ["nets:small", "nets:head_first", "nets:careful", "timm:resnet10t"])
def test_the_last_layer_is_the_head_wherever_it_stands(model: str) -> None:
    torch.manual_seed(1)
    plain = build(TrialConfig(model=model), CLASSES, 8)
    torch.manual_seed(1)
    dropped = build(TrialConfig(model=model, dropout=0.4), CLASSES, 8)
    assert plain.training
    torch.testing.assert_close(plain.state_dict(), dropped.state_dict(), rtol=0, atol=0)
    images = torch.rand(4, 3, 8, 8)
    assert not torch.equal(dropped(images), dropped(images))
    frozen = build(TrialConfig(model=model, dropout=0.4, head_width=5, freeze=True), CLASSES, 8)
    heads.freeze_base(frozen)
    assert isinstance(heads.head_of(frozen), DenseHead)
    learning = [parameter for parameter in frozen.parameters() if parameter.requires_grad]
    assert len(learning) == 4
    heads.set_training(TrialConfig(model=model, freeze=True), frozen)
    on = {module.p for module in frozen.modules() if isinstance(module, nn.Dropout) and module.training}
    assert on == {0.4}, "of the head alone"


def test_a_factory_gets_what_it_takes() -> None:
    model = build(TrialConfig(model="nets:careful", dropout=0.3), CLASSES, 8)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.3, 0.0]
    assert build(TrialConfig(model="nets:small"), CLASSES, 8)[0].in_channels == 3  # type: ignore[index]
    head = heads.head_of(build(TrialConfig(model="nets:head_first"), CLASSES, 8))
    assert isinstance(head, Head)
    assert head.in_features == CLASSES


def test_timms_models_are_made_for_the_size() -> None:
    assert build(TrialConfig(model="timm:vit_tiny_patch16_224"), CLASSES, 32)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_timms_weights_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    config = TrialConfig(model="timm:resnet10t", weights="imagenet")
    with pytest.raises(WeightsError, match="with weights=none it needs no network"):
        build(config, CLASSES, 32)
    build(config, CLASSES, 32, initialized=False)


def test_a_model_of_ones_own_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    found = [epoch.train_loss for epoch in tiny.epochs(tiny.config(model="nets:small", lr=0.3, dropout=0.05))]
    assert found[-1] < found[0]


def frozen_losses() -> list[float]:
    made = tiny.config(model="nets:small", freeze=True, dropout=0.1)
    data, state = tiny.start(made)
    data = prepared(data, state)
    assert state.kept.on_features
    return [epoch.val_loss or 0.0 for epoch in train(data, state)]


def test_features_of_code_that_has_changed_are_computed_anew(
    nets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Change code but no tensor: the features of some images show it."""
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    before = frozen_losses()
    assert frozen_losses() == before
    assert len(list((tmp_path / "cache" / "features").glob("*/*.npz"))) == 2  # 84 rows
    (nets / "nets.py").write_text(NETS.replace("nn.ReLU()", "nn.LeakyReLU()"))
    del sys.modules["nets"]
    assert frozen_losses() != before


# Sweeps


def checked(folder: Path, **asked: Any) -> None:
    options = SweepOptions(dataset="digits", results=folder, **asked)
    validation.check(options, [Resources(2, 0)])
    models.tried(plan.make(Request(options), [Resources(2, 0)]), SweepData(tiny.search_data(), {}, Inventory()))


def test_all_models_of_a_space_are_tried_before_a_sweep(tmp_path: Path) -> None:
    checked(tmp_path, set=(("model=nets:small",),))
    with pytest.raises(ConfigError) as caught:
        checked(tmp_path, search=(("model=choice(nets:small,nets:raises,resnet8,nets:convolution,nets:wrong)",),))
    assert len(caught.value.problems) == 3
    for message in ("model=nets:raises cannot be built", "dropout=0.1 needs", "logits [2, 3] are needed"):
        assert message in str(caught.value)


@pytest.mark.parametrize(
    "asked", [{"set": (("stochastic_depth=0.1",),)}, {"search": (("stochastic_depth=uniform(0,0.3)",),)}]
)
def test_models_without_residual_branches_are_refused_before_a_sweep(tmp_path: Path, asked: dict[str, Any]) -> None:
    models = ("model=choice(resnet8, simple_cnn, shufflenet_v2_x0_5, nets:small)",)
    with pytest.raises(ConfigError) as caught:
        checked(tmp_path, **asked | {"search": (models, *asked.get("search", ()))})
    assert [problem.partition(" has no residual")[0] for problem in caught.value.problems] == [
        f"stochastic_depth=0.1: model={name}" for name in ("simple_cnn", "shufflenet_v2_x0_5", "nets:small")
    ]
    checked(tmp_path, **asked | {"set": (*asked.get("set", ()), ("model=resnet8",))})


@pytest.mark.parametrize("field", ["lr_decay=0.5", "base_lr=0.5", "head_epochs=1", "unfreeze_epochs=1"])
def test_a_model_without_a_head_refuses_fields_that_tell_it_from_the_base(tmp_path: Path, field: str) -> None:
    with pytest.raises(ConfigError, match=f"with 3 outputs, which {field}, dropout=0.1 needs: leave it out"):
        checked(tmp_path, set=(("model=nets:convolution", field),))


def test_missing_code_is_reported_with_the_options(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("search: {model: 'choice(nets:small, nets:nowhere)'}")
    named: dict[str, Any] = {"set": (("model=nets:nowhere",),)}
    for asked in (named, {"space": tmp_path / "mine.yaml"}):
        with pytest.raises(ConfigError, match="there is no nowhere in nets"):
            validation.check(SweepOptions(dataset="digits", results=tmp_path, **asked), None)


def test_only_ones_own_code_is_sent_to_other_nodes(nets: Path) -> None:
    package = nets / "zoo"
    package.mkdir()
    (package / "__init__.py").touch()
    assert factories.source("nets:small") == nets / "nets.py"
    assert factories.source("zoo.inner:net") == package
    assert [factories.source(name) for name in ("torchvision.models:resnet18", "timm:resnet10t", "resnet8")] == [
        None
    ] * 3


# Bundles


def test_a_bundle_imports_no_code_that_its_reader_does_not_name(tmp_path: Path) -> None:
    made = bundles.make(tmp_path / "best", model="nets:small")
    del sys.modules["nets"]
    for trust in (None, "nets:careful"):
        with pytest.raises(
            bundle.BundleError, match=r"built by nets:small, code that is not in the bundle.*trust='nets:small'"
        ):
            bundle.load(made.folder, trust=trust)
    assert "nets" not in sys.modules
    model = bundle.load(made.folder, device="cpu", trust="nets:small")
    assert model.predict(made.validation).labels == made.labels
    assert "trust='nets:small'" in (made.folder / "README.md").read_text()


def test_what_a_bundle_lacks_is_reported(
    tmp_path: Path, nets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = bundles.make(tmp_path / "own", model="nets:small").folder
    timms = bundles.make(tmp_path / "timms", model="timm:resnet10t", max_epochs=1).folder
    assert bundle.load(timms, device="cpu").classes == tiny.CLASSES
    (nets / "nets.py").unlink()
    del sys.modules["nets"]
    with pytest.raises(bundle.BundleError, match="there is no module nets"):
        bundle.load(own, trust="nets:small")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(bundle.BundleError, match=r"needs timm: pip install 'sweep-orchestrator\[timm\]'"):
        bundle.load(timms)
    assert predict.main([str(own), str(tmp_path / "none.png")]) == 2
    assert "--trust nets:small" in capsys.readouterr().err


def test_a_configuration_from_a_file_names_code_in_vain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": "nets:small"}))
    assert one_trial.main(["digits", "--config", str(path)]) == 2
    assert "if you trust it, allow it with --set model=nets:small" in capsys.readouterr().err
    assert "nets" not in sys.modules


def test_a_head_that_learns_alone_on_timms_base_begins_small() -> None:
    """Compare the largest weights: timm draws those of an EfficientNet's head up to 1/√classes, here 0.5."""
    pytest.importorskip("timm")
    largest = {}
    for fields in ({"freeze": True}, {"head_epochs": 1}, {}):
        made = tiny.config(model="timm:tf_efficientnet_lite0", image_size=32, **fields)
        head = heads.head_of(build(made, 4, 32))
        largest[str(fields)] = float(head.get_parameter("weight").detach().abs().max())
    assert list(largest.values())[:2] == pytest.approx([1280**-0.5] * 2, rel=0.02)
    assert largest["{}"] > 0.4
