"""Train the shipped text-to-image backbone from nothing, in two stages, on the procedural outfits.

    python -m weft.scripts.train_tiny_diffusion autoencoder --output_dir outputs/autoencoder
    python -m weft.scripts.train_tiny_diffusion denoiser --vae outputs/autoencoder/final --output_dir outputs/denoiser

The denoiser stage draws and encodes its pictures once into `--cache_dir`, and `--init_from` starts it from a trained
folder, which is how a larger world is added later. Its result is a complete Stable Diffusion folder.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from weft.training.autoencoder import (
    LATENT_CHANNELS,
    AutoencoderTask,
    PatchCode,
    PictureDataset,
    build_autoencoder,
    with_scaling_factor,
)
from weft.training.backbone import (
    LatentDataset,
    TextDenoiser,
    TextToImageTask,
    build_denoiser,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    training_caption,
)
from weft.training.config import TrainingConfig, add_arguments, from_arguments
from weft.training.loop import train
from weft.training.picture_cache import OutfitPictures, cached_latents


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    first = stages.add_parser("autoencoder", help="pictures to latents and back")
    add_arguments(
        first,
        TrainingConfig,
        max_train_steps=1600,
        train_batch_size=16,
        learning_rate=1.5e-3,
        validation_steps=200,
    )
    second = stages.add_parser("denoiser", help="latents from captions, with the text encoder")
    second.add_argument("--vae", type=Path, required=True, help="folder of the trained autoencoder")
    second.add_argument("--init_from", type=Path, help="start from this Stable Diffusion folder")
    add_arguments(
        second,
        TrainingConfig,
        max_train_steps=4500,
        train_batch_size=32,
        learning_rate=7e-4,
        validation_steps=600,
    )
    for stage in (first, second):
        stage.add_argument("--pictures", type=int, default=30_000, help="training pictures to draw")
        stage.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="drawn pictures and latents")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    config = from_arguments(TrainingConfig, arguments)
    torch.manual_seed(config.seed)
    if arguments.stage == "autoencoder":
        _train_autoencoder(arguments, config)
    else:
        _train_denoiser(arguments, config)


def _train_autoencoder(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    pictures = OutfitPictures(arguments.cache_dir, "train", arguments.pictures)
    held_out = OutfitPictures(arguments.cache_dir, "validation", 256)
    module = build_autoencoder().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    code = PatchCode(torch.from_numpy(np.array(pictures.images[:1500])), LATENT_CHANNELS)
    folder = train(AutoencoderTask(module, held_out.images, code), PictureDataset(pictures.images), config)
    trained = AutoencoderKL.from_pretrained(folder, use_safetensors=True)
    sample = torch.from_numpy(np.array(pictures.images[:256]))
    with_scaling_factor(trained, sample).save_pretrained(folder, safe_serialization=True)


def _train_denoiser(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    pictures = OutfitPictures(arguments.cache_dir, "train", arguments.pictures)
    vae = AutoencoderKL.from_pretrained(arguments.vae, use_safetensors=True).requires_grad_(False).eval()
    latents = cached_latents(arguments.cache_dir, vae, arguments.vae, pictures)
    if arguments.init_from:
        tokenizer = CLIPTokenizer.from_pretrained(arguments.init_from / "tokenizer")
        text_encoder = CLIPTextModel.from_pretrained(arguments.init_from / "text_encoder")
        unet = UNet2DConditionModel.from_pretrained(arguments.init_from / "unet", use_safetensors=True)
    else:
        rng = np.random.default_rng(config.seed)
        tokenizer = build_tokenizer(training_caption(g, rng) for g in pictures.garments for _ in range(2))
        text_encoder = build_text_encoder(tokenizer)
        unet = build_denoiser(vae.config["latent_channels"])
    unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    module = TextDenoiser(unet, text_encoder)
    task = TextToImageTask(module, tokenizer, build_scheduler(), vae)
    folder = train(task, LatentDataset(latents, pictures.garments), config)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    for part in (vae, unet):  # half the size; opened without a dtype they come back in float32, as the text encoder is
        part.half()
    pipe = task.pipeline(TextDenoiser(unet, text_encoder))
    pipe.save_pretrained(f"{config.output_dir}/pipeline", safe_serialization=True)
    strip_paths(Path(config.output_dir) / "pipeline")


def strip_paths(folder: Path) -> None:
    """Drop the paths that saving leaves in JSON files: they name a machine, and no two runs agree on them."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
