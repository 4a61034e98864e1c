"""Turns SIGTERM into an exception, and defers signals during critical sections."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType


class Terminated(SystemExit):
    """SIGTERM, as clusters send it before they end a job; the exit code is the usual one."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def terminable() -> Iterator[None]:
    """Raises `Terminated` once where SIGTERM arrives within the block; no effect off the main thread, or nested."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is _terminate:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the cleanup
    raise Terminated


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defers signals whose handlers raise to the end of the block; no effect off the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    with ExitStack() as stack:
        stack.callback(lambda: [handlers[number](number, frame) for number, frame in pending])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            if callable(handler := signal.getsignal(number)):
                handlers[number] = handler
                stack.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, frame: pending.append((number, frame)))
        yield
