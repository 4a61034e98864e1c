"""Training of spatial audio: projections and a ControlNet for a frozen transformer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weftwork.attention_processors.audio.adapter import AudioBatch, SpatialAudioAdapter
from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, OverTime
from weftwork.attention_processors.audio.control import BOX_CHANNELS, aligned_boxes
from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
from weftwork.attention_processors.audio.stable_audio import rotary_embedding_for
from weftwork.attention_processors.core.batch import TensorFields
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.processor import attention_layers, conditioned, install, install_inputs
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.encoders.audio import ClapEncoder
from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.datasets.readers.audio_folder import AudioFolder
from weftwork.datasets.synthetic.walks import PROMPT, SECONDS
from weftwork.pipelines.audio.cosine_scheduler import at_time
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pipelines.audio.plots import plot_audio
from weftwork.pretrained import model_name
from weftwork.training.core.objectives import sigmoid_normal_timesteps
from weftwork.training.core.task import Task
from weftwork.training.core.trainer import Prepared
from weftwork.training.data.audio import (
    CENTRED,
    AudioRecord,
    SpatialAudio,
    SpatialPieces,
    SpatialWalks,
    WalkSounds,
    cached_audio_latents,
)
from weftwork.training.data.feature_cache import CachedClapEncoder
from weftwork.training.trainers.audio import AudioTrainer, SpatialConfig, SpatialModel

SHOWN = 2
"""Validation audio: the first sample, as it is and mirrored."""


def prepare(trainer: AudioTrainer, pipe: VideoToAudioPipeline) -> Prepared:
    """Returns the task and the data of a trainer's options."""
    arguments, clap = trainer.arguments, None
    if arguments.audio_encoder:
        clap = ClapEncoder.from_pretrained(arguments.audio_encoder, pipe.device)
    modules = _modules(trainer, pipe, 2 * pipe.transformer.config["in_channels"] if clap is None else clap.dim)
    data = _data(trainer, pipe, modules.config["seconds"], clap)
    places = trainer.shown(data, SHOWN if arguments.validation_steps else 0)
    shown = [(*data[i].conditions, data.heard(i)) for i in places]
    task = SpatialAudioTask(modules, pipe, trainer.read(SpatialConfig), arguments.prompt or PROMPT, shown)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in modules.named_children()}
    provenance: dict[str, object] = {"data": trainer.data_name, "parameters": counts}
    if clap is not None:
        provenance["audio_encoder"] = model_name(arguments.audio_encoder)
    return Prepared(task, data, provenance)


def _data(trainer: AudioTrainer, pipe: VideoToAudioPipeline, seconds: float, clap: ClapEncoder | None) -> SpatialAudio:
    arguments = trainer.arguments
    if trainer.synthetic is None:
        cache, dry = arguments.cache_dir / "features", arguments.dry_run
        encoder = None if clap is None else CachedClapEncoder(clap, cache, dry=dry)
        pieces = AudioFolder(arguments.train_data_dir, seconds)
        return SpatialPieces(pieces, pipe.vae, cache, encoder=encoder, dry=dry)
    folder, cache = arguments.footsteps, arguments.cache_dir
    rate = pipe.vae.config["sampling_rate"]
    draw = partial(WalkSounds, cache, "train", arguments.samples, sample_rate=rate, footsteps=folder)
    sounds, middles = draw(), None
    if arguments.box_dropout:
        middles = cached_audio_latents(cache, pipe.vae, draw(centred=True), CENTRED)
    worded = folder is not None and arguments.prompt is None
    return SpatialWalks(sounds, cached_audio_latents(cache, pipe.vae, sounds), middles, worded=worded)


def _modules(trainer: AudioTrainer, pipe: VideoToAudioPipeline, audio_dim: int) -> "SpatialModules":
    arguments, config = trainer.arguments, pipe.transformer.config
    if (start := arguments.init_from) is not None:
        net = StableAudioControlNetModel.from_pretrained(start / "controlnet", use_safetensors=True)
        adapter = SpatialAudioAdapter.from_pretrained(start / "adapter")
        if trainer.synthetic is not None and arguments.box_dropout:  # dropped boxes have a target of their own
            adapter.register_to_config(null_boxes=True)
        return SpatialModules(adapter, net)
    model = trainer.read(SpatialModel)
    adapter = SpatialAudioAdapter.for_denoiser(
        pipe.transformer,
        input_dim=config["cross_attention_input_dim"],
        seconds=arguments.seconds or SECONDS,
        latent_rate=pipe.vae.config["sampling_rate"] / pipe.vae.hop_length,
        audio_dim=audio_dim,
        time_code=model.time_code,
        projections=model.projections,
        null_boxes=trainer.synthetic is not None,
    )
    channels = config["in_channels"] + (BOX_CHANNELS if model.control == "boxes" else 0)
    net = StableAudioControlNetModel.from_transformer(pipe.transformer, model.num_layers, channels)
    return SpatialModules(adapter, net)


