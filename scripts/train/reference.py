"""Train an IP-Adapter: pictures to take after, read through a frozen image encoder (docs/reference.md)."""

import argparse
from pathlib import Path
from typing import Any

from weftwork.scripts.train.style import captioned, captioned_arguments, check_source
from weftwork.training.core.config import add_arguments as add_config_arguments
from weftwork.training.core.config import from_arguments

COLUMNS = ("image_column", "caption_column")
SHOWN = 4
"""Pictures that validation takes after."""


def add_arguments(parser: argparse.ArgumentParser, model: Any, data: Any) -> None:
    """Arguments of this method; `model` and `data` are groups that all methods share."""
    from weftwork.attention_processors.reference.projections import PROJECTIONS
    from weftwork.training.tasks.style import StyleConfig

    model.add_argument(
        "--image_encoder", help="folder or Hub id of the frozen encoder (of a --world: creature-encoder)"
    )
    model.add_argument("--projection", choices=list(PROJECTIONS), default="basic", help="of a new adapter")
    model.add_argument("--num_tokens", type=int, default=4, help="tokens per picture of a new adapter")
    model.add_argument("--layers", default="all", help="layers of a new adapter: all, decoder, … or an expression")
    data.add_argument("--train_data_dir", type=Path, help="folder of pictures with metadata.jsonl: text")
    captioned_arguments(data, COLUMNS)
    data.add_argument("--world", choices=("creatures",), help="train on a procedural world instead")
    data.add_argument("--samples", type=int, default=12_000, help="samples of the world")
    add_config_arguments(parser.add_argument_group("objective and dropout"), StyleConfig)


def check(arguments: argparse.Namespace) -> None:
    """Raise before anything is loaded unless there is one source of data, and a valid objective."""
    from weftwork.training.tasks.style import StyleConfig

    from_arguments(StyleConfig, arguments)
    check_source(arguments)
    if arguments.world is None and not arguments.image_encoder:
        raise ValueError(
            "image_encoder: got none for pictures of your own; name a CLIP vision model, for example "
            "openai/clip-vit-large-patch14"
        )


def prepare(arguments: argparse.Namespace, pipe: Any, source: str) -> tuple[Any, Any, dict[str, Any]]:
    """The task, its data, and what the adapter's config says of them."""
    from weftwork.attention_processors.encoders import ImageEncoder
    from weftwork.pretrained import model_name, shipped
    from weftwork.training.data.feature_cache import encoder_key, feature_cache
    from weftwork.training.data.prompts import with_prompts
    from weftwork.training.tasks.reference import ReferencedPictures, ReferenceTask
    from weftwork.training.tasks.style import StyleConfig

    name = arguments.image_encoder or str(shipped("creature-encoder"))
    encoder = ImageEncoder.from_pretrained(name)
    encoder.model.to(pipe.device)
    pipe.set_encoders(image=encoder)
    adapter = _adapter(arguments, pipe, encoder, model_name(name))
    pictures, images, shown = _data(arguments, pipe, source)
    if arguments.validation_prompt:
        shown = with_prompts(arguments.validation_prompt, shown)
    key = encoder_key(f"image {adapter.config['projection']}", encoder.model)
    cache = feature_cache(arguments.cache_dir / "features", key, dry=arguments.dry_run)
    data = ReferencedPictures(pictures, images, adapter, encoder, cache)
    about = {"data": arguments.world or arguments.dataset_name or arguments.train_data_dir.name}
    return ReferenceTask(adapter, pipe, from_arguments(StyleConfig, arguments), shown), data, about


def evaluation(task: Any, count: int) -> tuple[Any, str]:
    """What scores the task's adapter as it stands, and the row that does."""
    from weftwork.evaluation.methods.style import StyleEvaluation
    from weftwork.evaluation.oracles.creatures import pretrained_creature_oracle

    oracle = pretrained_creature_oracle()
    evaluation = StyleEvaluation(pipe=task.pipe, files={}, oracle=oracle, split="validation", count=count)
    return evaluation, "reference_branch"


def _adapter(arguments: argparse.Namespace, pipe: Any, encoder: Any, name: str) -> Any:
    from weftwork.attention_processors.reference.adapter import ReferenceAdapter

    if arguments.init_from:
        adapter = ReferenceAdapter.from_pretrained(arguments.init_from)
        adapter.check_base(pipe.unet)
        return adapter
    config = encoder.model.config
    return ReferenceAdapter.for_denoiser(
        pipe.unet,
        layers=arguments.layers,
        projection=arguments.projection,
        image_dim=config.projection_dim if arguments.projection == "basic" else config.hidden_size,
        token_dim=pipe.unet.config.cross_attention_dim,
        num_tokens=arguments.num_tokens,
        image_size=config.image_size,
        image_encoder=name,
    )


def _data(arguments: argparse.Namespace, pipe: Any, source: str) -> tuple[Any, Any, list[Any]]:
    """Latents with captions, the pictures, and what validation draws: prompts, with pictures to take after."""
    from PIL import Image

    from weftwork.datasets.synthetic import creatures
    from weftwork.training.data.image_cache import CreaturePictures, cached_latents
    from weftwork.training.data.styles import StyledCreatures

    if arguments.world:
        drawn = CreaturePictures(arguments.cache_dir, "train", arguments.samples)
        latents = cached_latents(arguments.cache_dir, pipe.vae, Path(source) / "vae", drawn)
        unseen = [creatures.sample("validation", index) for index in range(SHOWN)]
        shown = [(one.caption, Image.fromarray(drawn.images[index])) for index, one in enumerate(unseen)]
        return StyledCreatures(drawn, latents), map(Image.fromarray, drawn.images), shown
    options = {name: getattr(arguments, name) for name in COLUMNS} | {"styled": False}
    pictures = captioned(arguments, pipe, options)
    samples = pictures.samples
    shown = [(samples[index].caption, samples[index].image) for index in range(min(SHOWN, len(samples)))]
    return pictures, (samples[index].image for index in range(len(samples))), shown
