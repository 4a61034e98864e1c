"""CLAP (arXiv 2211.06687) as the encoder of audio prompts."""

from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

from weftwork.datasets.readers.audio_files import resampled
from weftwork.datasets.readers.errors import UserError
from weftwork.pretrained import located


class ClapEncoder:
    """CLAP's audio encoder: one vector of unit length for audio, which is mixed down to mono.

    CLAP was trained on vectors of unit length; whether Stable-V2A scales them is unknown. Audio longer than its input
    is encoded in pieces, whose vectors are averaged.

    Args:
        extractor: feature extractor that computes `model`'s input spectrogram from samples.

    Raises:
        ValueError: in the call, audio without samples.
    """

    def __init__(self, model: ClapAudioModelWithProjection, extractor: ClapFeatureExtractor) -> None:
        self.model = model.eval().requires_grad_(False)
        self.extractor = extractor

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device | str = "cpu") -> Self:
        """Loads a folder or a Hub id, for example `laion/clap-htsat-unfused`; safetensors only."""
        name = str(located(name))
        model = ClapAudioModelWithProjection.from_pretrained(name, use_safetensors=True)
        nn.Module.to(model, device)
        return cls(model, ClapFeatureExtractor.from_pretrained(name))

    @property
    def settings(self) -> str:
        """Settings of the feature extractor as JSON, for cache keys."""
        return self.extractor.to_json_string()

    @property
    def dim(self) -> int:
        """Dimension of its vectors."""
        return self.model.config.projection_dim

    @torch.no_grad()
    def __call__(self, audio: Float[np.ndarray, "channel sample"], sample_rate: int) -> Float[Tensor, " dim"]:
        rate = self.extractor.sampling_rate
        if not audio.shape[1]:
            raise UserError(f"audio: got shape {audio.shape}, expected some samples; pass more")
        mono = resampled(audio.mean(0, keepdims=True).astype(np.float32), sample_rate, rate)[0]
        most = self.extractor.nb_max_samples  # the extractor would take a random part of longer audio
        pieces = [mono[start : start + most] for start in range(0, len(mono), most)]
        read = self.extractor(pieces, sampling_rate=rate, return_tensors="pt").to(self.model.device)
        said = self.model(input_features=read["input_features"], is_longer=read["is_longer"]).audio_embeds
        return normalize(normalize(said, dim=-1).mean(0), dim=0).float().cpu()
