"""Fixtures of the demo's tests."""

import pytest


@pytest.fixture
def no_shipped_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the shipped models, so that only methods on the given pipeline have pages."""
    monkeypatch.setattr("weftwork.scripts.demo.pages.available", list)
