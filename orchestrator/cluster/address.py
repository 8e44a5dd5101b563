"""Find a running Ray cluster, and find out whether this machine can attach to it; if not, why not.

Ray itself tries for minutes, deaf to signals, and writes why it failed among many lines on standard error. So another
process tries first, and the kernel ends it in time.
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

import psutil

from trainables.errors import ConfigError, last_line

CONNECT_S = 3.0  # to open a TCP connection to a cluster's head
TRY_S = 12  # to attach and leave again
TRY = """
import logging, signal, sys
signal.alarm(int(sys.argv[2]))
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
ray.shutdown()
"""
PATIENCE = {  # seconds that Ray waits for a head that answers, and for a node of the cluster on this machine
    "RAY_gcs_server_port_wait_time_s": "1",
    "RAY_gcs_server_request_timeout_seconds": "5",
}
VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


@dataclass(frozen=True)
class Found:
    """A cluster that this machine can attach to."""

    address: str  # HOST:PORT
    locked: bool  # by a token

    @property
    def warning(self) -> str | None:
        """A warning for the user before anything is sent there; None if there is nothing to warn of."""
        if self.locked or _is_loopback(self.address):
            return None
        return (
            f"warning: the Ray cluster at {self.address} asks for no token: whoever reaches it can run code on it and "
            "read what this sweep sends. To lock it, start its nodes with RAY_AUTH_MODE=token"
        )


def find(address: str) -> Found:
    """Return the cluster at `address`, or for `auto` the one that runs on this machine.

    No token is sent before the cluster has asked for one.

    Raises:
        ConfigError: there is none, there are several, or this machine cannot attach to it.
    """
    place = _running() if address == "auto" else address
    _reach(place)
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    trouble = _try(place, "disabled")
    locked = trouble is not None and _asks_for_token(trouble)
    if trouble is None and mode == "token":
        raise _wrong(
            place,
            "the cluster asks for no token, but RAY_AUTH_MODE=token is set here: start its nodes with it, or unset it "
            "here to attach without a token, as anybody can",
        )
    if locked and mode == "disabled":
        raise _wrong(place, "the cluster asks for a token, but RAY_AUTH_MODE=disabled is set here: unset it")
    if locked:
        trouble = _try(place, "token")
    if trouble is not None:
        raise _wrong(place, _explained(trouble))
    return Found(place, locked)


def _running() -> str:
    """Return the address of the cluster that `RAY_ADDRESS` names, or of the only one with a node on this machine."""
    named = os.environ.get("RAY_ADDRESS")
    if named and named != "auto":
        if not re.fullmatch(r"[^:/\s]+:\d{1,5}", named):
            raise ConfigError(f"RAY_ADDRESS={named}: allowed is HOST:PORT; or give --address HOST:PORT")
        return named
    flag = "--gcs-address="
    raylets = [p.info["cmdline"] or [] for p in psutil.process_iter(["name", "cmdline"]) if p.info["name"] == "raylet"]
    found: list[str] = sorted({p.removeprefix(flag) for raylet in raylets for p in raylet if p.startswith(flag)})
    if not found:
        raise ConfigError(
            "--address auto: no Ray cluster has a node on this machine; start one (`ray start`) or leave it out"
        )
    if len(found) > 1:
        raise ConfigError(f"--address auto: several Ray clusters run here ({', '.join(found)}); name one of them")
    return found[0]


def _reach(address: str) -> None:
    """Raise ConfigError at once if nothing listens at `address`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise _wrong(address, f"nothing answers there ({why}); is `ray start --head` running?") from error


def _try(address: str, mode: str) -> str | None:
    """Attach to `address` and leave again, with a token or without; return None, or what Ray wrote of its failure."""
    done = subprocess.run(  # noqa: S603 - this very Python; the token travels in the environment
        [sys.executable, "-c", TRY, address, str(TRY_S)],
        env=os.environ | PATIENCE | {"RAY_AUTH_MODE": mode},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return None
    return "no answer" if done.returncode == -signal.SIGALRM else done.stderr or f"exit code {done.returncode}"


def _asks_for_token(trouble: str) -> bool:
    return "Unauthenticated" in trouble


def _wrong(address: str, what: str) -> ConfigError:
    return ConfigError(f"--address {address}: {what}")


def _explained(trouble: str) -> str:
    """Return one line that explains what Ray wrote of its failure."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if "no authentication token was found" in trouble:
        return (
            "the cluster asks for a token, and there is none here: set RAY_AUTH_TOKEN_PATH to the file that its nodes "
            "were started with"
        )
    if "RAY_AUTH_TOKEN_PATH is set but" in trouble:
        return f"the cluster asks for a token, but RAY_AUTH_TOKEN_PATH={path} cannot be read, or is empty"
    if _asks_for_token(trouble):
        source = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else path or "~/.ray/auth_token"
        return f"the token in {source} is not the cluster's; use that of its nodes"
    versions = VERSIONS.findall(trouble)
    if "Version mismatch" in trouble and len(versions) > 1:
        (there, there_python), (here, here_python) = versions[:2]
        return (
            f"the cluster runs Ray {there} on Python {there_python}, this command Ray {here} on Python {here_python}; "
            "both must be the same: run it with the cluster's Python"
        )
    if "No node info found" in trouble:
        return (
            "this machine is not a node of that cluster, and Ray's drivers must run on one: make it one "
            "(`ray start --address=…`), run the sweep on another, or submit it by `ray job submit`"
        )
    if trouble == "no answer":
        return f"what listens there did not answer as the head of a Ray cluster would, in {TRY_S} s"
    return f"Ray could not attach ({last_line(trouble)})"


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0]
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False
