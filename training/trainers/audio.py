"""Train spatial audio: boxes, depth, prompts and envelopes over time (docs/spatial_audio.md)."""

import argparse
from typing import TYPE_CHECKING, Any, Final

from weftwork.attention_processors.audio import PROJECTIONS, TIME_CODES
from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.trainer import Groups, Prepared, Trainer
from weftwork.training.tasks.options import SpatialConfig

if TYPE_CHECKING:
    from weftwork.attention_processors.encoders.audio import ClapEncoder
    from weftwork.training.data.audio import SpatialPieces, SpatialWalks
    from weftwork.training.tasks.audio import SpatialModules

SHOWN: Final = 2
"""Validation audio: the first sample, as it is and mirrored."""


class AudioTrainer(Trainer):
    """Trains stereo audio that follows boxes, depth and loudness."""

    options = SpatialConfig
    options_title = "dropout"
    folder = "folder of audio files, with boxes and depth beside them"
    worlds = ("walks",)
    samples = 8_000
    own_only = ("seconds", "audio_encoder")
    without_effect = ("cache_features", "resolution", "validation_prompt")
    shards = False

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, groups: Groups) -> None:
        model, data = groups.model, groups.data
        model.add_argument("--time_code", choices=TIME_CODES, default="sinusoidal", help="code of tokens' times")
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
        super().add_arguments(parser, groups)
        data.add_argument("--seconds", type=float, help="length of the pieces that audio is cut into (default: 2)")
        data.add_argument("--prompt", help="prompt of all samples (default: that of the synthetic dataset)")

    def check(self) -> None:
        super().check()
        if self.arguments.seconds and self.arguments.init_from:
            raise UserError("seconds: got it beside --init_from, whose modules have a fixed length; leave it out")

    def prepare(self, pipe: Any, source: str) -> Prepared:
        from weftwork.attention_processors.encoders.audio import ClapEncoder
        from weftwork.datasets.synthetic.walks import PROMPT
        from weftwork.pretrained import model_name
        from weftwork.training.tasks.audio import SpatialAudioTask, counts

        arguments, clap = self.arguments, None
        if arguments.audio_encoder:
            clap = ClapEncoder.from_pretrained(arguments.audio_encoder, pipe.device)
        modules = self._modules(pipe, 2 * pipe.transformer.config.in_channels if clap is None else clap.dim)
        data = self._data(pipe, modules.config["seconds"], clap)
        shown = [(*data[i].conditions, data.heard(i)) for i in range(SHOWN if arguments.validation_steps else 0)]
        task = SpatialAudioTask(modules, pipe, self.config(), arguments.prompt or PROMPT, shown)
        provenance: dict[str, object] = {"data": self.data_name, "parameters": counts(modules)}
        if clap is not None:
            provenance["audio_encoder"] = model_name(arguments.audio_encoder)
        return Prepared(task, data, provenance)

    def _data(self, pipe: Any, seconds: float, clap: "ClapEncoder | None") -> "SpatialPieces | SpatialWalks":
        from weftwork.datasets.readers.sound_folder import SoundFolder
        from weftwork.training.data.audio import SpatialPieces, SpatialWalks, WalkSounds, cached_audio_latents
        from weftwork.training.data.feature_cache import CachedClapEncoder

        arguments = self.arguments
        if self.world is None:
            pieces: Any = SoundFolder(arguments.train_data_dir, seconds)
            cache, dry = arguments.cache_dir / "features", arguments.dry_run
            encoder = None if clap is None else CachedClapEncoder(clap, cache, dry=dry)
            return SpatialPieces(pieces, pipe.vae, cache, encoder=encoder, dry=dry)
        rate = pipe.vae.config.sampling_rate
        sounds = WalkSounds(arguments.cache_dir, "train", arguments.samples, sample_rate=rate)
        return SpatialWalks(sounds, cached_audio_latents(arguments.cache_dir, pipe.vae, sounds))

    def _modules(self, pipe: Any, audio_dim: int) -> "SpatialModules":
        from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter
        from weftwork.attention_processors.audio.control import BOX_CHANNELS
        from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
        from weftwork.datasets.synthetic.walks import SECONDS
        from weftwork.training.tasks.audio import SpatialModules

        arguments, config = self.arguments, pipe.transformer.config
        if (start := arguments.init_from) is not None:
            net: Any = StableAudioControlNetModel.from_pretrained(start / "controlnet", use_safetensors=True)
            return SpatialModules(SpatialAudioAdapter.from_pretrained(start / "adapter"), net)
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
        net = StableAudioControlNetModel.from_transformer(pipe.transformer, arguments.num_layers, channels)
        return SpatialModules(adapter, net)
