"""Two small denoisers that hand attention over."""

from typing import Any

import torch
from tiny import tiny_unet
from torch import Tensor

from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.processor import conditioned, install
from weftwork.attention_processors.core.strength import Layout

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1"
CONTEXT = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))


def denoiser(seed: int) -> Any:
    """A U-Net with weights of its own; its parameters take gradients."""
    unet: Any = tiny_unet()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    install(unet)
    return unet.requires_grad_(True)


def latents(seed: int, rows: int = 2) -> Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def denoised(unet: Any, x: Tensor, **encoded: Any) -> Tensor:
    """The output of a U-Net with these taps."""
    context = CONTEXT.repeat_interleave(len(x) // 2, 0) if len(x) > 2 else CONTEXT[: len(x)]
    with conditioned(unet, Conditioning.of(encoded, Layout(layer_levels(unet), (8, 8)))):
        return unet(x, 500, context).sample


def gradients(unet: Any) -> dict[str, Tensor]:
    return {name: p.grad for name, p in unet.named_parameters() if p.grad is not None and bool(p.grad.abs().max() > 0)}
