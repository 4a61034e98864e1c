"""Families of denoisers: one record per class of what differs between them, as data.

    family = family_of(transformer)                      # found through the MRO; U-Nets by their blocks
    family.layers(transformer)                           # {"transformer_blocks.0.attn": "joint", …}
    family.tokens(transformer, {"hidden_states": …})     # where the image's tokens stand in this call: grid and span
    layout = call_layout(transformer, {"hidden_states": …})  # the same as a `Layout`, for `Conditioning.of`

A denoiser of another class is served if its cross-attention layers can be found by name (`attn2`, `cross_attn`);
regions then need a record, which users add: `FAMILIES["MyTransformer"] = Family(roles, grid, place)`. All facts are
those of diffusers 0.42: names of layers, the order of tokens in each `forward`, and of guidance in each pipeline.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from weftwork.attention_processors.core.grids import (
    Given,
    Grid,
    from_channels_last,
    from_frames,
    from_ids,
    from_latents,
    from_list,
    from_sample,
    from_seconds,
    from_shapes,
    from_sizes,
    from_video,
)
from weftwork.attention_processors.core.in_context_tokens import reference_tokens
from weftwork.attention_processors.core.processor import attention_layers, unwrapped
from weftwork.attention_processors.core.strength import GUIDED, Half, ImageTokens, Layout
from weftwork.datasets.readers.errors import UserError

Role = Literal["cross", "joint", "self", "text", "linear", "other"]
"""Attention of a layer: of image tokens to the text; of both to both; of image tokens to each other; of text tokens
alone; of image tokens without a softmax; or of something else, such as another stream."""

Place = Literal["all", "first", "last", "after caption"]
"""Place of image tokens among the queries of joint layers; references stand behind those of the target."""

Guidance = Literal["one batch", "one batch, conditional first", "two calls", "unknown"]
"""Order of the halves of guidance in the pipelines of a family: the unconditional rows first, or the conditional ones;
of two calls, the conditional one is first. A distilled model, or one without guidance, runs the conditional half."""

PRESETS: Mapping[str, str] = {
    "all": r".*\.attn2",
    "encoder": r"down_blocks\..*\.attn2",
    "middle": r"mid_block\..*\.attn2",
    "decoder": r"up_blocks\..*\.attn2",
    "self": r".*\.attn1",
}
"""Presets of layers of U-Nets; `attn2` reads the text, `attn1` the image itself. Of transformers, "all" are the layers
that read the text; "encoder", "middle" and "decoder" thirds of these by depth; "self" those that read the image."""


# -- records -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """Facts about one class of denoisers.

    Args:
        roles: roles of attention layers, by patterns of whole names; the first that matches counts.
        grid: function of the denoiser and the arguments of a call that returns the image's grid in tokens, and how many
            tokens its stream has, references and padding included; None where it is not known.
        embedder: the layer that turns latents into tokens; None where it is not known.
        clean: timestep at which latents have no noise.
        text: components of its pipelines whose tokens of the prompt, padded to their maximum and one after another,
            are the text's keys; none where these are others.
        fixed_text: whether a denoiser reads no other number of text tokens than its pipelines give.
    """

    roles: Mapping[str, Role]
    grid: Callable[[ModelMixin, Given], tuple[Grid, int]] | None
    place: Place = "all"
    guidance: Guidance = "one batch"
    modality: Literal["image", "video", "audio"] = "image"
    embedder: str | None = None
    clean: float = 0.0
    text: tuple[str, ...] = ()
    fixed_text: Callable[[ModelMixin], bool] = lambda denoiser: False

    def role(self, name: str) -> Role:
        """Returns the role of a layer; "other" for one that no pattern names."""
        for pattern, role in self.roles.items():
            if re.fullmatch(pattern, name):
                return role
        return "other"

    def layers(self, denoiser: nn.Module) -> dict[str, Role]:
        """Returns the roles of all attention layers by name, in the order of depth."""
        return {name: self.role(name) for name in attention_layers(denoiser)}

    def presets(self, names: Sequence[str]) -> Mapping[str, str]:
        """Returns patterns of layer names by preset, for a denoiser with these attention layers."""
        if any(name.startswith("down_blocks.") for name in names):
            return PRESETS
        roles = {name: self.role(name) for name in names}
        reading = [name for name, role in roles.items() if role == "cross"] or [n for n in roles if roles[n] == "joint"]
        thirds = [[n for i, n in enumerate(reading) if (2 * i + 1) * 3 // (2 * len(reading)) == k] for k in range(3)]
        own = [name for name, role in roles.items() if role in ("self", "joint", "linear")]
        return dict(zip(PRESETS, map(_pattern, (reading, *thirds, own)), strict=True))

    @property
    def halves(self) -> tuple[Half, ...]:
        """Halves of guidance in one batch, in order."""
        return GUIDED[::-1] if self.guidance == "one batch, conditional first" else GUIDED

    def tokens(self, denoiser: nn.Module, given: Given) -> ImageTokens | None:
        """Returns where the image's tokens stand in a call with these arguments; None if the family does not say.

        Raises:
            ValueError: inputs that the family's pipelines may give, but conditions do not know.
        """
        if self.grid is None:
            return None
        grid, stream = self.grid(unwrapped(denoiser), given)
        if self.place == "all":
            return ImageTokens(grid)
        offset: int | None = None if self.place == "last" else 0
        if self.place == "after caption":
            offsets = set(given["encoder_attention_mask"].sum(1).tolist())
            if len(offsets) > 1:
                raise UserError("encoder_attention_mask: got captions of several lengths; pass one prompt per call")
            offset = int(*offsets)
        return ImageTokens(grid, stream, offset, reference_tokens(given))


def _pattern(names: Sequence[str]) -> str:
    """Returns a pattern of these names, short for those that differ in their first number."""
    numbers: dict[str, list[str]] = {}
    for name in names:
        [(before, number, after)] = re.findall(r"\A(\D*)(\d*)(.*)\Z", name)
        numbers.setdefault(f"{re.escape(before)}(?:%s){re.escape(after)}", []).append(number)
    return "|".join(pattern % "|".join(own) for pattern, own in numbers.items()) or r"(?!)"


CROSS: Mapping[str, Role] = {r".*\.attn2": "cross", r".*\.attn1": "self"}
CROSS_BY_NAME: Mapping[str, Role] = {
    r".*\.(attn2|cross_attn|cross_attention)": "cross",
    r".*\.(attn1|self_attn|self_attention)": "self",
}
JOINT: Mapping[str, Role] = {r"(joint_|single_)?transformer_blocks\.\d+\.attn": "joint"}
SINGLE: Mapping[str, Role] = {
    r"layers\.\d+\.(attn|attention)": "joint",
    r"noise_refiner\..*": "self",
    r"context_refiner\..*": "text",
}
MIXED: Mapping[str, Role] = {r"transformer_blocks\.\d+\.attn1": "joint"}

UNET = Family(CROSS, from_sample, embedder="conv_in", text=("tokenizer",))

FAMILIES: dict[str, Family] = {
    "UNet2DConditionModel": UNET,
    "FluxTransformer2DModel": Family(
        JOINT, from_ids, "last", "two calls", embedder="x_embedder", text=("tokenizer_2",)
    ),
    "ChromaTransformer2DModel": Family(
        JOINT, from_ids, "last", "two calls", embedder="x_embedder", text=("tokenizer",)
    ),
    "Flux2Transformer2DModel": Family(JOINT, from_ids, "last", "two calls", embedder="x_embedder"),
    "Krea2Transformer2DModel": Family(
        {r"text_fusion\..*": "text", r"transformer_blocks\.\d+\.attn": "joint"}, from_ids, "last", "two calls",
        embedder="img_in",
    ),
    "Flux3Transformer2DModel": Family(
        {r"txt_mode_.*": "text", r"mode_blocks\.image\..*": "self", r"single_transformer_blocks\..*": "joint"},
        from_ids, "last", "two calls", embedder="x_embedders.image",
    ),
    "SD3Transformer2DModel": Family(
        {**JOINT, r".*\.attn2": "self"}, from_latents, "first", embedder="pos_embed.proj",
        text=("tokenizer", "tokenizer_3"),
    ),
    "QwenImageTransformer2DModel": Family(
        JOINT, from_shapes, "last", "two calls", embedder="img_in", text=("tokenizer",)
    ),
    "ZImageTransformer2DModel": Family(
        SINGLE, from_list, "first", "one batch, conditional first", embedder="all_x_embedder.2-1", clean=1.0
    ),
    "Lumina2Transformer2DModel": Family(
        SINGLE, from_latents, "after caption", "two calls", embedder="x_embedder", clean=1.0
    ),
    "AuraFlowTransformer2DModel": Family(JOINT, from_latents, "last", embedder="pos_embed.proj"),
    "CogView4Transformer2DModel": Family(MIXED, from_latents, "last", "two calls", embedder="patch_embed.proj"),
    "PixArtTransformer2DModel": Family(CROSS, from_latents, embedder="pos_embed.proj", text=("tokenizer",)),
    "HunyuanDiT2DModel": Family(
        CROSS, from_latents, embedder="pos_embed.proj", fixed_text=lambda denoiser: True
    ),
    "SanaTransformer2DModel": Family(
        {**CROSS, r".*\.attn1": "linear"}, from_latents, embedder="patch_embed.proj"
    ),
    "CogVideoXTransformer3DModel": Family(
        MIXED, from_frames, "last", modality="video", embedder="patch_embed.proj", text=("tokenizer",),
        fixed_text=lambda denoiser: not denoiser.config["use_rotary_positional_embeddings"],
    ),
    "HunyuanVideoTransformer3DModel": Family(
        {r"context_embedder\..*": "text", **JOINT}, from_video, "first", "two calls", "video", "x_embedder.proj"
    ),
    "MochiTransformer3DModel": Family(
        MIXED, from_video, "first", modality="video", embedder="patch_embed.proj", clean=1000.0, text=("tokenizer",)
    ),
    "WanTransformer3DModel": Family(
        CROSS, from_video, "all", "two calls", "video", "patch_embedding", text=("tokenizer",),
        fixed_text=lambda denoiser: denoiser.config["image_dim"] is not None,
    ),
    "LTXVideoTransformer3DModel": Family(CROSS, from_sizes, modality="video", embedder="proj_in", text=("tokenizer",)),
    "LTX2VideoTransformer3DModel": Family(CROSS, from_sizes, modality="video", embedder="proj_in"),
    "Kandinsky5Transformer3DModel": Family(
        {r"text_transformer_blocks\..*": "text", **CROSS_BY_NAME}, from_channels_last, "all", "two calls", "video",
        "visual_embeddings.in_layer",
    ),
    "StableAudioDiTModel": Family(CROSS, from_seconds(-1), "last", modality="audio"),
    "StableAudio3DiTModel": Family(CROSS_BY_NAME, from_seconds(-1), "last", modality="audio"),
    "AceStepTransformer1DModel": Family(
        CROSS_BY_NAME, from_seconds(1), "all", "one batch, conditional first", "audio"
    ),
}  # fmt: skip
"""Records by the name of a denoiser's class."""


