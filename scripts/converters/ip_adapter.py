"""Published IP-Adapter checkpoints and our `ReferenceAdapter`: the same tensors under other names.

The authors' layout is two groups, `image_proj` (the projection) and `ip_adapter` with `{i}.to_k_ip.weight` and
`{i}.to_v_ip.weight`, i the position of a layer among all attention layers of the denoiser, with and without text: down,
then up, then mid, text at the odd ones. diffusers' layout, which `unet.save_pretrained` writes, has the projection's
names of its modules, and the names of layers.

Source: tencent-ailab/IP-Adapter@62e4af9 (ip_adapter/{ip_adapter,resampler}.py), diffusers 0.42.1 (loaders/unet.py).
Differs: ours are names in either case; sizes are read from the tensors, where diffusers takes 4 tokens and a depth of 4
for granted.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from weftwork.attention_processors.core.families import base_description
from weftwork.attention_processors.core.layers import select_layers
from weftwork.attention_processors.core.processor import attention_layers
from weftwork.attention_processors.reference.adapter import VIT_H, ReferenceAdapter
from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.scripts.converters.published import (
    Config,
    Groups,
    Key,
    adapter_on_meta,
    check_names,
    check_options,
    check_shapes,
    own_tensors,
    published_tensors,
    shape_of,
    shapes_of,
)

PROJECTION, KEYS = "image_proj", "ip_adapter"
GROUPS = (PROJECTION, KEYS)
BASES: Mapping[str, Mapping[str, Any]] = {
    "sd15": {"cross_attention_dim": 768},
    "sdxl": {
        "cross_attention_dim": 2048,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
    },
}
"""Configs of the authors' denoisers where they differ from diffusers' default, Stable Diffusion's."""
BIG_G = "h94/IP-Adapter/sdxl_models/image_encoder"
IMAGE_ENCODERS: Mapping[tuple[bool, int], str] = {
    (True, 1024): VIT_H,
    (True, 1280): BIG_G,
    (False, 1280): VIT_H,
    (False, 1664): BIG_G,
}
"""The authors' encoder by whether pooled features are read, and their width."""
HEAD_DIM = 64
"""Width of the resampler's heads, which no tensor's shape determines."""
NOTHING_SAID: Mapping[str, object] = {"merging": "joint", "head_dim": HEAD_DIM}
"""Options of ours that a checkpoint of theirs cannot say, and what it means."""
RESAMPLER: Mapping[str, str] = {
    r"(layers\.\d+)\.ln0": r"\1.0.norm1",
    r"(layers\.\d+)\.ln1": r"\1.0.norm2",
    r"(layers\.\d+)\.attn\.to_q": r"\1.0.to_q",
    r"(layers\.\d+)\.attn\.to_[kv]": r"\1.0.to_kv",
    r"(layers\.\d+)\.attn\.to_out\.0": r"\1.0.to_out",
    r"(layers\.\d+)\.ff\.0": r"\1.1.0",
    r"(layers\.\d+)\.ff\.1\.net\.0\.proj": r"\1.1.1",
    r"(layers\.\d+)\.ff\.1\.net\.2": r"\1.1.3",
}
RENAMED: Mapping[str, Mapping[str, str]] = {
    "basic": {r"image_embeds": "proj"},
    "full": {r"ff\.net\.0\.proj": "proj.0", r"ff\.net\.2": "proj.2", r"norm": "proj.3"},
    "plus": RESAMPLER,
    "faceid": {r"ff\.net\.0\.proj": "proj.0", r"ff\.net\.2": "proj.2"},
    "faceid_plus": {
        r"proj\.net\.0\.proj": "proj.0",
        r"proj\.net\.2": "proj.2",
        r"(proj_in|proj_out|norm_out)": r"perceiver_resampler.\1",
        **{ours: f"perceiver_resampler.{theirs}" for ours, theirs in RESAMPLER.items()},
    },
}
"""By projection, modules of diffusers, which ours are, and the authors'; keys and values of theirs are one matrix."""
PLACES: Mapping[str, Key] = {
    r"image_proj\.(.+)": (PROJECTION, r"\1"),
    r"ip_adapter\.(.+)": (KEYS, r"\1"),
    r"encoder_hid_proj\.image_projection_layers\.0\.(.+)": (PROJECTION, r"\1"),
    r"(.+)\.processor\.(to_[kv]_ip)\.0\.weight": (KEYS, r"\1.\2.weight"),
}
"""Groups of keys of a flat file."""
OF_A_DENOISER = re.compile(r"(conv_in|conv_norm_out|conv_out|time_embedding|add_embedding|(down|up|mid)_blocks?)\.")


