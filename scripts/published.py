"""What reading others' checkpoints, and writing them, has in common."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from weft.attention_processors.adapter import Adapter

Groups = dict[str, dict[str, Tensor]]
Key = tuple[str, str]
"""Group, and key within it."""

Kind = TypeVar("Kind", bound=Adapter)


def adapter_on_meta(kind: type[Kind], config: Mapping[str, Any]) -> Kind:
    """The adapter of a config, without memory for its tensors.

    Raises:
        ValueError: keys or values that no such adapter has.
    """
    try:
        with torch.device("meta"):
            return kind(**config)
    except TypeError as error:
        raise ValueError(f"config: not that of a {kind.__name__} ({error}); convert the original again") from error


def check_names(what: str, got: Iterable[str], wanted: Iterable[str]) -> None:
    """Raise unless both are the same names, in any order.

    Raises:
        ValueError: how many are missing and unexpected, and the first of each.
    """
    got, wanted = list(got), list(wanted)
    missing, unexpected = [n for n in wanted if n not in set(got)], [n for n in got if n not in set(wanted)]
    if missing or unexpected:
        raise ValueError(
            f"{what}: {len(missing)} are missing (first: {next(iter(missing), 'none')}) and {len(unexpected)} "
            f"unexpected (first: {next(iter(unexpected), 'none')}); the file is incomplete, of another method, or for "
            "another denoiser"
        )


def check_shapes(state: Mapping[str, Tensor], shapes: Mapping[str, Any]) -> None:
    """Raise unless these tensors are the adapter's.

    Raises:
        ValueError: keys or a shape beside its config.
    """
    check_names("keys", state, shapes)
    for name, wanted in shapes.items():
        if state[name].shape != wanted:
            got = tuple(state[name].shape)
            raise ValueError(
                f"{name}: got shape {got}, config.json asks for {tuple(wanted)}; convert the original again"
            )