class SpatialModules(nn.Module):
    """The trained modules, saved in the format of `VideoToAudioPipeline.load_adapter`."""

    def __init__(self, adapter: SpatialAudioAdapter, controlnet: StableAudioControlNetModel) -> None:
        super().__init__()
        self.adapter, self.controlnet = adapter, controlnet

    @property
    def config(self) -> Mapping[str, Any]:
        return self.adapter.config

    def register_to_config(self, **values: object) -> None:
        for part in (self.adapter, self.controlnet):
            part.register_to_config(**values)

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        self.adapter.save_pretrained(folder / "adapter")
        self.controlnet.save_pretrained(folder / "controlnet", safe_serialization=safe_serialization)


@dataclass(frozen=True, eq=False)
class SpatialAudioBatch(TensorFields):
    """Latents of audio with its conditions.

    Args:
        envelope: latents of mono envelopes.
        boxes: of `aligned_boxes`, if the ControlNet reads them.
        centred: latents and envelope to train without boxes; None for those with boxes.
        texts: text prompts.
    """

    conditions: AudioBatch
    latents: Float[Tensor, "design channel place"]
    envelope: Float[Tensor, "design channel place"]
    boxes: Float[Tensor, "design box_channel place"] | None = None
    centred: Float[Tensor, "design 2 channel place"] | None = None
    texts: tuple[str, ...] = ()


