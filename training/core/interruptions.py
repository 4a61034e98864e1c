"""Defers SIGINT and SIGCHLD during critical sections."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defers SIGINT and SIGCHLD, whose handlers raise, to the end of the block; no effect off the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    with ExitStack() as stack:
        stack.callback(lambda: [handlers[number](number, frame) for number, frame in pending])
        for number in (signal.SIGINT, signal.SIGCHLD):
            if callable(handler := signal.getsignal(number)):
                handlers[number] = handler
                stack.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, frame: pending.append((number, frame)))
        yield
