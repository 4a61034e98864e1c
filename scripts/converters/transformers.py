"""Published IP-Adapters of transformers and our adapter folders: the same tensors under other names.

Layers are numbered in the order of the denoiser, those of two streams first; ours have their names.

    XLabs, FLUX.1       double_blocks.{i}.processor.ip_adapter_double_stream_{k,v}_proj, ip_adapter_proj_model
    InstantX, FLUX.1    ip_adapter.{i}.to_{k,v}_ip, image_proj
    InstantX, SD3.5     ip_adapter.{i}.{to_k_ip,to_v_ip,norm_ip.linear,norm_q,norm_k,norm_ip_k}, image_proj

Source: diffusers 0.42.1 (loaders/{ip_adapter,transformer_sd3}.py); for InstantX's of FLUX.1 its authors' code.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from torch import Tensor, nn

from weftwork.attention_processors.core.families import base_description
from weftwork.attention_processors.core.layers import select_layers
from weftwork.attention_processors.reference.adapter import ReferenceAdapter
from weftwork.attention_processors.reference.published import InstantXFluxAdapter, InstantXSD3Adapter, XLabsFluxAdapter
from weftwork.scripts.converters.ip_adapter import HEAD_DIM
from weftwork.scripts.converters.published import (
    Config,
    adapter_on_meta,
    check_names,
    check_shapes,
    shape_of,
    shapes_of,
)

SD35_LARGE: Final[Mapping[str, Any]] = {
    "sample_size": 128,
    "num_layers": 38,
    "num_attention_heads": 38,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 2432,
    "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}
"""Config of the denoiser where it differs from diffusers' default."""


@dataclass(frozen=True)
class Published:
    """A published format.

    Args:
        adapter: class of our adapters.
        layers: pattern of their names.
        denoiser: what the published checkpoints are for.
        sizes: options of the adapter from their tensors.
        renamed: our names by pattern, and theirs, in which {i} is the layer's number.
        encoder: the authors' image encoder.
        image_size: side of its images in pixels.
    """

    adapter: type[ReferenceAdapter]
    layers: str
    denoiser: Callable[[], nn.Module]
    sizes: Callable[[Mapping[str, Tensor]], Config]
    renamed: Mapping[str, str]
    encoder: str
    image_size: int = 384


