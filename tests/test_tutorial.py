"""The tutorial: its commands run on tiny models, and its table of memory is counted from the shapes of models."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from test_readme import ROOT, blocks
from tiny_transformers import flux_distilled
from variants import xl_parts

from weftwork.attention_processors import StyleAdapter
from weftwork.pipelines import ConditionedStableDiffusionXLPipeline
from weftwork.pipelines.core.opening import open_conditioned
from weftwork.scripts.cli import main
from weftwork.scripts.converters.ip_adapter import base_denoiser

PAGE = ROOT / "docs" / "tutorial.md"
GIB = 1024**3
COPIES = 5
"""Weights, gradients, two moments of the optimizer, and the average, in float32."""
SMALLER = {
    "resolution = 1024": "resolution = 32",
    "max_train_steps = 1000": "max_train_steps = 2",
    "_steps = 100": "_steps = 2",
    "train_batch_size = 4": "train_batch_size = 2",
    'mixed_precision = "bf16"\n': "",
}
"""Options of the test that differ from the tutorial's."""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory as the tutorial asks for: data, both backbones, and the files that it lists."""
    (tmp_path / "my_images").mkdir()
    data = ROOT / "examples" / "finetuning" / "style"
    rows = (data / "metadata.jsonl").read_text().splitlines()[:4]
    (tmp_path / "my_images/metadata.jsonl").write_text("\n".join(rows))
    for index in range(len(rows)):
        shutil.copy(data / f"{index:02}.png", tmp_path / "my_images")
    pipe: Any = ConditionedStableDiffusionXLPipeline(**xl_parts())
    pipe.save_pretrained(tmp_path / "my-sdxl")
    flux_distilled().save_pretrained(tmp_path / "my-flux")
    [(_, options)] = blocks(PAGE, "toml")
    for before, after in SMALLER.items():
        assert before in options
        options = options.replace(before, after)
    (tmp_path / "run.toml").write_text(options)
    ((_, row),) = blocks(PAGE, "jsonl")
    ((_, design),) = blocks(PAGE, "json")
    assert row.strip() == rows[0]
    (tmp_path / "design.json").write_text(design.replace(": 30", ": 2"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_commands_make_an_adapter_and_an_image(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    for _, block in blocks(PAGE, "sh"):
        for line in block.splitlines():
            words = shlex.split(line)
            assert words[0] == "weftwork" and main(words[1:]) == 0, line
    assert "GiB for weights, gradients and optimizer" in capsys.readouterr().out
    assert (room / "outputs/lighthouse.png").is_file() and (room / "outputs/look.html").is_file()
    for model, run in (("my-sdxl", "look"), ("my-flux", "flux")):
        pipe: Any = open_conditioned(room / model)
        pipe.attach(style=StyleAdapter.from_pretrained(room / f"outputs/{run}/final"))


@pytest.mark.parametrize(("row", "name"), [(0, "sd15"), (1, "sdxl"), (2, "flux")])
def test_memory_is_counted_from_shapes(row: int, name: str) -> None:
    table = [line.split("|")[2:5] for line in PAGE.read_text().splitlines() if re.match(r"\| (Stable|FLUX)", line)]
    with torch.device("meta"):
        denoiser = FluxTransformer2DModel(guidance_embeds=True) if name == "flux" else base_denoiser(name)
        adapter = StyleAdapter.for_denoiser(denoiser, styles=["chalk"])
    counts = [sum(p.numel() for p in one.parameters()) for one in (denoiser, adapter)]
    counted = [counts[0] * 4 / GIB, counts[0] * 2 / GIB, counts[1] * 4 * COPIES / GIB]
    assert [float(cell) for cell in table[row]] == [round(one, 1) for one in counted]
