"""Train the shipped audio backbone from scratch, in two stages, on synthetic walks.

    python -m weftwork.scripts.maintenance.train_tiny_audio autoencoder --output_dir outputs/oobleck
    python -m weftwork.scripts.maintenance.train_tiny_audio transformer \
        --vae outputs/oobleck/final --output_dir outputs/tiny-audio

Audio is rendered and encoded once into `--cache_dir`. The second stage's result is a complete Stable Audio folder.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderOobleck, StableAudioDiTModel
from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel
from transformers import T5EncoderModel, T5Tokenizer

from weftwork.datasets.synthetic.walks import SECONDS
from weftwork.datasets.synthetic.walks.prompts import words
from weftwork.datasets.synthetic.walks.recordings import steps_in
from weftwork.pipelines.audio.cosine_scheduler import CosineScheduler
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.scripts.maintenance.train_tiny_diffusion import started
from weftwork.training.core.building import built
from weftwork.training.core.config import TrainingConfig, add_arguments
from weftwork.training.core.loop import train
from weftwork.training.data.audio import VERSIONS, WalkSounds, cached_audio_latents
from weftwork.training.recipes.audio_autoencoder import OobleckTask, build_oobleck, with_unit_latents
from weftwork.training.recipes.audio_backbone import (
    LONGEST,
    TEXT_WIDTH,
    TextToAudio,
    TextToAudioTask,
    build_text_encoder,
    build_text_tokenizer,
    build_transformer,
)
from weftwork.training.recipes.backbone import LatentDataset, strip_paths


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    first = stages.add_parser("autoencoder", help="audio to latents and back")
    add_arguments(first, TrainingConfig, max_train_steps=3000, learning_rate=1e-3, validation_steps=250)
    first.add_argument(
        "--compile", action="store_true", help="halves the time per step after a minute; needs a C++ compiler"
    )
    first.add_argument("--init_from", type=Path, help="folder of an autoencoder to start from, instead of a new one")
    second = stages.add_parser("transformer", help="text to latents, with the text encoder")
    second.add_argument("--vae", type=Path, required=True, help="folder of the trained autoencoder")
    add_arguments(second, TrainingConfig, max_train_steps=4000, train_batch_size=32, learning_rate=7e-4)
    for stage in (first, second):
        stage.add_argument("--walks", type=int, default=8_000, help="walks to render")
        stage.add_argument("--footsteps", type=Path, help="folder of recorded footsteps, instead of synthetic ones")
        stage.add_argument("--cache_dir", type=Path, default=Path(".cache/sounds"), help="cached audio and latents")
    arguments, config = started(parser, argv)
    if arguments.stage == "autoencoder":
        _train_autoencoder(arguments, config)
    else:
        _train_transformer(arguments, config)


def _train_autoencoder(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    folder = arguments.footsteps
    sounds: Any = WalkSounds(arguments.cache_dir, "train", arguments.walks, footsteps=folder).sounds
    held_out = _floats(WalkSounds(arguments.cache_dir, "validation", 32, footsteps=folder).sounds)
    start = arguments.init_from
    module = build_oobleck() if start is None else AutoencoderOobleck.from_pretrained(start, use_safetensors=True)
    if arguments.compile:
        for part in (module.encoder, module.decoder):
            part.compile()
    folder = train(OobleckTask(module, held_out), sounds, config)
    trained = AutoencoderOobleck.from_pretrained(folder, use_safetensors=True)
    with_unit_latents(trained, _floats(sounds[:128])).save_pretrained(folder, safe_serialization=True)


def _floats(sounds: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(sounds)).float() / 32768


def _train_transformer(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    vae = AutoencoderOobleck.from_pretrained(arguments.vae, use_safetensors=True).requires_grad_(False).eval()
    sounds = WalkSounds(arguments.cache_dir, "train", arguments.walks, footsteps=arguments.footsteps)
    latents = cached_audio_latents(arguments.cache_dir, vae, sounds)
    both = [LatentDataset(latents[:, VERSIONS.index(one)], sounds.surfaces) for one in ("heard", "mirrored")]
    tokenizer = build_text_tokenizer([*words(), *steps_in(arguments.footsteps, "train").surfaces])
    module = TextToAudio(
        build_transformer(latents.shape[-1]),
        build_text_encoder(tokenizer),
        StableAudioProjectionModel(TEXT_WIDTH, TEXT_WIDTH, 0, LONGEST),
    )
    train(TextToAudioTask(module, tokenizer, SECONDS), torch.utils.data.ConcatDataset(both), config)
    pipe = pipeline_of(vae, tokenizer, Path(config.output_dir) / "final")
    pipe.transformer.half()  # halves the file; loads as float32 by default
    pipe.save_pretrained(f"{config.output_dir}/pipeline", safe_serialization=True)
    strip_paths(Path(config.output_dir) / "pipeline")


def pipeline_of(vae: AutoencoderOobleck, tokenizer: T5Tokenizer, folder: Path) -> VideoToAudioPipeline:
    """Returns a pipeline of the parts of a trained folder."""
    return built(
        VideoToAudioPipeline,
        vae=vae,
        text_encoder=T5EncoderModel.from_pretrained(folder / "text_encoder"),
        projection_model=StableAudioProjectionModel.from_pretrained(folder / "projection_model", use_safetensors=True),
        tokenizer=tokenizer,
        transformer=StableAudioDiTModel.from_pretrained(folder / "transformer", use_safetensors=True),
        scheduler=CosineScheduler(),
    )


if __name__ == "__main__":
    main()
