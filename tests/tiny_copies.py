"""Copies of tiny modules, which take less time than making them."""

from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
MADE: dict[str, tuple[Any, Tensor]] = {}
"""Modules by their options, with the state of the random numbers after each was made."""
OWN = ("processor", "_internal_dict")
"""Attributes that are copied too: `load_ip_adapter` sets an attribute of the config, which is `_internal_dict`."""


def seed(number: int) -> None:
    """Seeds the CPU alone; `torch.manual_seed` also formats the stack, for each kind of accelerator."""
    torch.default_generator.manual_seed(number)


def made_once(options: object, make: Callable[[], ModuleT]) -> ModuleT:
    """A copy of the module that `make` makes; random numbers go on as if it was made now."""
    key = repr(options)
    if key not in MADE:
        MADE[key] = make(), torch.get_rng_state()
    module, state = MADE[key]
    torch.set_rng_state(state)
    return copied(module)


def copied(module: ModuleT) -> ModuleT:
    """A copy with its own weights, hooks, config and attention processors; `deepcopy` takes as long as making it."""
    made = object.__new__(type(module))
    for name, value in vars(module).items():
        plain = type(value) in (dict, OrderedDict)  # whose own `copy` is several times as fast as copy.copy
        made.__dict__[name] = value.copy() if plain else copy(value) if name in OWN else value
    for name, one in module._parameters.items():
        made._parameters[name] = None if one is None else nn.Parameter(one.detach().clone(), one.requires_grad)
    made._buffers.update({name: one.clone() for name, one in module._buffers.items() if one is not None})
    made._modules.update({name: copied(one) for name, one in module._modules.items() if one is not None})
    return made
