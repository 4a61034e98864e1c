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
    came: list[tuple[int, FrameType | None]] = []
    held: dict[int, Callable[[int, FrameType | None], Any]] = {}
    with ExitStack() as answers:
        answers.callback(lambda: [held[number](number, frame) for number, frame in came])
        for number in (signal.SIGINT, signal.SIGCHLD):
            if callable(handler := signal.getsignal(number)):
                held[number] = handler
                answers.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, frame: came.append((number, frame)))
        yield
