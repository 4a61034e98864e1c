"""Train a ControlNet on sketches of whole outfits, for `weft evaluate composition`.

python -m weft.scripts.train_controlnet --output_dir outputs/sketch-controlnet
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from weft.pipelines.conditioned import ConditionedStableDiffusionPipeline
from weft.pretrained import shipped
from weft.training.adapter_task import ObjectiveConfig
from weft.training.config import TrainingConfig, add_arguments, from_arguments
from weft.training.controlnet import ControlNetTask
from weft.training.loop import train
from weft.training.pair_data import OutfitPairs
from weft.training.picture_cache import OutfitPictures, cached_latents


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, TrainingConfig, max_train_steps=1200, learning_rate=1e-3)
    add_arguments(parser, ObjectiveConfig)
    parser.add_argument("--model", default=str(shipped("tiny-diffusion")), help="Stable Diffusion folder")
    parser.add_argument("--samples", type=int, default=12_000, help="outfits to draw")
    parser.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="drawn pictures and latents")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    config = from_arguments(TrainingConfig, arguments)
    torch.manual_seed(config.seed)
    pipe: Any = ConditionedStableDiffusionPipeline.from_pretrained(arguments.model, use_safetensors=True)
    pictures = OutfitPictures(arguments.cache_dir, "train", arguments.samples)
    latents = cached_latents(arguments.cache_dir, pipe.vae, Path(arguments.model) / "vae", pictures)
    data = OutfitPairs(arguments.cache_dir, pictures, latents, merged=True)
    train(ControlNetTask(pipe, from_arguments(ObjectiveConfig, arguments)), data, config)


if __name__ == "__main__":
    main()
