"""Other people's files to weft's adapter folders, and back, tensor by tensor.

weft convert lots lots/lots.bin adapters/lots           a published checkpoint (either version) to a folder
weft convert lots adapters/lots lots-again --to lots    the folder to lots.bin and pair_former_config.json
"""

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from weft.attention_processors.adapter import WEIGHTS_NAME, check_folder, read_json
from weft.scripts.lots_checkpoint import (
    GROUPS,
    Groups,
    adapter_on_meta,
    adapter_to_lots,
    lots_to_adapter,
    sdxl_layers,
)

__all__ = ["adapter_to_lots", "lots_to_adapter", "read_lots", "sdxl_layers"]

logger = logging.getLogger(__name__)

SETTINGS_NAME = "pair_former_config.json"


def read_lots(path: Path) -> Groups:
    """The groups of a published checkpoint: a pickle of tensors, or safetensors with keys `group.key`.

    Raises:
        ValueError: no file, a damaged one, or one that holds anything but groups of tensors.
    """
    if not path.is_file():
        raise ValueError(f"{path}: got no file there, expected a LOTS checkpoint (lots.bin or .safetensors)")
    try:
        if path.suffix == ".safetensors":
            return _grouped(load_file(path))
        groups = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises is not foreseeable
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{path}: not a readable checkpoint ({reason}); it is damaged or of another format: download it again"
        ) from error
    if not isinstance(groups, dict) or not all(_is_group(name, group) for name, group in groups.items()):
        raise ValueError(
            f"{path}: got a {type(groups).__name__} with other content, expected groups of tensors: {', '.join(GROUPS)}"
        )
    return groups


def convert_from_lots(source: Path, target: Path, layers: Mapping[str, int] | None = None) -> None:
    """A published checkpoint to an adapter folder, all or nothing.

    Args:
        layers: see `lots_to_adapter`; SDXL's by default.

    Raises:
        ValueError: see `read_lots` and `lots_to_adapter`; a target that is not empty.
    """
    _check_target(target)
    settings_path = source.with_name(SETTINGS_NAME)
    settings = read_json(settings_path) if settings_path.is_file() else None
    config, state = lots_to_adapter(read_lots(source), layers or sdxl_layers(), settings)

    def write(folder: Path) -> None:
        adapter = adapter_on_meta(config)
        adapter.register_to_config(_name_or_path="")
        (folder / "config.json").write_text(adapter.to_json_string(), encoding="utf-8")
        save_file(state, folder / WEIGHTS_NAME, metadata={"format": "pt"})

    _write_folder(target, write)


def convert_to_lots(source: Path, target: Path) -> None:
    """An adapter folder to a folder with `lots.bin` and `pair_former_config.json`, all or nothing.

    Raises:
        ValueError: see `adapter_to_lots`; a source that is no adapter folder, a target that is not empty.
    """
    _check_target(target)
    check_folder(source)
    config = {name: value for name, value in read_json(source / "config.json").items() if not name.startswith("_")}
    try:
        state = load_file(source / WEIGHTS_NAME)
    except SafetensorError as error:
        raise ValueError(f"{source}: {WEIGHTS_NAME} is damaged ({error}); copy or convert it again") from error
    groups, settings = adapter_to_lots(config, state)

    def write(folder: Path) -> None:
        torch.save(groups, folder / "lots.bin")
        (folder / SETTINGS_NAME).write_text(json.dumps(settings), encoding="utf-8")

    _write_folder(target, write)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `weft convert`."""
    parser.add_argument("format", choices=["lots"], help="whose format")
    parser.add_argument("source", type=Path, help="their checkpoint; with --to lots an adapter folder")
    parser.add_argument("target", type=Path, help="folder to write; must be empty or not exist")
    parser.add_argument("--to", choices=["weft", "lots"], default="weft", help="direction (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """What `weft convert` does."""
    convert = convert_to_lots if args.to == "lots" else convert_from_lots
    convert(args.source, args.target)
    logger.info("wrote %s", args.target)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; bad input ends it with one line of text."""
    parser = argparse.ArgumentParser(
        prog="weft convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        run(args)
    except ValueError as error:
        parser.error(str(error))


def _grouped(tensors: Mapping[str, Tensor]) -> Groups:
    groups: Groups = {}
    for name, tensor in tensors.items():
        group, _, key = name.partition(".")
        groups.setdefault(group, {})[key] = tensor
    return groups


def _is_group(name: Any, group: Any) -> bool:
    return (
        isinstance(name, str)
        and isinstance(group, dict)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in group.items())
    )


def _check_target(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"{target}: already there and not an empty folder; name another target, or remove it first")


def _write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside the target and move it there when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as room:
        folder = Path(room) / target.name
        folder.mkdir()
        write(folder)
        os.replace(folder, target)
