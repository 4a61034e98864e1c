"""Spatial audio adapter: boxes, depth and audio prompts as tokens that Stable Audio's transformer reads.

After StereoSync (arXiv 2510.05828). Published: boxes go through Stable Audio's number conditioner, depth through a
frozen image encoder, the prompt through CLAP's audio encoder; projections and a ControlNet are trained, all else is
frozen. The tokens c of a clip are joined to the text tokens and read through the layers' own keys and values:

    y = softmax(Q [K_t, K_c]^T / sqrt(d)) [V_t, V_c],   K_c = W_k m(c), V_c = W_v m(c),   W and m frozen

Source: second-hand summaries, and the code of Stable-V2A; the paper's text and code were not available.
Differs: one token per box, at `box_rate`; tokens encode their time, without which a track is an unordered set of boxes;
learned null tokens for dropped conditions and for the unconditional half of guidance; the encoder of depth maps, where
no embeddings are given; `projections="own"`, trained copies of W whose attention is added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weftwork.attention_processors.audio import PROJECTIONS, TIME_CODES
from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, OverTime
from weftwork.attention_processors.audio.stable_audio import rotary_embedding, turned
from weftwork.attention_processors.audio.tokens import BoxTokens, DepthTokens, PromptTokens, Tokens
from weftwork.attention_processors.core.adapter import Encoders, KeyValueAdapter
from weftwork.attention_processors.core.adapter_files import FORMAT_VERSION
from weftwork.attention_processors.core.batch import Batch, TensorFields
from weftwork.attention_processors.core.branch import Attend, DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.conditioning import EncodedTokens
from weftwork.attention_processors.core.joint_branch import JointBranch
from weftwork.attention_processors.core.layers import OwnProjections
from weftwork.datasets.readers.errors import UserError, check_choice

PERIODS = (0.05, 50.0)
"""Shortest and longest period of the time code, in seconds."""
CONTEXT = ("cross_attention_proj", "condition_embedder", "to_cond_embed")
"""Projections of the text in denoisers of audio."""
ABSENT = OverTime(weight=0.0)
NO_BOXES = OverTime()
"""Condition in the place of boxes that are not given; it gets the null token."""


@dataclass(frozen=True, eq=False)
class AudioPart(TensorFields):
    """One part of the batch: conditions of one kind, for the token module at index `reader`."""

    reader: int
    values: Float[Tensor, "design token *size"]


@dataclass(frozen=True, eq=False, kw_only=True)
class AudioBatch(Batch):
    """Conditions of clips, by kind.

    Args:
        seconds: length of the clips.
        prompts: prompts given as audio, with their part and design, for the audio encoder.
        null: parts that get the null token, where conditions are dropped or boxes not given; None for no part.
    """

    parts: tuple[AudioPart, ...]
    seconds: float
    prompts: tuple[tuple[int, int, AudioPrompt], ...] = ()
    null: Bool[Tensor, "design part"] | None = None


class FrozenProjections(OwnProjections):
    """A transformer's own projections from context to keys and values, applied once per generation.

    Args:
        transformer: one of audio, whose projection of the context has one of the names `CONTEXT`.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__(transformer)
        name = next(name for name in CONTEXT if hasattr(self.denoiser, name))
        self.projection = self.denoiser.get_submodule(name)

    @property
    def input_dim(self) -> int:
        """Width of the context before its projection."""
        return next(part for part in self.projection.modules() if isinstance(part, nn.Linear)).in_features

    def context(self, tokens: Float[Tensor, "design token input_dim"]) -> Float[Tensor, "design token context_dim"]:
        return self.projection(tokens.to(next(self.denoiser.parameters()).dtype))


