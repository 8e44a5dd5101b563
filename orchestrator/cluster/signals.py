"""Ctrl-C and SIGTERM: how a command hears of them, and what it does once it has.

All handlers are set here, and are put back at the end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

_leave: Callable[[], object] | None = None  # what a second signal does, where the process belongs to a command


@contextmanager
def owned() -> Iterator[None]:
    """Have SIGTERM interrupt the command as Ctrl-C does, and a second signal end the process at once.

    The process belongs to this command alone; only `main` may say so.
    """
    global _leave
    from trainables.command_line import INTERRUPTED

    _leave = partial(os._exit, INTERRUPTED)
    try:
        with handlers_put_back(signal.SIGTERM):
            terminable()
            yield
    finally:
        _leave = None


def terminable() -> None:
    """Have SIGTERM raise KeyboardInterrupt in the main thread, where alone that is possible."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def again() -> None:
    """Set the handler of SIGTERM once more: Ray sets the system's when it ends, and Python does not hear of it."""
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def in_time(action: Callable[[], object], seconds: float) -> None:
    """Do something in a thread, and wait for it so long at most; what it raises is left out.

    It is for what asks Ray once a signal may have ended that, too: no call returns then.
    """

    def quietly() -> None:
        with suppress(Exception):
            action()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(seconds)


class Interruption:
    """A request to end by Ctrl-C or SIGTERM, which the code that runs then looks at when it can."""

    def __init__(self) -> None:
        self.received = False
        self._raises = False

    @contextmanager
    def handled(self, busy: Callable[[], bool]) -> Iterator[None]:
        """Handle SIGINT and SIGTERM: the first is noted in `received`, a second one ends the process or raises.

        In another thread than the main one signals are left as they are: Python has them handled there alone.

        Args:
            busy: return whether the running code must not be left just now. It is called within the signal handler.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, frame: Any) -> None:
            if self.received and _leave is not None:
                _leave()
            if self.received and not busy():
                raise KeyboardInterrupt
            self.received = True
            if self._raises and not busy():
                raise KeyboardInterrupt

        with handlers_put_back(signal.SIGINT, signal.SIGTERM):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, on_signal)
            yield

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Have the first signal raise KeyboardInterrupt as well, where waiting for calls to return would be in vain.

        A signal to all processes of a job has ended Ray, too, and no call to it returns.
        """
        self._raises = True
        try:
            yield
        finally:
            self._raises = False


@contextmanager
def handlers_put_back(*numbers: signal.Signals) -> Iterator[None]:
    """Put back the handlers of signals at the end."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:  # unchanged in another thread, which may not set it
                signal.signal(number, handler)
