"""`--space FILE`: what a file may contain, and the messages about what it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from optuna.distributions import CategoricalDistribution, FloatDistribution

from orchestrator import validation
from orchestrator.cluster.machine import Resources
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from search_spaces import space_file
from search_spaces.situation import Situation
from search_spaces.space import SearchSpace
from search_spaces.stage import Stage
from trainables.config import TrialConfig
from trainables.errors import ConfigError

WHOLE = """
trials: 7
max_epochs: 3
subset: 500
set: {model: resnet8, lr: 1e-2, flip: true, weights: none}
search:
  optimizer: choice(sgd, adamw)
  momentum: uniform(0.8, 0.99) if optimizer=sgd
  brightness: uniform(0, 0.4)
  contrast: same(brightness)
"""
PYTHON = """
from search_spaces.space import SearchSpace, choice, log, uniform
from trainables.config import TrialConfig

def space(*, gpu, quick):
    return SearchSpace(
        TrialConfig(model="resnet18" if gpu else "resnet8"),
        {"optimizer": choice("sgd", "adamw"), "momentum": uniform(0.8, 0.99), "brightness": uniform(0, 0.4)},
        trials=2 if quick else 7,
        conditions={"momentum": {"optimizer": ("sgd",)}},
        ties={"contrast": "brightness"},
    )
"""


def loaded(folder: Path, text: str, suffix: str = ".yaml", **form: Any) -> SearchSpace:
    path = folder / f"mine{suffix}"
    path.write_text(text)
    return space_file.read(path)(Situation(**form))


def problems(folder: Path, text: str, suffix: str = ".yaml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, suffix)
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


def made(folder: Path, text: str, suffix: str = ".yaml", **asked: Any) -> plan.Plan:
    loaded(folder, text, suffix)
    return planned(SweepOptions(dataset="digits", results=folder, space=folder / f"mine{suffix}", **asked))


def planned(options: SweepOptions) -> plan.Plan:
    validation.check(options, [Resources(2, 0)])
    return plan.make(Request(options), [Resources(2, 0)])


def test_a_yaml_file(tmp_path: Path) -> None:
    assert loaded(tmp_path, WHOLE) == SearchSpace(
        TrialConfig(model="resnet8", lr=0.01, flip=True, max_epochs=3),
        {
            "optimizer": CategoricalDistribution(("sgd", "adamw")),
            "momentum": FloatDistribution(0.8, 0.99),
            "brightness": FloatDistribution(0, 0.4),
        },
        trials=7,
        subset=500,
        conditions={"momentum": {"optimizer": ("sgd",)}},
        ties={"contrast": "brightness"},
    )


def test_a_python_file_is_given_machine_and_variant(tmp_path: Path) -> None:
    small, large = loaded(tmp_path, PYTHON, ".py"), loaded(tmp_path, PYTHON, ".py", gpu=True, preset="quick")
    assert (small.base.model, small.trials) == ("resnet8", 7)
    assert (large.base.model, large.trials) == ("resnet18", 2)
    assert small.conditions == {"momentum": {"optimizer": ("sgd",)}}
    imports = "from search_spaces.space import *\nfrom trainables.config import *\n"
    assert loaded(tmp_path, imports + "def space(): return SearchSpace(TrialConfig())", ".py").base == TrialConfig()


def test_stages_of_a_yaml_file(tmp_path: Path) -> None:
    text = """
search: {freeze: "choice(true, false)", model: "choice(resnet8, resnet14)", lr: "log(0.01, 1)"}
stages:
- {share: 0.75, set: {freeze: true}, each: [model]}
- share: 0.25
  set: {freeze: false}
  best: {model: 1}
"""
    plan_of_it = made(tmp_path, text)
    assert plan_of_it.space.stages == (
        Stage(0.75, {"freeze": True}, each=("model",)),
        Stage(0.25, {"freeze": False}, {"model": 1}),
    )
    assert plan.Plan.from_dict(json.loads(json.dumps(plan_of_it.to_dict()))) == plan_of_it
    assert made(tmp_path, text, set=("freeze=true",)).space.stages == (Stage(0.75, each=("model",)),)


@pytest.mark.parametrize("suffix", [".yaml", ".py"])
def test_the_plan_has_all_of_it_and_options_take_precedence(tmp_path: Path, suffix: str) -> None:
    text = WHOLE if suffix == ".yaml" else PYTHON
    found = made(tmp_path, text, suffix, set=(("brightness=0.3",),), search=(("lr=log(0.01,1)",),), trials=5)
    (tmp_path / f"mine{suffix}").unlink()
    space = plan.Plan.from_dict(json.loads(json.dumps(found.to_dict()))).space
    assert space == found.space
    assert found.trials == 5
    assert list(space.distributions) == ["optimizer", "momentum", "lr"]
    assert (space.base.brightness, space.base.contrast) == (0.3, 0.3)


def test_all_problems_of_a_yaml_file_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """
trails: 3
trials: some
set:
  modle: resnet8
  lr: -1
  max_epochs: 3
  seed: 3
  optimizer: adam
  optimizer: sgd
