"""Conversion of published checkpoints to adapter folders, and back, tensor by tensor.

Conversions are all or nothing, with a `ValueError` for a target that is not empty or a source that is no such folder.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.adapter_files import WEIGHTS_NAME, check_folder, read_tensors
from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.parts.cross_gates import load_controlnet
from weftwork.attention_processors.reference.adapter import ReferenceAdapter
from weftwork.datasets.readers.atomic import atomic_path, check_new_folder
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.json_object import read_json
from weftwork.scripts.converters import attentionhand, fastcomposer
from weftwork.scripts.converters import dice as dice_checkpoint
from weftwork.scripts.converters import ip_adapter as ip_adapter_checkpoint
from weftwork.scripts.converters import moai as moai_checkpoint
from weftwork.scripts.converters.face_lora import LORA_NAME, from_lora, to_lora, without_lora
from weftwork.scripts.converters.ip_adapter import adapter_to_ip_adapter, denoiser_for, ip_adapter_to_adapter
from weftwork.scripts.converters.lots import GROUPS, adapter_to_lots, lots_to_adapter, sdxl_layers
from weftwork.scripts.converters.published import Config, Groups, adapter_on_meta
from weftwork.scripts.converters.transformers import FORMATS, adapter_to_published, published_to_adapter

__all__ = ["adapter_to_lots", "lots_to_adapter", "read_lots", "sdxl_layers"]

logger = logging.getLogger(__name__)

SETTINGS_NAME = "pair_former_config.json"
IP_ADAPTER_NAME = "ip-adapter.safetensors"
DICE_NAMES = dice_checkpoint.MODULE_NAME, dice_checkpoint.UNET_NAME
FACE_V2 = "plusv2"
"""In names of FaceID Plus checkpoints of version 2, which have the same tensors as version 1."""
FACE_V2_NAME = f"ip-adapter-faceid-{FACE_V2}.safetensors"


def read_lots(path: Path) -> Groups:
    """Groups of a checkpoint: a pickle of tensors, or safetensors with keys `group.key`; `ValueError` for others."""
    return _read(path, "a LOTS checkpoint (lots.bin or .safetensors)", GROUPS, _grouped)


def read_ip_adapter(path: Path) -> Groups:
    """Groups of a published IP-Adapter, or of a denoiser that diffusers saved with one; `ValueError` as `read_lots`."""
    expected = "an IP-Adapter checkpoint (.bin or .safetensors)"
    return _read(path, expected, ip_adapter_checkpoint.GROUPS, ip_adapter_checkpoint.grouped)


def _read(path: Path, what: str, names: Sequence[str], grouped: Callable[[Mapping[str, Tensor]], Groups]) -> Groups:
    groups = _opened(path, what)
    if isinstance(groups, dict) and groups and _is_group("", groups):  # flat: the names say the groups
        return grouped(groups)
    if not isinstance(groups, dict) or not all(_is_group(name, group) for name, group in groups.items()):
        raise UserError(
            f"{path}: got a {type(groups).__name__} with other content, expected groups of tensors: {', '.join(names)}"
        )
    return groups


def _opened(path: Path, what: str) -> Any:
    """Reads a file of tensors; pickled code is never run."""
    if not path.is_file():
        raise UserError(f"{path}: got no file there, expected {what}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises is not foreseeable
        reason = re.split(r"\n|\. ", str(error))[0] or type(error).__name__  # PyTorch goes on with advice to run code
        raise UserError(
            f"{path}: not a readable checkpoint ({reason}); it is damaged or of another format: download it again"
        ) from error


def _tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Reads a file of tensors by name, or of groups of these, which become prefixes."""
    found = _opened(path, what)
    if isinstance(found, dict) and found and all(_is_group(name, group) for name, group in found.items()):
        found = _flat(found)
    if not _is_group("", found):
        raise UserError(f"{path}: got a {type(found).__name__} with other content, expected tensors by name")
    return found


def convert_from_lots(source: Path, target: Path, layers: Mapping[str, int] | None = None) -> None:
    """A published checkpoint to an adapter folder, all or nothing.

    Args:
        layers: see `lots_to_adapter`; SDXL's by default.

    Raises:
        ValueError: see `read_lots` and `lots_to_adapter`; a target that is not empty.
    """
    check_new_folder(target)
    settings_path = source.with_name(SETTINGS_NAME)
    settings = read_json(settings_path) if settings_path.is_file() else None
    config, state = lots_to_adapter(read_lots(source), layers or sdxl_layers(), settings)
    _write_adapter(target, adapter_on_meta(PairedAdapter, config), state)


def convert_to_lots(source: Path, target: Path) -> None:
    """An adapter folder to one with `lots.bin` and its settings, all or nothing; `ValueError` as `adapter_to_lots`."""
    check_new_folder(target)
    groups, settings = adapter_to_lots(*_read_adapter(source))

    def write(folder: Path) -> None:
        torch.save(groups, folder / "lots.bin")
        (folder / SETTINGS_NAME).write_text(json.dumps(settings), encoding="utf-8")

    _write_folder(target, write)


