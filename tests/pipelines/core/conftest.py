"""Small references for the pipelines of Qwen-Image that edit."""

import pytest


@pytest.fixture(autouse=True)
def small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Qwen-Image's editing pipelines scale their references to 32 instead of 1024 pixels a side."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda *_: (32, 32, None))
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "calculate_dimensions", lambda *_: (32, 32))
