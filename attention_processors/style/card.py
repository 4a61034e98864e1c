"""Style cards: the keys and values of one style, baked for one backbone. Data only, some tens of kilobytes.

A style's tokens depend on no image, prompt or timestep, so its keys and values are constant per layer. A card holds
these and replaces the module's weights.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError

CARD_VERSION = 1
METADATA_KEY = "weftwork_style_card"
OLD_METADATA_KEY = "weft_style_card"
"""Metadata key in cards of earlier versions."""
PARTS = ("key", "value", "null_key", "null_value")


@dataclass(frozen=True, eq=False)
class StyleCard:
    """One style for one backbone.

    Args:
        base: as in an adapter's config.
        fusion: as in `StyleAdapter`.
        tensors: by layer name key, value, null key and null value, [token, inner] each.
    """

    name: str
    base: Mapping[str, object]
    fusion: str
    tensors: Mapping[str, tuple[Tensor, Tensor, Tensor, Tensor]]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of its tensors, by layer."""
        return {layer: tuple(row[0].shape) for layer, row in self.tensors.items()}

    def save(self, path: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Writes one safetensors file, atomically.

        Args:
            dtype: dtype in the file, for example `torch.float16` for half the size; None keeps it.

        Raises:
            OSError: it cannot be written.
        """
        path = Path(path)
        about = {"version": CARD_VERSION, "name": self.name, "base": dict(self.base), "fusion": self.fusion}
        tensors = {
            f"{part}.{layer}": tensor.detach().to("cpu", dtype).contiguous()
            for layer, row in self.tensors.items()
            for part, tensor in zip(PARTS, row, strict=True)
        }
        with atomic_path(path) as partial:
            save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(about, sort_keys=True)})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a card as float32; files hold tensors and names only, no code; `ValueError` for any other file."""
        try:
            with safe_open(path, framework="pt") as file:
                found = file.metadata() or {}
                text = found.get(METADATA_KEY, found.get(OLD_METADATA_KEY))
                tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: not a readable safetensors file ({error}); cards hold no code and no pickles: save it again "
                "with StyleCard.save"
            ) from error
        if text is None:
            raise UserError(
                f"{path}: got a safetensors file that is not a style card; bake one with adapter.bake(name)"
            )
        return cls._checked(path, text, tensors)

    @classmethod
    def _checked(cls, path: str | Path, text: str, tensors: Mapping[str, Tensor]) -> Self:
        try:
            about = json.loads(text)
            version, name, base, fusion = (about[key] for key in ("version", "name", "base", "fusion"))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: got damaged metadata ({error!r}); save it again") from error
        if version > CARD_VERSION:
            raise UserError(f"{path}: got card version {version}, expected at most {CARD_VERSION}; update weftwork")
        layers = list(dict.fromkeys(key.partition(".")[2] for key in tensors))
        rows = {layer: tuple(tensors.get(f"{part}.{layer}") for part in PARTS) for layer in layers}
        for layer, row in rows.items():
            shapes = {None if tensor is None else tuple(tensor.shape) for tensor in row}
            if len(shapes) != 1 or len(next(iter(shapes)) or ()) != 2:
                raise UserError(f"{path}: {layer} has parts of shapes {shapes}, expected four of one [token, inner]")
            if not all(bool(tensor.isfinite().all()) for tensor in row if tensor is not None):
                raise UserError(f"{path}: {layer} holds NaN or infinite numbers; bake the style again")
        return cls(name, base, fusion, rows)  # pyright: ignore[reportArgumentType]