def convert_from_ip_adapter(source: Path, target: Path, denoiser: nn.Module | None = None) -> None:
    """A published IP-Adapter to an adapter folder, all or nothing; `ValueError` as `ip_adapter_to_adapter`."""
    check_new_folder(target)
    groups, theirs = without_lora(read_ip_adapter(source))
    config, state = ip_adapter_to_adapter(groups, denoiser)
    config["shortcut"] = config["projection"] == "faceid_plus" and FACE_V2 in source.name
    lora = to_lora(theirs, denoiser or denoiser_for(config["token_dim"])) if theirs else {}
    config["lora"] = bool(lora)
    _write_adapter(target, adapter_on_meta(ReferenceAdapter, config), state, lora)
    if lora:
        logger.info("%s: beside the adapter; pipe.load_lora_weights(%r) loads it", LORA_NAME, str(target))
    if config["projection"] == "faceid_plus":
        of, say = ("2", "has") if config["shortcut"] else ("1", "lacks")
        logger.info("%s: FaceID Plus of version %s, since its name %s %s", source.name, of, say, FACE_V2)


def convert_to_ip_adapter(source: Path, target: Path, denoiser: nn.Module | None = None) -> None:
    """An adapter folder to a folder with `ip-adapter.safetensors`, which diffusers' `load_ip_adapter` reads.

    That of FaceID Plus of version 2 is named `ip-adapter-faceid-plusv2.safetensors`: tensors have no version.

    Raises:
        ValueError: see `adapter_to_ip_adapter`; a source that is no adapter folder or lacks its LoRA, a target that is
            not empty.
    """
    check_new_folder(target)
    config, state = _read_adapter(source)
    groups = adapter_to_ip_adapter(config, state, denoiser)
    if config.get("lora"):
        lora = from_lora(read_tensors(source / LORA_NAME), denoiser or denoiser_for(config["token_dim"]))
        groups[ip_adapter_checkpoint.KEYS] |= lora
    name = FACE_V2_NAME if config.get("shortcut") else IP_ADAPTER_NAME
    _write_folder(target, lambda folder: save_file(_flat(groups), folder / name, metadata={"format": "pt"}))


def convert_published(kind: str, source: Path, target: Path, denoiser: nn.Module | None = None) -> None:
    """An IP-Adapter of `transformers.FORMATS` to an adapter folder; `ValueError` as `published_to_adapter`."""
    check_new_folder(target)
    found = _tensors(source, "an IP-Adapter checkpoint (.bin or .safetensors)")
    config, state = published_to_adapter(kind, found, denoiser)
    _write_adapter(target, adapter_on_meta(FORMATS[kind].adapter, config), state)


def restore_published(kind: str, source: Path, target: Path, denoiser: nn.Module | None = None) -> None:
    """An adapter folder to one with `ip-adapter.safetensors`; `ValueError` as `adapter_to_published`."""
    check_new_folder(target)
    tensors = adapter_to_published(kind, *_read_adapter(source), denoiser)
    _write_folder(target, lambda folder: save_file(tensors, folder / IP_ADAPTER_NAME, metadata={"format": "pt"}))


def convert_from_dice(source: Path, target: Path, **options: int) -> None:
    """A folder with DICE-Talk's `emo_model.pth` and `unet.pth` to an adapter folder, all or nothing.

    Args:
        options: `num_heads` of `dice_to_adapter`.

    Raises:
        ValueError: a file that is missing or damaged; see `dice_to_adapter`; a target that is not empty.
    """
    check_new_folder(target)
    module, unet = (_tensors(source / name, "a DICE-Talk checkpoint") for name in DICE_NAMES)
    _write_adapter(target, *dice_checkpoint.dice_to_adapter(module, unet, **options))


def convert_to_dice(source: Path, target: Path, **options: int) -> None:
    """The inverse of `convert_from_dice`; the authors' code loads both files over its own weights.

    Raises:
        ValueError: see `adapter_to_dice`; a source that is no adapter folder, a target that is not empty.
    """
    check_new_folder(target)
    states = dice_checkpoint.adapter_to_dice(*_read_adapter(source), **options)

    def write(folder: Path) -> None:
        for name, state in zip(DICE_NAMES, states, strict=True):
            torch.save(state, folder / name)

    _write_folder(target, write)