@dataclass(frozen=True)
class RotaryBranch(DecoupledBranch):
    """Decoupled attention with rotary embeddings of the times of queries and keys.

    Args:
        times: of the tokens, in seconds.
        rate: of the queries, in Hz; the first one is the global token and is not rotated.
    """

    times: Float[Tensor, " token"] | None = None
    rate: float = 1.0

    def added(self, query: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        assert self.times is not None
        first = -0.5 if self.image is None else 0.5
        key, value, bias = self.tokens(query)
        places = (torch.arange(query.shape[1], device=query.device) + first).clamp(min=0)
        positions = F.pad(self.times.to(query.device) * self.rate, (0, key.shape[1] - len(self.times)))

        def at(heads: Tensor, positions: Tensor) -> Tensor:
            return turned(heads, rotary_embedding(heads.shape[-1] // 2, positions))

        return attend(at(query, places), at(key, positions), value, bias)


class SpatialAudioAdapter(KeyValueAdapter[AudioBatch, AudioBatch]):
    """Adapter that makes tokens of boxes, depth and audio prompts for cross-attention layers.

    Args:
        layers: width of keys by layer name; `SpatialAudioAdapter.for_denoiser` fills it in.
        base: description of the base model.
        input_dim: width of the transformer's context before its own projection.
        seconds: of the clips that it was trained on.
        latent_rate: latents per second.
        audio_dim: width of audio prompts.
        depth_dim: width of precomputed depth embeddings; 0 reads maps, at `depth_size` pixels a side.
        box_rate, depth_rate: tokens per second.
        time_code: encoding of a token's time: added to it ("sinusoidal"), by rotated queries and keys ("rotary", which
            needs `projections="own"`), or "none".
        projections: "frozen" reads tokens through the layers' own keys and values, in one softmax with the text; "own"
            through trained copies of them, beside it.
        null_boxes: whether designs without boxes get the null token in their place.
        training: origin of the weights, recorded in `config.json`.

    Raises:
        ValueError: an unknown time code or projection, or rotary times on frozen projections.
    """

    condition_type = (AudioPrompt, DepthClip, BoxTrack)
    keeps_precision = True

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the config)
        self,
        layers: dict[str, int],
        base: dict[str, object] | None = None,
        input_dim: int = 768,
        seconds: float = 2.0,
        latent_rate: float = 44_100 / 2048,
        audio_dim: int = 512,
        depth_dim: int = 0,
        depth_size: int = 32,
        box_rate: float = 15.0,
        depth_rate: float = 4.0,
        time_code: str = "sinusoidal",
        projections: str = "frozen",
        null_boxes: bool = False,
        training: dict[str, object] | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        for name, value, known in (("time_code", time_code, TIME_CODES), ("projections", projections, PROJECTIONS)):
            check_choice(name, value, known)
        if time_code == "rotary" and projections == "frozen":
            raise UserError("time_code: got 'rotary' on frozen projections; pass projections='own' with it")
        readers: list[Tokens] = [
            PromptTokens(audio_dim, input_dim),
            DepthTokens(depth_rate, depth_dim, depth_size, input_dim),
            BoxTokens(box_rate, input_dim),
        ]
        self.readers: Any = nn.ModuleList(readers)
        self.frozen: FrozenProjections | None = None
        self.null = nn.Parameter(torch.zeros(len(readers), input_dim))
        self.time = nn.Linear(input_dim, input_dim) if time_code == "sinusoidal" else None
        if projections == "own":
            self.make_projections(layers, self.config["base"]["context_dim"])

    def initialize_from(self, layers: Mapping[str, nn.Module]) -> None:
        if self.config["projections"] == "own":
            super().initialize_from(layers)

    def bind(self, denoiser: nn.Module) -> None:
        """Lets tokens be read through a transformer's own projections."""
        self.frozen = FrozenProjections(denoiser)

    def collate(
        self, conditions: Sequence[Sequence[OverTime]], *, seconds: float | None = None, starts: Sequence[float] = ()
    ) -> AudioBatch:
        """Returns padded tensors, one row per design; designs may have different conditions.

        Args:
            seconds: length of the clip, as trained when left out.
            starts: by design the second of its conditions at which the clip begins; 0 when left out.

        Raises:
            ValueError: embeddings of another width than the adapter's, or depth of the wrong kind.
        """
        seconds = self.config["seconds"] if seconds is None else seconds
        kinds: list[tuple[int, list[OverTime | None]]] = []
        for index, reader in enumerate(self.readers):
            of_kind: list[list[OverTime]] = [[one for one in row if isinstance(one, reader.kind)] for row in conditions]
            if self.config["null_boxes"] and reader.kind is BoxTrack:
                of_kind = [row or [NO_BOXES] for row in of_kind]
            for slot in range(max(map(len, of_kind))):
                kinds.append((index, [row[slot] if slot < len(row) else None for row in of_kind]))
        kinds = kinds or [(0, [None] * len(conditions))]
        parts: list[AudioPart] = []
        for index, column in kinds:
            reader, times = self.readers[index], self.readers[index].places(seconds)
            begins = starts or [0.0] * len(column)
            values = [reader.read(one, times + begin) for one, begin in zip(column, begins, strict=True)]
            parts.append(AudioPart(index, torch.stack(values)))
        prompts = [
            (part, row, one)
            for part, (_, column) in enumerate(kinds)
            for row, one in enumerate(column)
            if isinstance(one, AudioPrompt) and one.audio is not None
        ]
        rows = [[column[i] or ABSENT for _, column in kinds] for i in range(len(conditions))]
        null = torch.tensor([[one is NO_BOXES for one in row] for row in rows])
        return AudioBatch.of(
            rows,
            self.config,
            parts=tuple(parts),
            seconds=seconds,
            prompts=tuple(prompts),
            null=null if null.any() else None,
        )

    def features(self, batch: AudioBatch, encoders: Encoders) -> AudioBatch:
        """Returns the batch with its audio prompts encoded.

        Args:
            encoders: `audio`, where prompts are audio: from [channel, sample] and a rate in Hz to a vector [audio_dim].

        Raises:
            ValueError: a prompt given as audio, without an encoder or with one of another width.
        """
        parts = [replace(part, values=part.values.clone()) for part in batch.parts]
        for part, row, prompt in batch.prompts:
            if "audio" not in encoders:
                raise UserError(
                    "audio encoder: got audio as prompt, but the adapter reads vectors of "
                    f"{self.config['audio_dim']} numbers; call pipe.set_encoders(audio=ClapEncoder.from_pretrained(…)) "
                    "first, with the encoder that it was trained with, or pass embeds"
                )
            embeds = encoders["audio"](prompt.audio, prompt.sample_rate)
            if embeds.shape != (self.config["audio_dim"],):
                raise UserError(
                    f"audio: got {tuple(embeds.shape)} of the encoder, expected ({self.config['audio_dim']},); set the "
                    "encoder that the adapter was trained with"
                )
            parts[part].values[row, 0] = embeds.to(parts[part].values)
        return replace(batch, parts=tuple(parts), prompts=())

    def forward(self, features: AudioBatch) -> EncodedTokens:
        """Returns keys and values of all tokens; `ValueError` for an adapter that is not bound to a transformer."""
        if self.frozen is None:
            raise UserError("adapter: got one that is not attached; attach it to a pipeline first")
        tokens, nulls, times, counts = [], [], [], []
        device = self.null.device
        for index, part in enumerate(features.parts):
            reader = self.readers[part.reader]
            made, null = reader(part.values.to(self.null)), self.null[part.reader]
            at = torch.from_numpy(reader.places(features.seconds)).float().to(device)
            made = made + self._time_code(at) if reader.rate else made
            if features.null is not None:
                made = torch.where(features.null[:, index, None, None].to(device), null, made)
            tokens.append(made)
            nulls.append(null.expand(1, made.shape[1], -1))
            times.append(at)
            counts.append(made.shape[1])
        design = len(features.weight)
        token_part = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
        return EncodedTokens(
            self._keys_and_values(torch.cat(tokens, 1), self.frozen),
            self._keys_and_values(torch.cat(nulls, 1), self.frozen),
            torch.ones(design, sum(counts), dtype=torch.bool, device=device),
            token_part,
            **features.strengths(list(self.config["layers"]), device),
            branch=self._branch(torch.cat(times)),
        )

    def _branch(self, times: Float[Tensor, " token"]) -> Callable[..., DecoupledBranch]:
        if self.config["time_code"] == "rotary":
            return partial(RotaryBranch, times=times, rate=self.config["latent_rate"])
        return JointBranch if self.config["projections"] == "frozen" else DecoupledBranch

    def _time_code(self, times: Float[Tensor, " token"]) -> Float[Tensor, "token dim"] | float:
        if self.time is None:
            return 0.0
        count = self.time.in_features // 2
        shortest, longest = PERIODS
        periods = shortest * (longest / shortest) ** torch.linspace(0, 1, count, device=times.device)
        angles = 2 * torch.pi * times.float()[:, None] / periods
        waves = torch.cat([angles.sin(), angles.cos()], -1)
        return self.time(F.pad(waves, (0, self.time.in_features - 2 * count)).to(self.null))

    def _keys_and_values(self, tokens: Tensor, frozen: FrozenProjections) -> dict[str, tuple[Tensor, Tensor]]:
        context = frozen.context(tokens)
        if self.config["projections"] == "frozen":
            return frozen.keys_and_values(context, list(self.config["layers"]))
        context = context.to(tokens)
        return self.project(context[:, None])
