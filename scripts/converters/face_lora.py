"""LoRA of published FaceID checkpoints, as the file that `load_lora_weights` of diffusers reads.

Theirs are `{i}.to_{q,k,v,out}_lora.{down,up}.weight` in the group `ip_adapter`, i the position of a layer among all
attention layers of the denoiser; ours are the names of PEFT, by layer, in `pytorch_lora_weights.safetensors`. Both mean
a scale of 1, without an alpha.

Source: tencent-ailab/IP-Adapter@62e4af9 (ip_adapter/attention_processor_faceid.py), diffusers 0.42.1 (loaders/unet.py).
"""

import re
from collections.abc import Mapping
from typing import Final

from diffusers.loaders.lora_pipeline import LORA_WEIGHT_NAME_SAFE
from torch import Tensor, nn

from weftwork.attention_processors.core.processor import attention_layers
from weftwork.datasets.readers.errors import UserError
from weftwork.scripts.converters.published import Groups, check_names

LORA_NAME: Final = LORA_WEIGHT_NAME_SAFE
GROUP: Final = "ip_adapter"
THEIRS: Final = re.compile(r"\d+\.to_(q|k|v|out)_lora\.(down|up)\.weight")
MATRICES: Final[Mapping[str, str]] = {"down": "lora_A", "up": "lora_B"}


def without_lora(groups: Groups) -> tuple[Groups, dict[str, Tensor]]:
    """Returns the groups of a checkpoint without its LoRA, and the LoRA under its published names."""
    keys = groups.get(GROUP, {})
    lora = {key: tensor for key, tensor in keys.items() if THEIRS.fullmatch(key)}
    return {**groups, **({GROUP: {k: t for k, t in keys.items() if k not in lora}} if lora else {})}, lora


def to_lora(theirs: Mapping[str, Tensor], denoiser: nn.Module) -> dict[str, Tensor]:
    """Returns a published LoRA under the names of PEFT; `ValueError` for missing layers, others, or shapes."""
    names = _names(denoiser)
    check_names(f"keys of the LoRA in {GROUP}", theirs, names)
    lora = {names[key]: tensor.contiguous() for key, tensor in theirs.items()}
    for name, down in lora.items():
        if name.endswith(".lora_A.weight"):
            path, up = name.removeprefix("unet.").removesuffix(".lora_A.weight"), lora[name.replace("lora_A", "lora_B")]
            wanted = denoiser.get_parameter(f"{path}.weight").shape
            if (up.shape[0], down.shape[1]) != wanted or up.shape[1] != down.shape[0]:
                raise UserError(
                    f"{path}: got a LoRA of shapes {tuple(down.shape)} and {tuple(up.shape)} for a layer of "
                    f"{tuple(wanted)}; pass a whole file for this denoiser"
                )
    return lora


def from_lora(ours: Mapping[str, Tensor], denoiser: nn.Module) -> dict[str, Tensor]:
    """The inverse of `to_lora`."""
    names = {name: key for key, name in _names(denoiser).items()}
    check_names(LORA_NAME, ours, names)
    return {names[name]: tensor for name, tensor in ours.items()}


def _names(denoiser: nn.Module) -> dict[str, str]:
    """Names of PEFT by published names."""
    return {
        f"{i}.to_{part}_lora.{theirs}.weight": f"unet.{layer}.to_{part}{'.0' if part == 'out' else ''}.{ours}.weight"
        for i, layer in enumerate(attention_layers(denoiser))
        for part in ("q", "k", "v", "out")
        for theirs, ours in MATRICES.items()
    }
