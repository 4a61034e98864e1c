"""Fixtures of the demo's tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from demo_browser import CHROMIUM, opened


@pytest.fixture
def no_shipped_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the shipped models, so that only methods on the given pipeline have pages."""
    monkeypatch.setattr("weftwork.scripts.demo.pages.available", list)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `weftwork demo` on the shipped models, with a queue of two."""
    load = pytest.importorskip("weftwork.scripts.maintenance.check_demo_load", reason="not in the wheel")
    process, address = load.serve(2, tmp_path_factory.mktemp("demo"))
    try:
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as shown:
        yield shown
