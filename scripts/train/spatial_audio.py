"""Train sounds that follow what is seen: boxes, depth, prompts and envelopes over time (docs/spatial_audio.md)."""

import argparse
from pathlib import Path
from typing import Any

from weftwork.training.core.config import add_arguments as add_config_arguments
from weftwork.training.core.config import from_arguments

SHOWN = 2
"""Sounds that validation draws: the first one, as it is and mirrored."""


def add_arguments(parser: argparse.ArgumentParser, model: Any, data: Any) -> None:
    """Arguments of this method; `model` and `data` are groups that all methods share."""
    from weftwork.attention_processors.audio.adapter import PROJECTIONS, TIME_CODES
    from weftwork.training.tasks.audio import SpatialConfig

    model.add_argument("--time_code", choices=TIME_CODES, default="sinusoidal", help="how tokens say when they are")
    model.add_argument(
        "--projections", choices=PROJECTIONS, default="frozen", help="keys and values: the layers' own, or copies"
    )
    model.add_argument(
        "--control", choices=("envelope", "boxes"), default="envelope", help="of the ControlNet; boxes has both"
    )
    model.add_argument("--num_layers", type=int, help="blocks of the ControlNet (default: a fifth)")
    model.add_argument(
        "--audio_encoder",
        help="CLAP's folder or Hub id, for prompts (default: statistics of the autoencoder's latents)",
    )
    data.add_argument("--train_data_dir", type=Path, help="folder of sounds, with boxes and depth beside them")
    data.add_argument("--seconds", type=float, help="length of the pieces they are cut into (default: 2)")
    data.add_argument("--prompt", help="words that go with all of them (default: those of the world)")
    data.add_argument("--world", choices=("walks",), help="train on a procedural world instead")
    data.add_argument("--samples", type=int, default=8_000, help="samples of the world")
    add_config_arguments(parser.add_argument_group("dropout"), SpatialConfig)


def check(arguments: argparse.Namespace) -> None:
    """Raise before anything is loaded unless there is one source of data, and the options are valid."""
    from weftwork.training.tasks.audio import SpatialConfig

    from_arguments(SpatialConfig, arguments)
    if (arguments.train_data_dir is None) == (arguments.world is None):
        raise ValueError("data: got neither or both of --train_data_dir and --world; pass exactly one of them")
    if arguments.seconds and arguments.init_from:
        raise ValueError("seconds: got it beside --init_from, whose modules know their length; leave it out")


def pipeline(source: str) -> Any:
    """The backbone that is trained on."""
    from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline

    return VideoToAudioPipeline.from_pretrained(source, use_safetensors=True)


def prepare(arguments: argparse.Namespace, pipe: Any, source: str) -> tuple[Any, Any, dict[str, Any]]:
    """The task, its data, and what the modules' config says of them."""
    from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter
    from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
    from weftwork.attention_processors.encoders.audio import ClapEncoder
    from weftwork.datasets.synthetic.walks import PROMPT
    from weftwork.pretrained import model_name
    from weftwork.training.tasks.audio import SpatialAudioTask, SpatialConfig, SpatialModules, counts

    clap = None
    if arguments.audio_encoder:
        clap = ClapEncoder.from_pretrained(arguments.audio_encoder, pipe.device)
    if arguments.init_from:
        adapter = SpatialAudioAdapter.from_pretrained(arguments.init_from / "adapter")
        net: Any = StableAudioControlNetModel.from_pretrained(arguments.init_from / "controlnet", use_safetensors=True)
    else:
        adapter, net = _new(arguments, pipe, 2 * pipe.transformer.config.in_channels if clap is None else clap.dim)
    modules = SpatialModules(adapter, net)
    data = _data(arguments, pipe, adapter.config["seconds"], clap)
    shown = [(*data[i].conditions, data.heard(i)) for i in range(SHOWN if arguments.validation_steps else 0)]
    config, prompt = from_arguments(SpatialConfig, arguments), arguments.prompt or PROMPT
    about = {"data": arguments.world or arguments.train_data_dir.name, "parameters": counts(modules)}
    if clap is not None:
        about["audio_encoder"] = model_name(arguments.audio_encoder)
    return SpatialAudioTask(modules, pipe, config, prompt, shown), data, about


def evaluation(task: Any, count: int) -> tuple[Any, str]:
    """What scores the task's modules as they stand, and the row that does."""
    from weftwork.attention_processors.encoders.audio_statistics import AudioStatistics
    from weftwork.evaluation.methods.audio import SpatialAudioEvaluation

    task.pipe.set_encoders(audio=AudioStatistics(task.pipe.vae))
    # the sounds of the row `TRAINED` are drawn once and kept; these modules go on changing
    modules = {"modules": (task.module.adapter, task.module.controlnet)}
    return SpatialAudioEvaluation(pipe=task.pipe, modules=modules, split="validation", count=count), "modules"


def _data(arguments: argparse.Namespace, pipe: Any, seconds: float, clap: Any) -> Any:
    from weftwork.datasets.readers.sound_folder import SoundFolder
    from weftwork.training.data.audio import SpatialPieces, SpatialWalks, WalkSounds, cached_sound_latents
    from weftwork.training.data.feature_cache import CachedClapEncoder

    if arguments.world is None:
        pieces: Any = SoundFolder(arguments.train_data_dir, seconds)
        cache, dry = arguments.cache_dir / "features", arguments.dry_run
        encoder = None if clap is None else CachedClapEncoder(clap, cache, dry=dry)
        return SpatialPieces(pieces, pipe.vae, cache, encoder=encoder, dry=dry)
    rate = pipe.vae.config.sampling_rate
    sounds = WalkSounds(arguments.cache_dir, "train", arguments.samples, sample_rate=rate)
    return SpatialWalks(sounds, cached_sound_latents(arguments.cache_dir, pipe.vae, sounds))


def _new(arguments: argparse.Namespace, pipe: Any, audio_dim: int) -> tuple[Any, Any]:
    from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter
    from weftwork.attention_processors.audio.control import BOX_CHANNELS
    from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
    from weftwork.datasets.synthetic.walks import SECONDS

    config = pipe.transformer.config
    adapter = SpatialAudioAdapter.for_denoiser(
        pipe.transformer,
        input_dim=config.cross_attention_input_dim,
        seconds=arguments.seconds or SECONDS,
        latent_rate=pipe.vae.config.sampling_rate / pipe.vae.hop_length,
        audio_dim=audio_dim,
        time_code=arguments.time_code,
        projections=arguments.projections,
    )
    channels = config.in_channels + (BOX_CHANNELS if arguments.control == "boxes" else 0)
    return adapter, StableAudioControlNetModel.from_transformer(pipe.transformer, arguments.num_layers, channels)
