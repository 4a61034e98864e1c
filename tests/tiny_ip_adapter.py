"""IP-Adapter checkpoints in the authors' layout, with random tensors."""

from typing import Any

import torch
from torch import Tensor

from weftwork.attention_processors.core.processor import attention_layers

Groups = dict[str, dict[str, Tensor]]
KINDS = ("basic", "plus", "full")
IMAGE_DIM = 24


def authors_projection(kind: str, token_dim: int, image_dim: int, hidden: int, tokens: int) -> dict[str, Any]:
    """Shapes by key of the authors' `image_proj`."""
    if kind == "basic":
        norm = {"norm.weight": (token_dim,), "norm.bias": (token_dim,)}
        return {"proj.weight": (tokens * token_dim, image_dim), "proj.bias": (tokens * token_dim,), **norm}
    if kind == "full":
        first = {"proj.0.weight": (image_dim, image_dim), "proj.0.bias": (image_dim,)}
        second = {"proj.2.weight": (token_dim, image_dim), "proj.2.bias": (token_dim,)}
        return {**first, **second, "proj.3.weight": (token_dim,), "proj.3.bias": (token_dim,)}
    shapes: dict[str, Any] = {"latents": (1, tokens, hidden)}
    for name, out, wide in (("proj_in", hidden, image_dim), ("proj_out", token_dim, hidden)):
        shapes |= {f"{name}.weight": (out, wide), f"{name}.bias": (out,)}
    shapes |= {"norm_out.weight": (token_dim,), "norm_out.bias": (token_dim,)}
    for n in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= {f"layers.{n}.{norm}.weight": (hidden,), f"layers.{n}.{norm}.bias": (hidden,)}
        shapes |= {f"layers.{n}.0.to_q.weight": (hidden, hidden), f"layers.{n}.0.to_kv.weight": (2 * hidden, hidden)}
        shapes |= {f"layers.{n}.0.to_out.weight": (hidden, hidden)}
        shapes |= {f"layers.{n}.1.1.weight": (4 * hidden, hidden), f"layers.{n}.1.3.weight": (hidden, 4 * hidden)}
    return shapes


def authors_checkpoint(
    kind: str, denoiser: Any, image_dim: int = IMAGE_DIM, hidden: int = 128, tokens: int | None = None
) -> Groups:
    """A checkpoint as the authors lay it out, with random tensors (on the meta device: without)."""
    token_dim = denoiser.config["cross_attention_dim"]
    generator = torch.Generator().manual_seed(0)
    meta = next(denoiser.parameters()).is_meta

    def tensor(shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, device="meta") if meta else torch.randn(shape, generator=generator) * 0.3

    shapes = authors_projection(kind, token_dim, image_dim, hidden, tokens or (4 if kind == "basic" else 6))
    groups: Groups = {"image_proj": {key: tensor(shape) for key, shape in shapes.items()}, "ip_adapter": {}}
    for i, (name, layer) in enumerate(attention_layers(denoiser).items()):
        if name.endswith("attn2"):
            for key in ("to_k_ip", "to_v_ip"):
                groups["ip_adapter"][f"{i}.{key}.weight"] = tensor((int(layer.inner_dim), token_dim))
    return groups
