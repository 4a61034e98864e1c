"""Data parallelism: broadcast of parameters and mean of gradients over all processes.

Replaces `DistributedDataParallel`, which needs every forward call to go through it and does not support unused
parameters.
"""

from collections.abc import Sequence
from typing import cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor, nn


@torch.no_grad()
def broadcast_parameters(parameters: Sequence[nn.Parameter]) -> None:
    """Copies the first process's values to all processes."""
    for parameter in parameters:
        broadcast(parameter.detach())


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Averages gradients over all processes; one missing on some counts as zero, one missing on all stays None."""
    processes = PartialState().num_processes
    if processes == 1:
        return
    present = [parameter.grad is not None for parameter in parameters]
    grads = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    total = cast(Tensor, reduce(torch.cat([*grads, grads[0].new_tensor(present)]), "sum"))
    *means, counts = total.split([p.numel() for p in parameters] + [len(present)])
    for parameter, mean, count in zip(parameters, means, counts.tolist(), strict=True):
        parameter.grad = mean.view_as(parameter) / processes if count else None
