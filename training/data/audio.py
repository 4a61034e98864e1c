"""Training data of spatial audio, synthetic walks or user files: latents of audio and envelopes, and conditions."""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import ModelMixin
from jaxtyping import Float, Float32, Int16
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, Envelope, OverTime
from weftwork.attention_processors.encoders.audio_statistics import mono, statistics
from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.datasets.readers.audio_folder import AudioPiece
from weftwork.datasets.readers.footsteps import FootstepFolder
from weftwork.datasets.synthetic.walks import SAMPLE_RATE, sound, walk_of
from weftwork.datasets.synthetic.walks.prompts import caption
from weftwork.datasets.synthetic.walks.recordings import steps_in
from weftwork.datasets.synthetic.walks.scenes import BOX_RATE, DEPTH_RATE, Walk, times_at
from weftwork.training.core.batches import Samples
from weftwork.training.data.feature_cache import encoder_key, feature_cache
from weftwork.training.data.image_cache import DrawnImages, Latents, Pixels, encoded_rows, saved_once

VERSIONS: Final = ("heard", "mirrored", "envelope", "mono")
"""Encoded versions of audio: as it is, channels exchanged, mono envelope, mean of the channels."""
CENTRED: Final = ("heard", "envelope")
"""Encoded versions of centred audio."""


