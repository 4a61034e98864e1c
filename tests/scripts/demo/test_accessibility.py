"""Accessibility of the demo's pages, by axe-core from npm, which only this test uses."""

import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from demo_browser import MARKS, PHONE, fill_settings, generate, imported, open_tab, opened, screenshot

pytest.importorskip("gradio")
pytestmark = MARKS

AXE = "axe-core@4.14.1"
OF_GRADIO = [".empty", ".thumbnail-item", ".upload-container"]
"""Elements of gradio whose names its roles do not take, or that differ from the words in them."""
HEIGHTS = "[...document.querySelectorAll('#viewer button')].map(one => one.offsetHeight).filter(Boolean)"
"""Of the buttons beside a result; 44 pixels hold a finger."""
TABS = ("Style", "Attention control", "Reference", "Regional", "View", "Sound", "Training")
SCREENS = {
    "desktop": {"viewport": {"width": 1440, "height": 1000}},
    "phone": {**PHONE, "color_scheme": "dark"},
}


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core."""
    folder, npm = tmp_path_factory.mktemp("axe"), shutil.which("npm")
    if npm is None:
        pytest.skip("no npm")
    try:
        subprocess.run([npm, "pack", AXE], cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError):
        pytest.skip(f"npm does not find {AXE}")
    with tarfile.open(next(Path(folder).glob("*.tgz"))) as packed:
        script = packed.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


@pytest.mark.parametrize("screen", list(SCREENS))
def test_axe_finds_no_serious_issue(browser: Any, address: str, axe: str, screen: str, tmp_path: Path) -> None:
    with opened(browser, address, bypass_csp=True, **SCREENS[screen]) as page:
        fill_settings(page, 3, steps=2)
        page.get_by_text("Style", exact=True).last.click()
        page.get_by_label("Text of layer 1").fill("a red kimono jacket")
        imported(page, tmp_path, "Reference")
        generate(page)
        assert not serious_issues(page, axe)
        if screen == "phone":
            assert min(page.evaluate(HEIGHTS)) >= 44
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            last, bar = (page.locator(f".tabitem:visible {one}").last for one in ("[type=checkbox]", ".run"))
            assert last.bounding_box()["y"] + last.bounding_box()["height"] <= bar.bounding_box()["y"]


@pytest.mark.parametrize("screen", list(SCREENS))
def test_axe_finds_no_serious_issue_on_other_tabs(browser: Any, address: str, axe: str, screen: str) -> None:
    with opened(browser, address, bypass_csp=True, **SCREENS[screen]) as page:
        for name in TABS:
            open_tab(page, name)
            page.locator(".tabitem:visible button.generate, .tabitem:visible #training-images img").first.wait_for()
            assert not serious_issues(page, axe), name
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            screenshot(page, f"{screen}-{name}")


@pytest.mark.parametrize("screen", list(SCREENS))
def test_axe_finds_no_serious_issue_on_the_default_page(
    browser: Any, default_address: str, axe: str, screen: str
) -> None:
    with opened(browser, default_address, bypass_csp=True, **SCREENS[screen]) as page:
        assert not serious_issues(page, axe)


def serious_issues(page: Any, axe: str) -> list[tuple[str, list[str]]]:
    """Returns rules and elements of the serious issues of a page."""
    page.evaluate(axe)
    found = page.evaluate("exclude => axe.run({exclude}, {resultTypes: ['violations']})", OF_GRADIO)
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious]
