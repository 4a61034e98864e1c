"""IP-Adapter checkpoints in the authors' layout, with random tensors, and calls of pipelines with references."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from variants import run

from weftwork.attention_processors.core.processor import attention_layers

Groups = dict[str, dict[str, Tensor]]
KINDS = ("basic", "plus", "full")
FACE_KINDS = ("faceid", "faceid_plus")
IMAGE_DIM, FACE_DIM, HEAD = 24, 12, 64
TOKENS = 5  # of the tiny vision model: 32x32 pixels in patches of 16, and the class token
TOLERANCE = 1e-5  # the same products in another order


def authors_projection(kind: str, token_dim: int, image_dim: int, hidden: int, tokens: int) -> dict[str, Any]:
    """Shapes by key of the authors' `image_proj`."""
    if kind == "basic":
        norm = {"norm.weight": (token_dim,), "norm.bias": (token_dim,)}
        return {"proj.weight": (tokens * token_dim, image_dim), "proj.bias": (tokens * token_dim,), **norm}
    if kind == "faceid":
        first = {"proj.0.weight": (2 * FACE_DIM, FACE_DIM), "proj.0.bias": (2 * FACE_DIM,)}
        second = {"proj.2.weight": (tokens * token_dim, 2 * FACE_DIM), "proj.2.bias": (tokens * token_dim,)}
        return {**first, **second, "norm.weight": (token_dim,), "norm.bias": (token_dim,)}
    if kind == "faceid_plus":
        inner = authors_projection("plus", token_dim, image_dim, token_dim, tokens)
        del inner["latents"]
        for n in range(4):
            inner |= {f"layers.{n}.0.to_q.weight": (HEAD, token_dim), f"layers.{n}.0.to_out.weight": (token_dim, HEAD)}
            inner[f"layers.{n}.0.to_kv.weight"] = (2 * HEAD, token_dim)
        face = authors_projection("faceid", token_dim, image_dim, hidden, tokens)
        return {**face, **{f"perceiver_resampler.{key}": shape for key, shape in inner.items()}}
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
    kind: str, denoiser: Any, image_dim: int = IMAGE_DIM, hidden: int = 128, tokens: int | None = None, lora: int = 0
) -> Groups:
    """A checkpoint as the authors lay it out, with random tensors (on the meta device: without)."""
    token_dim = denoiser.config["cross_attention_dim"]
    generator = torch.Generator().manual_seed(0)
    meta = next(denoiser.parameters()).is_meta

    def tensor(shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, device="meta") if meta else torch.randn(shape, generator=generator) * 0.3

    shapes = authors_projection(kind, token_dim, image_dim, hidden, tokens or (6 if kind in ("plus", "full") else 4))
    groups: Groups = {"image_proj": {key: tensor(shape) for key, shape in shapes.items()}, "ip_adapter": {}}
    for i, (name, layer) in enumerate(attention_layers(denoiser).items()):
        if name.endswith("attn2"):
            for key in ("to_k_ip", "to_v_ip"):
                groups["ip_adapter"][f"{i}.{key}.weight"] = tensor((int(layer.inner_dim), token_dim))
        parts: Any = {"q": layer.to_q, "k": layer.to_k, "v": layer.to_v, "out": layer.to_out[0]}
        for part, frozen in parts.items() if lora else ():
            groups["ip_adapter"][f"{i}.to_{part}_lora.down.weight"] = tensor((lora, frozen.in_features))
            groups["ip_adapter"][f"{i}.to_{part}_lora.up.weight"] = tensor((frozen.out_features, lora))
    return groups


def embeds(kind: str, seed: int = 0) -> Tensor:
    shape = (IMAGE_DIM,) if kind == "basic" else (TOKENS, IMAGE_DIM)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def referred(pipe: Any, *references: Any, **options: Any) -> np.ndarray:
    return run(pipe, conditions={"ref": list(references)}, **options)


def close(got: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)


def apart(one: np.ndarray, other: np.ndarray) -> None:
    assert np.abs(one - other).max() > 1e-3
