"""The layers of a model, counted back from its head, and which of its parameters decay."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from trainables.config import TrialConfig
from trainables.models import build, layers
from trainables.models.heads import Head, head_of
from trainables.optimizers import build_optimizer

FAMILIES = {  # one of each of torchvision's, and the number of layers of its base
    "simple_cnn": 4, "resnet20": 10, "resnet18": 9, "resnet50": 17, "resnext50_32x4d": 17,
    "vgg11_bn": 10, "alexnet": 7, "densenet121": 62, "efficientnet_b0": 18, "efficientnet_v2_s": 42,
    "convnext_tiny": 22, "swin_t": 16, "swin_v2_t": 16, "vit_b_32": 13, "maxvit_t": 14, "regnet_y_400mf": 17,
    "googlenet": 12, "inception_v3": 16, "shufflenet_v2_x0_5": 18, "squeezenet1_0": 9,
    "mnasnet0_5": 20, "mobilenet_v2": 19, "mobilenet_v3_small": 14,
}  # fmt: skip
TIMM = {
    "vit_tiny_patch16_224": 13, "swin_tiny_patch4_window7_224": 13, "convnext_atto": 13,
    "tf_efficientnet_lite0": 17, "resnet18": 9,
}  # fmt: skip
STAND_ALONE = ("class_token", "cls_token", "pos_embed", "layer_scale", "bias_table", "logit_scale", "bias")
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def built(name: str, size: int = 224) -> nn.Module:
    device = "cpu" if name.startswith(("timm:", "regnet")) else "meta"  # both need values
    with torch.random.fork_rng(), torch.device(device):
        return build.build(TrialConfig(model=name), 10, size)


def check(model: nn.Module, count: int) -> None:
    """Expect layers without a gap, the head alone at 0, and from the inputs on one layer after the other."""
    depths = layers.depths(model)
    head = {id(parameter) for parameter in head_of(model).parameters()}
    assert {name for name, p in model.named_parameters() if id(p) in head} == {n for n, d in depths.items() if d == 0}
    assert sorted(set(depths.values())) == list(range(count + 1))
    order = [depth for name, depth in depths.items() if not name.endswith("pos_embedding")]  # stands in ViT's encoder
    assert all(one >= following for one, following in pairwise(order))


def decaying(model: nn.Module) -> set[str]:
    """Return the names of the parameters that decay."""
    optimizer = build_optimizer(TrialConfig(weight_decay=0.1), model)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.1}
    ids = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str) -> None:
    """Compare with the names of torchvision's reference (`set_weight_decay`); scales are spared besides."""
    model = built(name)
    check(model, FAMILIES[name])
    norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters()}
    expected = {n for n, p in model.named_parameters() if id(p) not in norms and not any(w in n for w in STAND_ALONE)}
    assert decaying(model) == expected | {n for n, p in model.named_parameters() if n.endswith("in_proj_weight")}


@pytest.mark.parametrize("name", TIMM)
def test_models_of_timm(name: str) -> None:
    timm_optim = pytest.importorskip("timm.optim")
    model = built(f"timm:{name}")
    check(model, TIMM[name])
    spared = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    groups = timm_optim.param_groups_weight_decay(model, 0.1, no_weight_decay_list=spared)
    names = {id(p): n for n, p in model.named_parameters()}
    assert decaying(model) == {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]}


def test_rates_are_those_of_timms_layer_decay() -> None:
    timm_optim = pytest.importorskip("timm.optim")
    model = built("timm:vit_tiny_patch16_224")
    names = {id(p): n for n, p in model.named_parameters()}
    theirs = {
        names[id(p)]: group["lr_scale"]
        for group in timm_optim.param_groups_layer_decay(model, layer_decay=0.7)
        for p in group["params"]
    }
    optimizer = build_optimizer(TrialConfig(lr_decay=0.7), model)
    ours = {names[id(p)]: group["factor"] for group in optimizer.param_groups for p in group["params"]}
    last_norm = {"norm.weight", "norm.bias"}  # for timm it is part of the head
    assert {n: ours[n] for n in ours if n not in last_norm} == pytest.approx(
        {n: theirs[n] for n in theirs if n not in last_norm}
    )
    assert {ours[n] for n in last_norm} == {0.7}


def test_the_factor_of_the_base_and_of_layers_multiply() -> None:
    model = built("resnet8", 8)
    optimizer = build_optimizer(TrialConfig(model="resnet8", base_lr=0.1, lr_decay=0.5), model)
    names = {id(p): n for n, p in model.named_parameters()}
    factors = {names[id(p)]: group["factor"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"fc.weight": 1, "fc.bias": 1, "blocks.2.bn2.bias": 0.05, "blocks.1.conv1.weight": 0.025}
    assert {name: factors[name] for name in expected} == pytest.approx(expected)
    assert factors["conv1.weight"] == factors["bn1.bias"] == pytest.approx(0.1 / 16)


class Wrapped(nn.Module):
    """A user's model: a net within, its head before it, weights that stand alone, and a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Head(8, 3, 0.0)
        self.scale = nn.Parameter(torch.ones(1, 8))
        self.backbone = nn.Module()
        self.backbone.stem = nn.Conv2d(3, 4, 3)
        self.backbone.norm = nn.GroupNorm(1, 4)
        self.backbone.rows = nn.ModuleList([nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3)])
        self.backbone.again = self.backbone.rows[1]


def test_a_users_model_has_its_children_in_order() -> None:
    model = Wrapped()
    depths = layers.depths(model)
    assert depths == {
        "scale": 3, "head.weight": 0, "head.bias": 0, "backbone.stem.weight": 3, "backbone.stem.bias": 3,
        "backbone.norm.weight": 3, "backbone.norm.bias": 3, "backbone.rows.0.weight": 2, "backbone.rows.0.bias": 2,
        "backbone.rows.1.weight": 1, "backbone.rows.1.bias": 1,
    }  # fmt: skip
    convolutions = {name for name in depths if name.endswith("weight") and "norm" not in name}
    assert decaying(model) == convolutions


def test_weights_behind_a_parametrization_decay() -> None:
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    assert decaying(model) == {"0.parametrizations.weight.original", "1.weight"}


def test_recurrent_and_attention_weights_decay() -> None:
    model = nn.ModuleDict(
        {"gru": nn.GRU(4, 4), "mix": nn.MultiheadAttention(4, 2, add_bias_kv=True), "fc": nn.Linear(4, 2)}
    )
    assert decaying(model) == {
        "gru.weight_ih_l0", "gru.weight_hh_l0", "mix.in_proj_weight", "mix.out_proj.weight", "fc.weight"
    }  # fmt: skip
