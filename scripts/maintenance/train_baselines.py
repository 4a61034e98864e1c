"""Train the baselines of `weftwork evaluate`: an image encoder for IP-Adapters, a LoRA, a ControlNet.

    python -m weftwork.scripts.maintenance.train_baselines encoder --output_dir outputs/drawings-encoder
    python -m weftwork.scripts.maintenance.train_baselines lora --output_dir outputs/drawings-lora
    python -m weftwork.scripts.maintenance.train_baselines controlnet --output_dir outputs/sketch-controlnet

The first two learn styles: data, steps and objective are those of `weftwork train style --synthetic drawings`. The last
reads sketches of whole outfits.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from weftwork.attention_processors.encoders import TextEncoders
from weftwork.datasets.drawings.rendered import open_rendered
from weftwork.datasets.drawings.sets import TARBALLS
from weftwork.datasets.drawings.splits import VALIDATION_SEED
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pretrained import DEFAULT_MODEL, shipped
from weftwork.scripts.maintenance.train_tiny_diffusion import started
from weftwork.training.core.config import ObjectiveConfig, TrainingConfig, add_arguments, from_arguments
from weftwork.training.core.loop import train
from weftwork.training.data.drawings import SceneImages, StyledScenes
from weftwork.training.data.image_cache import OutfitImages, cached_latents
from weftwork.training.data.pairs import OutfitPairs
from weftwork.training.recipes.controlnet import SketchControlNetTask
from weftwork.training.recipes.image_encoder import ImageEncoderTask, LabelledEncoder, labelled_scenes
from weftwork.training.recipes.style_baselines import LoraTask
from weftwork.training.trainers.captioned import StyleConfig

STAGES = {
    "encoder": "images to vectors",
    "lora": "a LoRA",
    "controlnet": "a ControlNet",
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    for name, text in STAGES.items():
        stage = stages.add_parser(name, help=text)
        add_arguments(stage, TrainingConfig, max_train_steps=2000, learning_rate=1e-3, validation_steps=250)
        stage.add_argument("--samples", type=int, default=12_000, help="images to render")
        stage.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="cached images and latents")
        if name != "controlnet":
            stage.add_argument("--drawings", type=Path, default=TARBALLS, help="SVG files, or npm tarballs")
        if name != "encoder":
            model = DEFAULT_MODEL if name == "lora" else "tiny-diffusion"
            stage.add_argument("--model", default=str(shipped(model)), help=f"folder (default: the shipped {model})")
            add_arguments(stage, ObjectiveConfig if name == "controlnet" else StyleConfig)
    stages.choices["lora"].add_argument("--rank", type=int, default=8, help="rank of the LoRA")
    arguments, config = started(parser, argv)
    train_stage = {"encoder": _train_encoder, "lora": _train_lora, "controlnet": _train_controlnet}[arguments.stage]
    train_stage(arguments, config)


def _train_encoder(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    cache, drawings = arguments.cache_dir, open_rendered(arguments.drawings, arguments.cache_dir)
    data = labelled_scenes(SceneImages(cache, drawings, "train", arguments.samples))
    held_out = labelled_scenes(SceneImages(cache, drawings, "subjects", 256, VALIDATION_SEED))
    train(ImageEncoderTask(LabelledEncoder(data.heads), held_out), data, config)


def _train_lora(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    pipe = _pipeline(arguments, config)
    images = SceneImages(
        arguments.cache_dir, open_rendered(arguments.drawings, arguments.cache_dir), "train", arguments.samples
    )
    latents = cached_latents(arguments.cache_dir, pipe.vae, images)
    data = StyledScenes(images, latents, TextEncoders.of(pipe).shortened, named=True)
    train(LoraTask(pipe, from_arguments(StyleConfig, arguments), arguments.rank), data, config)


def _train_controlnet(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    pipe = _pipeline(arguments, config)
    images = OutfitImages(arguments.cache_dir, "train", arguments.samples)
    latents = cached_latents(arguments.cache_dir, pipe.vae, images)
    data = OutfitPairs(arguments.cache_dir, images, latents, merged=True)
    train(SketchControlNetTask(pipe, from_arguments(ObjectiveConfig, arguments)), data, config)


def _pipeline(arguments: argparse.Namespace, config: TrainingConfig) -> ConditionedStableDiffusionPipeline:
    pipe = ConditionedStableDiffusionPipeline.from_pretrained(arguments.model, use_safetensors=True)
    return pipe.to(PartialState(cpu=config.use_cpu).device)


if __name__ == "__main__":
    main()
