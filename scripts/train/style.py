"""Train styles by name: pictures of each, with captions of what they show (docs/style.md)."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weftwork.training.core.config import add_arguments as add_config_arguments
from weftwork.training.core.config import from_arguments

COLUMNS = ("image_column", "caption_column", "style_column")
SOURCES = ("train_data_dir", "dataset_name", "world")


def add_arguments(parser: argparse.ArgumentParser, model: Any, data: Any) -> None:
    """Arguments of this method; `model` and `data` are groups that all methods share."""
    from weftwork.training.tasks.style import StyleConfig

    model.add_argument(
        "--layers", default="decoder", help="layers of a new adapter: all, decoder, … or a regular expression"
    )
    model.add_argument("--fusion", default="additive", help="additive, gated, concat or norm_matched")
    model.add_argument("--num_tokens", type=int, default=4, help="tokens per style of a new adapter")
    model.add_argument("--style_dim", type=int, default=128, help="width of a style's row of a new adapter")
    model.add_argument("--rank", type=int, default=0, help="rank of keys and values of a new adapter; 0 = full")
    data.add_argument("--train_data_dir", type=Path, help="folder of pictures with metadata.jsonl: text and style")
    captioned_arguments(data, COLUMNS)
    data.add_argument("--style", help="the name of the one style, where the data have no style column")
    data.add_argument("--streaming", action="store_true", help="read --dataset_name row by row, and keep nothing of it")
    data.add_argument("--styles", nargs="*", default=(), help="with --streaming, the names in the style column")
    data.add_argument("--world", choices=("creatures", "all"), help="train on procedural worlds instead")
    data.add_argument("--samples", type=int, default=12_000, help="samples of each world")
    add_config_arguments(parser.add_argument_group("objective and dropout"), StyleConfig)


def captioned_arguments(data: Any, columns: Sequence[str]) -> None:
    """Arguments of people's own captioned pictures, beside their folder."""
    data.add_argument("--dataset_name", help="an image–text data set of Hugging Face datasets, by name or path")
    for name in columns:
        what = name.removesuffix("_column")
        data.add_argument(f"--{name}", help=f"of own data (default: the one column that can hold {what}s)")
    data.add_argument("--aspect_buckets", action="store_true", help="keep the aspects of own pictures, about")


def check_source(arguments: argparse.Namespace) -> None:
    """Raise unless there is one source of data."""
    given = [f"--{name}" for name in SOURCES if getattr(arguments, name) is not None]
    if len(given) != 1:
        names = ", ".join(f"--{name}" for name in SOURCES)
        raise ValueError(f"data: got {' and '.join(given) or 'none'}; pass exactly one of {names}")


def check(arguments: argparse.Namespace) -> None:
    """Raise before anything is loaded unless there is one source of data, and a valid objective."""
    from weftwork.training.tasks.style import StyleConfig

    from_arguments(StyleConfig, arguments)
    check_source(arguments)
    if arguments.world and arguments.style:
        raise ValueError(f"style: got {arguments.style!r} beside --world, which has styles of its own; leave it out")
    if arguments.streaming and (arguments.dataset_name is None or arguments.aspect_buckets):
        raise ValueError(
            "streaming: got it without --dataset_name or with --aspect_buckets; stream a data set, in squares"
        )


def prepare(arguments: argparse.Namespace, pipe: Any, source: str) -> tuple[Any, Any, dict[str, Any]]:
    """The task, its data, and what the adapter's config says of them."""
    from weftwork.datasets.synthetic.creatures import STYLES
    from weftwork.training.tasks.style import StyleConfig, StyleTask

    data, prompts = _data(arguments, pipe, source)
    prompts = arguments.validation_prompt or prompts
    adapter = _adapter(arguments, pipe, STYLES if arguments.world else data.styles)
    shown = "creatures and outfits" if arguments.world == "all" else arguments.world
    about = {"data": shown or arguments.dataset_name or arguments.train_data_dir.name}
    return StyleTask(adapter, pipe, from_arguments(StyleConfig, arguments), prompts), data, about


