"""Where a sound comes from: boxes, depth and an audio prompt as tokens that Stable Audio's transformer reads.

After StereoSync (arXiv 2510.05828). Known of it: boxes go through Stable Audio's number conditioner, depth through a
frozen image encoder, the prompt through CLAP's audio encoder; projections and a ControlNet are trained, all else is
frozen. The tokens c of a clip are joined to the text's and read through the layers' own keys and values:

    y = softmax(Q [K_t, K_c]^T / sqrt(d)) [V_t, V_c],   K_c = W_k m(c), V_c = W_v m(c),   W and m frozen

Source: second-hand summaries, and the code of Stable-V2A; the paper's text and code were not available.
Ours, not the paper's: one token per box, at `box_rate`; that tokens carry their time, without which a track is a bag of
boxes; learned tokens for what training leaves out, and for guidance's other half; the encoder of depth maps, where no
embeddings are given; `projections="own"`, trained copies of W whose attention is added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, OverTime
from weftwork.attention_processors.audio.tokens import BoxTokens, DepthTokens, PromptTokens, Tokens
from weftwork.attention_processors.core.adapter import FORMAT_VERSION, KeyValueAdapter
from weftwork.attention_processors.core.batch import encoded_acting, stack_acting
from weftwork.attention_processors.core.conditioning import Attend, DecoupledBranch, EncodedTokens, OwnAttention
from weftwork.attention_processors.core.processor import turned, unwrapped
from weftwork.attention_processors.style.fusions import JointBranch

TIME_CODES = ("sinusoidal", "rotary", "none")
PROJECTIONS = ("frozen", "own")
PERIODS = (0.05, 50.0)
"""Seconds: the shortest and the longest wave of the time code."""
ABSENT = OverTime(weight=0.0)


class FrozenProjections:
    """A transformer's own way from context to keys and values, to be used once per generation."""

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer: Any = unwrapped(transformer)

    def context(self, tokens: Float[Tensor, "design token input_dim"]) -> Float[Tensor, "design token context_dim"]:
        return self.transformer.cross_attention_proj(tokens.to(self.transformer.dtype))

    def keys_and_values(self, context: Tensor, layers: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """By layer, [design, token, inner] twice."""
        found = {name: self.transformer.get_submodule(name) for name in layers}
        return {name: (layer.to_k(context), layer.to_v(context)) for name, layer in found.items()}


@dataclass(frozen=True)
class RotaryBranch(DecoupledBranch):
    """Decoupled attention whose queries and keys are turned by their times.

    Args:
        times: of the tokens, in seconds.
        rate: of the queries, in Hz; the first one stands for the whole clip and is not turned.
    """

    times: Float[Tensor, " token"] | None = None
    rate: float = 1.0

    def added(self, query: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        assert self.times is not None
        key, value, bias = self.tokens(query)
        places = (torch.arange(query.shape[1], device=query.device) - 0.5).clamp(min=0)
        positions = F.pad(self.times.to(query.device) * self.rate, (0, key.shape[1] - len(self.times)))

        def at(heads: Tensor, positions: Any) -> Tensor:
            dim = heads.shape[-1] // 2
            turns: Any = get_1d_rotary_pos_embed(dim, positions, use_real=True, repeat_interleave_real=False)
            return turned(heads, turns)

        return attend(at(query, places), at(key, positions), value, bias)


class SpatialAudioAdapter(KeyValueAdapter):
    """Tokens of boxes, depth and prompts, for cross-attention layers.

    Args:
        layers: width of keys by layer name; `SpatialAudioAdapter.for_denoiser` fills it in.
        base: what the adapter was trained on.
        input_dim: width of the transformer's context before its own projection.
        seconds: of the clips that it was trained on.
        latent_rate: latents per second.
        audio_dim: width of audio prompts.
        depth_dim: width of precomputed depth embeddings; 0 reads maps, at `depth_size` pixels a side.
        box_rate, depth_rate: tokens per second.
        time_code: how a token says when it is: by a code added to it ("sinusoidal"), by turning queries and keys
            ("rotary", which needs projections of its own), or not at all.
        projections: "frozen" reads tokens through the layers' own keys and values, in one softmax with the text; "own"
            through trained copies of them, beside it.
        training: where the weights come from, for the reader of `config.json`.

    Raises:
        ValueError: an unknown time code or projection, or rotary times on frozen projections.
    """

    condition_type = (AudioPrompt, DepthClip, BoxTrack)

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the config)
        self,
        layers: dict[str, int],
        base: dict[str, Any] | None = None,
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
        training: dict[str, Any] | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        for name, value, known in (("time_code", time_code, TIME_CODES), ("projections", projections, PROJECTIONS)):
            if value not in known:
                raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(known)}; pass one of these")
        if time_code == "rotary" and projections == "frozen":
            raise ValueError("time_code: got 'rotary' on frozen projections; pass projections='own' with it")
        readers: list[Tokens] = [
            PromptTokens(audio_dim, input_dim),
            DepthTokens(depth_rate, depth_dim, depth_size, input_dim),
            BoxTokens(box_rate, input_dim),
        ]
        self.readers: Any = nn.ModuleList(readers)
        self.null = nn.Parameter(torch.zeros(len(readers), input_dim))
        self.time = nn.Linear(input_dim, input_dim) if time_code == "sinusoidal" else None
        if projections == "own":
            self.make_projections(layers, (base or {})["context_dim"])

    def initialize_from(self, layers: Mapping[str, Any]) -> None:
        if self.config["projections"] == "own":
            super().initialize_from(layers)

    def collate(
        self, conditions: Sequence[Sequence[OverTime]], *, seconds: float | None = None, starts: Sequence[float] = ()
    ) -> dict[str, Any]:
        """Padded tensors, one row per design; designs may differ in what they have.

        Args:
            seconds: length of the clip, as trained when left out.
            starts: by design the second of its conditions at which the clip begins; 0 when left out.

        Raises:
            ValueError: embeddings of another width than the adapter's, or depth of the wrong kind.
        """
        seconds = self.config["seconds"] if seconds is None else seconds
        kinds: list[tuple[int, list[OverTime | None]]] = []
        for index, reader in enumerate(self.readers):
            of_kind = [[one for one in row if isinstance(one, reader.kind)] for row in conditions]
            for slot in range(max(map(len, of_kind))):
                kinds.append((index, [row[slot] if slot < len(row) else None for row in of_kind]))
        kinds = kinds or [(0, [None] * len(conditions))]
        parts = []
        for index, column in kinds:
            reader, times = self.readers[index], self.readers[index].places(seconds)
            begins = starts or [0.0] * len(column)
            values = [reader.read(one, times + begin) for one, begin in zip(column, begins, strict=True)]
            parts.append((index, torch.stack(values)))
        rows = [[column[i] or ABSENT for _, column in kinds] for i in range(len(conditions))]
        return {
            "parts": parts,
            "seconds": seconds,
            "sounds": [
                (part, row, one)
                for part, (_, column) in enumerate(kinds)
                for row, one in enumerate(column)
                if isinstance(one, AudioPrompt) and one.audio is not None
            ],
            **stack_acting(rows, list(self.config["layers"])),
        }

    def features(self, batch: Mapping[str, Any], encoders: Mapping[str, Any]) -> dict[str, Any]:
        """Prompts that are sounds, encoded; and the frozen projections.

        Args:
            encoders: `projections`, a `FrozenProjections`; `audio`, from [channel, sample] and a rate in Hz to a vector
                [audio_dim], where prompts are sounds.

        Raises:
            ValueError: a prompt that is a sound, without an encoder or with one of another width.
        """
        parts = [(index, values.clone()) for index, values in batch["parts"]]
        for part, row, prompt in batch["sounds"]:
            if "audio" not in encoders:
                raise ValueError(
                    "audio: got a sound as prompt, but there is no encoder for it; call "
                    "pipe.set_encoders(audio=…), or pass embeds"
                )
            said = encoders["audio"](prompt.audio, prompt.sample_rate)
            if said.shape != (self.config["audio_dim"],):
                raise ValueError(
                    f"audio: got {tuple(said.shape)} of the encoder, expected ({self.config['audio_dim']},); set the "
                    "encoder that the adapter was trained with"
                )
            parts[part][1][row, 0] = said.to(parts[part][1])
        return {**batch, "parts": parts, "projections": encoders["projections"]}

    def forward(self, features: Mapping[str, Any]) -> EncodedTokens:
        """Keys and values of all tokens.

        Args:
            features: as `features` makes them; `null` [design, part], where there is one, says which parts get the null
                token, as training drops conditions.
        """
        tokens, nulls, times, counts = [], [], [], []
        device = self.null.device
        for part, (index, values) in enumerate(features["parts"]):
            made, null = self.readers[index](values.to(self.null)), self.null[index]
            at = torch.from_numpy(self.readers[index].places(features["seconds"])).float().to(device)
            made = made + self._time_code(at) if self.readers[index].rate else made
            if "null" in features:
                made = torch.where(features["null"][:, part, None, None].to(device), null, made)
            tokens.append(made)
            nulls.append(null.expand(1, made.shape[1], -1))
            times.append(at)
            counts.append(made.shape[1])
        layers = list(self.config["layers"])
        design = len(features["weight"])
        token_part = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
        return EncodedTokens(
            self._keys_and_values(torch.cat(tokens, 1), features["projections"]),
            self._keys_and_values(torch.cat(nulls, 1), features["projections"]),
            torch.ones(design, sum(counts), dtype=torch.bool, device=device),
            token_part,
            **encoded_acting(features, layers, device),
            branch=self._branch(torch.cat(times)),
        )

    def _branch(self, times: Float[Tensor, " token"]) -> Any:
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
