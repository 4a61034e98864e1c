"""Conditions in one call of the pipeline of spatial audio."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from diffusers import StableAudioPipeline
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.audio.conditions import Envelope, OverTime
from weftwork.attention_processors.audio.control import aligned_boxes, shares, tracks_of
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.processor import conditioned
from weftwork.attention_processors.core.strength import GUIDED, Layout
from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.pipelines.audio.windows import Windows


class AudioCall:
    """Conditions of one call, passed to the transformer at every step."""

    def __init__(
        self,
        pipe: StableAudioPipeline,
        rows: list[list[OverTime]],
        starts: list[float],
        windows: Windows,
        guided: bool,
        callback: Callable[[int, int, Tensor], None] | None,
    ) -> None:
        self.pipe, self.rows, self.guided, self.callback, self.step = pipe, rows, guided, callback, 0
        self.inputs: dict[str, Tensor] = {}
        adapter = pipe.spatial
        has_tokens = any(map(tokens_of, rows)) or (adapter is not None and adapter.config["null_boxes"])
        self.conditioning = self._encode(starts, windows) if has_tokens else Conditioning({})
        net = pipe.controlnet
        self.boxes = net is not None and net.reads_boxes
        controlled = net is not None and any(envelope_of(row) or (self.boxes and tracks_of(row)) for row in rows)
        self.controls = self._controls(starts, windows) if controlled else ()

    def _encode(self, starts: list[float], windows: Windows) -> Conditioning:
        adapter = self.pipe.spatial
        batch = adapter.collate([tokens_of(row) for row in self.rows], seconds=windows.seconds, starts=starts)
        features = adapter.features(batch, self.pipe.frozen_encoders)
        encoded = adapter(features)
        levels, halves = layer_levels(self.pipe.transformer), GUIDED if self.guided else GUIDED[1:]
        return Conditioning.of({"spatial": encoded}, Layout(levels, (1, windows.latents), halves=halves))

    def _controls(self, starts: list[float], windows: Windows) -> tuple[Tensor, ...]:
        """Returns the ControlNet's inputs as `shares` orders them: envelope and boxes, envelope alone, boxes alone."""
        signals = []
        for row, start in zip(self.rows, starts, strict=True):
            envelope = envelope_of(row)
            samples = windows.latents * windows.hop
            silent = np.zeros((2, samples), np.float32)
            signals.append(silent if envelope is None else envelope.signal(samples, windows.sample_rate, start))
        signal = torch.from_numpy(np.stack(signals))
        loud = encode_latents(self.pipe.vae, signal)
        if not self.boxes:
            return (self._halves(loud),)
        silent = encode_latents(self.pipe.vae, torch.zeros_like(signal[:1])).expand_as(loud)
        seconds = windows.latents * windows.hop / windows.sample_rate
        given = zip(self.rows, starts, strict=True)
        seen = torch.stack([aligned_boxes(row, windows.latents, seconds, start) for row, start in given]).to(loud)
        parts = (loud, seen), (loud, torch.zeros_like(seen)), (silent, seen)
        return tuple(self._halves(torch.cat(part, 1)) for part in parts)

    def _halves(self, control: Tensor) -> Tensor:
        return torch.cat([control.to(self.pipe.transformer.dtype)] * (2 if self.guided else 1))

    @contextmanager
    def active(self) -> Iterator[None]:
        hook = self.pipe.transformer.register_forward_pre_hook(self._control, with_kwargs=True)
        try:
            with conditioned(self.pipe.transformer, replace(self.conditioning, inputs=self.inputs)):
                yield
        finally:
            hook.remove()

    def after_step(self, step: int, time: int, latents: Tensor) -> None:
        self.step = step + 1
        self.conditioning.on_step_end(step, self.pipe.scheduler.num_inference_steps)
        if self.callback is not None:
            self.callback(step, time, latents)

    def _control(self, _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        """Runs the ControlNet on the input of the transformer."""
        net, shared = self.pipe.controlnet, {k: v for k, v in kwargs.items() if k != "return_dict"}
        self.inputs.clear()  # which the conditioning of the running call reads
        for control, scale in zip(self.controls, self._shares(), strict=False):
            if scale.any():
                with conditioned(net, self.conditioning):
                    given = net(*args, **shared, control=control, conditioning_scale=scale.to(control)[:, None, None])
                for block, added in zip(net.blocks, given, strict=True):
                    self.inputs[block] = self.inputs[block] + added if block in self.inputs else added

    def _shares(self) -> Float[Tensor, "control row"]:
        """Returns the strength of each control at this step, by row."""
        steps, halves = self.pipe.scheduler.num_inference_steps, (True, False) if self.guided else (False,)
        return torch.tensor(
            [
                shares(row, self.step, steps, boxes=self.boxes, unconditional=half)
                for half in halves
                for row in self.rows
            ]
        ).T


def tokens_of(row: Sequence[OverTime]) -> list[OverTime]:
    return [one for one in row if not isinstance(one, Envelope)]


def envelope_of(row: Sequence[OverTime]) -> Envelope | None:
    return next((one for one in row if isinstance(one, Envelope)), None)
