"""What processes agree on: the weights that they start with, and the mean of their gradients.

`DistributedDataParallel` would want every forward call to go through it, and every weight to be in use.
"""

from collections.abc import Sequence

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor, nn


@torch.no_grad()
def start_alike(parameters: Sequence[nn.Parameter]) -> None:
    """Give all processes the values of the first one."""
    broadcast([parameter.detach() for parameter in parameters])  # pyright: ignore[reportArgumentType]


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """The mean over all processes: a gradient that some have not got counts as zero, one that none has stays None."""
    processes = PartialState().num_processes
    if processes == 1:
        return
    present = [parameter.grad is not None for parameter in parameters]
    grads = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    total: Tensor = reduce(torch.cat([*grads, grads[0].new_tensor(present)]), "sum")  # pyright: ignore
    *means, counts = total.split([p.numel() for p in parameters] + [len(present)])
    for parameter, mean, count in zip(parameters, means, counts.tolist(), strict=True):
        parameter.grad = mean.view_as(parameter) / processes if count else None