def family_of(denoiser: nn.Module) -> Family:
    """Returns the record of a denoiser's class or of its nearest base class.

    Raises:
        ValueError: a class without a record, whose cross-attention layers cannot be found by name either; a U-Net whose
            rows are frames.
    """
    inner = unwrapped(denoiser)
    kind, blocks = type(inner).__name__, getattr(inner, "down_blocks", ())
    if any(hasattr(block, "motion_modules") for block in blocks):
        raise UserError(
            f"denoiser: got {kind}, whose rows are frames (AnimateDiff), which conditions do not know; use the image "
            "model that it was made from"
        )
    known = next((FAMILIES[one.__name__] for one in type(inner).__mro__ if one.__name__ in FAMILIES), None)
    if known is not None:
        return known
    if len(blocks) and hasattr(inner, "up_blocks"):
        return UNET
    if any(re.fullmatch(next(iter(CROSS_BY_NAME)), name) for name in attention_layers(inner)):
        return Family(CROSS_BY_NAME, None, guidance="unknown")
    raise UserError(
        f"denoiser: got {kind}, which has no record and no layers named attn2 or cross_attn; write "
        f'FAMILIES["{kind}"] = Family(roles, grid, place), both from weftwork.attention_processors.core.families'
    )


def layer_levels(denoiser: nn.Module) -> dict[str, int]:
    """Returns halvings of the grid by layer: 0 in transformers; in U-Nets i in down block i, the most in the middle,
    mirrored in up blocks.

    Raises:
        ValueError: as `family_of`.
    """
    family_of(denoiser)
    inner = unwrapped(denoiser)
    last = len(inner.down_blocks) - 1 if hasattr(inner, "up_blocks") else 0

    def level(name: str) -> int:
        block, index = [*name.split("."), "0"][:2]
        return {"down_blocks": int(index), "up_blocks": last - int(index)}.get(block, last) if index.isdigit() else last

    return {name: level(name) for name in attention_layers(denoiser)}


