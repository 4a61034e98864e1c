"""Pipeline of spatial audio for video (after StereoSync, arXiv 2510.05828).

    pipe = VideoToAudioPipeline.from_pretrained(backbone)
    pipe.load_adapter(folder, "spatial")
    out = pipe([BoxTrack(times, boxes), DepthClip(times, depth), Envelope.from_audio(loudness, rate)], seconds=6.0)
    out.save("steps.wav")

The stock pipeline denoises. A hook, removed after the call, passes the conditions' branches and the residuals of a
ControlNet to its transformer.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from diffusers import EDMDPMSolverMultistepScheduler, ModelMixin, StableAudioPipeline
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter
from weftwork.attention_processors.audio.conditions import Envelope, OverTime, warn_of_gaps
from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.attached import AttachedAdapters, adapter_class
from weftwork.attention_processors.core.processor import install_inputs
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.audio.call import AudioCall
from weftwork.pipelines.audio.cosine_scheduler import STOCK, CosineScheduler
from weftwork.pipelines.audio.output import AudioOutput
from weftwork.pipelines.audio.windows import Windows
from weftwork.pipelines.core.attach import attach, attached, detach
from weftwork.pipelines.core.stock_config import named_as

LATENTS_AT_ONCE = 2048
"""Latents per batch of windows, over all voices: of `tiny-audio` 16 windows, of Stable Audio Open 2."""
Trained = TypeVar("Trained", bound=ModelMixin)


class VideoToAudioPipeline(StableAudioPipeline):
    """Stable Audio pipeline with spatial conditions: boxes, depth, audio prompts and an envelope.

    Attach one `SpatialAudioAdapter`, by any name, with its ControlNet where it has one. Folders are stock ones; the
    scheduler is opened as `CosineScheduler`.
    """

    _optional_components: ClassVar[list[str]] = ["text_encoder", "tokenizer"]

    adapters: AttachedAdapters | None = None
    controlnet: StableAudioControlNetModel | None = None
    frozen_encoders: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any) -> Self:
        """Loads a folder as the stock method does; the scheduler is opened as `CosineScheduler`, without torchsde."""
        if "scheduler" not in kwargs:
            where = {key: kwargs[key] for key in ("revision", "cache_dir", "token") if key in kwargs}
            scheduler = CosineScheduler.from_pretrained(pretrained_model_name_or_path, subfolder="scheduler", **where)
            kwargs["scheduler"] = scheduler
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """Reads the index; without torchsde the class of the stock scheduler cannot be imported for comparison."""
        loaded: Any = super().load_config(*args, **kwargs)
        index = loaded[0] if isinstance(loaded, tuple) else loaded
        if "scheduler" in index:
            index["scheduler"] = ["diffusers", EDMDPMSolverMultistepScheduler.__name__]
        return loaded

    def register_modules(self, **kwargs: Any) -> None:
        super().register_modules(**kwargs)
        if isinstance(kwargs.get("scheduler"), CosineScheduler):
            self.register_to_config(scheduler=("diffusers", STOCK))

    def to_json_string(self) -> str:
        """Returns the index of a stock pipeline, so that any diffusers opens the folder."""
        return named_as(StableAudioPipeline.__name__, super().to_json_string())

    # -- trained modules -----------------------------------------------------------------------------------

    @property
    def spatial(self) -> SpatialAudioAdapter | None:
        """The attached adapter of spatial audio."""
        return next((one for one in attached(self).values() if isinstance(one, SpatialAudioAdapter)), None)

    def attach(self, *, controlnet: StableAudioControlNetModel | None = None, **adapters: Adapter) -> None:
        """Attaches adapters by name, see `weftwork.pipelines.attach`.

        Args:
            controlnet: the ControlNet that was trained with an adapter of spatial audio, and is detached with it.
        """
        attach(self, **adapters)
        if controlnet is not None:
            self.controlnet = self._as_loaded(controlnet)
            install_inputs(self.transformer, self.controlnet.blocks)

    def detach(self, *names: str) -> None:
        """Detaches adapters, see `weftwork.pipelines.detach`, and the ControlNet with the adapter of spatial audio."""
        detach(self, *names)
        self.controlnet = self.controlnet if self.spatial is not None else None

    def load_adapter(self, pretrained_model_name_or_path: str | Path, name: str) -> Adapter:
        """Loads and attaches what a folder has: `adapter`, and `controlnet`; `ValueError` for another backbone."""
        folder, controlnet = Path(pretrained_model_name_or_path), None
        adapter = adapter_class(folder / "adapter").from_pretrained(folder / "adapter")
        if (folder / "controlnet").is_dir():
            controlnet = StableAudioControlNetModel.from_pretrained(folder / "controlnet", use_safetensors=True)
        self.attach(controlnet=controlnet, **{name: adapter})
        return adapter

    def _as_loaded(self, module: Trained) -> Trained:
        """Returns the module on the device and in the precision of the transformer; of another precision, a copy."""
        dtype = self.transformer.dtype
        module = module if module.dtype == dtype else copy.deepcopy(module)
        nn.Module.to(module, self._execution_device, dtype)
        return module.eval()

    def _move(self) -> None:
        """Moves the trained modules to where the pipeline is now."""
        if here := attached(self):
            self.adapters = AttachedAdapters({name: self._as_loaded(one) for name, one in here.items()})
        self.controlnet = self.controlnet and self._as_loaded(self.controlnet)

    def set_encoders(self, **encoders: Any) -> None:
        """Set frozen encoders: `audio` encodes audio [channel, sample] and its rate in Hz as a vector, for prompts."""
        self.frozen_encoders = {**self.frozen_encoders, **encoders}

    # -- generation ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(  # noqa: PLR0913  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        conditions: Sequence[OverTime] | Sequence[Sequence[OverTime]] = (),
        prompt: str = "",
        *,
        seconds: float | None = None,
        negative_prompt: str | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 2.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        prompt_embeds: Float[Tensor, "1 token dim"] | None = None,
        overlap: float = 0.25,
        callback: Callable[[int, int, Tensor], None] | None = None,
    ) -> AudioOutput:
        """Generate audio, in overlapping windows where it is longer than the trained length.

        Args:
            conditions: conditions of one voice, or one list per voice; voices are generated separately and summed. A
                voice has any number of `BoxTrack`, `DepthClip` and `AudioPrompt`, and at most one `Envelope`.
            prompt, negative_prompt, prompt_embeds: as in the stock call, for all voices.
            seconds: length; by default up to the last time of the conditions.
            guidance_scale: of prompt and conditions together; 1 turns it off.
            generator: generator of the noise, or a list with one per window of every voice.
            overlap: share of a window that is cross-faded with the next one.
            callback: called after each step with its index, timestep and latents, for every batch of windows.

        Raises:
            ValueError: conditions without trained modules, an envelope without a ControlNet, several envelopes in one
                voice, a length that is not above 0, or an overlap outside [0, 0.5].
        """
        voices = _voices(conditions)
        self._check(voices)
        self._move()
        windows = self._windows(voices, seconds, overlap)
        rows = [voice for voice in voices for _ in windows.starts]
        shape = len(rows), self.transformer.config["in_channels"], windows.latents
        device, dtype = self._execution_device, self.transformer.dtype
        latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        drawn, starts = [], windows.starts * len(voices)
        at_once = max(1, LATENTS_AT_ONCE // windows.latents)
        for some in (slice(first, first + at_once) for first in range(0, len(rows), at_once)):
            count = len(rows[some])
            call = AudioCall(self, rows[some], starts[some], windows, guidance_scale > 1, callback)
            with call.active():
                out: Any = super().__call__(
                    [prompt] * count if prompt_embeds is None else None,  # pyright: ignore[reportArgumentType]
                    negative_prompt=None if negative_prompt is None else [negative_prompt] * count,
                    prompt_embeds=None if prompt_embeds is None else prompt_embeds.expand(count, -1, -1),
                    latents=latents[some],
                    audio_end_in_s=windows.seconds,
                    num_inference_steps=num_inference_steps,
                    guidance_scale=guidance_scale,
                    generator=generator[some] if isinstance(generator, list) else generator,
                    callback=call.after_step,
                    output_type="np",
                )
            drawn.append(out.audios)
        audio = np.concatenate(drawn)
        parts = audio.reshape(len(voices), len(windows.starts), *audio.shape[1:])
        audios = [windows.joined(part) for part in parts]
        return AudioOutput(np.sum(audios, 0), audios, self.vae.config["sampling_rate"])

    def _check(self, voices: Sequence[Sequence[OverTime]]) -> None:
        for voice in voices:
            for one in voice:
                if not isinstance(one, OverTime):
                    raise UserError(
                        f"conditions: got a {type(one).__name__}, expected BoxTrack, DepthClip, AudioPrompt or "
                        "Envelope; pass these"
                    )
            warn_of_gaps(voice)
            envelopes = [one for one in voice if isinstance(one, Envelope)]
            if len(envelopes) > 1:
                raise UserError(
                    f"conditions: got {len(envelopes)} envelopes for one voice, expected at most 1; "
                    "pass one list per voice"
                )
            if any(one.layers for one in envelopes):
                raise UserError("layers: got some on an envelope, which a ControlNet reads; give it a weight instead")
            if envelopes and self.controlnet is None:
                raise UserError("conditions: got an envelope, but there is no ControlNet; load one beside the adapter")
            if len(voice) > len(envelopes) and self.spatial is None:
                raise UserError("conditions: got some without an adapter; call load_adapter(folder, 'spatial') first")

    def _windows(self, voices: Sequence[Sequence[OverTime]], seconds: float | None, overlap: float) -> Windows:
        ends = [one.last_time for voice in voices for one in voice if one.last_time is not None]
        longest = self.transformer.config["sample_size"] * self.vae.hop_length / self.vae.config["sampling_rate"]
        trained = longest if self.spatial is None else min(self.spatial.config["seconds"], longest)
        total = seconds if seconds is not None else max(ends, default=trained)
        return Windows.plan(total, trained, overlap, self.vae.hop_length, self.vae.config["sampling_rate"])


def _voices(conditions: Any) -> list[list[OverTime]]:
    """Returns one list of conditions per voice."""
    if conditions and all(isinstance(one, Sequence) for one in conditions):
        return [list(voice) for voice in conditions]
    return [list(conditions)]