class WalkSounds(DrawnImages[str]):
    """Audio of the first `count` walks of a split; `sounds[i]` is int16 [2, sample].

    Args:
        sample_rate: in Hz, that of the autoencoder.
        footsteps: folder of recorded steps, of the same split; synthetic steps if None.
        centred: render steps in the middle and as loud as usual, whatever the side and distance of the walker.

    Raises:
        ValueError: as `FootstepFolder`.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        count: int,
        seed: int = 0,
        *,
        sample_rate: int = SAMPLE_RATE,
        footsteps: Path | None = None,
        centred: bool = False,
    ) -> None:
        self.split, self.seed, self.sample_rate, self.footsteps = split, seed, sample_rate, footsteps
        name = f"walks-{sample_rate}-{split}-{seed}-{count}{'-centred' if centred else ''}"
        if footsteps is not None:
            name = f"{name}-{FootstepFolder(footsteps).digest[:12]}"
        jobs = [(split, i, seed, sample_rate, footsteps, centred) for i in range(count)]
        super().__init__(folder, name, _draw_walk, jobs)
        self.sounds: Int16[np.ndarray, "clip 2 sample"] = self.images.view(np.int16)[..., 0]

    @property
    def surfaces(self) -> list[str]:
        return self.truth

    def walk(self, index: int) -> Walk:
        """Returns the walk of a clip."""
        surfaces = steps_in(self.footsteps, self.split).surfaces
        return walk_of(self.split, index, seed=self.seed, surfaces=surfaces)


def _draw_walk(arguments: tuple[str, int, int, int, Path | None, bool]) -> tuple[Pixels, str]:
    split, index, seed, sample_rate, footsteps, centred = arguments
    steps = steps_in(footsteps, split)
    walk = walk_of(split, index, seed=seed, surfaces=steps.surfaces)
    placed = not centred
    audio = sound(walk, sample_rate, pan=placed, delay=placed, distance=placed, steps=steps)
    return np.round(audio * 32767).astype(np.int16)[..., None].view(np.uint8), walk.surface


@dataclass(frozen=True)
class AudioRecord:
    """One training sample of spatial audio.

    Args:
        envelope: latents of the mono envelope.
        centred: latents and envelope of the same steps in the middle, the target without boxes; None if unknown.
        text: text prompt; None for that of all samples.
    """

    latents: Float[Tensor, "channel place"]
    envelope: Float[Tensor, "channel place"]
    conditions: tuple[OverTime, ...]
    centred: Float[Tensor, "2 channel place"] | None = None
    text: str | None = None


class SpatialAudio(Dataset[AudioRecord]):
    """Base of datasets of audio with conditions, with other audio that sounds alike as prompt.

    Every second sample is mirrored.

    Args:
        latents: by clip those of the `VERSIONS`.
        prompts: by clip what it is as a prompt.
        kinds: by clip what alike clips have in common.
    """

    def __init__(self, latents: Latents, prompts: Float[np.ndarray, "clip dim"], kinds: Sequence[Hashable]) -> None:
        self.latents, self.prompts, self.kinds = latents, prompts, kinds
        self.alike: dict[Hashable, list[int]] = {}
        for place, kind in enumerate(kinds):
            self.alike.setdefault(kind, []).append(place)

    def __len__(self) -> int:
        return 2 * len(self.latents)

    @property
    def groups(self) -> list[Hashable]:
        """By sample what is held out together: both versions of a clip."""
        return [index // 2 for index in range(len(self))]

    def __getitem__(self, index: int) -> AudioRecord:
        place, mirrored = divmod(index, 2)
        audio, envelope = (
            torch.from_numpy(self.latents[place, VERSIONS.index(name)].astype(np.float32))
            for name in ("mirrored" if mirrored else "heard", "envelope")
        )
        rng = np.random.default_rng([17, index])
        other = int(rng.choice(self.prompts_of(place)))
        seen = self.seen(place, rng, mirrored=bool(mirrored))
        conditions = AudioPrompt(self.prompts[other]), *seen
        return AudioRecord(audio, envelope, conditions, self.centred_of(place), self.text(place, rng))

    def centred_of(self, place: int) -> Float[Tensor, "2 channel place"] | None:
        """Returns latents and envelope of a clip in the middle."""
        return None

    def text(self, place: int, rng: np.random.Generator) -> str | None:
        """Draws the text prompt of a clip; None for that of all samples."""
        return None

    def prompts_of(self, place: int) -> list[int]:
        """Returns the clips that may be the prompt of a clip."""
        return self.alike[self.kinds[place]]

    @abstractmethod
    def seen(self, place: int, rng: np.random.Generator, *, mirrored: bool) -> Sequence[DepthClip | BoxTrack]:
        """Returns depth and boxes of a clip."""

    @abstractmethod
    def heard(self, index: int) -> Envelope:
        """Returns the envelope of a sample."""


class SpatialWalks(SpatialAudio):
    """Walks with boxes, depth (metric or relative) and audio of another walk on the same surface as prompt.

    Args:
        latents: of `cached_audio_latents`.
        centred: the same of centred audio, of the versions `CENTRED`; None if boxes are never left out.
        worded: whether the text prompts of clips name their surfaces.
    """

    def __init__(
        self, sounds: WalkSounds, latents: Latents, centred: Latents | None = None, *, worded: bool = False
    ) -> None:
        alone = torch.from_numpy(latents[:, VERSIONS.index("mono")].astype(np.float32))
        super().__init__(latents, statistics(alone).numpy(), sounds.surfaces)
        self.sounds, self.centred, self.worded = sounds, centred, worded

    def seen(self, place: int, rng: np.random.Generator, *, mirrored: bool) -> tuple[DepthClip, BoxTrack]:
        walk = self.sounds.walk(place)
        return visual_conditions(walk.mirrored() if mirrored else walk, metric=bool(rng.random() < 0.5))

    def centred_of(self, place: int) -> Float[Tensor, "2 channel place"] | None:
        return None if self.centred is None else torch.from_numpy(self.centred[place].astype(np.float32))

    def text(self, place: int, rng: np.random.Generator) -> str | None:
        return caption(self.sounds.surfaces[place], rng) if self.worded else None

    def heard(self, index: int) -> Envelope:
        audio = self.sounds.sounds[index // 2].astype(np.float32) / 32768
        return Envelope.from_audio(audio, self.sounds.sample_rate)


def visual_conditions(walk: Walk, *, metric: bool = True) -> tuple[DepthClip, BoxTrack]:
    """Returns depth and boxes of a walk; without `metric`, depth is known up to a scale and an offset."""
    box_times, depth_times = (times_at(rate, walk.seconds) for rate in (BOX_RATE, DEPTH_RATE))
    return DepthClip(depth_times, walk.depth(depth_times), metric=metric), BoxTrack(box_times, walk.boxes(box_times))


def cached_audio_latents(
    cache_dir: Path, vae: ModelMixin, sounds: WalkSounds, versions: Sequence[str] = VERSIONS
) -> Latents:
    """Latents (posterior means) of all walks, [clip, version, channel, place], cached per autoencoder."""

    def encode(rows: slice) -> Tensor:
        return _encoded(vae, sounds.sounds[rows].astype(np.float32) / 32768, sounds.sample_rate, versions)

    path = cache_dir / f"latents-{sounds.name}-{encoder_key('sound', vae)}.npy"
    return saved_once(path, lambda: encoded_rows(encode, len(sounds), 16))


class SpatialPieces(SpatialAudio):
    """Pieces of user audio (`AudioFolder`), with another piece of the same file, if any, as prompt.

    Latents are cached in `cache_dir`.

    Args:
        encoder: of audio prompts, from audio and sample rate to a vector (CLAP); by default `statistics` of latents.
        dry: use a `DryCache`.

    Raises:
        ValueError: a file that cannot be read.
    """

    def __init__(
        self,
        pieces: Samples[AudioPiece],
        vae: ModelMixin,
        cache_dir: Path,
        *,
        encoder: Callable[[np.ndarray, int], Tensor] | None = None,
        dry: bool = False,
    ) -> None:
        self.pieces = pieces
        self.sample_rate = rate = vae.config["sampling_rate"]
        cache = feature_cache(cache_dir, encoder_key("sound", vae), dry=dry)
        rows, embeds = [], []
        for index in tqdm(range(len(pieces)), desc="encoding", mininterval=1.0):
            piece = pieces[index]
            audio = piece.audio(rate)
            made = cache.rows(
                [audio], np.ndarray.tobytes, lambda some: {"latents": _encoded(vae, np.stack(some), rate).half()}
            )
            rows.append(made["latents"])
            embeds += [] if encoder is None else [encoder(audio, rate)]
        latents = torch.cat(rows)
        prompts = torch.stack(embeds) if embeds else statistics(latents[:, VERSIONS.index("mono")].float())
        super().__init__(latents.numpy(), prompts.numpy(), [pieces[index].path for index in range(len(pieces))])

    @property
    def groups(self) -> list[Hashable]:
        return [self.kinds[index // 2] for index in range(len(self))]

    def prompts_of(self, place: int) -> list[int]:
        return [one for one in super().prompts_of(place) if one != place] or [place]

    def seen(self, place: int, rng: np.random.Generator, *, mirrored: bool) -> list[DepthClip | BoxTrack]:
        piece = self.pieces[place]
        seen: list[DepthClip | BoxTrack] = [BoxTrack(track.times, track.boxes) for track in piece.boxes]
        if (depth := piece.depth) is not None:
            seen.append(DepthClip(depth.times, depth.depth, metric=depth.metric))
        return [one.mirrored() for one in seen] if mirrored else seen

    def heard(self, index: int) -> Envelope:
        return Envelope.from_audio(self.pieces[index // 2].audio(self.sample_rate), self.sample_rate)


def _encoded(
    vae: ModelMixin, audio: Float32[np.ndarray, "clip 2 sample"], sample_rate: int, versions: Sequence[str] = VERSIONS
) -> Float[Tensor, "clip version channel place"]:
    """Encodes versions of audio clips as latents (posterior means)."""
    loud = np.stack([Envelope.from_audio(one, sample_rate).signal(one.shape[1], sample_rate) for one in audio])
    made = {"heard": audio, "mirrored": audio[:, ::-1], "envelope": loud, "mono": mono(audio)}
    every = torch.from_numpy(np.stack([made[name] for name in versions], 1)).flatten(0, 1)
    return encode_latents(vae, every).unflatten(0, (-1, len(versions)))
