"""Training of styles: on latents that differ by style only, each style name is learned."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import STYLES, style_adapter, tiny_pipe
from torch.utils.data import Dataset

from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.attention_processors.style.adapter import Style, StyleAdapter
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.training.core.config import TrainingConfig
from weftwork.training.core.loop import train
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
