"""Training data of spatial audio, synthetic walks or user files: latents of audio and envelopes, and conditions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int16
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, Envelope, OverTime
from weftwork.attention_processors.encoders.audio_statistics import mono, statistics
from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.datasets.readers.sound_folder import SoundPiece
from weftwork.datasets.synthetic.walks import SAMPLE_RATE, sample, walk_of
from weftwork.datasets.synthetic.walks.scenes import BOX_RATE, DEPTH_RATE, Walk, times_at
from weftwork.training.data.feature_cache import encoder_key, feature_cache
from weftwork.training.data.image_cache import DrawnImages, saved_once

VERSIONS: Final = ("heard", "mirrored", "envelope", "mono")
"""Encoded versions of audio: as it is, channels exchanged, mono envelope, mean of the channels."""


class WalkSounds(DrawnImages):
    """Audio of the first `count` walks of a split; `sounds[i]` is int16 [2, sample].

    Args:
        sample_rate: in Hz, that of the autoencoder.
    """

    def __init__(self, folder: Path, split: str, count: int, seed: int = 0, *, sample_rate: int = SAMPLE_RATE) -> None:
        self.split, self.seed, self.sample_rate = split, seed, sample_rate
        jobs = [(split, i, seed, sample_rate) for i in range(count)]
        super().__init__(folder, f"walks-{sample_rate}-{split}-{seed}-{count}", _draw_walk, jobs)
        self.sounds: Int16[np.ndarray, "clip 2 sample"] = self.images.view(np.int16)[..., 0]

    @property
    def surfaces(self) -> list[str]:
        return self.truth


def _draw_walk(arguments: tuple[str, int, int, int]) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], str]:
    split, index, seed, sample_rate = arguments
    walk = sample(split, index, seed=seed, sample_rate=sample_rate)
    return np.round(walk.audio * 32767).astype(np.int16)[..., None].view(np.uint8), walk.surface


@dataclass(frozen=True)
class AudioRecord:
    """One training sample of spatial audio.

    Args:
        envelope: latents of the mono envelope.
    """

    latents: Float[Tensor, "channel place"]
    envelope: Float[Tensor, "channel place"]
    conditions: tuple[OverTime, ...]


class SpatialWalks(Dataset[AudioRecord]):
    """Walks with boxes, depth (metric or relative) and audio of another walk on the same surface as prompt.

    Every second sample is mirrored.

    Args:
        latents: of `cached_audio_latents`.
    """

    def __init__(self, sounds: WalkSounds, latents: "np.ndarray[Any, Any]") -> None:
        self.sounds, self.latents = sounds, latents
        alone = torch.from_numpy(latents[:, VERSIONS.index("mono")].astype(np.float32))
        self.prompts = statistics(alone).numpy()
        surfaces = np.array(sounds.surfaces)
        self.alike = {name: np.flatnonzero(surfaces == name) for name in sorted(set(sounds.surfaces))}

    def __len__(self) -> int:
        return 2 * len(self.sounds)

    def __getitem__(self, index: int) -> AudioRecord:
        place, turned = divmod(index, 2)
        sound, envelope = (
            torch.from_numpy(self.latents[place, VERSIONS.index(name)].astype(np.float32))
            for name in ("mirrored" if turned else "heard", "envelope")
        )
        rng = np.random.default_rng([17, index])
        other = int(rng.choice(self.alike[self.sounds.surfaces[place]]))
        walk = walk_of(self.sounds.split, place, seed=self.sounds.seed)
        seen = visual_conditions(walk.mirrored() if turned else walk, metric=bool(rng.random() < 0.5))
        return AudioRecord(sound, envelope, (AudioPrompt(self.prompts[other]), *seen))

    def heard(self, index: int) -> Envelope:
        """Returns the envelope of a sample."""
        audio = self.sounds.sounds[index // 2].astype(np.float32) / 32768
        return Envelope.of_audio(audio, self.sounds.sample_rate)


def visual_conditions(walk: Walk, *, metric: bool = True) -> tuple[DepthClip, BoxTrack]:
    """Returns depth and boxes of a walk; without `metric`, depth is known up to a scale and an offset."""
    box_times, depth_times = (times_at(rate, walk.seconds) for rate in (BOX_RATE, DEPTH_RATE))
    return DepthClip(depth_times, walk.depth(depth_times), metric=metric), BoxTrack(box_times, walk.boxes(box_times))


@torch.no_grad()
def cached_audio_latents(cache_dir: Path, vae: Any, sounds: WalkSounds) -> "np.ndarray[Any, np.dtype[np.float16]]":
    """Latents (posterior means) of all walks, [clip, one of `VERSIONS`, channel, place], cached per autoencoder."""
    key = encoder_key("sound", vae)

    def encoded() -> np.ndarray[Any, np.dtype[np.float16]]:
        rows = []
        for start in tqdm(range(0, len(sounds), 16), desc="encoding", mininterval=1.0):
            audio = sounds.sounds[start : start + 16].astype(np.float32) / 32768
            rows.append(_encoded(vae, audio, sounds.sample_rate).half().cpu().numpy())
        return np.concatenate(rows)

    return saved_once(cache_dir / f"latents-{sounds.name}-{key}.npy", encoded)


class SpatialPieces(Dataset[AudioRecord]):
    """Pieces of user audio (`SoundFolder`), with another piece of the same file, if any, as prompt.

    Every second sample is mirrored. Latents are cached in `cache_dir`.

    Args:
        encoder: of audio prompts, from audio and sample rate to a vector (CLAP); by default `statistics` of latents.
        dry: use a `DryCache`.

    Raises:
        ValueError: a file that cannot be read.
    """

    def __init__(
        self,
        pieces: Sequence[SoundPiece],
        vae: Any,
        cache_dir: Path,
        *,
        encoder: Callable[[np.ndarray, int], Tensor] | None = None,
        dry: bool = False,
    ) -> None:
        self.pieces = pieces
        self.sample_rate = rate = vae.config.sampling_rate
        cache = feature_cache(cache_dir, encoder_key("sound", vae), dry=dry)
        rows, embeds = [], []
        for piece in tqdm(pieces, desc="encoding", mininterval=1.0):
            audio = piece.audio(rate)[None]
            made = cache.rows([audio.tobytes()], lambda _, audio=audio: {"latents": _encoded(vae, audio, rate).half()})
            rows.append(made["latents"])
            embeds += [] if encoder is None else [encoder(audio[0], rate)]
        self.latents: Float[Tensor, "piece version channel place"] = torch.cat(rows).float()
        prompts = torch.stack(embeds) if embeds else statistics(self.latents[:, VERSIONS.index("mono")])
        self.prompts: Float[np.ndarray, "piece dim"] = prompts.numpy()
        files = [pieces[index].path for index in range(len(pieces))]
        self.alike = {path: [index for index, other in enumerate(files) if other == path] for path in set(files)}

    def __len__(self) -> int:
        return 2 * len(self.pieces)

    def __getitem__(self, index: int) -> AudioRecord:
        place, turned = divmod(index, 2)
        sound, envelope = (
            self.latents[place, VERSIONS.index(name)] for name in ("mirrored" if turned else "heard", "envelope")
        )
        piece = self.pieces[place]
        others = [one for one in self.alike[piece.path] if one != place] or [place]
        other = int(np.random.default_rng([17, index]).choice(others))
        seen: list[DepthClip | BoxTrack] = [BoxTrack(track.times, track.boxes) for track in piece.boxes]
        if (depth := piece.depth) is not None:
            seen.append(DepthClip(depth.times, depth.depth, metric=depth.metric))
        return AudioRecord(
            sound, envelope, (AudioPrompt(self.prompts[other]), *(one.mirrored() if turned else one for one in seen))
        )

    def heard(self, index: int) -> Envelope:
        """Returns the envelope of a sample."""
        rate = self.sample_rate
        return Envelope.of_audio(self.pieces[index // 2].audio(rate), rate)


def _encoded(
    vae: Any, audio: Float32[np.ndarray, "clip 2 sample"], sample_rate: int
) -> Float[Tensor, "clip version channel place"]:
    """Encodes the `VERSIONS` of audio clips as latents (posterior means)."""
    loud = np.stack([Envelope.of_audio(one, sample_rate).signal(one.shape[1], sample_rate) for one in audio])
    every = torch.from_numpy(np.stack([audio, audio[:, ::-1], loud, mono(audio)], 1)).flatten(0, 1)
    return encode_latents(vae, every).unflatten(0, (-1, len(VERSIONS)))