def _xlabs_sizes(tensors: Mapping[str, Tensor]) -> Config:
    wide, image_dim = shape_of(tensors, 2, "ip_adapter_proj_model.proj.weight")
    (token_dim,) = shape_of(tensors, 1, "ip_adapter_proj_model.norm.weight")
    return {"projection": "basic", "image_dim": image_dim, "token_dim": token_dim, "num_tokens": wide // token_dim}


def _instantx_sizes(tensors: Mapping[str, Tensor]) -> Config:
    (token_dim,) = shape_of(tensors, 1, "image_proj.norm.weight")
    tokens = shape_of(tensors, 2, "image_proj.proj.2.weight")[0] // token_dim
    image_dim = shape_of(tensors, 2, "image_proj.proj.0.weight")[1]
    return {"projection": "mlp", "image_dim": image_dim, "token_dim": token_dim, "num_tokens": tokens}


def _sd3_sizes(tensors: Mapping[str, Tensor]) -> Config:
    hidden_dim, image_dim = shape_of(tensors, 2, "image_proj.proj_in.weight")
    wide = shape_of(tensors, 2, "image_proj.layers.0.1.1.weight")[0]
    depths = (re.match(r"image_proj\.layers\.(\d+)\.", key) for key in tensors)
    return {
        "projection": "timed",
        "image_dim": image_dim,
        "token_dim": shape_of(tensors, 2, "image_proj.proj_out.weight")[0],
        "num_tokens": shape_of(tensors, 3, "image_proj.latents")[1],
        "hidden_dim": hidden_dim,
        "depth": len({found[1] for found in depths if found}),
        "num_heads": max(1, shape_of(tensors, 2, "image_proj.layers.0.0.to_q.weight")[0] // HEAD_DIM),
        "head_dim": HEAD_DIM,
        "feed_forward_ratio": max(1, wide // hidden_dim),
        "layer_head_dim": shape_of(tensors, 1, "ip_adapter.0.norm_q.weight")[0],
    }


FORMATS: Final[Mapping[str, Published]] = {
    "xlabs-flux": Published(
        XLabsFluxAdapter,
        r"transformer_blocks\.\d+\.attn",
        FluxTransformer2DModel,
        _xlabs_sizes,
        {
            r"image_projection\.image_embeds": "ip_adapter_proj_model.proj",
            r"image_projection\.norm": "ip_adapter_proj_model.norm",
            r"to_key\.\d+": "double_blocks.{i}.processor.ip_adapter_double_stream_k_proj",
            r"to_value\.\d+": "double_blocks.{i}.processor.ip_adapter_double_stream_v_proj",
        },
        "openai/clip-vit-large-patch14",
        224,
    ),
    "instantx-flux": Published(
        InstantXFluxAdapter,
        "all",
        FluxTransformer2DModel,
        _instantx_sizes,
        {
            r"image_projection\.ff\.net\.0\.proj": "image_proj.proj.0",
            r"image_projection\.ff\.net\.2": "image_proj.proj.2",
            r"image_projection\.norm": "image_proj.norm",
            r"to_key\.\d+": "ip_adapter.{i}.to_k_ip",
            r"to_value\.\d+": "ip_adapter.{i}.to_v_ip",
        },
        "google/siglip-so400m-patch14-384",
    ),
    "instantx-sd3": Published(
        InstantXSD3Adapter,
        r".*\.attn2?",
        lambda: SD3Transformer2DModel(**SD35_LARGE),
        _sd3_sizes,
        {
            r"image_projection\.(layers\.\d+)\.ln0": r"image_proj.\1.0.norm1",
            r"image_projection\.(layers\.\d+)\.ln1": r"image_proj.\1.0.norm2",
            r"image_projection\.(layers\.\d+)\.attn\.(to_q|to_kv)": r"image_proj.\1.0.\2",
            r"image_projection\.(layers\.\d+)\.attn\.to_out\.0": r"image_proj.\1.0.to_out",
            r"image_projection\.(layers\.\d+)\.adaln_norm": r"image_proj.\1.1.0",
            r"image_projection\.(layers\.\d+)\.ff\.net\.0\.proj": r"image_proj.\1.1.1",
            r"image_projection\.(layers\.\d+)\.ff\.net\.2": r"image_proj.\1.1.3",
            r"image_projection\.(layers\.\d+)\.adaln_proj": r"image_proj.\1.2.1",
            r"image_projection\.(.+)": r"image_proj.\1",
            r"to_key\.\d+": "ip_adapter.{i}.to_k_ip",
            r"to_value\.\d+": "ip_adapter.{i}.to_v_ip",
            r"norm_tokens\.\d+\.linear": "ip_adapter.{i}.norm_ip.linear",
            r"norms\.\d+\.query": "ip_adapter.{i}.norm_q.weight",
            r"norms\.\d+\.key": "ip_adapter.{i}.norm_k.weight",
            r"norms\.\d+\.token": "ip_adapter.{i}.norm_ip_k.weight",
        },
        "google/siglip-so400m-patch14-384",
    ),
}


def published_to_adapter(
    kind: str, tensors: Mapping[str, Tensor], denoiser: nn.Module | None = None
) -> tuple[Config, dict[str, Tensor]]:
    """Config and state dict of an adapter with the very tensors of a published checkpoint, flat by key.

    Args:
        denoiser: what the adapter is for; by default that of the published checkpoints.

    Raises:
        ValueError: keys or shapes that are missing, unexpected or contradict each other or the denoiser.
    """
    published = FORMATS[kind]
    sizes, denoiser = published.sizes(tensors), _denoiser(published, denoiser)
    config = {
        "layers": select_layers(denoiser, published.layers),
        "base": base_description(denoiser),
        "image_encoder": published.encoder,
        "image_size": published.image_size,
        **sizes,
    }
    adapter = adapter_on_meta(published.adapter, config)
    theirs = _their_names(published, adapter, config["layers"])
    check_names("keys", tensors, theirs.values())
    state = {name: tensors[key].contiguous() for name, key in theirs.items()}
    check_shapes(state, shapes_of(adapter))
    return config, state


def adapter_to_published(
    kind: str, config: Mapping[str, object], state: Mapping[str, Tensor], denoiser: nn.Module | None = None
) -> dict[str, Tensor]:
    """The inverse of `published_to_adapter`: tensors by their keys; `ValueError` for other keys, shapes or layers."""
    published = FORMATS[kind]
    adapter = adapter_on_meta(published.adapter, config)
    check_shapes(state, shapes_of(adapter))
    layers = select_layers(_denoiser(published, denoiser), published.layers)
    check_names("layers", adapter.config["layers"], layers)
    return {key: state[name] for name, key in _their_names(published, adapter, layers).items()}


def _denoiser(published: Published, denoiser: nn.Module | None) -> nn.Module:
    if denoiser is not None:
        return denoiser
    with torch.device("meta"):
        return published.denoiser()


def _their_names(published: Published, adapter: ReferenceAdapter, layers: Iterable[str]) -> dict[str, str]:
    """Published keys by our names; layers are in the order of the denoiser, which saved configs do not keep."""
    numbers = {layer.replace(".", "-"): str(i) for i, layer in enumerate(layers)}
    names = {}
    for name in adapter.state_dict():
        module, *rest = name.split(".")
        number = numbers.get(rest[0]) if rest else None
        path = name if number is None else ".".join((module, number, *rest[1:]))
        for pattern, theirs in published.renamed.items():
            found = re.fullmatch(rf"{pattern}(\.weight|\.bias)?", path)
            if found:
                ending = found[found.re.groups] or ""
                names[name] = found.expand(theirs).replace("{i}", number or "") + ending
                break
    return names
