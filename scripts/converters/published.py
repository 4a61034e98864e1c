"""Helpers that read and write published checkpoints."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter import Adapter
from weftwork.datasets.readers.errors import UserError

Groups = dict[str, dict[str, Tensor]]
Key = tuple[str, str]
"""Group, and key within it."""
Config = dict[str, Any]
"""The options of an adapter, as in its `config.json`."""

Kind = TypeVar("Kind", bound=Adapter)


def adapter_on_meta(kind: type[Kind], config: Mapping[str, object]) -> Kind:
    """The adapter of a config, without memory for its tensors; `ValueError` for keys or values that it lacks."""
    try:
        with torch.device("meta"):
            return kind(**config)
    except TypeError as error:
        raise UserError(f"config: not that of a {kind.__name__} ({error}); convert the original again") from error


def check_names(what: str, got: Iterable[str], wanted: Iterable[str]) -> None:
    """Raises `ValueError` unless both are the same names, in any order, with the first missing and unexpected."""
    got, wanted = list(got), list(wanted)
    missing, unexpected = [n for n in wanted if n not in set(got)], [n for n in got if n not in set(wanted)]
    if missing or unexpected:
        raise UserError(
            f"{what}: {len(missing)} are missing (first: {next(iter(missing), 'none')}) and {len(unexpected)} "
            f"unexpected (first: {next(iter(unexpected), 'none')}); pass a whole file of this method and denoiser"
        )


def own_tensors(
    groups: Groups, table: Mapping[Key, Sequence[str]], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """The very tensors of a checkpoint under our names; what is one there may be several here, joined by rows.

    Args:
        table: by their group and key, our names.
        shapes: by our name, the shape there.

    Raises:
        ValueError: keys or a shape beside the table.
    """
    check_names("keys", [f"{g}.{k}" for g in groups for k in groups[g]], [f"{g}.{k}" for g, k in table])
    state: dict[str, Tensor] = {}
    for (group, key), names in table.items():
        tensor, (first, *rest) = groups[group][key], shapes[names[0]]
        wanted = torch.Size([len(names) * first, *rest])
        if tensor.shape != wanted:
            raise UserError(
                f"{group}.{key}: got shape {tuple(tensor.shape)}, expected {tuple(wanted)} for {names[0]}; "
                "pass a whole file for this denoiser"
            )
        parts = [tensor.contiguous()] if len(names) == 1 else [part.clone() for part in tensor.chunk(len(names))]
        state |= dict(zip(names, parts, strict=True))
    return state


def published_tensors(state: Mapping[str, Tensor], table: Mapping[Key, Sequence[str]]) -> Groups:
    """The inverse of `own_tensors`."""
    groups: Groups = {}
    for (group, key), names in table.items():
        groups.setdefault(group, {})[key] = torch.cat([state[name] for name in names]) if names[1:] else state[names[0]]
    return groups


def shape_of(tensors: Mapping[str, Tensor], dims: int, *names: str, prefix: str = "") -> torch.Size:
    """Shape of the first of these tensors that is there; `ValueError` unless one is, with so many dimensions."""
    name = next((name for name in names if name in tensors), names[0])
    if name not in tensors or tensors[name].ndim != dims:
        got = f"shape {tuple(tensors[name].shape)}" if name in tensors else "none"
        raise UserError(f"{prefix}{name}: got {got}, expected {dims} dimensions; pass a whole file of this method")
    return tensors[name].shape


def shapes_of(module: nn.Module) -> dict[str, torch.Size]:
    """Shapes of the module's tensors by name."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def check_options(config: Mapping[str, object], only: Mapping[str, object], format: str) -> None:
    """Raises `ValueError` unless an adapter's options have the only values that a format can mean."""
    for name, value in only.items():
        if config.get(name, value) != value:
            raise UserError(
                f"{name}: got {config[name]!r}, but {format} checkpoint always means {value!r}; convert an adapter "
                "that has it"
            )


def check_shapes(
    state: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    why: str = "as in config.json; convert the original again",
) -> None:
    """Raises `ValueError` unless these tensors are the model's; `why` says what shapes come from, and a remedy."""
    check_names("keys", state, shapes)
    for name, wanted in shapes.items():
        if state[name].shape != wanted:
            raise UserError(f"{name}: got shape {tuple(state[name].shape)}, expected {tuple(wanted)} {why}")
