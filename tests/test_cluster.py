"""Sweeps on Ray clusters that run already: real heads and nodes, started by `ray start`, locked by a token or not."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT, Finished
from ray_cluster import RAY, Cluster, free_port, ray_cluster, without_ray
from safetensors.torch import save_file

from orchestrator.record.events import AttemptLost, Event, TrialAttempt, TrialEnded, TrialEpoch, TrialPaused
from orchestrator.record.journal import read
from orchestrator.record.state import replay
from trainables.config import TrialConfig
from trainables.models.build import build

PACKAGES = ("orchestrator", "search_spaces", "trainables")
SOON_S = 15  # until a wrong command has ended
CLUSTERS_MD = (ROOT / "docs" / "clusters.md").read_text()


@dataclass
class Sweeps:
    """Sweeps of digits with results in one folder, run as by a user with an empty home."""

    results: Path
    cache: Path
    home: Path

    def command(self, *arguments: str | Path) -> list[str]:
        fixed = ("--quick", "--confirm", "0", "--json", "--results", self.results)
        return [sys.executable, "-m", "orchestrator.sweep", "digits", *map(str, (*fixed, *arguments))]

    def environment(self, **variables: str) -> dict[str, str]:
        folders = {"SWEEP_ORCHESTRATOR_CACHE": str(self.cache), "HOME": str(self.home)}
        return without_ray() | folders | variables

    def run(self, *arguments: str | Path, **variables: str) -> Finished:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, cwd=ROOT, env=self.environment(**variables),
            timeout=110, check=False,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def started(self, *arguments: str | Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            self.command(*arguments), cwd=ROOT, env=self.environment(**variables), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def events(self, name: str) -> list[Event]:
        path = self.results / name / "journal.jsonl"
        return read(path)[0] if path.exists() else []

    def wait_for(self, process: subprocess.Popen[str], condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, f"not reached within {seconds:.0f} s"
            time.sleep(0.1)


@pytest.fixture
def sweeps(tmp_path: Path, environment: dict[str, str]) -> Sweeps:
    for name in ("results", "home"):
        (tmp_path / name).mkdir()
    return Sweeps(tmp_path / "results", Path(environment["SWEEP_ORCHESTRATOR_CACHE"]), tmp_path / "home")


@pytest.fixture(scope="module")
def locked() -> Iterator[Cluster]:
    """Start a head with two CPUs that asks for a token."""
    with ray_cluster(2) as cluster:
        yield cluster


def check_refused(done: Finished, *words: str) -> None:
    """Check that the command was wrong and printed one line with `words`, and nothing else."""
    assert done.code == 2, done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("error: ")
    for word in words:
        assert word in done.err
    assert done.out == ""


@pytest.mark.slow
def test_a_process_may_start_ray_twice() -> None:
    twice = (
        "from orchestrator.cluster import connection as c\nfor _ in 'ab':\n with c.connect('local'): assert c.nodes()"
    )
    done = subprocess.run([sys.executable, "-c", twice], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.cluster
def test_a_sweep_attaches_and_the_token_is_written_nowhere(locked: Cluster, sweeps: Sweeps) -> None:
    """RAY_AUTH_MODE is not set here: the command finds out that the cluster asks for a token."""
    assert locked.token is not None
    token, seen = locked.token.read_text(), 0
    arguments = ("--trials", "3", "--name", "attached", "--address", locked.address)
    with sweeps.started(*arguments, RAY_AUTH_TOKEN=token) as process:
        out, err = "", ""
        while process.poll() is None:
            lines = [" ".join(command or []) for command in command_lines()]
            assert not any(token in line for line in lines)
            seen += any("ray::ImplicitFunc" in line or "ResourceTrainable" in line for line in lines)
            time.sleep(0.5)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert seen, "no worker was looked at"
    result = json.loads(out.splitlines()[-1])
    assert sum(result["trials"].values()) == 3
    assert result["bundle"]
    assert "warning" not in err  # the cluster is locked
    files = [path for path in sweeps.results.rglob("*") if path.is_file()]
    logs = [path for path in (locked.folder / "ray").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert logs
    assert not [path for path in (*files, *logs) if token.encode() in path.read_bytes()]
    assert token not in out + err


def command_lines() -> list[list[str] | None]:
    return [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]


@pytest.mark.cluster
def test_auto_uses_ray_address_and_the_token_of_the_user(locked: Cluster, sweeps: Sweeps) -> None:
    assert locked.token is not None
    (sweeps.home / ".ray").mkdir()
    shutil.copy(locked.token, sweeps.home / ".ray" / "auth_token")
    done = sweeps.run("--dry-run", "--address", "auto", RAY_ADDRESS=locked.address)
    assert done.code == 0, done.err
    assert f"attaching to the Ray cluster at {locked.address}" in done.err
    wrong = sweeps.run("--dry-run", "--address", "auto", RAY_ADDRESS="http://127.0.0.1:8265")
    check_refused(wrong, "RAY_ADDRESS=http://127.0.0.1:8265", "HOST:PORT")


def sitecustomized(folder: Path, line: str) -> dict[str, str]:
    """Return an environment in which every Python begins with `line`."""
    (folder / "sitecustomize.py").write_text(f"import ray._private.utils\n{line}\n")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.cluster
def test_a_cluster_that_cannot_be_attached_to_is_refused_soon(locked: Cluster, sweeps: Sweeps, tmp_path: Path) -> None:
    assert locked.token is not None
    token, wrong = str(locked.token), secrets.token_hex(32)
    python, missing = "3.12.1", tmp_path / "missing"
    old_ray = sitecustomized(new(tmp_path / "ray"), "ray.__version__ = '2.59.0'")
    other_python = sitecustomized(
        new(tmp_path / "python"), f"ray._private.utils.compute_version_info = lambda: (ray.__version__, '{python}')"
    )
    cases: list[tuple[dict[str, str], tuple[str, ...]]] = [
        ({}, ("asks for a token", "none here", "RAY_AUTH_TOKEN_PATH")),
        ({"RAY_AUTH_MODE": "token"}, ("asks for a token", "none here")),
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": wrong}, ("RAY_AUTH_MODE=disabled is set here",)),
        ({"RAY_AUTH_TOKEN": wrong}, ("the token in RAY_AUTH_TOKEN is not the cluster's",)),
        ({"RAY_AUTH_TOKEN_PATH": str(missing)}, (f"RAY_AUTH_TOKEN_PATH={missing} cannot be read",)),
        ({"RAY_AUTH_TOKEN_PATH": token, **old_ray}, ("this command Ray 2.59.0", "both must be the same")),
        ({"RAY_AUTH_TOKEN_PATH": token, **other_python}, (f"on Python {python};", "both must be the same")),
    ]
    for variables, words in cases:
        began = time.monotonic()
        done = sweeps.run("--address", locked.address, **variables)
        took = time.monotonic() - began
        check_refused(done, locked.address, *words)
        assert took < SOON_S, words
        assert wrong not in done.err


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@contextmanager
def mute() -> Iterator[int]:
    """Yield a port that takes connections and never answers."""
    with socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""


@contextmanager
def web() -> Iterator[int]:
    """Yield a port that speaks HTTP."""
    server = ThreadingHTTPServer(("", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
def test_a_server_that_is_not_ray_is_refused_soon(sweeps: Sweeps) -> None:
    began = time.monotonic()
    with mute() as silent, web() as talking, ThreadPoolExecutor() as pool:
        addresses = [f"127.0.0.1:{port}" for port in (silent, talking)]
        done = list(pool.map(lambda address: sweeps.run("--address", address), addresses))
    assert time.monotonic() - began < SOON_S
    for address, command in zip(addresses, done, strict=True):
        check_refused(command, address, "did not answer as the head of a Ray cluster")


def test_an_address_where_nothing_listens_is_refused(sweeps: Sweeps) -> None:
    address = f"127.0.0.1:{free_port()}"
    began = time.monotonic()
    check_refused(sweeps.run("--address", address), address, "nothing answers there", "ray start --head")
    assert time.monotonic() - began < 5


def own_address() -> str:
    """Return an address of this machine beside its loopback, or nothing."""
    addresses = [a.address for of in psutil.net_if_addrs().values() for a in of if a.family == socket.AF_INET]
    return next((address for address in addresses if not address.startswith("127.")), "")


@pytest.mark.cluster
def test_a_cluster_without_a_token_is_warned_of_unless_it_is_this_machine_s(locked: Cluster, sweeps: Sweeps) -> None:
    with ray_cluster(1, token=False) as cluster:
        port = cluster.address.rpartition(":")[2]
        here = sweeps.run("--dry-run", "--address", cluster.address)
        assert (here.code, "warning" in here.err) == (0, False), here.err
        if own_address():
            there = sweeps.run("--dry-run", "--address", f"{own_address()}:{port}")
            assert there.code == 0, there.err
            assert f"warning: the Ray cluster at {own_address()}:{port} asks for no token" in there.err
        check_refused(
            sweeps.run("--address", cluster.address, RAY_AUTH_MODE="token"), "asks for no token", "RAY_AUTH_MODE"
        )
        check_refused(
            sweeps.run("--address", "auto"),
            "several Ray clusters run here",
            f":{port}",
            locked.address.partition(":")[2],
        )


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a Python with all that this one has installed, except for this project."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    installed = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(installed)  # a `.pth` in there, as of an editable install, is not read
    return folder / "bin" / "python"


def unshared(hidden: list[Path]) -> list[str]:
    """Return the beginning of a command that sees the folders `hidden` empty, on a disk of their own."""
    begin = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]
    mounts = "".join(f"mount -t tmpfs -o size=64m none '{folder}' && " for folder in hidden)
    command = [*begin, "sh", "-c", f'{mounts} exec "$@"', "sh"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system of its own can be mounted here: {getattr(error, 'stderr', None) or error}")
    return command


@pytest.mark.cluster
@pytest.mark.slow  # half a minute
def test_nodes_need_the_dependencies_only_and_a_disk_that_they_do_not_share(sweeps: Sweeps, bare_python: Path) -> None:
    """All trials run on a node that has neither this project nor the folders of results and storage."""
    storage = new(sweeps.results.parent / "storage")
    away = unshared([*(ROOT / package for package in PACKAGES), sweeps.results, storage])
    with ray_cluster(0) as cluster:
        cluster.add_node(2, "--node-name=away", ray=[*away, str(bare_python), *RAY[1:]])
        refused = sweeps.run("--address", cluster.address, "--storage", storage, **cluster.environment)
        assert refused.code == 2, refused.err
        error = refused.err.splitlines()[-1]
        assert re.fullmatch(
            rf"error: --storage {storage}/\S+: node away: what is written here is not seen there", error
        )
        done = sweeps.run("--trials", "2", "--name", "far", "--address", cluster.address, **cluster.environment)
    assert done.code == 0, done.err
    assert "note: away cannot see this sweep's folder" in done.err
    assert sum(done.result["trials"].values()) == 2
    node_ids = {trial.worker.node_id for trial in replay(sweeps.events("far")).trials.values()}
    assert node_ids == {cluster.nodes[1].node_id}
    assert not list((sweeps.results / "far" / "checkpoints").glob("*/*.safetensors"))  # they lay on the node alone
    assert (sweeps.results / "far" / "best" / "model.safetensors").stat().st_size > 100_000


@pytest.mark.cluster
def test_a_node_copies_large_images_that_it_does_not_see(sweeps: Sweeps, tmp_path: Path) -> None:
    """The node copies once, for two workers: it cannot see the driver's cache, and its own is empty."""
    storage, cache = new(tmp_path / "storage"), new(tmp_path / "cache")
    streamed = (
        "import sys; from orchestrator import sweep; from orchestrator.cluster import shared_images; "
        "shared_images.STORE_SHARE = 0; sys.exit(sweep.main())"
    )
    with ray_cluster(0) as cluster:
        own = {"SWEEP_ORCHESTRATOR_CACHE": str(cache)}
        cluster.add_node(2, ray=[*unshared([sweeps.cache]), *RAY], environment=own)
        options = ("--trials", "2", "--name", "far", "--address", cluster.address, "--storage", storage)
        _, _, _, *arguments = sweeps.command(*options)
        done = subprocess.run(
            [sys.executable, "-c", streamed, *arguments], env=sweeps.environment(**cluster.environment),
            capture_output=True, text=True, cwd=ROOT, check=False, timeout=100,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {trial.status for trial in replay(sweeps.events("far")).trials.values()} <= {"completed", "stopped"}
    (copy,) = (path for path in (cache / "datasets").iterdir() if path.is_dir())
    assert copy.name.startswith("digits-")


@pytest.mark.cluster
@pytest.mark.slow  # what carries images does it, which test_a_node_copies_large_images_that_it_does_not_see holds
def test_a_node_gets_weights_that_it_does_not_see(sweeps: Sweeps, tmp_path: Path) -> None:
    folder, storage = new(tmp_path / "nets"), new(tmp_path / "storage")
    for name in ("resnet8", "resnet14"):
        save_file(build(TrialConfig(model=name), 10, 8).state_dict(), folder / f"{name}.safetensors")
    searched = "--search", "model=choice(resnet8,resnet14)", "--set", f"weights={folder}"
    with ray_cluster(0) as cluster:
        cluster.add_node(2, ray=[*unshared([folder]), *RAY])
        away = "--name", "far", "--address", cluster.address, "--storage", storage
        done = sweeps.run("--trials", "3", *searched, *away, **cluster.environment)
    assert done.code == 0, done.err
    trials = replay(sweeps.events("far")).trials.values()
    assert {trial.status for trial in trials} <= {"completed", "stopped"}
    for trial in trials:
        assert trial.worker.weights is not None
        assert trial.worker.weights["source"] == f"{trial.config['model']}.safetensors"
        assert trial.worker.weights["drawn"] == 0  # the head is of as many classes


@pytest.mark.cluster
def test_workers_run_the_code_that_was_sent(locked: Cluster, sweeps: Sweeps) -> None:
    script = (
        "import json, sys\n"
        "from orchestrator.cluster import connection\n"
        "def where():\n"
        "    import orchestrator, search_spaces, trainables\n"
        "    return [p.__file__ for p in (orchestrator, search_spaces, trainables)]\n"
        "with connection.connect(sys.argv[1]):\n"
        "    import ray\n"
        "    print(json.dumps(connection.ask_node(ray.nodes()[0]['NodeID'], where)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, locked.address], env=sweeps.environment(**locked.environment),
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all("py_modules_files" in path for path in json.loads(done.stdout)), done.stdout


@pytest.mark.cluster
def test_the_code_of_a_user_s_model_is_sent(sweeps: Sweeps, tmp_path: Path) -> None:
    """The node has neither the file nor the folder that the command runs in."""
    code = new(tmp_path / "code")
    (code / "own_nets.py").write_text(
        "from torch import nn\n"
        "def small(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))\n"
    )
    asked = ("--set", "model=own_nets:small", "--trials", "2", "--name", "own")
    with ray_cluster(0) as cluster:
        cluster.add_node(2, ray=[*unshared([code]), *RAY])
        done = sweeps.run("--address", cluster.address, *asked, PYTHONPATH=str(code), **cluster.environment)
    assert done.code == 0, done.err
    assert {trial.status for trial in replay(sweeps.events("own")).trials.values()} <= {"completed", "stopped"}


def concurrency(events: list[Event]) -> list[int]:
    """Return how many attempts ran after each of the events."""
    running: set[int] = set()
    counts = []
    for event in events:
        if isinstance(event, TrialAttempt):
            running.add(event.trial)
        elif isinstance(event, TrialEnded | TrialPaused | AttemptLost):
            running.discard(event.trial)
        counts.append(len(running))
    return counts


def epochs_on(events: list[Event], node_id: str) -> list[tuple[int, int]]:
    """Return (trial, epoch) of each epoch that was trained on a node."""
    at: dict[int, str | None] = {}
    epochs = []
    for event in events:
        if isinstance(event, TrialEpoch):
            at[event.trial] = event.worker.node_id if event.worker else at.get(event.trial)
            if at[event.trial] == node_id:
                epochs.append((event.trial, event.metrics["epoch"]))
    return epochs


EPOCHS = 12  # of two seconds and more: a trial of a quarter of a minute has a checkpoint


def saved_on(events: list[Event], node_id: str, checkpoints: Path) -> list[int]:
    """Return the trials that run on a node, have a checkpoint, and at least two of their epochs before them."""
    state = replay(events)
    there = (
        n
        for n in state.running
        if state.trials[n].worker.node_id == node_id and state.trials[n].last_epoch < EPOCHS - 1
    )
    return [number for number in there if any((checkpoints / str(number)).glob("0-*.safetensors"))]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(300)  # three workers import torch one after the other, and an epoch takes seconds
def test_nodes_come_and_go(sweeps: Sweeps) -> None:
    """A node that joins is used; when it dies, a third one goes on with its trial from the storage."""
    long = ("--set", "batch_size=2", "--max-epochs", str(EPOCHS), "--trials", "3", "--scheduler", "none")
    checkpoints = sweeps.results / "nodes" / "checkpoints"
    with ray_cluster(1) as cluster:
        arguments = (*long, "--name", "nodes", "--address", cluster.address)
        with sweeps.started(*arguments, **cluster.environment) as process:
            sweeps.wait_for(process, lambda: bool(epochs_on(sweeps.events("nodes"), cluster.head.node_id)))
            alone = len(sweeps.events("nodes"))
            second = cluster.add_node(1)
            sweeps.wait_for(process, lambda: bool(saved_on(sweeps.events("nodes"), second.node_id, checkpoints)))
            events = sweeps.events("nodes")
            (number,) = saved_on(events, second.node_id, checkpoints)
            joined = len(events)
            second.kill_raylet()
            third = cluster.add_node(1)
            _, err = process.communicate(timeout=210)
    assert process.returncode == 0, err
    events = sweeps.events("nodes")
    running = concurrency(events)
    assert max(running[:alone]) == 1
    assert max(running[alone:joined]) == max(running[joined:]) == 2
    assert epochs_on(events[joined:], third.node_id)
    lost = [event.trial for event in events if isinstance(event, AttemptLost)]
    assert lost == [number]
    state = replay(events)
    assert state.trials[number].attempt == 1
    assert {trial.status for trial in state.trials.values()} == {"completed"}
    assert len(state.trials) == 3
    counted = Counter((e.trial, e.metrics["epoch"]) for e in events if isinstance(e, TrialEpoch))
    assert counted == {(trial, epoch): 1 for trial in range(3) for epoch in range(1, EPOCHS + 1)}
    assert "lost its worker" in err
    assert "raylet" not in err


@pytest.mark.cluster
def test_two_sweeps_share_a_cluster(locked: Cluster, sweeps: Sweeps) -> None:
    arguments = ("--trials", "3", "--slots", "1", "--address", locked.address)
    with (
        sweeps.started(*arguments, "--name", "one", **locked.environment) as one,
        sweeps.started(*arguments, "--name", "two", "--seed", "1", **locked.environment) as two,
    ):
        for process in (one, two):
            out, err = process.communicate(timeout=100)
            assert process.returncode == 0, err
            assert sum(json.loads(out.splitlines()[-1])["trials"].values()) == 3
    spans = []
    for name in ("one", "two"):
        events = sweeps.events(name)
        assert [event.n for event in events] == list(range(len(events)))
        assert max(concurrency(events)) == 1
        assert (sweeps.results / name / "best" / "model.safetensors").exists()
        spans.append((events[1].t, events[-1].t))
    assert max(begin for begin, _ in spans) < min(end for _, end in spans)  # side by side


def blocks(heading: str) -> list[str]:
    """Return the shell blocks under a heading of docs/clusters.md."""
    section = CLUSTERS_MD.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def as_on_one_host(commands: str, shared: Path) -> str:
    """Adapt commands of the docs to one host: a folder that exists, free ports, and time for one to open."""
    dashboard, head, node = free_port(), free_port(), free_port()
    commands = commands.replace("HEAD:", f"{own_address()}:").replace("/shared", str(shared))
    commands = commands.replace("6379", str(free_port())).replace("8265", str(dashboard))
    commands = commands.replace("ray start --head", f"ray start --head --dashboard-agent-listen-port={head}")
    commands = commands.replace("ray start --address", f"ray start --dashboard-agent-listen-port={node} --address")
    wait = f"until (: > /dev/tcp/127.0.0.1/{head}) 2> /dev/null; do sleep 0.2; done"  # the agent, which runs jobs
    return commands.replace("ray job submit", f"{wait}\nray job submit")


def in_a_box(script: str, sweeps: Sweeps) -> Finished:
    """Run a shell script in a namespace where it sees its own processes only, which all end with it."""
    begin = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    begin += [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    try:
        subprocess.run([*begin, "true"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no process namespace can be made here: {getattr(error, 'stderr', None) or error}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as in an activated environment
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        done = subprocess.run(
            [*begin, "bash", "-e", "-c", script], env=sweeps.environment(PATH=path, RAY_TMPDIR=temporary), cwd=ROOT,
            capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip
    return Finished(done.returncode, done.stdout, done.stderr)


def only_folder(results: Path) -> Path:
    (folder,) = (path for path in results.iterdir() if path.is_dir())
    return folder


@pytest.mark.cluster
@pytest.mark.skipif(not own_address(), reason="this machine has no address but its loopback")
def test_two_nodes_by_hand_as_the_docs_have_it(sweeps: Sweeps) -> None:
    shared = sweeps.results.parent
    script = as_on_one_host("\n".join(blocks("On plain machines")), shared)
    done = in_a_box(script, sweeps)
    assert done.code == 0, done.out + done.err
    state = replay(read(only_folder(sweeps.results) / "journal.jsonl")[0])
    assert len({trial.worker.node_id for trial in state.trials.values() if trial.worker.node_id}) == 2
    assert list((shared / "checkpoints").iterdir())
    assert "attaching to the Ray cluster at" in done.err
    assert "warning" not in done.err


@pytest.mark.cluster
@pytest.mark.skipif(not own_address(), reason="this machine has no address but its loopback")
def test_a_job_as_the_docs_have_it(sweeps: Sweeps) -> None:
    token = blocks("On plain machines")[0]
    script = as_on_one_host("\n".join([token, *blocks("As a job")]), sweeps.results.parent)
    done = in_a_box(script, sweeps)
    assert done.code == 0, done.out + done.err
    assert "succeeded" in done.out
    folder = only_folder(sweeps.results)
    assert (folder / "best" / "model.safetensors").exists()
    assert (sweeps.home / ".ray" / "auth_token").read_text() not in done.out + done.err


def test_auto_is_refused_without_a_cluster(sweeps: Sweeps) -> None:
    done = in_a_box("python -m orchestrator.sweep digits --address auto", sweeps)
    check_refused(done, "--address auto: no Ray cluster has a node on this machine", "ray start")


@pytest.mark.cluster
def test_a_machine_that_is_no_node_of_the_cluster_is_refused(locked: Cluster, sweeps: Sweeps) -> None:
    assert locked.token is not None
    attach = f"RAY_AUTH_TOKEN_PATH={locked.token} python -m orchestrator.sweep digits --address {locked.address}"
    began = time.monotonic()
    check_refused(in_a_box(attach, sweeps), locked.address, "not a node of that cluster", "ray job submit")
    assert time.monotonic() - began < SOON_S
