"""Rotating, mirroring, a pen and dropped files on the demo's canvas, in a browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_browser import (
    MARKS,
    check_gallery,
    design,
    drag,
    dropped,
    fill_settings,
    generate,
    ink,
    opened,
    pairs,
    pixels,
    tool,
)

from weftwork.datasets.readers.inline_images import from_text

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS

CORNER = ((0.3, 0.4), (0.3, 0.6), (0.7, 0.6))


@pytest.fixture(scope="module")
def shared(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as shown:
        yield shown


@pytest.fixture
def page(shared: Any, tmp_path: Path) -> Any:
    """The page of this module with an empty design, which was dropped on it."""
    (tmp_path / "empty.json").write_text(json.dumps({"prompt": "a person"}))
    dropped(shared, tmp_path / "empty.json")
    assert pairs(shared) == []
    tool(shared, "draw")
    return shared


def quarters(page: Any) -> Any:
    """Returns the amount of ink in the quarters of the only sketch."""
    (pair,) = pairs(page)
    sketch = 255 - np.asarray(from_text(pair["sketch"]).convert("L"), float)
    return sketch.reshape(2, 256, 2, 256).sum((1, 3)) / sketch.sum()


def test_a_layer_is_rotated_by_its_handle(page: Any) -> None:
    drag(page, *CORNER)
    tool(page, "move")
    paper = page.locator("#design .paper")
    handle = paper.evaluate("() => Konva.stages.at(-1).findOne('.rotater').getAbsolutePosition()")
    side = paper.bounding_box()["width"]
    middle = (0.5, 0.5)
    length = middle[1] - handle["y"] / side
    drag(page, (0.5, handle["y"] / side), (0.5 + length, 0.5))  # a quarter turn to the right
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.4, 0.3, 0.6, 0.7], atol=0.02)
    page.keyboard.press("Control+z")
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.3, 0.4, 0.7, 0.6], atol=0.02)


def test_a_layer_is_mirrored(page: Any) -> None:
    drag(page, *CORNER)
    left = quarters(page)[0]
    page.get_by_label("Mirror").locator("visible=true").click()
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.3, 0.4, 0.7, 0.6], atol=0.02)
    np.testing.assert_allclose(quarters(page)[0], left[::-1], atol=0.01)
    assert left[0] > 0.1 > left[1]


def test_a_pen_draws_and_erases(page: Any) -> None:
    paper = page.locator("#design .paper")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    session = page.context.new_cdp_session(page)

    def draw(*points: tuple[float, float]) -> None:
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 2), "mouseReleased"]
        for kind, (x, y), force in zip(kinds, points, np.linspace(0.2, 0.9, len(points)), strict=True):
            place = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
            pen = {"pointerType": "pen", "force": float(force), "button": "left", "buttons": 1, "clickCount": 1}
            session.send("Input.dispatchMouseEvent", {"type": kind, **place, **pen})

    kinds = "event => (globalThis.pens ??= []).push([event.pointerType, event.pressure])"
    paper.evaluate(f"paper => paper.addEventListener('pointermove', {kinds}, true)")
    draw((0.2, 0.3), (0.5, 0.3), (0.8, 0.3), (0.8, 0.3))
    assert [kind for kind, _ in page.evaluate("pens")] == ["pen", "pen"] and page.evaluate("pens[0][1] < pens[1][1]")
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.2, 0.3, 0.8, 0.3], atol=0.02)
    tool(page, "erase")
    page.get_by_label("Brush size").fill("40")
    draw((0.6, 0.3), (0.7, 0.3), (0.9, 0.3), (0.9, 0.3))
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.2, 0.3, 0.56, 0.3], atol=0.03)


def test_a_dropped_image_and_a_dropped_design_open(page: Any, tmp_path: Path) -> None:
    drag(page, *CORNER)
    page.get_by_label("Text of layer 1").fill("a red jacket")
    fill_settings(page, 3, steps=2)
    made = pixels(page, generate(page))
    for name, button in (("made.png", "Image (PNG)"), ("made.json", "Design (JSON)")):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        download.value.save_as(tmp_path / name)
    sent = pairs(page)
    for name in ("made.png", "made.json"):
        dropped(page, tmp_path / "empty.json")
        dropped(page, tmp_path / name)
        assert pairs(page) == sent and design(page)["seed"] == 3
    assert pixels(page, generate(page)) == made


def test_images_of_the_gallery_open_with_their_layers(page: Any) -> None:
    check_gallery(page, "tiny-diffusion")
