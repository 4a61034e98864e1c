"""Training of styles: on latents that differ by style only, each style name is learned."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import STYLES, style_adapter, tiny_pipe
from torch.utils.data import Dataset

from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.attention_processors.style.adapter import Style, StyleAdapter
from weftwork.datasets.synthetic import outfits
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pretrained import available
from weftwork.scripts.cli import main
from weftwork.training.core.config import TrainingConfig
from weftwork.training.core.loop import train
from weftwork.training.data.image_cache import OutfitImages
from weftwork.training.data.styles import StyledOutfits
from weftwork.training.tasks.style import StyleConfig, StyledRecord, StyleTask


class Flat(Dataset[StyledRecord]):
    """Latents of one tone per style."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> StyledRecord:
        style = index % len(STYLES)
        return StyledRecord(torch.full((4, 8, 8), float(style) - 1.5), STYLES[style], ("a cat",))


def make_task(**options: float) -> StyleTask:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    return StyleTask(style_adapter(pipe.unet, layers="all"), pipe, StyleConfig(**options), ("a cat", "a dog"))


@pytest.mark.slow
def test_a_style_is_learned_from_its_images(tmp_path: Path) -> None:
    task = make_task()
    before = state_sha256(task.pipe.unet)
    settings = TrainingConfig(
        str(tmp_path), 120, 8, learning_rate=3e-2, lr_warmup_steps=2, checkpointing_steps=0, validation_steps=120,
        use_ema=False, use_cpu=True,
    )  # fmt: skip
    folder = train(task, Flat(), settings)
    assert state_sha256(task.pipe.unet) == before
    sheets = sorted(path.name for path in (tmp_path / "validation").iterdir())
    assert sheets == ["000000-0.png", "000000-1.png", "000120-0.png", "000120-1.png"]
    with Image.open(tmp_path / "validation" / sheets[-1]) as sheet:
        assert sheet.size == (len(STYLES) * 64, 2 * 64)
    trained = make_task(caption_dropout=0, style_dropout=0, joint_dropout=0)
    trained.module.load_state_dict(StyleAdapter.from_pretrained(folder).state_dict())
    records = [Flat()[i] for i in range(16)]
    swapped = [replace(record, style=STYLES[3 - STYLES.index(record.style)]) for record in records]
    losses = [trained.loss(trained.collate(batch), torch.Generator().manual_seed(0), 0) for batch in (records, swapped)]
    assert losses[0] < 0.995 * losses[1]


def test_dropped_styles_are_the_null_style() -> None:
    adapter = style_adapter(tiny_pipe(ConditionedStableDiffusionPipeline).unet)
    batch = adapter.collate([[Style("ink")], [Style("neon")]])
    kept, dropped = adapter(batch), adapter(replace(batch, null=torch.tensor([True, False])))
    assert kept.null is not None
    for layer, (key, value) in dropped.key_value.items():
        for part, with_style, null in zip((key, value), kept.key_value[layer], kept.null[layer], strict=True):
            assert torch.equal(part[0], null[0]) and torch.equal(part[1], with_style[1])
            assert not torch.equal(part[0], with_style[0])


@pytest.mark.parametrize("name", ["style_dropout", "joint_dropout", "caption_dropout"])
def test_shares_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: got 1.5, expected a share in"):
        StyleConfig(**{name: 1.5})


def test_more_styles_leave_the_known_as_they_are() -> None:
    adapter = style_adapter(tiny_pipe(ConditionedStableDiffusionPipeline).unet)
    wider = adapter.extended(["chalk"])
    assert wider.config["styles"] == [*adapter.config["styles"], "chalk"]
    for style in adapter.config["styles"]:
        one, other = (which.bake(style).tensors for which in (adapter, wider))
        assert all(torch.equal(a, b) for layer in one for a, b in zip(one[layer], other[layer], strict=True))
    torch.testing.assert_close(wider.table[-2], adapter.table[:-1].mean(0))


@pytest.mark.skipif("oracle-styled" not in available(), reason="baselines are in a checkout only")
@pytest.mark.slow
def test_styles_train_on_outfits_and_are_scored(tmp_path: Path) -> None:
    few = ["--samples", "16", "--cache_dir", str(tmp_path / "cache"), "--max_train_steps", "1", "--lr_warmup_steps"]
    few += ["0", "--train_batch_size", "8", "--checkpointing_steps", "0", "--validation_steps", "1"]
    command = ["train", "style", "--synthetic", "outfits", "--output_dir", str(tmp_path / "run"), *few]
    assert main([*command, "--validation_cases", "2", "--validation_prompt", "a person in red boots"]) == 0
    assert "style_accuracy" in (tmp_path / "run/metrics.jsonl").read_text()
    assert (tmp_path / "run/validation/000001-cases.png").is_file()
    config = StyleAdapter.from_pretrained(tmp_path / "run/final").config
    assert tuple(config["styles"]) == outfits.STYLES
    assert config["training"]["data"] == "outfits" and config["training"]["samples"] == 16


def test_styled_outfits_come_with_words_for_what_is_worn(tmp_path: Path) -> None:
    images = OutfitImages(tmp_path, "train", 10, styled=True)
    data = StyledOutfits(images, np.zeros((10, 4, 2, 2), np.float16))
    for i, record in enumerate(data[i] for i in range(10)):
        assert record.style == outfits.STYLES[i % len(outfits.STYLES)]
        full = record.captions[0]
        assert all(garment.color in full and garment.kind in full for garment in images.garments[i])
        assert not any(record.style in one.split() for one in record.captions)
    plain = OutfitImages(tmp_path, "train", 10)
    assert plain.garments == images.garments and not np.array_equal(plain.images, images.images)


@pytest.mark.slow
def test_styles_train_on_a_folder(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    lines = []
    for i, style in enumerate(("ink", "oil") * 2):
        Image.new("RGB", (40, 40), (60 * i, 20, 90)).save(images / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": "a fox", "style": style}))
    (images / "metadata.jsonl").write_text("\n".join(lines))
    command = ["train", "style", "--train_data_dir", str(images), "--output_dir", str(tmp_path / "out")]
    command += ["--cache_dir", str(tmp_path / "cache"), "--max_train_steps", "1", "--train_batch_size", "2"]
    assert main([*command, "--validation_steps", "1", "--lr_warmup_steps", "0"]) == 0
    assert tuple(StyleAdapter.from_pretrained(tmp_path / "out" / "final").config["styles"]) == ("ink", "oil")
    assert len(list((tmp_path / "out" / "validation").iterdir())) == 2 * 4
    again = ["--init_from", str(tmp_path / "out"), "--output_dir", str(tmp_path / "again"), "--validation_steps", "0"]
    assert main([*command, *again]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "data: got none; pass exactly one of --train_data_dir, --dataset_name, --synthetic"),
        (
            ["--dataset_name", "a/b", "--validation_cases", "8"],
            "validation_cases: got 8, but only a synthetic dataset",
        ),
        (["--synthetic", "outfits", "--streaming"], "streaming: got it without --dataset_name"),
        (["--synthetic", "outfits", "--dataset_name", "a/b"], "data: got --dataset_name and --synthetic"),
        (["--synthetic", "outfits", "--style", "ink"], "style: has no effect with a synthetic dataset of style"),
        (["--synthetic", "outfits", "--style_dropout", "2"], r"style_dropout: got 2.0, expected a share in \[0, 1\]"),
        (["--train_data_dir", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "style", "--output_dir", str(tmp_path / "out"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
