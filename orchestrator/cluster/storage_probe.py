"""Find out which nodes of a cluster have access to a storage, by writing and reading probes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from orchestrator.cluster.connection import NODE_S, nodes, on_node
from trainables.storage import Storage

if TYPE_CHECKING:
    import ray


PROBE = b"probe"


def nodes_without_access(storage: Storage) -> dict[str, str]:
    """Return the reason for each node, by name, that does not share `storage` with this process.

    This process and every node write a probe; every node reads that of this process, which looks for all of theirs.

    Raises:
        OSError: this process itself cannot use the storage.
    """
    import ray

    names = {node.id: node.name for node in nodes()}
    with probing(storage) as folder:
        results = {node: on_node(node, probe, storage, f"{folder}/{node}", f"{folder}/driver") for node in names}
        ray.wait([*results.values()], num_returns=len(results), timeout=NODE_S)
        written = set(storage.names(folder))
        return {
            names[node]: why for node, result in results.items() if (why := _why_no_access(result, node in written))
        }


@contextmanager
def probing(storage: Storage) -> Iterator[str]:
    """Make a folder on `storage` with this process's probe in it, `driver`; it is removed when the context ends.

    Raises:
        OSError: this process cannot use the storage.
    """
    folder = f"probe-{secrets.token_hex(8)}"
    probe(storage, f"{folder}/driver", f"{folder}/driver")
    try:
        yield folder
    finally:
        with suppress(OSError):
            storage.remove_folder(folder)


def probe(storage: Storage, write: str, read: str) -> None:
    """Raise OSError unless `write` can be written, and `read`, which a probe wrote, be read."""
    storage.write(write, PROBE)
    with storage.open(read) as file:
        if file.read() != PROBE:
            raise OSError(f"{read} does not hold what was written to it")


def _why_no_access(result: ray.ObjectRef, written: bool) -> str | None:
    """Return why the node that computes `result` does not share the storage, None if it does.

    Args:
        written: this process sees the node's probe.
    """
    import ray

    try:
        ray.get(result, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"no answer in {NODE_S:.0f} s"
    except ray.exceptions.RayTaskError as error:
        missing = isinstance(error.cause, FileNotFoundError)
        return "what is written here is not seen there" if missing else str(error.cause)
    except ray.exceptions.RayError as error:
        return type(error).__name__
    return None if written else "what it writes there is not seen here"
