"""A small encoder of audio prompts without CLAP: statistics of latents."""

import numpy as np
import torch
from diffusers import AutoencoderOobleck
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.datasets.readers.audio_files import resampled
from weftwork.datasets.readers.errors import UserError


class AudioStatistics:
    """Encoder of audio prompts: means and standard deviations of a frozen autoencoder's latents, in mono.

    Left and right are averaged, so that the embedding has no panning.

    Raises:
        ValueError: in the call, audio shorter than two latents.
    """

    def __init__(self, vae: AutoencoderOobleck) -> None:
        self.vae = vae

    @property
    def dim(self) -> int:
        """Width of the embedding."""
        return 2 * self.vae.config["decoder_input_channels"]

    def __call__(self, audio: Float[np.ndarray, "channel sample"], sample_rate: int) -> Float[Tensor, " dim"]:
        single = mono(resampled(audio, sample_rate, self.vae.config["sampling_rate"]))
        least = 2 * self.vae.hop_length
        if single.shape[1] < least:
            seconds = least / self.vae.config["sampling_rate"]
            raise UserError(
                f"audio: got {audio.shape[1] / sample_rate:.4f} s of audio, expected at least {seconds:.4f}; pass more"
            )
        return statistics(encode_latents(self.vae, torch.from_numpy(single)[None]))[0].float().cpu()


def mono(audio: Float[np.ndarray, "*clip channel sample"]) -> Float[np.ndarray, "*clip 2 sample"]:
    """Returns the mean of the channels as both channels."""
    return audio.mean(-2, keepdims=True).repeat(2, -2)


def statistics(latents: Float[Tensor, "clip channel place"]) -> Float[Tensor, "clip dim"]:
    return torch.cat([latents.mean(-1), latents.std(-1)], -1)
