"""Identity of a generated image: all that made it, as digests, so that a folder is never taken for another's."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from weftwork.attention_processors.core.condition import Condition
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.folders import files_below
from weftwork.pipelines.designs.design import Design
from weftwork.pretrained import adapters_of, located, model_folder, shipped

WHOLE_BYTES: Final = 64_000_000
SAMPLES: Final = 256
SAMPLE_BYTES: Final = 4096
"""Larger files are sampled, since a model has many of them: training changes all of a file."""
PACKAGES: Final = ("weftwork", "diffusers", "torch")


def identity(
    design: Design, model: str | Path, adapters: Mapping[str, Path], image_encoder: str | Path | None = None
) -> dict[str, str]:
    """Returns a digest of each input of an image beside the numbers of its design; the arguments are those of
    `open_pipeline`.

    Raises:
        ValueError: a path with nothing there.
    """
    ready = adapters_of(model)
    own = {name: ready[name] for name in design.conditions if name in ready and name not in adapters}
    found = {
        "model": path_digest(model_folder(model), "model"),
        "conditions": content_digest(design.conditions),
        "versions": _digest(*(f"{name} {version(name)}".encode() for name in PACKAGES)),
    }
    for name in ("images", "image", "mask_image"):
        if value := getattr(design, name):
            found[name] = content_digest(value)
    for name, path in {**adapters, **{name: shipped(one) for name, one in own.items()}}.items():
        found[f"adapter {name}"] = path_digest(located(path), f"adapter {name}")
    for index, lora in enumerate(design.loras):
        found[f"lora {index + 1}"] = path_digest(Path(lora.lora), "lora")
    for index, control in enumerate(design.controlnets):
        found[f"controlnet {index + 1}"] = path_digest(Path(control.controlnet), "controlnet")
        found[f"image of controlnet {index + 1}"] = content_digest(control.image)
    if image_encoder is not None:
        local = Path(image_encoder).exists()
        digest = path_digest(Path(image_encoder), "image_encoder") if local else content_digest(image_encoder)
        found["image_encoder"] = digest
    return found


def path_digest(path: Path, name: str) -> str:
    """Digests the files at a path: their names, sizes and bytes, of large ones samples; `ValueError` for nothing."""
    if not path.exists():
        raise UserError(f"{name}: got {str(path)!r}, where nothing is; check the path")
    files = files_below(path) if path.is_dir() else [path]
    return _digest(*(part for one in files for part in _sampled(one, path)))


def _sampled(file: Path, root: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    yield f"{file.relative_to(root)} {size}".encode()
    if size <= WHOLE_BYTES:
        yield file.read_bytes()
        return
    with file.open("rb") as opened:
        for place in range(SAMPLES):
            opened.seek(place * max(size - SAMPLE_BYTES, 0) // (SAMPLES - 1))
            yield opened.read(SAMPLE_BYTES)


def content_digest(value: object) -> str:
    """Digests conditions: their fields, and the pixels of their images."""
    return _digest(*_parts(value))


def _parts(value: object) -> Iterator[bytes]:
    if isinstance(value, Image.Image):
        yield f"{value.mode} {value.size}".encode()
        yield value.tobytes()
    elif isinstance(value, np.ndarray | torch.Tensor):
        array = np.ascontiguousarray(value)
        yield f"{array.dtype} {array.shape}".encode()
        yield array.tobytes()
    elif is_dataclass(value) and isinstance(value, Condition):
        yield type(value).__name__.encode()
        for one in fields(value):
            yield one.name.encode()
            yield from _parts(getattr(value, one.name))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield str(key).encode()
            yield from _parts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _parts(one)
    else:
        yield repr(value).encode()


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]
