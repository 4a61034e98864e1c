"""CLAP (arXiv 2211.06687) as the encoder of audio prompts."""

from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

from weft.datasets.sound_files import resampled


class ClapEncoder:
    """The audio side of CLAP: one vector of unit length for a sound, which is read in mono.

    CLAP was trained on vectors of unit length; whether Stable-V2A scales them is unknown.

    Args:
        extractor: from samples to the spectrogram that `model` reads.
    """

    def __init__(self, model: ClapAudioModelWithProjection, extractor: ClapFeatureExtractor) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.extractor: Any = extractor

    @classmethod
    def from_pretrained(cls, name: str) -> Self:
        """From a folder or a Hub id, for example `laion/clap-htsat-unfused`; safetensors only."""
        model = ClapAudioModelWithProjection.from_pretrained(name, use_safetensors=True)
        return cls(model, ClapFeatureExtractor.from_pretrained(name))

    @property
    def dim(self) -> int:
        """Of its vectors."""
        return self.model.config.projection_dim

    @torch.no_grad()
    def __call__(self, audio: Float[np.ndarray, "channel sample"], sample_rate: int) -> Float[Tensor, " dim"]:
        rate = self.extractor.sampling_rate
        sound = resampled(audio.mean(0, keepdims=True).astype(np.float32), sample_rate, rate)[0]
        read = self.extractor(sound, sampling_rate=rate, return_tensors="pt").to(self.model.device)
        said = self.model(input_features=read["input_features"], is_longer=read["is_longer"]).audio_embeds
        return torch.nn.functional.normalize(said, dim=-1)[0].float().cpu()
