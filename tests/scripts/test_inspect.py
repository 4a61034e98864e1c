"""`weftwork inspect` reads configs and headers, never weights."""

import json
import struct
from pathlib import Path

import pytest
from tiny import paired_adapter, tiny_unet

from weftwork.attention_processors.style.adapter import StyleAdapter
from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.scripts.cli import main


def test_an_adapter_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = paired_adapter(tiny_unet())
    before = {"steps": 5, "after": {"steps": 3, "data": "drawings"}}
    adapter.register_to_config(training={"steps": 7, "data": "outfits", "after": before})
    adapter.save_pretrained(tmp_path)
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["class"] == "PairedAdapter" and found["dtypes"] == ["F32"]
    assert found["parameters"] == sum(p.numel() for p in adapter.parameters())
    assert found["layers"] == dict(adapter.config["layers"]) and found["training"]["steps"] == 7
    assert main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "PairedAdapter" in said and "steps: 7" in said and "family UNet2DConditionModel" in said
    assert said.endswith("\nafter: steps 5\nafter: data drawings, steps 3\n")


def test_weights_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = 1 << 40
    header = json.dumps({"huge": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)  # a terabyte of holes
    assert main(["inspect", str(tmp_path)]) == 0
    assert "274,877,906,944 parameters" in capsys.readouterr().out
    with (tmp_path / "huge.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert main(["inspect", str(tmp_path)]) == 2
    assert "huge.safetensors: got no valid safetensors" in capsys.readouterr().err


def test_a_card_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    style = StyleAdapter.for_denoiser(tiny_unet(), styles=["ink"], token_dim=32)
    style.bake("ink").save(tmp_path / "ink.safetensors")
    assert main(["inspect", str(tmp_path / "ink.safetensors"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metadata"]["name"] == "ink" and found["base"]["family"] == "UNet2DConditionModel"
    assert found["parameters"] > 0


def test_modules_of_several_parts_say_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    views = AlignedViews.for_denoiser(tiny_unet(), rank=2, training={"steps": 7})
    views.save_pretrained(tmp_path)
    assert main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "AlignedViews" in said and "layers: self" in said and "sharing: instillation" in said and "steps: 7" in said
    assert main(["inspect", "spatial-audio"]) == 0
    said = capsys.readouterr().out
    assert "SpatialAudioAdapter" in said and "family StableAudioDiTModel" in said and "controlnet/" in said


def test_what_is_no_adapter_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 2
    assert "no safetensors files found" in capsys.readouterr().err
    assert main(["inspect", "nowhere"]) == 2
    assert "got nothing at 'nowhere'" in capsys.readouterr().err
    for content in (b"", b"\xff" * 100, struct.pack("<Q", 2) + b"[]"):
        (tmp_path / "bad.safetensors").write_bytes(content)
        assert main(["inspect", str(tmp_path)]) == 2
        assert "bad.safetensors: got" in capsys.readouterr().err


def test_a_shipped_model_is_found_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "paired"]) == 0
    assert "PairedAdapter" in capsys.readouterr().out


def test_a_checkpoint_counts_once_and_a_run_without_a_result_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = paired_adapter(tiny_unet())
    for step in (4, 12):
        adapter.save_pretrained(tmp_path / f"run/checkpoint-{step}")
        adapter.save_pretrained(tmp_path / f"run/checkpoint-{step}/state")
        (tmp_path / f"run/checkpoint-{step}/state/progress.json").write_text("{}")
    assert main(["inspect", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "got a run without a result; pass one of its checkpoints" in said and said.endswith("checkpoint-12\n")
    assert main(["inspect", said.split()[-1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == sum(p.numel() for p in adapter.parameters())