def evaluation(task: Any, count: int) -> tuple[Any, str]:
    """What scores the task's adapter as it stands, and the row that does."""
    from weftwork.evaluation.methods.style import StyleEvaluation
    from weftwork.evaluation.oracles.creatures import pretrained_creature_oracle

    oracle = pretrained_creature_oracle()
    return StyleEvaluation(pipe=task.pipe, files={}, oracle=oracle, split="validation", count=count), "style"


def _adapter(arguments: argparse.Namespace, pipe: Any, styles: tuple[str, ...]) -> Any:
    from weftwork.attention_processors.style.adapter import StyleAdapter

    if arguments.init_from:
        adapter = StyleAdapter.from_pretrained(arguments.init_from)
        adapter.check_base(pipe.unet)
        unknown = [style for style in styles if style not in adapter.config["styles"]]
        return adapter.extended(unknown) if unknown else adapter
    return StyleAdapter.for_denoiser(
        pipe.unet,
        layers=arguments.layers,
        styles=list(styles),
        style_dim=arguments.style_dim,
        token_dim=pipe.unet.config.cross_attention_dim,
        num_tokens=arguments.num_tokens,
        rank=arguments.rank,
        fusion=arguments.fusion,
    )


def _data(arguments: argparse.Namespace, pipe: Any, source: str) -> tuple[Any, list[str]]:
    """The training data, and prompts whose pictures validation draws in every style."""
    from weftwork.training.data.styles import StyledStream

    if arguments.world:
        return _world(arguments, pipe, source)
    from weftwork.datasets.readers.captioned_stream import CaptionedStream
    from weftwork.training.data.image_latents import Sizes

    options: Any = {name: getattr(arguments, name) for name in COLUMNS} | {"style": arguments.style}
    if arguments.streaming:
        stream = CaptionedStream.from_name(
            arguments.dataset_name, styles=arguments.styles, seed=arguments.seed, **options
        )
        return StyledStream(stream, pipe.vae, Sizes.of(pipe, arguments.resolution)), []
    data = captioned(arguments, pipe, options)
    return data, [data.samples[index].caption for index in range(min(4, len(data)))]


def captioned(arguments: argparse.Namespace, pipe: Any, options: Any) -> Any:
    """People's own captioned pictures, with their latents; `options` are those of `CaptionedImages`."""
    from weftwork.attention_processors.encoders import TextEncoders
    from weftwork.datasets.readers.captioned_images import CaptionedImages
    from weftwork.training.data.image_latents import Sizes
    from weftwork.training.data.prompts import check_lengths
    from weftwork.training.data.styles import StyledImages

    if arguments.train_data_dir is not None:
        samples = CaptionedImages.from_folder(arguments.train_data_dir, **options)
    else:
        samples = CaptionedImages.from_name(arguments.dataset_name, **options)
    text = TextEncoders.of(pipe)
    check_lengths(((f"row {i + 1}", one, text.longest) for i, one in enumerate(samples.captions)), text)
    sizes = Sizes.of(pipe, arguments.resolution, aspects=arguments.aspect_buckets)
    return StyledImages(samples, pipe.vae, arguments.cache_dir / "latents", sizes, dry=arguments.dry_run)


def _world(arguments: argparse.Namespace, pipe: Any, source: str) -> tuple[Any, list[str]]:
    from torch.utils.data import ConcatDataset

    from weftwork.datasets.synthetic import creatures, outfits
    from weftwork.training.data.image_cache import CreaturePictures, OutfitPictures, cached_latents
    from weftwork.training.data.styles import StyledCreatures, StyledOutfits

    def latents(pictures: Any) -> Any:
        return cached_latents(arguments.cache_dir, pipe.vae, Path(source) / "vae", pictures)

    shown = CreaturePictures(arguments.cache_dir, "train", arguments.samples)
    data: Any = StyledCreatures(shown, latents(shown))
    prompts = [creatures.sample("validation", index).caption for index in range(4)]
    if arguments.world == "all":
        worn = OutfitPictures(arguments.cache_dir, "train", arguments.samples, styled=True)
        data = ConcatDataset([data, StyledOutfits(worn, latents(worn))])
        prompts[2:] = [outfits.sample("validation", index).caption for index in range(2)]
    return data, prompts
