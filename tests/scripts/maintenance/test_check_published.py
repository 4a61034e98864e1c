"""The check of published models, on tiny ones in their folders."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from tiny import tiny_pipe
from tiny_transformers import tiny_transformer_pipe

from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.scripts.benchmarks.backbones import table

check_published = pytest.importorskip("weftwork.scripts.maintenance.check_published", reason="not in a checkout")


def test_models_at_hand_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path / "sd-1.5")
    tiny_transformer_pipe("qwen-image").save_pretrained(tmp_path / "qwen-image")
    small = {name: {"height": 64, "width": 64} for name in check_published.MODELS}
    monkeypatch.setattr(check_published, "MODELS", small)
    monkeypatch.setattr(table, "check", lambda *_: 0)
    options = ["--output", str(tmp_path / "out"), "--num_inference_steps=2", "--dtype=float32"]
    assert check_published.main([str(tmp_path), *options]) == 0
    printed = capsys.readouterr().out
    assert "sd-1.5: holds" in printed and "qwen-image: holds" in printed and "wan: not at hand" in printed
    assert len(list((tmp_path / "out").glob("*.png"))) == 8
    monkeypatch.setattr(check_published, "conditions", lambda pipe, given: nullcontext())
    assert check_published.main([str(tmp_path), *options, "--no-table"]) == 1
    assert "sd-1.5: a region does not change the image" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"models: got a folder with none of sd-1\.5.*; put diffusers folders there"):
        check_published.main([str(tmp_path / "out")])
