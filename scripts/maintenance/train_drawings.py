"""Train a Stable Diffusion or a FLUX folder on emoji drawings, beside synthetic outfits.

    python -m weftwork.scripts.maintenance.fetch_drawings .cache/drawings
    python -m weftwork.scripts.maintenance.train_drawings autoencoder --init_from pretrained/tiny-diffusion \
        --output_dir outputs/drawings-vae
    python -m weftwork.scripts.maintenance.train_drawings denoiser --init_from pretrained/tiny-diffusion \
        --vae outputs/drawings-vae/final --output_dir outputs/drawings

A FLUX folder is trained from random weights. `--init_from` goes on from an earlier one, or takes the words of a Stable
Diffusion folder:

    python -m weftwork.scripts.maintenance.train_drawings flux --vae outputs/drawings-vae/final \
        --init_from outputs/drawings/pipeline --output_dir outputs/flux

`people` and `hands` teach a Stable Diffusion folder people with expressions (docs/expressions.md) or hands
(docs/parts.md) instead, on its own autoencoder:

    python -m weftwork.scripts.maintenance.train_drawings people --init_from pretrained/tiny-drawings \
        --output_dir outputs/people

A checkpoint of a denoiser (its averaged weights) becomes such a folder by

    python -m weftwork.scripts.maintenance.train_drawings export outputs/drawings/checkpoint-2000 \
        --vae outputs/drawings-vae/final --output_dir outputs/early

`--init_from` may be the result of an earlier run; its words are kept unless `--vocabulary` is larger. Go on with an
interrupted run by `--resume_from_checkpoint latest`.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.utils.data import ConcatDataset

from weftwork.datasets.drawings.rendered import open_rendered
from weftwork.datasets.drawings.scenes import SIZE
from weftwork.datasets.drawings.sets import TARBALLS
from weftwork.datasets.people.dataset import caption
from weftwork.training.core.config import TrainingConfig, add_arguments, from_arguments
from weftwork.training.core.loop import train
from weftwork.training.data.drawings import SceneImages, SingleDrawings
from weftwork.training.data.image_cache import OutfitImages, cached_latents
from weftwork.training.data.parts import HandViews
from weftwork.training.data.people import PeopleImages
from weftwork.training.recipes.autoencoder import frozen_autoencoder, standardized, widened
from weftwork.training.recipes.backbone import (
    LatentDataset,
    TextDenoiser,
    build_scheduler,
    build_tokenizer,
    export_pipeline,
    for_latents,
    tokenizer_to_resume,
)
from weftwork.training.recipes.drawings import CaptionedTask, DrawingAutoencoderTask, DrawingTask, drawing_caption
from weftwork.training.recipes.flux import FluxDenoiser, FluxTask, export_flux

CAPTIONS_PER_IMAGE = 4
"""From which the tokenizer learns words."""


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    if arguments.stage == "export":
        vae = AutoencoderKL.from_pretrained(arguments.vae, use_safetensors=True)
        export = export_flux if (arguments.checkpoint / "transformer").is_dir() else export_pipeline
        export(arguments.checkpoint, vae, arguments.output_dir)
        return
    config = from_arguments(TrainingConfig, arguments)
    torch.manual_seed(config.seed)
    stages = {"autoencoder": train_autoencoder, "denoiser": train_denoiser, "flux": train_flux}
    stages.get(arguments.stage, train_captioned)(arguments, config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    first = stages.add_parser("autoencoder", help="images to latents and back")
    add_arguments(first, TrainingConfig, max_train_steps=3200, learning_rate=1e-3, validation_steps=400)
    first.add_argument("--latent_channels", type=int, default=16, help="add channels to an autoencoder of fewer")
    first.add_argument("--decoder_only", action="store_true", help="keep the latents that a denoiser was trained on")
    second = stages.add_parser("denoiser", help="a U-Net of latents from captions, with the text encoder")
    third = stages.add_parser("flux", help="a FLUX transformer of latents from captions, with the text encoders")
    people = stages.add_parser("people", help="a U-Net of people with expressions, with the text encoder")
    hands = stages.add_parser("hands", help="a U-Net of hands, whole and as parts, with the text encoder")
    for stage in (people, hands):
        stage.add_argument("--samples", type=int, default=12_000, help="images to draw")
        options = {"max_train_steps": 1200, "train_batch_size": 32, "validation_steps": 300}
        add_arguments(stage, TrainingConfig, learning_rate=1e-3, **options)
    for stage in (second, third):
        stage.add_argument("--vae", type=Path, required=True, help="folder of the trained autoencoder")
        stage.add_argument("--vocabulary", type=int, default=3000, help="tokens of the text encoder")
        stage.add_argument("--resolution", type=int, choices=(64, SIZE), default=SIZE, help="64: single drawings alone")
        options = {"max_train_steps": 30_000, "train_batch_size": 32, "validation_steps": 500}
        add_arguments(stage, TrainingConfig, learning_rate=5e-4, **options)
    for stage in (first, second, third):
        stage.add_argument("--scenes", type=int, default=24_000, help="scenes to draw")
        stage.add_argument("--outfits", type=int, default=4000, help="outfits to draw")
    for stage in (first, second, third, people):
        stage.add_argument("--drawings", type=Path, default=TARBALLS, help="npm tarballs, or SVG files")
    for stage in (first, second, third, people, hands):
        stage.add_argument("--init_from", type=Path, required=stage is not third, help="start from this folder")
        stage.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="drawn images and latents")
    last = stages.add_parser("export", help="a checkpoint of a denoiser as a folder of its pipeline")
    last.add_argument("checkpoint", type=Path, help="folder checkpoint-N of a run")
    last.add_argument("--vae", type=Path, required=True, help="folder of the autoencoder that it was trained with")
    last.add_argument("--output_dir", type=Path, required=True, help="folder of the result")
    return parser


def train_autoencoder(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    cache, drawings = arguments.cache_dir, open_rendered(arguments.drawings, arguments.cache_dir)
    images: list[Any] = [
        SceneImages(cache, drawings, "train", arguments.scenes).images,
        OutfitImages(cache, "train", arguments.outfits).images,
    ]
    unseen = [
        SceneImages(cache, drawings, "subjects", 24).images,
        OutfitImages(cache, "validation", 8).images,
    ]
    module = AutoencoderKL.from_pretrained(arguments.init_from / "vae", use_safetensors=True)
    if module.config["latent_channels"] < arguments.latent_channels:
        module = widened(module, arguments.latent_channels)
    if arguments.decoder_only:
        for name, weights in module.named_parameters():
            weights.requires_grad = name.startswith(("decoder.", "post_quant_conv."))
    folder = train(DrawingAutoencoderTask(module, np.concatenate(unseen)), ConcatDataset(images), config)
    if arguments.decoder_only:
        return
    trained = AutoencoderKL.from_pretrained(folder, use_safetensors=True)
    some = torch.from_numpy(np.concatenate([part[:750:6] for part in images]))
    standardized(trained, some).save_pretrained(folder, safe_serialization=True)


def train_denoiser(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    vae, data = _latents(arguments, config)
    module = TextDenoiser.from_pretrained(arguments.init_from)
    if module.unet.config["in_channels"] != vae.config["latent_channels"]:
        module.unet = for_latents(module.unet, vae.config["latent_channels"])
    task = DrawingTask(module, build_scheduler(), vae)
    task.sampling = {"height": arguments.resolution, "width": arguments.resolution}
    if len(module.tokenizer) < arguments.vocabulary:
        module.grow(tokenizer_to_resume(config) or build_tokenizer(_texts(data, config.seed), arguments.vocabulary))
    folder = train(task, ConcatDataset(data), config)
    export_pipeline(folder, vae, Path(config.output_dir) / "pipeline")


def train_flux(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    vae, data = _latents(arguments, config)
    channels = vae.config["latent_channels"]
    if arguments.init_from and (arguments.init_from / "transformer").is_dir():
        module = FluxDenoiser.from_pretrained(arguments.init_from)
    elif arguments.init_from:
        module = FluxDenoiser.from_words(arguments.init_from, channels)
    else:
        tokenizer = tokenizer_to_resume(config) or build_tokenizer(_texts(data, config.seed), arguments.vocabulary)
        module = FluxDenoiser.build(tokenizer, channels)
    task = FluxTask(module, vae)
    task.sampling = {"height": arguments.resolution, "width": arguments.resolution}
    folder = train(task, ConcatDataset(data), config)
    export_flux(folder, vae, Path(config.output_dir) / "pipeline")


def train_captioned(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    vae, cache = frozen_autoencoder(arguments.init_from / "vae", config), arguments.cache_dir
    if arguments.stage == "people":
        images = PeopleImages(cache, arguments.drawings, "train", arguments.samples)
        shown = [(caption(*one), caption(one[0])) for one in zip(images.people, images.expressions, strict=True)]
    else:
        images = HandViews(cache, "train", arguments.samples, SIZE)
        shown = [(one,) for one in images.truth for _ in ("whole", "part")]
    with torch.autocast(vae.device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16"):
        latents = cached_latents(cache, vae, images)
    prompts = [captions[0] for captions in shown[:16:2]]  # hands have two images each
    task = CaptionedTask(TextDenoiser.from_pretrained(arguments.init_from), build_scheduler(), vae, prompts)
    export_pipeline(train(task, LatentDataset(latents, shown), config), vae, Path(config.output_dir) / "pipeline")


def _latents(arguments: argparse.Namespace, config: TrainingConfig) -> tuple[AutoencoderKL, list[LatentDataset]]:
    """Opens the frozen autoencoder, and the latents of scenes and outfits."""
    vae, cache = frozen_autoencoder(arguments.vae, config), arguments.cache_dir
    scenes = SceneImages(cache, open_rendered(arguments.drawings, cache), "train", arguments.scenes)
    with torch.autocast(vae.device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16"):
        if arguments.resolution < SIZE:
            small = SingleDrawings(scenes, arguments.resolution)
            return vae, [LatentDataset(cached_latents(cache, vae, small), small.depicted)]
        outfits = OutfitImages(cache, "train", arguments.outfits)
        return vae, [
            LatentDataset(cached_latents(cache, vae, scenes), scenes.depicted),
            LatentDataset(cached_latents(cache, vae, outfits), outfits.garments),
        ]


def _texts(data: Sequence[LatentDataset], seed: int) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    for part in data:
        for shown in part.shown:
            for _ in range(CAPTIONS_PER_IMAGE):
                yield drawing_caption(shown, rng)


if __name__ == "__main__":
    main()
