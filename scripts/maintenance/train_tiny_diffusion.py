"""Train a shipped text-to-image backbone from scratch, in two stages, on synthetic datasets.

    python -m weftwork.scripts.maintenance.train_tiny_diffusion autoencoder --output_dir outputs/autoencoder
    python -m weftwork.scripts.maintenance.train_tiny_diffusion denoiser \
        --vae outputs/autoencoder/final --output_dir outputs/denoiser

Images are rendered and encoded once into `--cache_dir`. `--styled N` adds outfits in the eight styles to the images of
the autoencoder. `--init_from` starts from a trained folder and keeps its token embeddings in a larger vocabulary.
`--rooms N` trains on rooms instead, the autoencoder on images and point maps. The denoiser's result is a complete
Stable Diffusion folder.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, ModelMixin
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils.data import ConcatDataset

from weftwork.training.core.config import TrainingConfig, add_arguments, from_arguments
from weftwork.training.core.loop import train
from weftwork.training.data.image_cache import OutfitImages, cached_latents
from weftwork.training.data.views import RoomImages, cached_room_latents
from weftwork.training.recipes.autoencoder import (
    LATENT_CHANNELS,
    AutoencoderTask,
    PatchCode,
    build_autoencoder,
    frozen_autoencoder,
    standardized,
)
from weftwork.training.recipes.backbone import (
    CHANNELS,
    LatentDataset,
    TextDenoiser,
    TextToImageTask,
    build_denoiser,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    export_pipeline,
    tokenizer_to_resume,
    training_caption,
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    first = stages.add_parser("autoencoder", help="images to latents and back")
    defaults = {"max_train_steps": 1600, "train_batch_size": 16, "learning_rate": 1.5e-3, "validation_steps": 200}
    add_arguments(first, TrainingConfig, **defaults)
    first.add_argument("--styled", type=int, default=0, help="outfits in the eight styles to render")
    second = stages.add_parser("denoiser", help="captions to latents, with the text encoder")
    second.add_argument("--vae", type=Path, required=True, help="folder of the trained autoencoder")
    second.add_argument(
        "--block_out_channels", type=int, nargs="+", help="widths of a new denoiser, even with --init_from"
    )
    defaults = {"max_train_steps": 4500, "train_batch_size": 32, "learning_rate": 7e-4, "validation_steps": 600}
    add_arguments(second, TrainingConfig, **defaults)
    for stage in (first, second):
        stage.add_argument("--init_from", type=Path, help="start from this trained Stable Diffusion folder")
        stage.add_argument("--outfits", type=int, default=30_000, help="outfits to render")
        stage.add_argument("--rooms", type=int, default=0, help="rooms to render, instead of outfits")
        stage.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="cached images and latents")
    arguments, config = started(parser, argv)
    if arguments.stage == "autoencoder":
        _train_autoencoder(arguments, config)
    else:
        _train_denoiser(arguments, config)


def started(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, TrainingConfig]:
    """Parses arguments and training options; starts logging and seeds torch."""
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    config = from_arguments(TrainingConfig, arguments)
    torch.manual_seed(config.seed)
    return arguments, config


def _train_autoencoder(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    sources, held_out = _images(arguments)
    share = len(sources)
    some = torch.from_numpy(np.concatenate([images[: 1500 // share] for images in sources]))
    if arguments.init_from:
        module = AutoencoderKL.from_pretrained(arguments.init_from / "vae", use_safetensors=True)
    else:
        module = build_autoencoder()
    convert_conv2d_weight_memory_format(module, torch.channels_last)
    task = AutoencoderTask(
        module,
        np.concatenate([images[: 32 // len(held_out)] for images in held_out]),
        None if arguments.init_from else PatchCode(some, LATENT_CHANNELS),
    )
    folder = train(task, ConcatDataset(sources), config)
    if not arguments.init_from:  # trained denoisers depend on the scale
        trained = AutoencoderKL.from_pretrained(folder, use_safetensors=True)
        standardized(trained, some[:: max(1, len(some) // 256)]).save_pretrained(folder, safe_serialization=True)


def _images(arguments: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """Returns images to train the autoencoder, and held-out ones."""
    cache = arguments.cache_dir
    if arguments.rooms:
        sources = [
            RoomImages(cache, split, count).planes() for split, count in (("train", arguments.rooms), ("validation", 8))
        ]
        return sources[:1], sources[1:]
    sources = [OutfitImages(cache, "train", arguments.outfits).images]
    held_out = [OutfitImages(cache, "validation", 256).images]
    if arguments.styled:
        sources.append(OutfitImages(cache, "train", arguments.styled, styled=True).images)
        held_out.append(OutfitImages(cache, "validation", 256, styled=True).images)
    return sources, held_out


def _train_denoiser(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    vae = frozen_autoencoder(arguments.vae, config)
    data = _latents(arguments, vae)
    tokenizer = tokenizer_to_resume(config) or build_tokenizer(_texts(data, config.seed))
    if arguments.init_from:
        module = TextDenoiser.from_pretrained(arguments.init_from)
        module.grow(tokenizer)
    else:
        unet = build_denoiser(vae.config["latent_channels"], CHANNELS)
        module = TextDenoiser(unet, build_text_encoder(tokenizer), tokenizer)
    if arguments.block_out_channels:
        module.unet = build_denoiser(vae.config["latent_channels"], arguments.block_out_channels)
    convert_conv2d_weight_memory_format(module.unet, torch.channels_last)
    folder = train(TextToImageTask(module, build_scheduler(), vae), ConcatDataset(data), config)
    export_pipeline(folder, vae, Path(config.output_dir) / "pipeline")


def _latents(arguments: argparse.Namespace, vae: ModelMixin) -> list[LatentDataset]:
    """Returns the training data of the denoiser by dataset."""
    cache = arguments.cache_dir
    if arguments.rooms:
        rooms = RoomImages(cache, "train", arguments.rooms)
        latents = cached_room_latents(cache, vae, rooms)
        return [LatentDataset(latents[:, view], rooms.scenes) for view in range(latents.shape[1] // 2)]
    outfits = OutfitImages(cache, "train", arguments.outfits)
    return [LatentDataset(cached_latents(cache, vae, outfits), outfits.garments)]


def _texts(data: Sequence[LatentDataset], seed: int) -> Iterator[str]:
    """Returns texts for the tokenizer: captions of all content."""
    rng = np.random.default_rng(seed)
    for part in data:
        for shown in part.shown:
            for _ in range(2):
                yield training_caption(shown, rng)


if __name__ == "__main__":
    main()
