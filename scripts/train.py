"""Train an adapter on your own pairs, or on the procedural world it ships with.

weft train paired --train_data_dir my_pairs --output_dir outputs/mine
weft train paired --world outfits --output_dir outputs/paired
"""

import argparse
from pathlib import Path
from typing import Any

from weft.training.config import TrainingConfig, from_arguments
from weft.training.config import add_arguments as add_config_arguments

METHODS = ("paired",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", choices=METHODS, help="what to train")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--pretrained_model_name_or_path",
        help="Stable Diffusion folder or Hub id (default: the shipped tiny-diffusion)",
    )
    model.add_argument("--init_from", type=Path, help="start from this adapter instead of a new one")
    model.add_argument(
        "--layers", default="all", help="layers of a new adapter: all, decoder, … or a regular expression"
    )
    model.add_argument(
        "--sketch_encoder", default="strokes", help="strokes (small, trained) or a frozen vision model's id"
    )
    model.add_argument("--text_states", type=int, default=40, help="token states read per description; 0 = pooled")
    model.add_argument("--token_dim", type=int, default=128, help="width of pair tokens of a new adapter")
    data = parser.add_argument_group("data")
    data.add_argument("--train_data_dir", type=Path, help="folder with metadata.jsonl, or the Sketchy data set")
    data.add_argument("--world", choices=("outfits",), help="train on a procedural world instead")
    data.add_argument("--samples", type=int, default=6_000, help="samples of the world")
    data.add_argument("--merged", action="store_true", help="one global sketch with all words: the baseline")
    data.add_argument(
        "--unnamed_share", type=float, default=0.0, help="share of the world's outfits whose words name no garment"
    )
    data.add_argument("--resolution", type=int, help="side of training pictures in pixels (default: the model's)")
    data.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="drawn pictures and latents")
    from weft.training.paired import PairedConfig

    add_config_arguments(parser.add_argument_group("objective and dropout"), PairedConfig)
    add_config_arguments(
        parser.add_argument_group("training"),
        TrainingConfig,
        max_train_steps=2000,
        train_batch_size=16,
        learning_rate=1e-3,
        validation_steps=250,
    )


def run(arguments: argparse.Namespace) -> None:
    """Train and leave the loadable folder at `output_dir/final`."""
    import torch

    from weft.attention_processors.adapter import state_sha256
    from weft.datasets.outfits import PROMPT
    from weft.training.loop import train
    from weft.training.paired import PairedConfig, PairedTask

    config = from_arguments(TrainingConfig, arguments)
    dropout = from_arguments(PairedConfig, arguments)
    if (arguments.train_data_dir is None) == (arguments.world is None):
        raise ValueError("data: got neither or both of --train_data_dir and --world; pass exactly one of them")
    torch.manual_seed(config.seed)
    pipe, source = _pipeline(arguments)
    adapter = _adapter(arguments, pipe)
    data, validation = _data(arguments, adapter, pipe, source)
    before = state_sha256(pipe.unet)
    provenance = {
        "data": arguments.world or arguments.train_data_dir.name,
        "samples": len(data),
        "steps": config.max_train_steps,
        "batch": config.train_batch_size * config.gradient_accumulation_steps,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "base_sha256": before,
        "merged": arguments.merged,
        "unnamed_share": arguments.unnamed_share,
    }
    if arguments.init_from:
        provenance["after"] = adapter.config["training"]
    adapter.register_to_config(training=provenance)
    task = PairedTask(adapter, pipe, dropout, validation, PROMPT if arguments.world else "")
    folder = train(task, data, config)
    after = state_sha256(pipe.unet)
    if after != before:
        raise RuntimeError(
            f"backbone: its weights changed in training ({before[:12]} to {after[:12]}); discard {folder}"
        )
    print(f"adapter: {folder}")


def _pipeline(arguments: argparse.Namespace) -> tuple[Any, str]:
    from weft.pipelines.conditioned import ConditionedStableDiffusionPipeline
    from weft.pretrained import shipped

    source = arguments.pretrained_model_name_or_path or str(shipped("tiny-diffusion"))
    return ConditionedStableDiffusionPipeline.from_pretrained(source, use_safetensors=True), source


def _adapter(arguments: argparse.Namespace, pipe: Any) -> Any:
    from weft.attention_processors.encoders import SketchEncoder
    from weft.attention_processors.paired import PairedAdapter

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
    from weft.training.pair_data import OutfitPairs, SamplePairs

    if arguments.world:
        from weft.datasets.outfits import sample
        from weft.evaluation.paired import merged, pairs
        from weft.training.picture_cache import OutfitPictures, cached_latents

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
        return data, [merged(one) if arguments.merged else pairs(one) for one in drawn]
    folder = arguments.train_data_dir
    if (folder / "train_sketchy.json").is_file():
        from weft.datasets.sketchy import Sketchy

        samples: Any = Sketchy(folder, "train")
    else:
        from weft.datasets.pair_folder import PairFolder, report, validate

        problems = validate(folder)
        if problems:
            raise ValueError(f"{folder}:\n{report(problems)}")
        samples = PairFolder(folder)
    resolution = arguments.resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
    return SamplePairs(samples, adapter, pipe.vae, arguments.cache_dir / "latents", resolution), []
