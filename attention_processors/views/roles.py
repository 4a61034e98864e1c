"""Roles of one frozen denoiser: copies that share its tensors, each with a LoRA of its own."""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from diffusers import FluxPipeline, StableDiffusionPipeline
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import set_peft_model_state_dict
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter_files import read_tensors
from weftwork.attention_processors.core.families import UNET, family_of
from weftwork.attention_processors.core.layers import select_layers
from weftwork.attention_processors.core.processor import install, unwrapped
from weftwork.attention_processors.views.reference_attention import References
from weftwork.datasets.readers.errors import UserError

LORA_NAME: Final = "pytorch_lora_weights.safetensors"
ROLES: Final = ("image_reference", "geometry_reference", "image", "geometry")
TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2")
"""Modules that get LoRAs: attention, feed-forward layers, and the convolutions of the residual blocks; of transformers
also the other projections of attention layers that read the image."""
READ: Final = ("to_k", "to_v", "to_qk")
"""Beginnings of the names of projections to keys and values of image tokens."""
HOOKS: Final = ("forward", "_diffusers_hook", "_hf_hook", "_old_forward")
"""Attributes of modules with hooks of diffusers and accelerate."""
BLOCKS: Final = ("down_blocks", "mid_block", "up_blocks")
INNER: Final = ("resnets", "attentions")
STAGES: Final = ("attn1", "attn2", "ff")
"""Execution order of the parts of a U-Net."""


def role_networks(
    denoiser: nn.Module, rank: int, unused: Sequence[str], loras: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, nn.Module]:
    """Returns the networks of all roles by name.

    Args:
        unused: names of parameters that the geometry role does not use.
        loras: LoRAs by role, as PEFT names them; random ones without any.

    Raises:
        ValueError: LoRAs of other layers.
    """
    dead = {name.removesuffix(".weight").removesuffix(".bias") for name in unused}
    roles = {role: role_network(role, denoiser, rank, dead if role == "geometry" else ()) for role in ROLES}
    for role, tensors in loras.items():
        result = set_peft_model_state_dict(roles[role], {**tensors})
        odd = [*result.unexpected_keys, *(key for key in result.missing_keys if "lora" in key)]
        if odd:
            raise UserError(f"{role}: {odd[0]} is missing or unexpected; copy or save the folder again")
    return roles


def write_loras(
    loras: Mapping[str, Mapping[str, Tensor]], folder: Path, component: str, safe_serialization: bool
) -> None:
    """Writes LoRAs by role in diffusers' format, one folder each.

    Args:
        component: name of the denoiser in pipelines, "unet" or "transformer".
    """
    for role, tensors in loras.items():
        layers: dict[str, nn.Module | Tensor] = {**tensors}
        options: dict[str, Any] = {"weight_name": LORA_NAME, "safe_serialization": safe_serialization}
        if component == "unet":
            StableDiffusionPipeline.save_lora_weights(folder / role, unet_lora_layers=layers, **options)
        else:
            FluxPipeline.save_lora_weights(folder / role, transformer_lora_layers=layers, **options)


def read_loras(folder: Path, component: str) -> dict[str, dict[str, Tensor]]:
    """Reads what `write_loras` wrote; `ValueError` for missing or damaged files, or numbers that are not finite."""
    read = {role: read_tensors(folder / role / LORA_NAME) for role in ROLES}
    return {r: {k.removeprefix(f"{component}."): v for k, v in some.items()} for r, some in read.items()}


def role_network(role: str, denoiser: nn.Module, rank: int, unused: Collection[str] = ()) -> nn.Module:
    """Returns a frozen copy of a denoiser that shares its tensors, with LoRAs on all modules whose output is used.

    Args:
        unused: names of modules whose output the role does not use.
    """
    network = _sharing_copy(unwrapped(denoiser))
    install(network)
    targets = _targets(network)
    if role.endswith("_reference"):  # up to the last layer that is read
        order = {name: (index,) for index, (name, _) in enumerate(network.named_modules())}
        is_unet = family_of(network) is UNET
        place: Callable[[str], tuple[int, ...]] = _place if is_unet else order.__getitem__
        last = max(select_layers(network, References().layers, linear=True), key=place)
        read = () if is_unet else tuple(f"{last}.{start}" for start in READ)
        targets = [name for name in targets if place(name) < place(last) or name.startswith(read)]
    targets = [name for name in targets if name not in unused]
    lora = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
    frozen = set(network.parameters())
    adapted: Any = inject_adapter_in_model(lora, network, "default")
    for parameter in adapted.parameters():
        if parameter in frozen:
            parameter.requires_grad_(False)  # LoRAs of the denoiser too
        elif parameter.requires_grad:  # created in the backbone's precision
            parameter.data = parameter.data.float()
    return adapted


def _targets(network: nn.Module) -> list[str]:
    layers = tuple(f"{n}." for n, role in family_of(network).layers(network).items() if role not in ("text", "other"))
    linear = {n for n, one in network.named_modules() if n.startswith(layers) and isinstance(one, nn.Linear)}
    whole = {n.removesuffix(".base_layer") for n in linear if ".lora_" not in n}  # of LoRAs that are there
    return [name for name, _ in network.named_modules() if name.endswith(TARGETS) or name in whole]


def _place(name: str) -> tuple[int, ...]:
    """Position of a module in a U-Net's execution order: block, residual block or transformer, layer in it."""
    parts = name.replace("mid_block.", "mid_block.0.").split(".")
    numbers = [int(part) for part in parts if part.isdigit()] + [0]
    stage = next((i for i, layer in enumerate(STAGES) if layer in parts), 0)
    return BLOCKS.index(parts[0]), numbers[0], numbers[1], INNER.index(parts[2]), numbers[2], stage


def _sharing_copy(denoiser: nn.Module) -> nn.Module:
    """Returns a frozen copy of the modules that shares the network's tensors, without its offloading and casting."""
    known: dict[int, object] = {id(tensor): tensor for tensor in [*denoiser.parameters(), *denoiser.buffers()]}
    for module in denoiser.modules():
        known |= {id(vars(module)[name]): None for name in HOOKS if name in vars(module)}
    made = copy.deepcopy(denoiser, known).requires_grad_(False)
    for module in made.modules():
        for name in HOOKS:
            vars(module).pop(name, None)
    return made
