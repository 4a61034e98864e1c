"""Roles of one frozen denoiser: copies that share its tensors, each with a LoRA of its own."""

import copy
from collections.abc import Collection
from typing import Any, Final

from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from weftwork.attention_processors.core.layers import select_layers
from weftwork.attention_processors.core.processor import install, unwrapped
from weftwork.attention_processors.views.reference_attention import References

ROLES: Final = ("image_reference", "geometry_reference", "image", "geometry")
TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2")
"""Modules that get LoRAs: attention, feed-forward layers, and the convolutions of the residual blocks."""
BLOCKS: Final = ("down_blocks", "mid_block", "up_blocks")
INNER: Final = ("resnets", "attentions")
STAGES: Final = ("attn1", "attn2", "ff")
"""Execution order of the parts of a U-Net."""


def role_network(role: str, denoiser: nn.Module, rank: int, unused: Collection[str] = ()) -> nn.Module:
    """Returns a frozen copy of a U-Net that shares its tensors, with LoRAs on all modules whose output the role uses.

    Args:
        unused: names of modules whose output the role does not use.
    """
    network = _sharing_copy(unwrapped(denoiser))
    install(network)
    targets = [name for name, _ in network.named_modules() if name.endswith(TARGETS)]
    if role.endswith("_reference"):  # up to the last layer that is read
        last = max(select_layers(network, References().layers), key=_place)
        targets = [name for name in targets if _place(name) < _place(last)]
    targets = [name for name in targets if name not in unused]
    lora = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
    adapted: Any = inject_adapter_in_model(lora, network, "default")
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # created in the backbone's precision
            parameter.data = parameter.data.float()
    return adapted


def _place(name: str) -> tuple[int, ...]:
    """Position of a module in a U-Net's execution order: block, residual block or transformer, layer in it."""
    parts = name.replace("mid_block.", "mid_block.0.").split(".")
    numbers = [int(part) for part in parts if part.isdigit()] + [0]
    stage = next((i for i, layer in enumerate(STAGES) if layer in parts), 0)
    return BLOCKS.index(parts[0]), numbers[0], numbers[1], INNER.index(parts[2]), numbers[2], stage


def _sharing_copy(denoiser: nn.Module) -> nn.Module:
    """Returns a frozen copy of the modules that shares the network's tensors."""
    tensors = [*denoiser.parameters(), *denoiser.buffers()]
    return copy.deepcopy(denoiser, {id(tensor): tensor for tensor in tensors}).requires_grad_(False)
