"""FSDP2 for frozen backbones that do not fit on one device; trained modules are not sharded.

Accelerate by itself would shard the trained module, which is small, and save it in pieces.
"""

import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import FullyShardedDataParallelPlugin, patch_environment
from diffusers import DiffusionPipeline, ModelMixin
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from weftwork.datasets.readers.errors import UserError

FLAG = "ACCELERATE_USE_FSDP"
REFUSED = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}


def sharding() -> FullyShardedDataParallelPlugin | None:
    """Returns the FSDP options of `accelerate launch --use_fsdp`; None without it.

    Raises:
        ValueError: FSDP1, which cannot mix frozen and trained weights, or DeepSpeed or Megatron-LM, which would save
            the trained module in pieces.
    """
    for flag, name in REFUSED.items():
        if _is_set(flag):
            raise UserError(
                f"accelerate: got {name}, expected plain data parallelism or FSDP2; launch with --multi_gpu, or "
                "with --use_fsdp --fsdp_version 2 for backbones that do not fit"
            )
    if not _is_set(FLAG):
        return None
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise UserError(f"fsdp_version: got {version}, expected 2; launch with --use_fsdp --fsdp_version 2")
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # it leaves encoders, which are not sharded, uninitialised
    return FullyShardedDataParallelPlugin()


def _is_set(flag: str) -> bool:
    return os.environ.get(flag, "false").lower() == "true"


def unsharded() -> AbstractContextManager[None]:
    """Context manager in which accelerators are created without FSDP."""
    return patch_environment(**{FLAG: "false"})


def move_except(denoiser: nn.Module, pipe: DiffusionPipeline, device: torch.device) -> None:
    """Moves all parts of a pipeline except the denoiser, which may not fit before it is sharded."""
    for part in pipe.components.values():
        if isinstance(part, nn.Module) and part is not denoiser:
            part.to(device)


def shard(denoiser: ModelMixin, plugin: FullyShardedDataParallelPlugin, device: torch.device) -> str:
    """Shards the frozen denoiser with FSDP2, block by block; returns a summary of this process's share.

    From then on, all processes must call the denoiser equally often.
    """
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (PartialState().num_processes,)),
        "reshard_after_forward": plugin.reshard_after_forward,
        "offload_policy": plugin.cpu_offload,
        "ignored_params": {parameter for parameter in denoiser.parameters() if parameter.requires_grad},
    }
    for block in _blocks(denoiser):
        fully_shard(block, **options)
    fully_shard(denoiser, **options)
    weights = list(denoiser.parameters())
    here = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in weights)
    return f"backbone: {here:,} of {sum(p.numel() for p in weights):,} numbers are held by this process"


def _blocks(denoiser: nn.Module) -> list[nn.Module]:
    """Returns the blocks of a denoiser: those in lists, and the middle of a U-Net."""
    parts = denoiser.children()
    lists = [block for part in parts if isinstance(part, nn.ModuleList) for block in part]
    middle = getattr(denoiser, "mid_block", None)
    return lists if middle is None else [*lists, middle]
