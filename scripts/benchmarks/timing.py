"""Timing: tasks in turns, whole commands, and ratios of one of them."""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence


def interleaved(rounds: int, **tasks: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of every task in every round, after one warm-up each; tasks take turns within a round."""
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def timed_command(words: Sequence[str], rounds: int) -> dict[str, float]:
    """The median of seconds that `weftwork …` takes with start-up, and the most memory of any child process so far.

    Raises:
        RuntimeError: it failed.
    """
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        command = [sys.executable, "-m", "weftwork.scripts.cli", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - started)
        if done.returncode:
            raise RuntimeError(f"weftwork {words[0]}: {done.stderr.strip()}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    return {"seconds": statistics.median(seconds), "peak_gb": peak}


def ratios(seconds: Mapping[str, list[float]], over: str) -> dict[str, dict[str, float]]:
    """Median, minimum and maximum over rounds of each task's time over another's of the same round."""
    rows = {}
    for name, times in seconds.items():
        shares = [mine / base for mine, base in zip(times, seconds[over], strict=True)]
        rows[name] = {
            "seconds": statistics.median(times),
            "ratio": statistics.median(shares),
            "ratio_minimum": min(shares),
            "ratio_maximum": max(shares),
        }
    return rows
