"""A small encoder of audio prompts, for where there is no CLAP."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.sound_files import resampled


class AudioStatistics:
    """A frozen autoencoder as the encoder of audio prompts: means and deviations of a sound's latents, in mono.

    Left and right are made one, so that no side gets through.

    Raises:
        ValueError: in the call, a sound of less than two latents.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def __call__(self, audio: Float[np.ndarray, "channel sample"], sample_rate: int) -> Float[Tensor, " dim"]:
        sound = mono(resampled(audio, sample_rate, self.vae.config.sampling_rate))
        least = 2 * self.vae.hop_length
        if sound.shape[1] < least:
            seconds = least / self.vae.config.sampling_rate
            raise UserError(
                f"audio: got {audio.shape[1] / sample_rate:.4f} s of sound, expected at least {seconds:.4f}; pass more"
            )
        return statistics(encode_latents(self.vae, torch.from_numpy(sound)[None]))[0].float().cpu()


def mono(audio: Float[np.ndarray, "*clip channel sample"]) -> Float[np.ndarray, "*clip 2 sample"]:
    """The mean of the channels, twice."""
    return audio.mean(-2, keepdims=True).repeat(2, -2)


def statistics(latents: Float[Tensor, "clip channel place"]) -> Float[Tensor, "clip dim"]:
    return torch.cat([latents.mean(-1), latents.std(-1)], -1)