def call_arguments(denoiser: nn.Module, args: Sequence[object], kwargs: Given) -> Given:
    """Returns the arguments of one call of a denoiser by name."""
    inner = unwrapped(denoiser)
    found = _signature(type(inner)).bind(inner, *args, **kwargs).arguments
    return {name: value for name, value in found.items() if name != "self"}


@cache
def _signature(kind: type[nn.Module]) -> inspect.Signature:
    return inspect.signature(kind.forward)


def sample_of(given: Given) -> Any:
    """Returns the noisy latents among the arguments of a call, one row per item."""
    return next(given[name] for name in ("sample", "hidden_states", "x") if name in given)


def at_timestep(given: Given, timestep: Any) -> Given:
    """Returns the arguments of a call with another timestep: a tensor, or a number for all rows."""
    name = next(name for name in ("timestep", "t") if name in given)
    return {**given, name: timestep if isinstance(timestep, Tensor) else torch.full_like(given[name], timestep)}


def call_layout(denoiser: nn.Module, given: Given, repeat: int = 1, halves: tuple[Half, ...] = GUIDED[1:]) -> Layout:
    """Returns the layout of one call of a denoiser from its arguments by name.

    Raises:
        ValueError: as `family_of`, and `Family.tokens`.
    """
    family, levels = family_of(denoiser), layer_levels(denoiser)
    tokens = family.tokens(denoiser, given)
    size = None if tokens is None else tokens.grid[1:]
    return Layout(levels, size, repeat, halves, tokens, family.presets(list(levels)))


def context_projections(layer: Any) -> tuple[Any, Any] | None:
    """Returns a layer's projections of the text to keys and values, or of all it reads; None where these are fused."""
    for names in (("add_k_proj", "add_v_proj"), ("to_k", "to_v"), ("to_key", "to_value")):
        key, value = (getattr(layer, name, None) for name in names)
        if isinstance(key, nn.Module) and isinstance(value, nn.Module):
            return key, value
    return None


def base_description(denoiser: nn.Module) -> dict[str, object]:
    """Returns a base model's description for an adapter's config: its class, the width of the text that its layers
    read and, of transformers, its presets of layers."""
    inner = unwrapped(denoiser)
    layers = attention_layers(inner)
    width, presets = inner.config.get("cross_attention_dim"), family_of(inner).presets(list(layers))
    if width is None and (reading := [n for n in layers if re.fullmatch(presets["all"], n)]):
        first: Any = layers[reading[0]]
        projections = context_projections(first) or [getattr(first, "to_kv", None)]
        width = getattr(projections[0], "in_features", None)
    described = {"family": type(inner).__name__, "context_dim": width}
    return described if presets is PRESETS else {**described, "presets": dict(presets)}
