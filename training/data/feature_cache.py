"""On-disk cache of frozen-encoder outputs, keyed by the encoder and the content."""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

IN_MEMORY = 4096
"""Rows kept in memory."""
SAMPLED = 64
"""Values of each weight that the key of an encoder is computed from."""

Rows = Mapping[str, Float[Tensor, "row *size"]]


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

    def rows(
        self, contents: Sequence[bytes], encode: Callable[[list[int]], Rows], kind: Any = None
    ) -> dict[str, Tensor]:
        """Returns the features of all contents, stacked.

        Args:
            encode: computes the features of the contents at the given indices.
            kind: contents of one kind have features of equal size; for `DryCache`.
        """
        found = self.found(contents, encode)
        return {key: torch.stack([row[key] for row in found]) for key in found[0]}

    def found(
        self, contents: Sequence[bytes], encode: Callable[[list[int]], Mapping[str, Tensor | Sequence[Tensor]]]
    ) -> list[dict[str, Tensor]]:
        """Returns the features of each content, which may differ in size."""
        names = [hashlib.sha256(content).hexdigest()[:32] for content in contents]
        found = {name: self._read(name) for name in dict.fromkeys(names)}
        missing = [names.index(name) for name, row in found.items() if row is None]
        if missing:
            made = encode(missing)
            for position, index in enumerate(missing):
                row = {key: values[position].detach().cpu().contiguous() for key, values in made.items()}
                self._write(names[index], row)
                found[names[index]] = row
        complete: Any = found
        return [complete[name] for name in names]

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
        self._held[name] = row
        if len(self._held) > IN_MEMORY:
            self._held.popitem(last=False)


class DryCache(FeatureCache):
    """Cache for dry runs: encodes the first content of each kind, uses it for all others, and writes nothing."""

    def __init__(self) -> None:
        self._rows: dict[Any, dict[str, Tensor]] = {}

    def rows(
        self, contents: Sequence[bytes], encode: Callable[[list[int]], Rows], kind: Any = None
    ) -> dict[str, Tensor]:
        if kind not in self._rows:
            self._rows[kind] = {key: values.detach().cpu() for key, values in encode([0]).items()}
        return {key: row.expand(len(contents), *row.shape[1:]) for key, row in self._rows[kind].items()}


class CachedTextEncoders(TextEncoders):
    """Text encoders with a cache."""

    def __init__(self, encoders: TextEncoders, folder: Path) -> None:
        super().__init__(encoders.tokenizers, encoders.models, encoders.device)
        self.cache = FeatureCache(folder, encoder_key("text", *encoders.models))

    def pooled(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        def encode(places: list[int]) -> Rows:
            return {"vector": TextEncoders.pooled(self, [texts[place] for place in places])}

        return self.cache.rows([f"pooled {text}".encode() for text in texts], encode)["vector"].to(self.device)

    def tokens(
        self, texts: Sequence[str], length: int
    ) -> tuple[Float[Tensor, "text token dim"], Bool[Tensor, "text token"]]:
        def encode(places: list[int]) -> Rows:
            states, mask = TextEncoders.tokens(self, [texts[place] for place in places], length)
            return {"states": states, "mask": mask}

        rows = self.cache.rows([f"tokens {length} {text}".encode() for text in texts], encode)
        return rows["states"].to(self.device), rows["mask"].to(self.device)


class CachedSketchEncoder(SketchEncoder):
    """A sketch encoder with a cache."""

    def __init__(self, encoder: SketchEncoder, folder: Path) -> None:
        super().__init__(encoder.model, encoder.mean, encoder.std)
        self.cache = FeatureCache(folder, encoder_key(f"sketch {encoder.mean} {encoder.std}", encoder.model))

    def __call__(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image token dim"]:
        def encode(places: list[int]) -> Rows:
            return {"states": SketchEncoder.__call__(self, images[places])}

        contents = [one.detach().cpu().contiguous().numpy().tobytes() for one in images]
        return self.cache.rows(contents, encode)["states"].to(next(self.model.parameters()).device)


def cached(encoders: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Adds caches to the encoders that support one."""
    made: dict[str, Any] = dict(encoders)
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
        content = f"{sample_rate} ".encode() + audio.tobytes()
        return self.cache.rows([content], lambda _: {"embeds": self.encoder(audio, sample_rate)[None]})["embeds"][0]


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
