"""Quantisation of frozen backbones as they are loaded: 8 bits by torchao, 4 bits by bitsandbytes."""

from collections.abc import Mapping
from typing import Any, Final

from weftwork.datasets.readers.errors import UserError, check_installed

PACKAGES: Final[Mapping[str, str]] = {"int8": "torchao", "nf4": "bitsandbytes"}
"""Packages by kind of quantisation."""


def quantization_options(kind: str | None, dtype: str) -> dict[str, Any]:
    """Returns arguments of a pipeline's `from_pretrained` that quantise the weights of its denoiser.

    Args:
        kind: a key of `PACKAGES`; None for the weights as they are.
        dtype: of computation, by name.

    Raises:
        ValueError: the kind's package is not installed, or 4 bits without a GPU.
    """
    if kind is None:
        return {}
    import torch

    check_installed(f"quantization {kind}", PACKAGES[kind])
    from diffusers import BitsAndBytesConfig, TorchAoConfig
    from diffusers.quantizers import PipelineQuantizationConfig

    compute = getattr(torch, dtype)
    if kind == "nf4":
        if not torch.cuda.is_available():
            raise UserError("quantization: got nf4, for which diffusers needs a GPU; use int8, or leave it out")
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
    else:
        from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports]

        config = TorchAoConfig(Int8WeightOnlyConfig())
    mapping: dict[str, Any] = {"unet": config, "transformer": config}
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=mapping), "torch_dtype": compute}
