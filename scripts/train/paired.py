"""Train pairs of sketch and text, each with its place in the picture (docs/paired.md)."""

import argparse
from pathlib import Path
from typing import Any

from weftwork.training.core.config import add_arguments as add_config_arguments
from weftwork.training.core.config import from_arguments


def add_arguments(parser: argparse.ArgumentParser, model: Any, data: Any) -> None:
    """Arguments of this method; `model` and `data` are groups that all methods share."""
    from weftwork.training.tasks.paired import PairedConfig

    model.add_argument(
        "--layers", default="all", help="layers of a new adapter: all, decoder, … or a regular expression"
    )
    model.add_argument(
        "--sketch_encoder", default="strokes", help="strokes (small, trained) or a frozen vision model's id"
    )
    model.add_argument("--text_states", type=int, default=40, help="token states read per description; 0 = pooled")
    model.add_argument("--token_dim", type=int, default=128, help="width of pair tokens of a new adapter")
    data.add_argument("--train_data_dir", type=Path, help="folder with metadata.jsonl, or the Sketchy data set")
    data.add_argument("--world", choices=("outfits",), help="train on a procedural world instead")
    data.add_argument("--samples", type=int, default=6_000, help="samples of the world")
    data.add_argument("--aspect_buckets", action="store_true", help="keep the aspects of own pictures, about")
    data.add_argument("--pair_buckets", action="store_true", help="batches of own designs with equally many pairs")
    data.add_argument("--merged", action="store_true", help="one global sketch with all words: the baseline")
    data.add_argument(
        "--unnamed_share", type=float, default=0.0, help="share of the world's outfits whose words name no garment"
    )
    add_config_arguments(parser.add_argument_group("objective and dropout"), PairedConfig)


def check(arguments: argparse.Namespace) -> None:
    """Raise before anything is loaded unless there is one source of data, and a valid objective."""
    from weftwork.training.tasks.paired import PairedConfig

    from_arguments(PairedConfig, arguments)
    if (arguments.train_data_dir is None) == (arguments.world is None):
        raise ValueError("data: got neither or both of --train_data_dir and --world; pass exactly one of them")


def prepare(arguments: argparse.Namespace, pipe: Any, source: str) -> tuple[Any, Any, dict[str, Any]]:
    """The task, its data, and what the adapter's config says of them."""
    from weftwork.training.data.prompts import with_prompts
    from weftwork.training.tasks.paired import PairedConfig, PairedTask

    adapter = _adapter(arguments, pipe)
    data, validation = _data(arguments, adapter, pipe, source)
    if arguments.validation_prompt:
        validation = with_prompts(arguments.validation_prompt, validation)
    config = from_arguments(PairedConfig, arguments)
    about = {
        "data": arguments.world or arguments.train_data_dir.name,
        "merged": arguments.merged,
        "unnamed_share": arguments.unnamed_share,
    }
    return PairedTask(adapter, pipe, config, validation), data, about


def evaluation(task: Any, count: int) -> tuple[Any, str]:
    """What scores the task's adapter as it stands, and the row that does."""
    from weftwork.evaluation.methods.paired import PairedEvaluation
    from weftwork.evaluation.oracles.outfits import pretrained_oracle

    return PairedEvaluation(pipe=task.pipe, oracle=pretrained_oracle(), split="validation", count=count), "pairs"


def _adapter(arguments: argparse.Namespace, pipe: Any) -> Any:
    from weftwork.attention_processors.encoders import SketchEncoder
    from weftwork.attention_processors.paired.adapter import PairedAdapter

    if arguments.init_from:
        return PairedAdapter.from_pretrained(arguments.init_from)
    small = arguments.sketch_encoder == "strokes"
    options: dict[str, Any] = {"image_dim": 128, "sketch_size": 128, "masking": "pair", "anchored": 0.09}
    if not small:
        encoder = SketchEncoder.from_pretrained(arguments.sketch_encoder)
        pipe.set_encoders(sketch=encoder)
        options = {"image_dim": encoder.model.config.hidden_size}
    return PairedAdapter.for_denoiser(
        pipe.unet,
        layers=arguments.layers,
        token_dim=arguments.token_dim,
        text_dim=pipe.text_encoder.config.hidden_size,
        text_states=arguments.text_states,
        num_heads=4 if small else 8,
        sketch_encoder=arguments.sketch_encoder,
        **options,
    )


def _data(arguments: argparse.Namespace, adapter: Any, pipe: Any, source: str) -> tuple[Any, list[Any]]:
    from weftwork.attention_processors.encoders import TextEncoders
    from weftwork.training.data.pairs import OutfitPairs, SamplePairs

    if arguments.world:
        from weftwork.datasets.synthetic.outfits import PROMPT, sample
        from weftwork.evaluation.methods.paired import merged, pairs
        from weftwork.training.data.image_cache import OutfitPictures, cached_latents

        pictures = OutfitPictures(arguments.cache_dir, "train", arguments.samples)
        latents = cached_latents(arguments.cache_dir, pipe.vae, Path(source) / "vae", pictures)
        data = OutfitPairs(
            arguments.cache_dir,
            pictures,
            latents,
            merged=arguments.merged,
            unnamed_share=arguments.unnamed_share,
        )
        drawn = [sample("validation", index, count=3 + index % 2) for index in range(8)]
        return data, [(PROMPT, merged(one) if arguments.merged else pairs(one)) for one in drawn]
    from weftwork.training.data.image_latents import Sizes

    folder = arguments.train_data_dir
    if (folder / "train_sketchy.json").is_file():
        from weftwork.datasets.readers.sketchy import Sketchy

        samples: Any = Sketchy(folder, "train")
    else:
        from weftwork.datasets.readers.pair_folder import PairFolder, report, validate

        problems = validate(folder)
        if problems:
            raise ValueError(f"{folder}:\n{report(problems)}")
        samples = PairFolder(folder)
    sizes = Sizes.of(pipe, arguments.resolution, aspects=arguments.aspect_buckets)
    cache = arguments.cache_dir / "latents"
    options = {"by_count": arguments.pair_buckets, "text": TextEncoders.of(pipe), "dry": arguments.dry_run}
    data = SamplePairs(samples, adapter, pipe.vae, cache, sizes, **options)
    return data, [data.design(index) for index in range(min(4, len(data)))]