def convert_from_attentionhand(source: Path, target: Path, **config: Any) -> None:
    """A published AttentionHand checkpoint to a folder of diffusers' `ControlNetModel`, all or nothing.

    Args:
        config: see `attentionhand.to_controlnet`.

    Raises:
        ValueError: see `attentionhand.to_controlnet`; a file that is damaged, a target that is not empty.
    """
    check_new_folder(target)
    found = _opened(source, "an AttentionHand checkpoint (.ckpt or .safetensors)")
    state = found.get("state_dict", found) if isinstance(found, dict) else found
    if not _is_group("", state):
        raise UserError(f"{source}: got a {type(state).__name__} with other content; pass AttentionHand's checkpoint")
    model = attentionhand.to_controlnet(state, **config)
    _write_folder(target, lambda folder: model.save_pretrained(folder, safe_serialization=True))


def convert_to_attentionhand(source: Path, target: Path) -> None:
    """The inverse of `convert_from_attentionhand`: a file that the authors' code loads over Stable Diffusion 1.5.

    Raises:
        ValueError: see `attentionhand.from_controlnet`; a source that is no such folder, a target that is not empty.
    """
    check_new_folder(target)
    check_folder(source)
    state = attentionhand.from_controlnet(load_controlnet(source))
    _write_folder(target, lambda folder: torch.save({"state_dict": state}, folder / attentionhand.FILE))


def convert_from_moai(source: Path, target: Path, **options: int) -> None:
    """A folder with the five published files to one with a model per role, all or nothing.

    `options` are `head_dim` and `groups` of `to_denoiser`; `ValueError` as `to_denoiser` and `to_encoder`.
    """
    check_new_folder(target)
    states = {role: _tensors(source / name, "a MoAI checkpoint") for role, name in moai_checkpoint.FILES.items()}
    models: dict[str, Any] = {}
    for role, state in states.items():
        path = source / moai_checkpoint.FILES[role]
        try:
            encoder = role == "correspondence"
            models[role] = (
                moai_checkpoint.to_encoder(state) if encoder else moai_checkpoint.to_denoiser(state, **options)
            )
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error

    def write(folder: Path) -> None:
        for role, model in models.items():
            model.save_pretrained(folder / role, safe_serialization=True)

    _write_folder(target, write)


def convert_from_fastcomposer(source: Path, target: Path, denoiser: nn.Module | None = None) -> None:
    """A published FastComposer checkpoint to an adapter folder with `image_encoder` and `unet` in it, all or nothing.

    `ValueError` as `fastcomposer.to_adapter`, and for a target that is not empty.
    """
    check_new_folder(target)
    groups = _read(source, "a FastComposer checkpoint (.bin or .safetensors)", (fastcomposer.FUSER,), _grouped)
    fastcomposer.check_groups(groups)
    name = fastcomposer.ENCODER
    adapter, state = fastcomposer.to_adapter(groups, f"{target.name}/{name}", denoiser)
    models: dict[str, Any] = {name: fastcomposer.to_encoder(groups[name])}
    if fastcomposer.UNET in groups:
        models[fastcomposer.UNET] = fastcomposer.to_unet(groups[fastcomposer.UNET])
    else:
        logger.warning("%s: got no unet, which was trained with the rest; subjects will be less alike", source)
    _write_adapter(target, adapter, state, models=models)


def _grouped(tensors: Mapping[str, Tensor]) -> Groups:
    groups: Groups = {}
    for name, tensor in tensors.items():
        group, _, key = name.partition(".")
        groups.setdefault(group, {})[key] = tensor
    return groups


def _flat(groups: Groups) -> dict[str, Tensor]:
    """The inverse of `_grouped`."""
    return {f"{group}.{key}": tensor for group, keys in groups.items() for key, tensor in keys.items()}


def _is_group(name: object, group: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(group, dict)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in group.items())
    )


def _read_adapter(folder: Path) -> tuple[Config, dict[str, Tensor]]:
    """Config and state of an adapter folder."""
    check_folder(folder)
    config = {name: value for name, value in read_json(folder / "config.json").items() if not name.startswith("_")}
    try:
        return config, load_file(folder / WEIGHTS_NAME)
    except SafetensorError as error:
        raise UserError(f"{folder}: {WEIGHTS_NAME} is damaged ({error}); copy or convert it again") from error


def _write_adapter(
    target: Path,
    adapter: Adapter,
    state: Mapping[str, Tensor],
    lora: Mapping[str, Tensor] | None = None,
    models: Mapping[str, Any] | None = None,
) -> None:
    """The folder that the adapter itself would save, with a LoRA and models by folder beside it."""

    def write(folder: Path) -> None:
        adapter.register_to_config(_name_or_path="")
        (folder / "config.json").write_text(adapter.to_json_string(), encoding="utf-8")
        save_file(dict(state), folder / WEIGHTS_NAME, metadata={"format": "pt"})
        if lora:
            save_file(dict(lora), folder / LORA_NAME, metadata={"format": "pt"})
        for name, model in (models or {}).items():
            model.save_pretrained(folder / name, safe_serialization=True)

    _write_folder(target, write)


def _write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside the target and move it there when it is complete."""
    with atomic_path(target) as folder:
        folder.mkdir()
        write(folder)
