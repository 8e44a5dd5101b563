"""Stochastic depth: which branches rows skip, how often, and which models refuse it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import stochastic_depth

from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.model_names import CIFAR_RESNETS, TORCHVISION, WITHOUT_BRANCHES
from trainables.models.build import build
from trainables.models.residual import DROPPING, Drop

FAMILIES = {  # one of each with residual branches, and their number
    "resnet8": 3, "resnet20": 9, "resnet18": 8, "resnet50": 16, "resnext50_32x4d": 16, "wide_resnet50_2": 16,
    "regnet_y_400mf": 16, "mobilenet_v2": 10, "mobilenet_v3_small": 6, "mnasnet0_5": 10, "vit_b_32": 24,
    "efficientnet_b0": 16, "convnext_tiny": 18, "swin_t": 12, "swin_v2_t": 12, "maxvit_t": 32,
}  # fmt: skip


def built(config: TrialConfig, size: int) -> nn.Module:
    """Build a model without values, which takes less time, unless it cannot be."""
    with torch.device("cpu" if config.model.startswith(("regnet", "vgg")) else "meta"):
        return build(config, 3, size)


def probabilities(model: nn.Module) -> list[float]:
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values() if isinstance(hook, Drop)]
    found = [getattr(m, DROPPING[type(m).__name__]) for m in model.modules() if type(m).__name__ in DROPPING]
    return [hook.probability for hook in hooks] or found


@pytest.mark.parametrize("name", FAMILIES)
def test_probabilities_grow_linearly(name: str) -> None:
    """Expect as many as Huang et al. 2016 have: l / L of the last one's for the l-th branch."""
    model = built(TrialConfig(model=name, stochastic_depth=0.3), 224)
    count = FAMILIES[name]
    assert probabilities(model) == pytest.approx([0.3 * number / count for number in range(1, count + 1)])


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny", "swin_t", "maxvit_t"])
def test_without_it_a_model_keeps_its_own(name: str) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        published = get_model(name)
    assert probabilities(built(TrialConfig(model=name), 224)) == probabilities(published)


def test_a_dropped_branch_is_torchvisions() -> None:
    branch, rows = nn.Identity(), torch.randn(64, 3, 2, 2)
    branch.register_forward_hook(Drop(0.4))
    torch.manual_seed(3)
    found = branch(rows)
    torch.manual_seed(3)
    assert torch.equal(found, stochastic_depth(rows, 0.4, "row"))
    assert torch.equal(branch.eval()(rows), rows)


@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
def test_rows_skip_all_branches_where_the_probability_is_nearly_one(name: str) -> None:
    """Compare a model whose branches are all dropped with one whose branches end in zeros."""
    model = build(TrialConfig(model=name, stochastic_depth=0.999), 3, 8)
    branches = [m for m in model.modules() if any(isinstance(h, Drop) for h in m._forward_hooks.values())]
    for module in branches:
        for hook in module._forward_hooks.values():
            hook.probability = 0.9999999  # type: ignore[attr-defined]
    images = torch.randn(4, 3, 8, 8)
    model.eval()
    for module in branches:
        module.training = True  # its dropout or norm as in training, which zeros do not show
    dropped = model(images)
    for module in branches:
        module._forward_hooks.clear()
        module.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    torch.testing.assert_close(dropped, model(images))


def test_evaluation_and_names_stay() -> None:
    plain, dropping = (build(TrialConfig(model="resnet8", stochastic_depth=depth), 3, 8).eval() for depth in (0, 0.5))
    dropping.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(plain(images), dropping(images))
    assert not torch.equal(dropping.train()(images), dropping(images))


def test_the_mean_over_draws_is_the_branch() -> None:
    branch, rows = nn.Identity(), torch.ones(20_000, 1)
    branch.register_forward_hook(Drop(0.25))
    found = branch(rows)
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(found.mean()) == pytest.approx(1, abs=0.02)


def test_models_without_branches_are_known_by_name() -> None:
    for name in ("simple_cnn", "vgg11", "alexnet", "densenet121", "googlenet", "inception_v3", "squeezenet1_0"):
        with pytest.raises(ConfigError, match=f"stochastic_depth=0.2: model={name} has no residual branches"):
            built(TrialConfig(model=name, stochastic_depth=0.2), 96)
    others = {name for name in (*CIFAR_RESNETS, *TORCHVISION) if not name.startswith(WITHOUT_BRANCHES)}
    families = tuple({name.partition("_")[0].rstrip("0123456789") for name in FAMILIES})
    assert [name for name in others if not name.startswith(families)] == []


@pytest.mark.parametrize(("name", "fits"), [("resnet10t", True), ("vit_tiny_patch16_224", True), ("vgg11", False)])
def test_timm(name: str, fits: bool) -> None:
    pytest.importorskip("timm")
    made = TrialConfig(model=f"timm:{name}", stochastic_depth=0.2)
    if fits:
        found = probabilities(build(made, 3, 224))
        assert max(found) == pytest.approx(0.2)
        assert found == sorted(found)
    else:
        with pytest.raises(ConfigError, match="has no residual branches that rows could skip; set it to 0"):
            build(made, 3, 224)


def test_a_users_function_may_take_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    code = """from torch import nn
def plain(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
def deep(num_classes, stochastic_depth):
    assert stochastic_depth == 0.2
    return plain(num_classes)
"""
    (tmp_path / "own_nets.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    build(TrialConfig(model="own_nets:deep", stochastic_depth=0.2), 3, 8)
    with pytest.raises(ConfigError, match="no residual branches"):
        build(TrialConfig(model="own_nets:plain", stochastic_depth=0.2), 3, 8)
