"""Files of adapters: their names, what is checked before they are loaded, and hashes of weights."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from weftwork.datasets.readers.errors import UserError

FORMAT_VERSION = 1
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def state_sha256(module: nn.Module) -> str:
    """Returns the SHA-256 over names and bytes of a module's weights; of sharded ones, over this process's shards.

    LoRAs that PEFT has added do not count: the weights below them are the same.
    """
    digest = hashlib.sha256()
    own = {name.replace(".base_layer", ""): t for name, t in module.state_dict().items() if ".lora_" not in name}
    for name, tensor in sorted(own.items()):
        digest.update(name.encode())
        for here in _plain(tensor.to_local() if isinstance(tensor, DTensor) else tensor):
            digest.update(here.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain(tensor: Any) -> Iterator[Tensor]:
    """Yields the tensors that a quantised one of torchao is made of, or a plain one itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _plain(getattr(tensor, name))


def weights_name(variant: str | None = None) -> str:
    """Name of the file of weights, of a variant as in diffusers ("fp16")."""
    stem, suffix = WEIGHTS_NAME.rsplit(".", 1)
    return f"{stem}.{variant}.{suffix}" if variant else WEIGHTS_NAME


def only_variant(folder: Path) -> str | None:
    """Returns the variant of a folder that has no other weights."""
    found = sorted(folder.glob(weights_name("*")))
    return found[0].name.split(".")[1] if len(found) == 1 and not (folder / WEIGHTS_NAME).exists() else None


def check_folder(folder: Path, variant: str | None = None) -> None:
    """Raises unless a folder has the two files of an adapter.

    Raises:
        ValueError: names the missing file and the files that are there.
    """
    for name in ("config.json", weights_name(variant)):
        if not (folder / name).is_file():
            here = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) if folder.is_dir() else "no such folder"
            raise UserError(
                f"{folder}: {name} is missing (found: {here or 'an empty folder'}); weftwork loads safetensors only, "
                "`weftwork convert` turns other formats into it"
            )


def check_config(folder: Path, config: Mapping[str, Any], expected: str) -> None:
    """Raises unless a folder's config is of this class, in a format that this version reads.

    Raises:
        ValueError: another class, or a newer format.
    """
    odd = next((key for key in config if not str(key).isidentifier()), None)
    if odd is not None:
        raise UserError(f"{folder}: got the key {odd!r} in config.json, expected names of options; restore the file")
    name = config.get("_class_name")
    if name not in (None, expected):
        raise UserError(f"{folder}: got a {name}, expected a {expected}; load it with {name}.from_pretrained")
    version = config.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:
        raise UserError(f"{folder}: got format version {version}, expected at most {FORMAT_VERSION}; update weftwork")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file.

    Raises:
        ValueError: a file that is missing or damaged, or numbers that are not finite.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; the folder is incomplete: copy or download it again")
    with open_tensors(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        check_numbers(path, name, tensor)
    return tensors


def check_numbers(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise UserError(
            f"{path}: {name} has dtype {tensor.dtype}, expected one of {', '.join(map(str, DTYPES))}; convert it"
        )
    if not bool(tensor.isfinite().all()):
        raise UserError(f"{path}: {name} holds NaN or infinite numbers; train or download it again")


def open_tensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); it is damaged or of another format: "
            "copy or convert it again"
        ) from error


def first_of(names: Iterable[str]) -> str:
    return next(iter(names), "none")
