"""Timing of interleaved tasks and of whole commands, and ratios to a baseline."""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence


def interleaved(
    rounds: int, clock: Callable[[], float] = time.perf_counter, /, **tasks: Callable[[], object]
) -> dict[str, list[float]]:
    """Returns the seconds of every task by round, after one warm-up each; tasks alternate within a round."""
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = clock()
            task()
            seconds[name].append(clock() - started)
    return seconds


def timed_command(words: Sequence[str], rounds: int) -> dict[str, float]:
    """Returns median seconds of `weftwork …` with start-up, and peak memory of all child processes so far."""
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
    """Returns median, minimum and maximum over rounds of each task's time relative to `over` in the same round."""
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
