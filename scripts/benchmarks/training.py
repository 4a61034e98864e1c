"""Speed-up of training steps on pairs by cached features, relative to steps that run the frozen encoders.

The backbone is a Stable Diffusion XL with fewer channels and layers and random weights; times do not depend on weights.
The sketch encoder has the shape of DINOv2. Both kinds of steps use the same images.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

from weftwork.attention_processors.encoders import SketchEncoder
from weftwork.attention_processors.encoders.latents import encode_latents, to_unit
from weftwork.attention_processors.paired.adapter import PairedAdapter, SketchTextPair
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionXLPipeline
from weftwork.pretrained import shipped
from weftwork.scripts.benchmarks.timing import interleaved, ratios
from weftwork.training.core.building import built
from weftwork.training.data.pairs import PairRecord
from weftwork.training.tasks.paired import PairedConfig, PairedTask

Shape = Mapping[str, Any]
SIZES: Mapping[str, Shape] = {
    "full": {"side": 512, "blocks": (96, 192, 384), "depth": (1, 2, 4), "text": (768, 1280), "layers": (12, 16),
             "vae": (64, 128, 256, 256), "sketch": (384, 12, 224)},
    "tiny": {"side": 64, "blocks": (16, 32, 32), "depth": (1, 1, 1), "text": (16, 16), "layers": (1, 1),
             "vae": (8, 8, 8, 8), "sketch": (16, 1, 28)},
}  # fmt: skip
"""Sizes of images, denoiser, both text encoders, autoencoder (channels) and sketch encoder (width, layers, image)."""
BATCH, PAIRS = 2, 3


def measure(size: str, rounds: int) -> dict[str, dict[str, float]]:
    """Returns the rows of the report: steps that encode, and steps that read the cache."""
    torch.manual_seed(0)
    shape = SIZES[size]
    pipe = _pipeline(shape)
    images = np.random.default_rng(0).integers(0, 255, (BATCH, shape["side"], shape["side"], 3), dtype=np.uint8)
    pixels = to_unit(torch.from_numpy(images))
    tasks = {name: _task(pipe, shape) for name in ("encoding", "cached")}
    with tempfile.TemporaryDirectory() as folder:
        tasks["cached"].cache_features(Path(folder))
        latents = encode_latents(pipe.vae, pixels)
        batches = {name: task.collate(_records(task, latents)) for name, task in tasks.items()}

        def step(name: str, latents: torch.Tensor) -> None:
            task, batch = tasks[name], replace(batches[name], latents=latents)
            task.loss(batch, torch.Generator().manual_seed(0), 0).backward()
            task.module.zero_grad(set_to_none=True)

        seconds = interleaved(
            rounds,
            encoding=lambda: step("encoding", encode_latents(pipe.vae, pixels)),
            cached=lambda: step("cached", latents),
        )
    return ratios(seconds, "cached")


def _pipeline(shape: Shape) -> ConditionedStableDiffusionXLPipeline:
    tokenizer = CLIPTokenizer.from_pretrained(shipped("tiny-diffusion") / "tokenizer")

    def text(index: int) -> CLIPTextConfig:
        width = shape["text"][index]
        return CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, projection_dim=width,
            num_hidden_layers=shape["layers"][index], num_attention_heads=max(1, width // 64),
            bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )  # fmt: skip

    pipe = built(
        ConditionedStableDiffusionXLPipeline,
        vae=_autoencoder(shape),
        text_encoder=CLIPTextModel(text(0)),
        text_encoder_2=CLIPTextModelWithProjection(text(1)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=_denoiser(shape),
        scheduler=EulerDiscreteScheduler(),
    )
    width, layers, side = shape["sketch"]
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(1, width // 64), image_size=side
    )
    pipe.set_encoders(sketch=SketchEncoder(Dinov2Model(config)))
    return pipe


def _denoiser(shape: Shape) -> UNet2DConditionModel:
    return built(
        UNet2DConditionModel,
        sample_size=shape["side"] // 8,
        block_out_channels=shape["blocks"],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=shape["depth"],
        attention_head_dim=tuple(max(1, width // 64) for width in shape["blocks"]),
        cross_attention_dim=sum(shape["text"]),
        use_linear_projection=True,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + shape["text"][1],
    )


def _autoencoder(shape: Shape) -> AutoencoderKL:
    return built(
        AutoencoderKL,
        block_out_channels=shape["vae"],
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=8,
    )


def _task(pipe: ConditionedStableDiffusionXLPipeline, shape: Shape) -> PairedTask:
    pipe.detach()
    width, _, side = shape["sketch"]
    adapter = PairedAdapter.for_denoiser(
        pipe.unet,
        sketch_encoder="dinov2",
        sketch_size=side,
        image_dim=width,
        text_dim=sum(shape["text"]),
        text_states=20,
        token_dim=64,
    )
    return PairedTask(adapter, pipe, PairedConfig())


def _records(task: PairedTask, latents: torch.Tensor) -> list[PairRecord]:
    records = []
    for row, latent in enumerate(latents):
        pairs = []
        for place in range(PAIRS):
            sketch = Image.new("L", (128, 128), 255)
            sketch.paste(0, (10 * place + 5, 20 + row, 60, 90))
            pairs.append(task.module.prepare(SketchTextPair(sketch, f"a red thing {place}")))
        records.append(PairRecord(latent, tuple(pairs), (f"a person {row}",)))
    return records
