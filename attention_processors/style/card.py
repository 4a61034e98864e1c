"""Style cards: the keys and values of one style, baked for one backbone. Data only, some tens of kilobytes.

A style's tokens depend on no picture, prompt or time, so what the trained module computes for it is constant per layer.
A card holds that; the module's weights are not needed any more.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError

CARD_VERSION = 1
METADATA_KEY = "weftwork_style_card"
OLD_METADATA_KEY = "weft_style_card"
"""In cards of earlier versions."""
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
    base: Mapping[str, Any]
    fusion: str
    tensors: Mapping[str, tuple[Tensor, Tensor, Tensor, Tensor]]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By layer the shape of its parts."""
        return {layer: tuple(row[0].shape) for layer, row in self.tensors.items()}

    def save(self, path: str | Path, dtype: torch.dtype | None = None) -> Path:
        """One safetensors file, whole or not at all.

        Args:
            dtype: of the numbers in the file, for example `torch.float16` for half the size; None keeps theirs.

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
            try:
                save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(about, sort_keys=True)})
            except SafetensorError as error:
                raise OSError(f"{path}: the card cannot be written ({error}); make room or choose another") from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a card, in float32 whatever the file has; nothing but numbers and names is in it.

        Raises:
            ValueError: no safetensors file, no card, or one that is damaged.
        """
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
            raise UserError(f"{path}: got a safetensors file that is no style card; bake one with adapter.bake(name)")
        return cls._checked(path, text, tensors)

    @classmethod
    def _checked(cls, path: str | Path, text: str, tensors: Mapping[str, Tensor]) -> Self:
        try:
            about = json.loads(text)
            version, name, base, fusion = (about[key] for key in ("version", "name", "base", "fusion"))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: what the card says of itself is damaged ({error!r}); save it again") from error
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
