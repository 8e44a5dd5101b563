"""The GPUs that torch can compute on. It is asked, on each GPU, in a child process that may hang or die.

    python -m trainables.devices

Importing this imports no torch, and a machine without any sign of an NVIDIA GPU starts no child.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

SIGNS = ("dev/nvidia[0-9]*", "proc/driver/nvidia/gpus/*", "usr/lib/wsl/lib/libcuda.so.1")  # below the root
LIBRARY, NVML = "libcuda.so.1", "libnvidia-ml.so.1"  # of NVIDIA's driver
VISIBLE = "CUDA_VISIBLE_DEVICES"
HIDDEN = ("", "-1", "NoDevFiles")  # names in VISIBLE that stand for no GPU
ANSWER_S, CHILD_S = 45.0, 90.0  # for one GPU's answer, and for all with torch's import
COMMAND = [sys.executable, "-m", "trainables.devices"]
UUID_BYTES = 96  # NVML_DEVICE_UUID_V2_BUFFER_SIZE


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a part of one (MIG), and why torch cannot compute on it; None if it can."""

    id: str  # as CUDA_VISIBLE_DEVICES names it: a number, or a UUID
    name: str = ""
    memory: int = 0  # bytes
    problem: str | None = None

    def __str__(self) -> str:
        return f"GPU {self.id}{f' ({self.name})' if self.name else ''}"


@cache
def found() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use, as `asked` does, from a child process; nothing without a sign of any.

    Whatever goes wrong is the problem of a GPU. The first call takes the seconds of importing torch.
    """
    if not is_seen():
        return ()
    root = str(Path(__file__).parent.parent)
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(  # noqa: S603 - this file
            COMMAND,
            capture_output=True,
            text=True,
            timeout=CHILD_S,
            env={**os.environ, "PYTHONPATH": paths},
            check=False,
        )
        return tuple(Gpu(**gpu) for gpu in json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        problem = f"torch did not answer in {CHILD_S:.0f} s"
    except (OSError, IndexError, ValueError, TypeError):
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        problem = f"torch could not be asked: {last}"
    return tuple(Gpu(name, problem=problem) for name in visible() or ["0"])


def usable() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use and torch can compute on."""
    return tuple(gpu for gpu in found() if gpu.problem is None)


def unusable() -> list[str]:
    """Return a sentence for each GPU that is seen and that torch cannot compute on, with the reason."""
    return [f"{gpu} cannot be used: {gpu.problem}" for gpu in found() if gpu.problem is not None]


def is_seen(root: Path = Path("/")) -> bool:
    """Return whether there is a sign of a GPU that this process may use: device files, or a driver's library."""
    if visible() == []:
        return False
    if any(any(root.glob(sign)) for sign in SIGNS):
        return True
    with contextlib.suppress(OSError):
        ctypes.CDLL(LIBRARY)
        return True
    return False


def visible() -> list[str] | None:
    """Return the names that CUDA_VISIBLE_DEVICES has; None if it is not set, and all GPUs are visible."""
    if (names := os.environ.get(VISIBLE)) is None:
        return None
    chosen = [name.strip() for name in names.split(",")]
    return chosen[: next((place for place, name in enumerate(chosen) if name in HIDDEN), None)]


def names(nvml: ctypes.CDLL | None = None) -> list[str]:
    """Return the names of the GPUs that may be used, each as a process sees it that is given it alone.

    Those are the ones that CUDA_VISIBLE_DEVICES lists, else what NVML counts: boards by their numbers, and the parts
    of a board that MIG divides by their UUIDs. Where NVML does not answer, as in some containers, CUDA counts.
    """
    if (listed := visible()) is not None:
        return listed
    try:
        nvml = nvml or ctypes.CDLL(NVML)
    except OSError:
        return _counted_by_cuda()
    count = ctypes.c_uint()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return _counted_by_cuda()
    try:
        return [name for board in range(count.value) for name in _parts(nvml, board) or [str(board)]]
    finally:
        nvml.nvmlShutdown()


def _counted_by_cuda() -> list[str]:
    """Return the numbers of the GPUs that CUDA counts, in another process; that of the first if it counts none."""

    def count(_: str) -> Gpu:
        import torch

        return Gpu(str(torch.cuda.device_count()))

    (counted,) = asked(["0"], count)
    return [str(number) for number in range(max(int(counted.id), 1))]


def _parts(nvml: ctypes.CDLL, board: int) -> list[str]:
    """Return the UUIDs of the parts of a board; none if it is not divided."""
    handle, now, later, most = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()
    if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(board), ctypes.byref(handle)):
        return []
    if nvml.nvmlDeviceGetMigMode(handle, ctypes.byref(now), ctypes.byref(later)) or not now.value:
        return []
    nvml.nvmlDeviceGetMaxMigDeviceCount(handle, ctypes.byref(most))
    found: list[str] = []
    for place in range(most.value):
        part, uuid = ctypes.c_void_p(), ctypes.create_string_buffer(UUID_BYTES)
        if nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, ctypes.c_uint(place), ctypes.byref(part)):
            continue  # no part has this place
        if not nvml.nvmlDeviceGetUUID(part, uuid, ctypes.c_uint(UUID_BYTES)):
            found.append(uuid.value.decode())
    return found


def answer(name: str) -> Gpu:
    """Return what torch says of a GPU once it has computed there; this process must not have used one before."""
    os.environ[VISIBLE] = name
    import torch

    from trainables.memory import compute

    device = torch.device("cuda")
    try:
        compute(device)
        properties = torch.cuda.get_device_properties(device)
    except Exception as error:  # whatever it is, a trial would meet it
        return Gpu(name, problem=_reason(error))
    return Gpu(name, properties.name, properties.total_memory)


def _reason(error: Exception) -> str:
    """Return the first line of an error of torch, and what it has code for if that is what is missing."""
    import torch

    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "no kernel image" not in first:
        return first
    return f"{first} (it is {_capability()}, this build of torch is for {', '.join(torch.cuda.get_arch_list())})"


def _capability() -> str:
    """Return the kind of this process's GPU as compilers name it, such as sm_70."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def asked(names: Iterable[str], answer: Callable[[str], Gpu] = answer, patience_s: float = ANSWER_S) -> tuple[Gpu, ...]:
    """Return each GPU's answer, given by a process that sees it alone; a problem for one that dies or hangs."""
    context = multiprocessing.get_context("fork")  # torch is imported once, and CUDA was not used before
    processes = []
    for name in names:
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_tell, args=(answer, name, send), daemon=True)
        process.start()
        send.close()
        processes.append((name, process, receive))
    until = time.monotonic() + patience_s
    answers = []
    for name, process, receive in processes:
        gpu = Gpu(name, problem=f"it did not answer in {patience_s:.0f} s")
        if receive.poll(max(until - time.monotonic(), 0.0)):
            try:
                gpu = receive.recv()
            except EOFError:
                process.join(patience_s)
                gpu = Gpu(name, problem=f"a process that computed there died (exit code {process.exitcode})")
        process.kill()
        answers.append(gpu)
    return tuple(answers)


def _tell(answer: Callable[[str], Gpu], name: str, send: Connection) -> None:
    send.send(answer(name))


def main() -> None:
    """Print what is known of each GPU, as JSON on one line."""
    import torch  # noqa: F401 - before the processes that need it

    print(json.dumps([asdict(gpu) for gpu in asked(names())]))  # noqa: T201 - for `found`


if __name__ == "__main__":
    main()
