"""All commands under one name, `sweep-orchestrator`; each also runs by itself.

    sweep-orchestrator sweep digits
    python -m orchestrator sweep digits
    python -m orchestrator.sweep digits

Only the module of the command that is named is imported.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from trainables.command_line import DONE, PROJECT, WRONG, complain, leave, show_version, write
from trainables.errors import suggestion

COMMANDS = {
    "sweep": ("orchestrator.sweep", "find the best training settings for an image data set"),
    "doctor": ("orchestrator.doctor.__main__", "find what would make a sweep fail, before it runs"),
    "leaderboard": ("orchestrator.leaderboard.__main__", "show, filter, compare and export sweeps, or replay a trial"),
    "report": ("orchestrator.report.__main__", "write the report of a sweep again"),
    "predict": ("orchestrator.predict", "label images with a sweep's best model"),
    "onnx": ("orchestrator.onnx", "export a sweep's best model to ONNX"),
    "trial": ("trainables.__main__", "train one model in this process, without Ray"),
}
"""Name → the module whose `main` it runs, and a line of help."""


def usage() -> str:
    """Return the text of `--help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    head = [f"usage: {PROJECT} COMMAND [OPTIONS]", "", "Commands, each with a --help of its own:"]
    return "\n".join([*head, *lines, "", "Options: --help, --version", ""])


def main() -> int:
    """Run the command that is named, as `python -m` with its module would, and return its exit code."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        write(usage())
        return DONE
    if name == "--version":
        show_version()
    if name not in COMMANDS:
        return complain([f"{name}: unknown command{suggestion(name, COMMANDS)}"], WRONG)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a script does not have it, and the user's models are looked for there
    module = import_module(COMMANDS[name][0])
    sys.argv = [str(module.__file__), *arguments]  # the sweep's record names its command by it
    return int(module.main())


if __name__ == "__main__":
    leave(main())
