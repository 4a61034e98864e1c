"""The zoomed canvas of the demo in a browser: strokes stay where they are drawn, by mouse, wheel, fingers and keys."""

from typing import Any

import numpy as np
import pytest
from demo_browser import MARKS, PHONE, drag, ink, opened, pairs, screenshot, tool

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS


def zoomed(page: Any, percent: int) -> None:
    sync_api.expect(page.locator("#design .zoom output")).to_have_text(f"{percent} %")


def box(page: Any) -> dict[str, float]:
    page.locator("#design .paper").scroll_into_view_if_needed()
    return page.locator("#design .paper").bounding_box()


def place(page: Any, x: float, y: float) -> tuple[float, float]:
    here = box(page)
    return here["x"] + x * here["width"], here["y"] + y * here["height"]


def wheel(page: Any, turns: int, x: float, y: float) -> None:
    """Turns the wheel with Ctrl over a place of the canvas, in fractions of it."""
    page.mouse.move(*place(page, x, y))
    page.keyboard.down("Control")
    for _ in range(abs(turns)):
        page.mouse.wheel(0, -100 if turns > 0 else 100)
    page.keyboard.up("Control")


def test_strokes_are_exact_under_zoom(page: Any) -> None:
    wheel(page, 4, 0.25, 0.75)  # a factor of 4 around that place
    zoomed(page, 400)
    drag(page, (0.05, 0.75), (0.45, 0.75), (0.45, 0.95))
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.2, 0.75, 0.3, 0.8], atol=0.006)
    page.get_by_label("Zoom out").click()
    zoomed(page, 320)
    page.get_by_role("button", name="Fit").click()
    zoomed(page, 100)
    tool(page, "move")
    drag(page, (0.225, 0.75), (0.525, 0.45))  # between two handles
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.5, 0.45, 0.6, 0.5], atol=0.006)
    screenshot(page, "zoom")


def test_the_view_moves_by_wheel_buttons_and_keys(page: Any) -> None:
    page.locator("#design .paper").focus()
    for _ in range(3):
        page.keyboard.press("z")
    zoomed(page, 195)
    page.keyboard.press("Shift+Z")
    zoomed(page, 156)
    page.keyboard.press("0")
    zoomed(page, 100)
    wheel(page, 2, 0.01, 0.01)  # shows the upper left quarter
    zoomed(page, 200)
    page.mouse.wheel(2000, 2000)  # to the lower right one
    drag(page, (0.5, 0.5), (0.7, 0.5))
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.75, 0.75, 0.85, 0.75], atol=0.01)
    page.keyboard.down("Space")
    drag(page, (0.2, 0.2), (0.7, 0.2))  # half of the width, to the left half
    page.keyboard.up("Space")
    tool(page, "erase")
    page.get_by_label("Brush size").fill("10")
    drag(page, (0.9, 0.5), (0.99, 0.5))  # nothing is there
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.75, 0.75, 0.85, 0.75], atol=0.01)
    page.locator("#design .paper").focus()
    for _ in range(30):
        page.keyboard.press("Alt+ArrowRight")
    drag(page, (0.4, 0.5), (0.8, 0.5))
    assert pairs(page) == []


def test_two_fingers_zoom_and_leave_no_stroke(browser: Any, address: str) -> None:
    with opened(browser, address, **PHONE) as page:
        session, middle = page.context.new_cdp_session(page), 0.5

        def touch(kind: str, *fingers: tuple[float, float]) -> None:
            points = [dict(zip("xy", place(page, *one), strict=True), id=index) for index, one in enumerate(fingers)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", (0.4, middle))
        touch("touchMove", (0.45, middle))  # the first finger draws until the second comes
        touch("touchStart", (0.4, middle), (0.6, middle))
        for step in range(1, 6):
            touch("touchMove", (0.4 - 0.04 * step, middle), (0.6 + 0.04 * step, middle))
        touch("touchEnd")
        zoomed(page, 300)
        assert pairs(page) == []
        drag(page, (0.2, 0.5), (0.8, 0.5))
        np.testing.assert_allclose(ink(pairs(page)[0]), [0.4, 0.5, 0.6, 0.5], atol=0.02)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
