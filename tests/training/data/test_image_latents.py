"""Latents of user images: aspect buckets, caches; sketches and regions are squeezed with their image."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import drawn_sketch, paired_adapter, tiny_pipe

from weftwork.datasets.readers.pair_folder import PairSample, write_pair_folder
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.cli import main
from weftwork.training.data.image_latents import Sizes, encoded_once
from weftwork.training.data.pairs import SamplePairs
from weftwork.training.tasks.adapter import ObjectiveConfig
from weftwork.training.tasks.paired import PairedConfig, PairedTask


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((500, 500), (1024, 1024)),
        ((1500, 1000), (1216, 832)),
        ((1000, 1500), (832, 1216)),
        ((1920, 1080), (1344, 768)),
        ((100, 3000), (704, 1408)),
    ],
)
def test_images_get_the_nearest_aspect(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert Sizes(1024, 64, aspects=True).nearest(*shape) == size
    assert Sizes(1024, 64).nearest(*shape) == (1024, 1024)


def test_sizes_are_those_of_the_denoiser() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    step = pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.down_block_types) - 1)
    sizes = Sizes.of(pipe, 4 * step, aspects=True)
    for shape in ((1, 1), (3, 2), (1, 4)):
        width, height = sizes.nearest(*shape)
        assert width % step == height % step == 0 and width * height <= (4 * step) ** 2
    with pytest.raises(ValueError, match=f"resolution: got {step + 1}, expected a multiple of {step}"):
        Sizes.of(pipe, step + 1)


def test_latents_are_kept_by_size(tmp_path: Path) -> None:
    vae = tiny_pipe(ConditionedStableDiffusionPipeline).vae
    image = Image.new("RGB", (96, 64), "red")
    (square,) = encoded_once([image], 1, vae, tmp_path, Sizes(64))
    (wide,) = encoded_once([image], 1, vae, tmp_path, Sizes(64, aspects=True))
    assert square.shape == (4, 8, 8) and wide.shape == (4, 6, 10)
    assert len(list(tmp_path.glob("*/*"))) == 2


def test_latents_belong_to_weights_and_are_encoded_again_if_damaged(tmp_path: Path) -> None:
    vae = tiny_pipe(ConditionedStableDiffusionPipeline).vae
    image = Image.new("RGB", (64, 64), "red")
    (first,) = encoded_once([image], 1, vae, tmp_path, Sizes(64))
    (path,) = tmp_path.glob("*/*")
    path.write_bytes(path.read_bytes()[:-9])
    assert torch.equal(encoded_once([image], 1, vae, tmp_path, Sizes(64))[0], first)
    with torch.no_grad():
        vae.quant_conv.bias += 1
    assert not torch.equal(encoded_once([image], 1, vae, tmp_path, Sizes(64))[0], first)


def test_own_pairs_are_drawn_at_every_validation(tmp_path: Path) -> None:
    """The first four, each below its sketches, with all of their pairs."""
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.save_pretrained(tmp_path / "model")
    paired_adapter(pipe.unet).save_pretrained(tmp_path / "paired")
    samples = []
    for i, size in enumerate([(64, 64), (96, 64), (64, 64), (64, 96), (64, 64)]):
        sketches = tuple(drawn_sketch(j).resize(size) for j in range(1 + i % 2))
        texts = tuple(f"thing {j}" for j in range(1 + i % 2))
        samples.append(PairSample(Image.new("RGB", size, "red"), sketches, texts, f"picture {i}", None, str(i)))
    data = write_pair_folder(samples, tmp_path / "data")
    given = {"train_data_dir": data, "output_dir": tmp_path / "run", "cache_dir": tmp_path / "cache"}
    given |= {"pretrained_model_name_or_path": tmp_path / "model", "init_from": tmp_path / "paired"}
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    few = ["--max_train_steps", "1", "--train_batch_size", "2", "--validation_steps", "1", "--aspect_buckets"]
    assert main(["train", "paired", *options, *few]) == 0
    with Image.open(tmp_path / "run/validation/000001.png") as sheet:
        assert sheet.size == (4 * 64, 4 * 64)  # sketches, targets, step 0, step 1
    assert (tmp_path / "run/final/samples/000001.png").is_file()


@pytest.mark.parametrize("aspects", [False, True])
def test_pairs_on_wide_images_train(tmp_path: Path, aspects: bool) -> None:
    """A sketch's region has the canvas's aspect and has to be squeezed with the image."""
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    adapter = paired_adapter(pipe.unet)
    mask = Image.new("L", (96, 64), 255)
    own: Any = [
        PairSample(Image.new("RGB", size, "red"), (drawn_sketch().resize(size),), ("a thing",), "", None, "1", (mask,))
        for size in ((96, 64), (98, 64))
    ]
    data = SamplePairs(own, adapter, pipe.vae, tmp_path, Sizes(64, 16, aspects=aspects), by_count=True)
    assert data.buckets == [(4, 6, 10, 1) if aspects else (4, 8, 8, 1)] * 2
    task = PairedTask(adapter, pipe, PairedConfig(region_share=1.0))
    batch = task.collate([data[0], data[1]])
    assert batch.conditions.region is not None
    assert task.loss(batch, torch.Generator().manual_seed(0), 0).isfinite()
    assert isinstance(task.objective, ObjectiveConfig)