search:
  dropout: uniform(0.5, 1.5)
  weight_decay: lorg(1, 2)
  momentum: uniform(0.8, 0.9) if optimizer=sgd
  lr: [0.1, 0.2]
  warmup: uniform(0, 0.5) if weight_decay=1
  lr: log(0.1, 1)
"""
    messages = {
        2: "did you mean trials?",
        3: "trials: some: a whole number is needed, at least 1",
        5: "did you mean model?",
        6: "lr=-1.0 is not allowed (allowed: above 0)",
        7: "use the key max_epochs",
        8: "use --seed",
        10: "optimizer stands in line 9 already",
        12: "dropout=1.5 is not allowed",
        13: "weight_decay=lorg(1, 2): unknown distribution; did you mean log? (allowed: log(LOW,HIGH)",
        14: "optimizer, which is not searched",
        15: "lr=0.1; 0.2: several values are a choice; write choice(0.1,0.2)",
        17: "lr stands in line 15 already",
    }
    found = problems(tmp_path, text)
    assert len(found) == len(messages), "what depends on a wrong line is not reported as well"
    for (line, message), problem in zip(messages.items(), found, strict=True):
        assert problem.startswith(f"mine.yaml, line {line}: ")
        assert message in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; a space has the keys trials, max_epochs, subset, set, search, stages"),
        ("# nothing\n", "is empty"),
        ("{}", "is empty"),
        ("- model", "line 1: a space is a mapping"),
        ("just words", "here is 'just words'"),
        ("set: 3", "line 1: set is a mapping"),
        ("set:\n\tlr: 1", "line 2: this is not YAML: found character '\\t'"),
        ("set: [", "this is not YAML"),
        ("set: {lr: 1}\n---\nset: {lr: 2}", "line 2: this is not YAML"),
        ("set: {lr: }", "lr='' is not allowed"),
        ("subset: 1", "subset: 1: a whole number is needed, at least 2"),
        ("set: {model: !!python/object/apply:os.getcwd []}", "here is a list"),
        ("search: {lr: 0.1}", "lr=0.1: one value is set, not searched; write --set lr=0.1, or in a space file lr"),
        ("search: {lr: log(1e-4 1e-2)}", "lr=log(1e-4 1e-2): invalid syntax; write log(LOW,HIGH), with LOW above 0"),
        (
            "search: {lr: 'log(0.1, 1) if optimizer'}",
            "'optimizer' is no condition; write OTHER=VALUE or OTHER=VALUE|VALUE",
        ),
        ("search: {lr: 'log(0.1, 1) if optimiser=sgd'}", "did you mean optimizer?"),
        ("search: {lr: 'log(0.1, 1) if lr=1'}", "which is the field itself"),
        ("search: {lr: 'log(0.1, 1) if dropout=0', dropout: 'uniform(0, 1)'}", "dropout=1.0 is not allowed"),
        ("search: {lr: 'log(0.1, 1) if dropout=0', dropout: 'uniform(0, 0.5)'}", "a choice(…) is needed"),
        ("search: {lr: 'log(0.1, 1) if optimizer=sdg', optimizer: 'choice(sgd, adam)'}", "did you mean sgd?"),
        (
            "search: {flip: 'choice(true, false) if stem=auto', stem: 'choice(auto, small) if flip=true'}",
            "the conditions of flip, stem depend on each other",
        ),
        ("search: {dropout: same(lr)}", "lr is not searched, so give dropout a value"),
        ("search: {dropout: same(droput)}", "did you mean dropout?"),
        ("search: {dropout: same(batch_size), batch_size: 'choice(8, 16)'}", "batch_size a whole number"),
        ("search: {dropout: same(lr), lr: 'log(0.1, 2)'}", "dropout=2.0 is not allowed"),
        ("set: {lr: 1}\nsearch: {lr: 'log(0.1, 2)'}", "lr is both set and searched"),
        ("stages: 3", "line 1: stages is a list of stages; here is '3'"),
        ("stages: [3]", "line 1: stage 1 is a mapping, with the keys share, set, best, each"),
        ("stages:\n- {share: 1}\n- {set: {}}", "line 3: stage 2: its share is missing; a number above 0 is needed"),
        ("stages: [{share: most}]", "stage 1: its share is most; a number above 0 is needed"),
        ("stages: [{share: -1}]", "stage 1: its share is -1.0; a number above 0 is needed"),
        ("stages: [{share: 1, fix: {}}]", "unknown key 'fix'"),
        ("stages: [{share: 1, set: {frees: true}}]", "did you mean freeze?"),
        ("stages: [{share: 1, set: {freeze: true}}]", "stage 1: it fixes freeze, which is not searched"),
        ("stages: [{share: 1, each: model}]", "each is a list of fields; here is 'model'"),
        ("stages: [{share: 1, each: [model]}]", "stage 1: model is not searched by choice(…)"),
        ("search: {model: 'choice(resnet8, resnet14)'}\nstages: [{share: 1}, {share: 1, best: {model: two}}]",
         "line 2: stage 2: the number of best values of model is two; a whole number from 1 is needed"),
    ],
)  # fmt: skip
def test_what_a_yaml_file_may_not_contain(tmp_path: Path, text: str, message: str) -> None:
    (found,) = problems(tmp_path, text)
    assert found.startswith("mine.yaml")
    assert message in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def space(:", "mine.py, line 1: SyntaxError"),
        ("import nowhere_to_be_found", "mine.py, line 1: ModuleNotFoundError"),
        ("x = 1", "there is no function space in it; define space(*, gpu, quick)"),
        ("space = 3", "there is no function space in it"),
        ("def space(dataset): pass", "mine.py: TypeError: space() missing 1 required positional argument"),
        ("def space():\n    return 1 / 0", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("def space():\n    return None", "space returned NoneType"),
        ("import sys\nsys.exit(3)", "mine.py, line 2: SystemExit"),
        ("from trainables.config import *\nTrialConfig(lr=-1)", "mine.py, line 2: lr=-1 is not allowed"),
    ],
)
def test_what_is_wrong_with_a_python_file_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (found,) = problems(tmp_path, text, ".py")
    assert message in found


def test_all_problems_of_a_python_space(tmp_path: Path) -> None:
    text = PYTHON.replace(
        '"brightness": uniform(0, 0.4)', '"lrr": log(0.1, 1), "max_epochs": choice(3, 4), "dropout": 0.1'
    )
    text = text.replace("trials=2 if quick else 7", "trials=0").replace("TrialConfig(", "TrialConfig(metric='val_f1', ")
    found = "\n".join(problems(tmp_path, text, ".py"))
    for message in (
        "did you mean lr?",
        "use --max-epochs",
        "use --metric",
        "0.1 is no distribution",
        "brightness is not searched",
        "trials: 0",
    ):
        assert message in found


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    for name, message in (("none.yaml", "there is no such file"), ("mine.toml", "ending in .yaml, .yml, .py")):
        with pytest.raises(ConfigError, match=message):
            space_file.read(tmp_path / name)(Situation())
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        space_file.read(tmp_path / "binary.yaml")(Situation())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"recipe": "improved-resnet50", "dataset": None}, "a recipe's arms are its spaces"),
        ({"quick": True}, "--preset quick: a YAML space has no presets"),
        ({"search": (("optimizer=choice(adam, adamw)",),)}, "needs optimizer=sgd, which choice(adam, adamw) never is"),
    ],
)
def test_what_does_not_go_with_a_space_file(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    (tmp_path / "mine.yaml").write_text(WHOLE)
    options = SweepOptions(**{"dataset": "digits", "results": tmp_path, "space": tmp_path / "mine.yaml", **asked})
    with pytest.raises(ConfigError) as caught:
        planned(options)
    assert message in str(caught.value)


def test_the_split_stays_the_sweeps(tmp_path: Path) -> None:
    for text in ("set: {split: '80:20'}", "search: {split: 'choice(core, official)'}"):
        with pytest.raises(ConfigError, match="split"):
            made(tmp_path, text)


@pytest.mark.slow
def test_a_sweep_over_a_space_file(command: Command, tmp_path: Path) -> None:
    """Check that samples are the first proposals, that inactive fields have the base's value, and that ties follow."""
    path = tmp_path / "mine.yaml"
    path.write_text(WHOLE)
    asked = ("orchestrator.sweep", "digits", "--space", path, "--set", "precision=float32", "--max-epochs", "1")
    dry = command(*asked, "--dry-run", "--json", "--results", tmp_path)
    assert dry.code == 0, dry.err
    assert "uniform(0.8, 0.99) if optimizer=sgd" in dry.err
    alone = ("--trials", "5", "--slots", "1", "--confirm", "0")  # one slot: proposals wait for results
    done = command(*asked, *alone, "--results", tmp_path, "--name", "mine")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in (tmp_path / "mine" / "journal.jsonl").read_text().splitlines()]
    proposed = [event for event in events if event["event"] == "trial_proposed"]
    assert [event["params"] for event in proposed] == dry.result["samples"]
    for event in proposed:
        config, params = event["config"], event["params"]
        assert ("momentum" in params) == (config["optimizer"] == "sgd")
        assert config["momentum"] == params.get("momentum", TrialConfig.momentum)
        assert config["contrast"] == config["brightness"] == params["brightness"]


@pytest.mark.parametrize("module", ["orchestrator.sweep", "orchestrator.doctor"])
def test_a_space_file_runs_once_a_command(module: str, command: Command, tmp_path: Path) -> None:
    """Count its runs in a command that needs the space with GPUs and without, before and after machines are known."""
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from search_spaces.space import SearchSpace, log\n"
        "from trainables.config import TrialConfig\n"
        "with Path(__file__).with_name('runs').open('a') as file:\n"
        "    file.write('run ')\n"
        "def space(*, gpu, quick):\n"
        "    return SearchSpace(TrialConfig(model='resnet8', max_epochs=1), {'lr': log(0.01, 0.1)}, trials=1)\n"
    )
    dry = ["--dry-run"] if module == "orchestrator.sweep" else []
    done = command(module, "digits", "--space", tmp_path / "mine.py", "--results", tmp_path / "results", *dry)
    assert done.code == 0, done.err
    assert (tmp_path / "runs").read_text() == "run "
