"""The demo in headless Chromium: pages, and what users do on them, for tests."""

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from weftwork.datasets.readers.inline_images import from_text
from weftwork.pipelines.designs.files import stored_in
from weftwork.pipelines.designs.reader import as_design

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; Debian: apt install chromium"),
]
IMAGE = "[...document.querySelectorAll('.result img')].filter(e => e.offsetParent)[0]?.src ?? ''"
STATE = "[...document.querySelectorAll('.state')].filter(e => e.offsetParent)[0]?.innerText ?? ''"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WAIT = 90_000
"""Milliseconds for an image, on two cores."""


@contextmanager
def opened(browser: Any, address: str, quota: int | None = None, **options: Any) -> Iterator[Any]:
    """Opens the demo in a browser of its own, whose storage may have a quota in bytes."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
    shown = context.new_page()
    if quota is not None:
        shown.goto(f"{address}/config")
        set_quota(shown, address, quotaSize=quota)
    shown.goto(address)
    shown.locator("#design .layer").first.wait_for()
    yield shown
    context.close()


def set_quota(page: Any, address: str, **size: int) -> None:
    """Limits the storage of the browser by `quotaSize`; without it, lifts the limit."""
    page.context.new_cdp_session(page).send("Storage.overrideQuotaForOrigin", {"origin": address, **size})


def open_tab(page: Any, name: str) -> None:
    """Opens a tab, on a narrow page by the menu of those that have no room."""
    shown = page.get_by_role("tab", name=name, exact=True).locator("visible=true")
    if not shown.count():
        page.locator(".overflow-menu > button").click()
        shown = page.locator(".overflow-dropdown button", has_text=name)
    shown.first.click()


def fill_settings(page: Any, seed: int, steps: int = 6) -> None:
    """Sets seed and steps of the open tab."""
    tab = page.locator(".tabitem:visible")
    tab.get_by_text("Settings", exact=True).click()
    tab.get_by_label(re.compile(r"^Seed( \(optional\))?\s*$")).first.fill(str(seed))
    tab.get_by_label("Steps", exact=True).or_(tab.get_by_label("number input for Steps")).first.fill(str(steps))


def generate(page: Any) -> str:
    """Generates an image and returns its address."""
    start = page.locator(".tabitem:visible button.generate")
    if page.locator("#design").is_visible():
        finished(page, start.click)
    else:
        before = page.evaluate(IMAGE)
        start.click()
        done = f"before => ({IMAGE}) != before && ({STATE}).includes('Done.')"
        page.wait_for_function(done, arg=before, timeout=WAIT)
    return page.evaluate(IMAGE)


def finished(page: Any, act: Callable[[], object]) -> None:
    """Does what starts a run on the canvas page, and waits until its images are shown."""
    runs = "Number(document.querySelector('#design .canvas-page').dataset.runs ?? 0)"
    before = page.evaluate(runs)
    act()
    page.wait_for_function(f"before => {runs} > before && ({STATE}).includes('Done.')", arg=before, timeout=WAIT)


def pixels(page: Any, address: str) -> bytes:
    """Returns the pixels of an image of the page, which may be one that only the page has."""
    read = "async address => [...new Uint8Array(await (await fetch(address)).arrayBuffer())]"
    return Image.open(io.BytesIO(bytes(page.evaluate(read, address)))).convert("RGB").tobytes()


def drag(page: Any, *points: tuple[float, float]) -> None:
    """Drags over the canvas along points in fractions of it."""
    paper = page.locator("#design .paper")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


def design(page: Any) -> dict[str, Any]:
    """Returns the design that the page would send."""
    return page.evaluate("document.querySelector('#design .canvas-page').design()")


def pairs(page: Any) -> list[dict[str, Any]]:
    """Returns its pairs, one of each layer that is shown and not empty."""
    return design(page)["conditions"].get("paired", [])


def ink(pair: dict[str, Any]) -> Any:
    """Returns where a sketch is dark, as the ends of its rows and columns in fractions."""
    values = np.asarray(from_text(pair["sketch"]).convert("L"))
    rows, columns = (np.flatnonzero((values < 128).any(axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]]) / len(values)


def tool(page: Any, name: str) -> None:
    """Chooses a tool of the canvas."""
    page.locator(f"#design [data-tool={name}]").first.click()


def dropped(page: Any, path: Path) -> None:
    """Drops a file on the canvas, as a file manager does."""
    paper = page.locator("#design .paper")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    session.detach()
    page.get_by_text(f"Opened {path.name}.").wait_for()


def check_gallery(page: Any, model: str) -> None:
    """Drops the gallery's images of a model, and compares the layers with their designs."""
    files = sorted((Path(__file__).resolve().parent.parent / "docs" / "gallery").glob("*.png"))
    designs = {path: (stored_in(path) or {})["design"] for path in files}
    if not designs:
        pytest.skip("not in a checkout")
    for path, record in designs.items():
        if record.pop("model") != model:
            continue
        dropped(page, path)
        asked, shown = (as_design(one, from_text).record() for one in (record, design(page)))
        assert shown == asked, path.name
        texts = [one["text"] for one in record.get("conditions", {}).get("paired", [])]
        layers = page.get_by_label(re.compile("^Text of layer "))
        assert sorted(one.input_value() for one in layers.all()) == sorted(texts or [""]), path.name


def painting(size: tuple[int, int] = (300, 200)) -> Image.Image:
    """An image of many tones, whose middle square is red on its left and blue on its right."""
    width, height = size
    tones = np.linspace(0.5, 1.2, height)[:, None, None].repeat(width, 1)
    colors = np.where(np.arange(width)[:, None] < width / 2, (200, 40, 60), (30, 60, 190))
    return Image.fromarray((tones * colors).clip(0, 255).astype(np.uint8))


def imported(page: Any, folder: Path, use: str) -> None:
    """Chooses what a photograph is used as."""
    painting().save(folder / "painting.png")
    page.locator("#design input[type=file]").set_input_files(folder / "painting.png")
    page.get_by_role("button", name=use, exact=True).click()


def screenshot(page: Any, name: str) -> None:
    folder = os.environ.get("WEFTWORK_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
