"""Time to the demo's page, first paint and first image, by the browser's entries, and the same on idle cores."""

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from demo_browser import MARKS, STATE, WAIT

load = pytest.importorskip("weftwork.scripts.maintenance.check_demo_load", reason="not in the wheel")
pytest.importorskip("gradio")
pytestmark = [pytest.mark.slow, MARKS[1]]

LIMITS = {"start to page": 10, "first paint": 2, "first image": 10}
"""Seconds on two cores that do nothing else."""
FREE = 0.8
"""Fraction of its time for which the busiest thread needs a core, for a late time to count."""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
RESULT = "[...document.querySelectorAll('.result img')].find(one => one.offsetParent)?.src"
LOADED = f"""() => {{
  const [asked, image] = ["/queue/join", {RESULT}].map(part => performance.getEntriesByType("resource")
    .filter(one => one.name.includes(part)).at(-1));
  return (image.responseEnd - asked.startTime) / 1000;
}}"""
"""From the request to the last byte of the image."""


def threads() -> dict[str, tuple[int, int]]:
    """Returns how long each thread of the demo and the browser has run and has waited for a core until now."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # it has ended
                ran, waited, _ = map(int, path.read_text().split())
                found[path.parent.name] = ran, waited
    return found


def share(before: dict[str, tuple[int, int]]) -> float:
    """Returns the fraction of its time in which the busiest thread since then had a core."""
    moved = {name: np.subtract(now, before.get(name, (0, 0))) for name, now in threads().items()}
    ran, waited = max(moved.values(), key=lambda one: one[0])
    return ran / (ran + waited)


def test_page_first_paint_and_first_image_are_in_time(browser: Any, tmp_path: Path) -> None:
    before, began = threads(), time.perf_counter()
    process, address = load.serve(2, tmp_path)
    try:
        taken = {"start to page": (time.perf_counter() - began, share(before))}
        before = threads()
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        page.locator("#design .layer").first.wait_for(timeout=WAIT)
        taken["first paint"] = page.evaluate(PAINT), share(before)
        before = threads()
        page.evaluate("performance.clearResourceTimings()")  # the browser keeps 250
        page.locator(".tabitem:visible button.generate").click()
        shown = f"({STATE}).includes('Done.') && performance.getEntriesByName({RESULT}).length"
        page.wait_for_function(shown, timeout=WAIT)
        taken["first image"] = page.evaluate(LOADED), share(before)
    finally:
        process.terminate()
        process.wait(30)
    for name, (seconds, had) in taken.items():
        print(f"{name}: {seconds:.1f} s, {seconds * had:.1f} s if its busiest thread had had a core all the time")
    late = [name for name, (seconds, _) in taken.items() if seconds > LIMITS[name]]
    free = min(had for _, had in taken.values())
    if late and free < FREE:
        pytest.skip(f"{', '.join(late)} too late, but a core was free {free:.0%} of the time; free the machine")
    assert late == []