def base_denoiser(base: str) -> UNet2DConditionModel:
    """The denoiser of Stable Diffusion 1.5 ("sd15") or XL ("sdxl"), without memory; `ValueError` for others."""
    check_choice("base", base, BASES)
    with torch.device("meta"):
        return UNet2DConditionModel(**BASES[base])


def layer_positions(denoiser: nn.Module) -> dict[str, int]:
    """By name of a text attention layer, its position among all attention layers."""
    positions = {name: position for position, name in enumerate(attention_layers(denoiser))}
    return {name: positions[name] for name in select_layers(denoiser, "all")}


def grouped(tensors: Mapping[str, Tensor]) -> Groups:
    """A flat file of the authors, or a whole denoiser that diffusers saved with one IP-Adapter, as two groups.

    `ValueError` for keys that are neither's, naming the first.
    """
    groups: Groups = {}
    unknown: list[str] = []
    whole = any(name.startswith("encoder_hid_proj.") for name in tensors)
    for name, tensor in tensors.items():
        for pattern, (group, key) in PLACES.items():
            if found := re.fullmatch(pattern, name):
                groups.setdefault(group, {})[found.expand(key)] = tensor
                break
        else:
            if not whole or not OF_A_DENOISER.match(name) or "_ip." in name:
                unknown.append(name)
    if unknown:
        raise UserError(
            f"keys: got {len(unknown)} that are no IP-Adapter's (first: {unknown[0]}), expected image_proj.… and "
            "ip_adapter.…, or a denoiser that diffusers saved with one IP-Adapter; pass one of these"
        )
    return groups


def ip_adapter_to_adapter(groups: Groups, denoiser: nn.Module | None = None) -> tuple[Config, dict[str, Tensor]]:
    """Config and state dict of a `ReferenceAdapter` with the very tensors of a published checkpoint.

    Args:
        denoiser: what the adapter is for, on the meta device if need be; by default the one of `BASES` whose text is as
            wide as the checkpoint's tokens.

    Raises:
        ValueError: groups, keys or shapes that are missing, unexpected or contradict each other or the denoiser.
    """
    check_names("groups", groups, GROUPS)
    kind = _projection(groups)
    sizes = _sizes(groups[PROJECTION], kind)
    denoiser = denoiser_for(sizes["token_dim"]) if denoiser is None else denoiser
    base, layers = base_description(denoiser), select_layers(denoiser, "all")
    if base["context_dim"] != sizes["token_dim"]:
        raise UserError(
            f"base: got tokens of width {sizes['token_dim']}, but the denoiser reads text of width "
            f"{base['context_dim']}; name the base that the checkpoint is for"
        )
    encoder = IMAGE_ENCODERS.get((kind == "basic", sizes.get("image_dim", 0)), "unknown")
    config = {"layers": layers, "base": base, "projection": kind, **sizes, "image_encoder": encoder}
    table, shapes = _table(adapter_on_meta(ReferenceAdapter, config), layer_positions(denoiser), _own_names(groups))
    return config, own_tensors(groups, table, shapes)


def adapter_to_ip_adapter(
    config: Mapping[str, object], state: Mapping[str, Tensor], denoiser: nn.Module | None = None
) -> Groups:
    """The inverse of `ip_adapter_to_adapter`: groups in the authors' layout.

    `ValueError` for what the published format cannot say, keys or shapes beside the config, or layers that are not all
    text attention layers of the denoiser.
    """
    adapter = adapter_on_meta(ReferenceAdapter, config)
    check_options(adapter.config, NOTHING_SAID, "an IP-Adapter")
    positions = layer_positions(denoiser_for(adapter.config["token_dim"]) if denoiser is None else denoiser)
    check_names("layers", adapter.config["layers"], positions)
    table, shapes = _table(adapter, positions, (False, False))
    check_shapes(state, shapes)
    return published_tensors(state, table)


def denoiser_for(token_dim: int) -> UNet2DConditionModel:
    known = {sizes["cross_attention_dim"]: base for base, sizes in BASES.items()}
    if token_dim not in known:
        widths = ", ".join(f"{width} ({base})" for width, base in known.items())
        raise UserError(
            f"base: got tokens of width {token_dim}, expected {widths}; give the denoiser that the checkpoint is for"
        )
    return base_denoiser(known[token_dim])


def _own_names(groups: Groups) -> tuple[bool, bool]:
    """True for diffusers' names of the projection, and of the layers, instead of the authors'."""
    return any(re.search(r"image_embeds\.|ff\.|\.attn\.", key) for key in groups[PROJECTION]), any(
        not key[0].isdigit() for key in groups[KEYS]
    )