class SpatialAudioTask(Task[SpatialModules, AudioRecord, SpatialAudioBatch]):
    """Trains audio latents with boxes, depth, audio prompts and envelopes as conditions.

    Args:
        pipe: a `VideoToAudioPipeline` with nothing loaded.
        prompt: text prompt of samples that have none.
        validation: conditions of the audio that validation generates.
    """

    def __init__(
        self,
        module: SpatialModules,
        pipe: VideoToAudioPipeline,
        config: SpatialConfig,
        prompt: str = PROMPT,
        validation: Sequence[Sequence[OverTime]] = (),
    ) -> None:
        self.module, self.pipe, self.config, self.transformer = module, pipe, config, pipe.transformer
        self.prompt, self.validation = prompt, validation
        module.adapter.check_base(pipe.transformer)
        pipe.transformer.requires_grad_(False).eval()
        install(pipe.transformer)
        install_inputs(pipe.transformer, module.controlnet.blocks)
        module.adapter.bind(pipe.transformer)
        self.levels = dict.fromkeys(attention_layers(pipe.transformer), 0)
        self.contexts: dict[str, tuple[Tensor, Tensor]] = {}
        _, self.whole = self._states(prompt)
        samples = round(module.adapter.config["seconds"] * pipe.vae.config.sampling_rate)
        self.silence = encode_latents(pipe.vae, torch.zeros(1, 2, samples))
        module.float().train()  # a new ControlNet has the precision of its transformer

    def collate(self, samples: list[AudioRecord]) -> SpatialAudioBatch:
        latents = torch.stack([record.latents for record in samples])
        conditions = self.module.adapter.collate([record.conditions for record in samples])
        boxes = None
        if self.module.controlnet.reads_boxes:
            seen = [aligned_boxes(one.conditions, latents.shape[-1], conditions.seconds) for one in samples]
            boxes = torch.stack(seen)
        middles = [record.centred for record in samples if record.centred is not None]
        return SpatialAudioBatch(
            conditions,
            latents,
            torch.stack([record.envelope for record in samples]),
            boxes,
            torch.stack(middles) if len(middles) == len(samples) else None,
            tuple(self.prompt if record.text is None else record.text for record in samples),
        )

    def loss(self, batch: SpatialAudioBatch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        rows, places = len(batch.latents), batch.latents.shape[-1]
        none = torch.rand(rows, generator=generator) < self.config.condition_dropout
        features = self.module.adapter.features(batch.conditions, {})
        dropped = self._dropped(batch, generator)
        batch = self._heard(batch, dropped, none)
        latents = batch.latents
        unknown = dropped if features.null is None else dropped | features.null
        encoded = self.module.adapter(replace(features, null=unknown | none[:, None]))
        conditioning = Conditioning.of({"spatial": encoded}, Layout(self.levels, (1, places)))
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        timesteps = sigmoid_normal_timesteps(rows, generator, self.config.time_mean).to(latents)
        noisy, target = at_time(latents, noise, timesteps)
        kept = torch.rand(rows, 1, 1, generator=generator) >= self.config.envelope_dropout
        context = torch.cat([self._states(text)[0] for text in batch.texts])
        shared = (
            noisy,
            timesteps,
            context.to(latents) * ~none[:, None, None].to(latents.device),
            self.whole.expand(rows, -1, -1),
        )
        turns = rotary_embedding_for(self.transformer, places)
        signal, scale = self._control(batch, kept, dropped)
        with conditioned(self.module.controlnet, conditioning):
            control = self.module.controlnet(*shared, signal, turns, scale)
        frozen = self.transformer.dtype
        inputs = {name: added.to(frozen) for name, added in zip(self.module.controlnet.blocks, control, strict=True)}
        with conditioned(self.transformer, replace(conditioning, inputs=inputs)):
            predicted = self.transformer(*(tensor.to(frozen) for tensor in shared), turns).sample
        return F.mse_loss(predicted, target)

    def _heard(
        self, batch: SpatialAudioBatch, dropped: Bool[Tensor, "design part"], none: Bool[Tensor, " design"]
    ) -> SpatialAudioBatch:
        """Returns the batch with centred audio where boxes are dropped, unless prompts and all conditions are."""
        if batch.centred is None:
            return batch
        unplaced = ~none & (dropped | ~self._tracks(batch)).all(1)
        middle = unplaced.to(batch.latents.device)[:, None, None]
        latents, envelope = batch.centred.unbind(1)
        return replace(
            batch,
            latents=torch.where(middle, latents, batch.latents),
            envelope=torch.where(middle, envelope, batch.envelope),
        )

    def _states(self, text: str) -> tuple[Tensor, Tensor]:
        """Returns context and global state of a text, encoded once."""
        if text not in self.contexts:
            states = context_of(self.pipe, text, self.module.adapter.config["seconds"])
            self.contexts[text] = states[0].float(), states[1].float()
        return self.contexts[text]

    def _control(
        self, batch: SpatialAudioBatch, kept: Bool[Tensor, "design 1 1"], dropped: Bool[Tensor, "design part"]
    ) -> tuple[Float[Tensor, "design channel place"], Float[Tensor, "design 1 1"]]:
        """Returns the ControlNet's input and the scale of its residuals, 0 where all of its inputs are dropped."""
        envelope = batch.envelope
        kept = kept.to(envelope.device)
        if batch.boxes is None:
            return envelope, kept.to(envelope)
        seen = (~dropped & self._tracks(batch)).any(1).to(envelope.device)[:, None, None]
        silent = self.silence.to(envelope).expand_as(envelope)
        both = torch.cat([torch.where(kept, envelope, silent), batch.boxes * seen], 1)
        return both, (kept | seen).to(envelope)

    def _tracks(self, batch: SpatialAudioBatch) -> Bool[Tensor, " part"]:
        return torch.tensor([kind is BoxTrack for kind in self._kinds(batch)])

    def _kinds(self, batch: SpatialAudioBatch) -> list[type[OverTime]]:
        return [self.module.adapter.readers[part.reader].kind for part in batch.conditions.parts]

    def _dropped(self, batch: SpatialAudioBatch, generator: torch.Generator) -> Bool[Tensor, "design part"]:
        """Draws the conditions to replace by their null token, each independently."""
        config = self.config
        by_kind = {AudioPrompt: config.prompt_dropout, DepthClip: config.depth_dropout, BoxTrack: config.box_dropout}
        shares = [by_kind[kind] for kind in self._kinds(batch)]
        draws = torch.rand(len(batch.latents), len(shares), generator=generator)
        return draws < torch.tensor(shares)

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Writes audio as WAV and, if matplotlib is installed, its direction and that of the boxes as PNG."""
        if not self.validation:
            return {}
        self.pipe.detach()
        self.pipe.attach(spatial=self.module.adapter, controlnet=self.module.controlnet)
        self.pipe.set_progress_bar_config(disable=True)
        seconds = self.module.adapter.config["seconds"]
        for index, conditions in enumerate(self.validation):
            noise = torch.Generator().manual_seed(index)
            out = self.pipe(conditions, self.prompt, seconds=seconds, num_inference_steps=20, generator=noise)
            out.save(folder / f"{step:06d}-{index}.wav")
            if find_spec("matplotlib") is not None:
                tracks = [one for one in conditions if isinstance(one, BoxTrack)]
                plot_audio(out.audio, out.sample_rate, tracks, folder / f"{step:06d}-{index}.png")
        return {}


@torch.no_grad()
def context_of(pipe: VideoToAudioPipeline, prompt: str, seconds: float) -> tuple[Tensor, Tensor]:
    """Context and global state of a prompt, [1, token, dim] each, as the stock pipeline makes them."""
    text = pipe.encode_prompt(prompt, pipe._execution_device, False)
    assert text is not None
    start, end = pipe.encode_duration(0.0, seconds, pipe._execution_device, False, 1)
    return torch.cat([text, start, end], 1), torch.cat([start, end], 2)
