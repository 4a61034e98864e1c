"""On-disk cache of frozen-encoder outputs, keyed by the encoder and the content."""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weftwork.attention_processors.encoders import SketchEncoder, TextEncoders
from weftwork.datasets.readers.atomic import atomic_path

if TYPE_CHECKING:
    from weftwork.attention_processors.encoders.audio import ClapEncoder

logger = logging.getLogger(__name__)

IN_MEMORY = 2**30
"""Bytes of rows that a cache keeps in memory."""
SAMPLED = 64
"""Values of each weight that the key of an encoder is computed from."""

T = TypeVar("T")
Rows = Mapping[str, Float[Tensor, "row *size"]]
Ragged = Mapping[str, Tensor | Sequence[Tensor]]
"""Features by name, one tensor per row."""


class FeatureCache:
    """Rows of features, one safetensors file each, named by a digest of the encoded content.

    Damaged files are computed again. Several processes may share a folder, since files are written atomically.

    Args:
        folder: of all caches.
        key: identifies the encoder; see `encoder_key`.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / key
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._bytes = 0

    def rows(
        self,
        items: Sequence[T],
        content: Callable[[T], bytes],
        encode: Callable[[list[T]], Rows],
        kind: Hashable = None,
    ) -> dict[str, Tensor]:
        """Returns the features of all items, stacked.

        Args:
            content: what an item is known by.
            encode: computes the features of some items.
            kind: items of one kind have features of equal size; for `DryCache`.
        """
        found = self.found(items, content, encode)
        return {key: torch.stack([row[key] for row in found]) for key in found[0]}

    def found(
        self, items: Sequence[T], content: Callable[[T], bytes], encode: Callable[[list[T]], Ragged]
    ) -> list[dict[str, Tensor]]:
        """Returns the features of each item, which may differ in size."""
        names = [hashlib.sha256(content(one)).hexdigest()[:32] for one in items]
        found = {name: row for name in names if (row := self._read(name)) is not None}
        missing = {name: one for name, one in zip(names, items, strict=True) if name not in found}
        if missing:
            made = encode(list(missing.values()))
            for position, name in enumerate(missing):
                found[name] = {key: values[position].detach().cpu().contiguous() for key, values in made.items()}
                self._write(name, found[name])
        return [found[name] for name in names]

    def _read(self, name: str) -> dict[str, Tensor] | None:
        if name in self._held:
            self._held.move_to_end(name)
            return self._held[name]
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            return None
        try:
            row = load_file(path)
        except (SafetensorError, OSError) as error:
            logger.warning("%s: cannot be read (%s); encoding again", path, error)
            return None
        self._hold(name, row)
        return row

    def _write(self, name: str, row: dict[str, Tensor]) -> None:
        path = self.folder / f"{name}.safetensors"
        with atomic_path(path) as partial:
            save_file(row, partial)
        self._hold(name, row)

    def _hold(self, name: str, row: dict[str, Tensor]) -> None:
        """Keeps a row in memory, in place of those used longest ago."""
        self._held[name] = row
        self._bytes += _size(row)
        while self._bytes > IN_MEMORY:
            self._bytes -= _size(self._held.popitem(last=False)[1])


def _size(row: Mapping[str, Tensor]) -> int:
    return sum(values.nbytes for values in row.values())


class DryCache(FeatureCache):
    """Cache for dry runs: encodes the first content of each kind, uses it for all others, and writes nothing."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, dict[str, Tensor]] = {}

    def rows(
        self,
        items: Sequence[T],
        content: Callable[[T], bytes],
        encode: Callable[[list[T]], Rows],
        kind: Hashable = None,
    ) -> dict[str, Tensor]:
        if kind not in self._rows:
            self._rows[kind] = {key: values.detach().cpu() for key, values in encode([items[0]]).items()}
        return {key: row.expand(len(items), *row.shape[1:]) for key, row in self._rows[kind].items()}


class CachedTextEncoders(TextEncoders):
    """Text encoders with a cache."""

    def __init__(self, encoders: TextEncoders, folder: Path) -> None:
        super().__init__(encoders.tokenizers, encoders.models, encoders.device)
        self.cache = FeatureCache(folder, encoder_key("text", *encoders.models))

    def pooled(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        plain = super().pooled
        rows = self.cache.rows(texts, lambda text: f"pooled {text}".encode(), lambda some: {"vector": plain(some)})
        return rows["vector"].to(self.device)

    def tokens(
        self, texts: Sequence[str], length: int
    ) -> tuple[Float[Tensor, "text token dim"], Bool[Tensor, "text token"]]:
        plain = super().tokens

        def encode(some: list[str]) -> Rows:
            return dict(zip(("states", "mask"), plain(some, length), strict=True))

        rows = self.cache.rows(texts, lambda text: f"tokens {length} {text}".encode(), encode)
        return rows["states"].to(self.device), rows["mask"].to(self.device)


class CachedSketchEncoder(SketchEncoder):
    """A sketch encoder with a cache."""

    def __init__(self, encoder: SketchEncoder, folder: Path) -> None:
        super().__init__(encoder.model, encoder.mean, encoder.std)
        self.cache = FeatureCache(folder, encoder_key(f"sketch {encoder.mean} {encoder.std}", encoder.model))

    def __call__(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image token dim"]:
        plain = super().__call__
        rows = self.cache.rows(list(images), tensor_bytes, lambda some: {"states": plain(torch.stack(some))})
        return rows["states"].to(next(self.model.parameters()).device)


def tensor_bytes(values: Tensor) -> bytes:
    """Returns the values of a tensor, as content of a cache."""
    return values.detach().cpu().contiguous().numpy().tobytes()


def cached(encoders: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Adds caches to the encoders that support one."""
    made = dict(encoders)
    for name, encoder in encoders.items():
        if isinstance(encoder, TextEncoders):
            made[name] = CachedTextEncoders(encoder, folder)
        elif isinstance(encoder, SketchEncoder):
            made[name] = CachedSketchEncoder(encoder, folder)
    return made


class CachedClapEncoder:
    """CLAP audio encoder with a cache."""

    def __init__(self, encoder: "ClapEncoder", folder: Path, *, dry: bool = False) -> None:
        self.encoder = encoder
        self.cache = feature_cache(folder, encoder_key(f"clap {encoder.settings}", encoder.model), dry=dry)

    def __call__(self, audio: Float[np.ndarray, "channel sample"], sample_rate: int) -> Float[Tensor, " dim"]:
        def encode(_: list[bytes]) -> Rows:
            return {"embeds": self.encoder(audio, sample_rate)[None]}

        return self.cache.rows([f"{sample_rate} ".encode() + audio.tobytes()], bytes, encode)["embeds"][0]


def feature_cache(folder: Path, key: str, *, dry: bool) -> FeatureCache:
    """Creates a cache, for dry runs one that writes nothing."""
    return DryCache() if dry else FeatureCache(folder, key)


def encoder_key(what: str, *models: nn.Module) -> str:
    """Digest of an encoder's kind, weights and precision."""
    digest = hashlib.sha256(what.encode())
    for model in models:
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            step = max(1, tensor.numel() // SAMPLED)
            digest.update(tensor.detach().flatten()[::step].cpu().double().numpy().tobytes())
    return digest.hexdigest()[:24]
