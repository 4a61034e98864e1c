"""Jobs of the demo: one worker thread runs them in turn; they report denoising steps and can be cancelled."""

import queue
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from PIL import Image

KEPT_SECONDS: Final = 3600
User = tuple[str | None, str]
"""Session and page."""
Result = TypeVar("Result")


class Cancelled(Exception):
    """The job was cancelled."""


@dataclass(frozen=True)
class Step:
    """A finished denoising step; `preview` is None where there is nothing to show."""

    done: int
    total: int
    preview: Image.Image | None = None


Report = Callable[[Step | Result], None]
"""Called by a job after each step, and for results before the last; raises `Cancelled` where the job is to stop."""
Job = Callable[[Report[Result]], Result]


def _work(waiting: "queue.SimpleQueue[Callable[[], None] | None]") -> None:
    """Runs jobs up to None, all in one thread: each thread's allocator would keep memory of its own."""
    while (job := waiting.get()) is not None:
        job()


def _close(waiting: "queue.SimpleQueue[Callable[[], None] | None]", folder: Path) -> None:
    waiting.put(None)
    shutil.rmtree(folder, ignore_errors=True)


class JobQueue:
    """Runs jobs one at a time; their files are in a temporary folder until `close`."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(self._waiting,), daemon=True).start()
        self._cancelled: dict[User, threading.Event] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="weftwork-demo-"))
        self.close = weakref.finalize(self, _close, self._waiting, self.folder)

    def run(self, job: Job[Result], user: User | None = None) -> Iterator[Step | Result]:
        """Yields what `job` reports and at the end its result; closing the iterator cancels the job.

        Args:
            user: whose `cancel` stops it.

        Raises:
            Cancelled: it was cancelled.
        """
        results: queue.SimpleQueue[tuple[bool, Step | Result | BaseException]] = queue.SimpleQueue()
        cancelled = threading.Event() if user is None else self._cancelled.setdefault(user, threading.Event())

        def report(done: Step | Result) -> None:
            if cancelled.is_set():
                raise Cancelled
            results.put((False, done))

        def work() -> None:
            try:
                if cancelled.is_set():
                    raise Cancelled
                results.put((True, job(report)))
            except BaseException as error:
                results.put((True, error))

        self._waiting.put(work)
        try:
            last = False
            while not last:
                last, result = results.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            cancelled.set()
            if user is not None:
                self._cancelled.pop(user, None)

    def expect(self, user: User) -> None:
        """Lets `cancel` stop a job of this user that `run` is not called for yet."""
        if user not in self._cancelled or self._cancelled[user].is_set():
            self._cancelled[user] = threading.Event()

    def cancel(self, user: User) -> bool:
        """Cancels the job of a user and returns whether there is one."""
        if (cancelled := self._cancelled.get(user)) is not None:
            cancelled.set()
        return cancelled is not None

    def cancel_session(self, session: str | None) -> None:
        """Cancels the jobs of a session that has ended, on all pages."""
        for user in [user for user in self._cancelled if user[0] == session]:
            self._cancelled.pop(user).set()

    def new_file(self, name: str) -> Path:
        """Returns the path of a new file to download, and removes files older than `KEPT_SECONDS`."""
        for old in self.folder.iterdir():
            if old.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=self.folder)) / name
