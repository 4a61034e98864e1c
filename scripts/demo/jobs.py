"""What the pages of the demo share: one thing is made at a time, is seen step by step, and can be stopped."""

import queue
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from PIL import Image

KEPT_SECONDS: Final = 3600
User = tuple[str | None, str]
"""Session and page."""
Thing = TypeVar("Thing")


class Stopped(Exception):
    """The thing is not wanted any more."""


@dataclass(frozen=True)
class Step:
    """What is there after a step of the denoising loop; `preview` is None where there is nothing to show."""

    done: int
    total: int
    preview: Image.Image | None = None


def seed_of(given: float | None) -> int:
    """A seed, drawn where none is given."""
    return secrets.randbelow(2**31) if given is None else int(given)


def _serve(jobs: "queue.SimpleQueue[Callable[[], None] | None]") -> None:
    """One after the other up to None, all in one thread: each thread's allocator would keep memory of its own."""
    while (job := jobs.get()) is not None:
        job()


class Line:
    """Whoever wants something waits for a turn; files of all lie in a temporary folder of its own."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=_serve, args=(self._jobs,), daemon=True).start()
        weakref.finalize(self, self._jobs.put, None)
        self._stops: dict[User, threading.Event] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="weftwork-demo-")

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def make(
        self, job: Callable[[Callable[[Step], None]], Thing], user: User | None = None
    ) -> "Iterator[Step | Thing]":
        """The steps that `job` reports, and at the end what it returns; closing the iterator stops it.

        Args:
            job: is given what to call after each step, which raises where the job is to stop.
            user: whose `cancel` stops it.

        Raises:
            Stopped: it was cancelled.
        """
        results: queue.SimpleQueue[tuple[bool, Step | Thing | BaseException]] = queue.SimpleQueue()
        stop = threading.Event() if user is None else self._stops.setdefault(user, threading.Event())

        def report(step: Step) -> None:
            if stop.is_set():
                raise Stopped
            results.put((False, step))

        def work() -> None:
            try:
                if stop.is_set():
                    raise Stopped
                results.put((True, job(report)))
            except BaseException as error:
                results.put((True, error))

        self._jobs.put(work)
        try:
            last = False
            while not last:
                last, result = results.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            stop.set()
            if user is not None:
                self._stops.pop(user, None)

    def expect(self, user: User) -> None:
        """From now on `cancel` stops what `make` will be asked for, too, if that still waits for its turn."""
        if user not in self._stops or self._stops[user].is_set():
            self._stops[user] = threading.Event()

    def cancel(self, user: User) -> bool:
        """Stop what a user waits for; whether there is anything."""
        if (stop := self._stops.get(user)) is not None:
            stop.set()
        return stop is not None

    def forget(self, session: str | None) -> None:
        """Stop what a session waits for, on any page; nobody reads it any more."""
        for user in [user for user in self._stops if user[0] == session]:
            self._stops.pop(user).set()

    def file(self, name: str) -> Path:
        """A new place for a file to download; those of more than an hour ago are removed."""
        for old in self.folder.iterdir():
            if old.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=self.folder)) / name


class MethodStudio:
    """A pipeline with trained modules of one method, shared by all users of a demo.

    Args:
        model: what the page calls it.
    """

    def __init__(self, pipe: Any, model: str, line: Line) -> None:
        pipe.set_progress_bar_config(disable=True)
        self.pipe, self.model, self.line = pipe, model, line