def _projection(groups: Groups) -> str:
    """The projection that the keys belong to; `ValueError` if there is none that weftwork has."""
    keys = groups[PROJECTION]

    def rows(name: str) -> int:
        return keys[name].shape[0] if name in keys and keys[name].ndim else 0

    for kind, found in (
        ("plus", "latents" in keys),
        ("faceid_plus", "perceiver_resampler.proj_in.weight" in keys or "proj.net.2.weight" in keys),
        ("basic", "proj.weight" in keys or "image_embeds.weight" in keys),
        ("full", "proj.3.weight" in keys or 0 < rows("ff.net.2.weight") == rows("norm.weight")),
        ("faceid", "proj.2.weight" in keys or "ff.net.2.weight" in keys),
    ):
        if found:
            return kind
    raise UserError(
        f"image_proj: got keys like {next(iter(keys), 'none')!r}, expected latents (plus), proj.weight (basic), "
        "proj.3.weight (full), proj.2.weight (FaceID) or perceiver_resampler.… (FaceID Plus); pass a whole "
        "file of this method"
    )


def _sizes(tensors: Mapping[str, Tensor], kind: str) -> dict[str, int]:
    def shape(dims: int, *names: str) -> torch.Size:
        return shape_of(tensors, dims, *names, prefix=f"{PROJECTION}.")

    if kind == "basic":
        out, image_dim = shape(2, "proj.weight", "image_embeds.weight")
        (token_dim,) = shape(1, "norm.weight")
        return {"image_dim": image_dim, "token_dim": token_dim, "num_tokens": max(1, out // token_dim)}
    if kind == "full":
        (token_dim,) = shape(1, "proj.3.weight", "norm.weight")
        return {"image_dim": shape(2, "proj.0.weight", "ff.net.0.proj.weight")[1], "token_dim": token_dim}
    if kind == "faceid":
        (token_dim,), (wide, face_dim) = shape(1, "norm.weight"), shape(2, "proj.0.weight", "ff.net.0.proj.weight")
        tokens = max(1, shape(2, "proj.2.weight", "ff.net.2.weight")[0] // token_dim)
        ratio = max(1, wide // face_dim)
        return {"face_dim": face_dim, "token_dim": token_dim, "num_tokens": tokens, "feed_forward_ratio": ratio}
    if kind == "plus":
        return {"num_tokens": shape(3, "latents")[1], **_resampler_sizes(tensors, shape)}
    tensors = {key.removeprefix("perceiver_resampler."): tensor for key, tensor in tensors.items()}
    sizes = _resampler_sizes(tensors, shape)
    face_dim = shape(2, "proj.0.weight", "proj.net.0.proj.weight")[1]
    tokens = max(1, shape(2, "proj.2.weight", "proj.net.2.weight")[0] // sizes["hidden_dim"])
    return {"face_dim": face_dim, "num_tokens": tokens, **sizes}


def _resampler_sizes(tensors: Mapping[str, Tensor], shape: Callable[..., torch.Size]) -> dict[str, int]:
    hidden_dim, image_dim = shape(2, "proj_in.weight")
    inner, _ = shape(2, "layers.0.0.to_q.weight", "layers.0.attn.to_q.weight")
    wide, _ = shape(2, "layers.0.1.1.weight", "layers.0.ff.1.net.0.proj.weight")
    return {
        "image_dim": image_dim,
        "token_dim": shape(2, "proj_out.weight")[0],
        "hidden_dim": hidden_dim,
        "depth": len({key.split(".")[1] for key in tensors if key.startswith("layers.")}),
        "num_heads": max(1, inner // HEAD_DIM),
        "head_dim": HEAD_DIM,
        "feed_forward_ratio": max(1, wide // hidden_dim),
    }


def _table(
    adapter: ReferenceAdapter, positions: Mapping[str, int], own_names: tuple[bool, bool]
) -> tuple[dict[Key, list[str]], dict[str, torch.Size]]:
    """Their keys, each with ours that lie in it, in order; and the shapes of ours."""
    shapes = shapes_of(adapter)
    slots = {layer.replace(".", "-"): layer for layer in adapter.config["layers"]}
    table: dict[Key, list[str]] = {}
    for name in shapes:
        module, _, rest = name.partition(".")
        if module == "image_projection":
            for pattern, theirs in {} if own_names[0] else RENAMED[adapter.config["projection"]].items():
                rest, changed = re.subn(rf"^{pattern}\.", rf"{theirs}.", rest)
                if changed:
                    break
            key = (PROJECTION, rest)
        else:
            layer = slots[rest.removesuffix(".weight")]
            place = layer if own_names[1] else positions[layer]
            key = (KEYS, f"{place}.{'to_k_ip' if module == 'to_key' else 'to_v_ip'}.weight")
        table.setdefault(key, []).append(name)
    return table, shapes
