"""Base class of adapters: layers, key and value projections, and the folder on disk."""

import logging
import os
import sys
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from diffusers import ConfigMixin, ModelMixin
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter_files import (
    check_config,
    check_folder,
    check_numbers,
    first_of,
    only_variant,
    open_tensors,
    state_sha256,
    weights_name,
)
from weftwork.attention_processors.core.batch import Batch, TensorFields
from weftwork.attention_processors.core.batch_invariant import BatchInvariantLinear
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.conditioning import Encoded
from weftwork.attention_processors.core.families import base_description
from weftwork.attention_processors.core.layers import key_width, own_projections, select_layers
from weftwork.attention_processors.core.processor import attention_layers, check_wrappable, unwrapped
from weftwork.datasets.readers.atomic import write_errors
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.json_object import read_json

logger = logging.getLogger(__name__)

BatchT = TypeVar("BatchT", bound=Batch)
FeaturesT = TypeVar("FeaturesT", bound=TensorFields)

Encoders = Mapping[str, Any]
"""Frozen encoders by name, such as `text`."""

HASHED_PARAMETERS = 50_000_000
"""Maximum size of denoisers whose weights are compared with those that an adapter was trained on."""


class Adapter(ModelMixin, ConfigMixin, Generic[BatchT, FeaturesT]):
    """Base class of a method's trained module; creating one changes no denoiser.

    Training and generation share one path, and `adapter(features)` runs once per generation:

        collate(conditions) -> features(batch, encoders) -> adapter(features) -> Encoded
          typed values          frozen encoders, no_grad     trained               rows of any batch

    A subclass registers `layers` (name to inner width) and `base` in its config, and implements the three.
    """

    condition_type: ClassVar[tuple[type[Condition], ...]]
    """Condition classes of this adapter."""
    keeps_precision: ClassVar[bool] = False
    """True for weights that keep their precision on a denoiser of another one."""

    reads_linear: ClassVar[bool] = False
    """Whether its branches can act in layers of linear attention."""

    @abstractmethod
    def collate(self, conditions: Sequence[Sequence[Any]]) -> BatchT:
        """Returns a batch of tensors on the CPU from the conditions of each design, which may have none."""

    @abstractmethod
    def features(self, batch: BatchT, encoders: Encoders) -> FeaturesT:
        """Returns a batch with the outputs of frozen encoders, which may be cached."""

    @abstractmethod
    def forward(self, features: FeaturesT) -> Encoded:
        """Returns keys and values, or other branches, for every layer."""

    @classmethod
    def for_denoiser(cls, denoiser: nn.Module, *, layers: str | Sequence[str] = "all", **config: object) -> Self:
        """Makes a new adapter for a denoiser, its key and value projections initialised as copies of the layers' own.

        Raises:
            ValueError: `layers` names or matches nothing there, or weights of the layers cannot be read.
        """
        chosen = select_layers(denoiser, layers, cls.reads_linear)
        settings: dict[str, object] = {"layers": chosen, "base": base_description(denoiser), **config}
        adapter = cls(**settings)
        adapter.initialize_from(attention_layers(denoiser))
        adapter.bind(denoiser)
        return adapter

    def own_modules(self) -> Iterator[nn.Module]:
        """Returns all modules but networks that share the denoiser's weights."""
        return self.modules()

    def initialize_from(self, layers: Mapping[str, nn.Module]) -> None:
        """Copies the frozen layers' key and value projections where the widths agree."""

    def bind(self, denoiser: nn.Module) -> None:
        """Prepares for a denoiser whose own modules the adapter uses; called by `for_denoiser` and `attach`."""

    def check_base(self, denoiser: nn.Module) -> None:
        """Raises unless this adapter fits a denoiser; changes nothing.

        Raises:
            ValueError: another family, a layer that is missing, has another width or a processor without branches.
        """
        base, here = self.config["base"] or {"family": "no known model"}, base_description(denoiser)
        if base["family"] != here["family"]:
            raise UserError(
                f"base: got an adapter for {base['family']}, but the denoiser is a {here['family']}; "
                "load one that was trained for it"
            )
        check_wrappable(denoiser, self.config["layers"])
        known = attention_layers(denoiser)
        for name, width in self.config["layers"].items():
            if name not in known:
                raise UserError(
                    f"base: the adapter has keys for {name!r}, which this {here['family']} does not have; "
                    "load an adapter that was trained for this backbone"
                )
            if (here_width := key_width(known[name], name)) != width:
                raise UserError(
                    f"base: got width {width} for {name!r}, but the layer has {here_width}; "
                    "load an adapter that was trained for this backbone"
                )

    def warn_of_other_weights(self, denoiser: nn.Module) -> None:
        """Logs a warning if the denoiser's weights differ from those that this adapter was trained on.

        Large denoisers are not hashed, which would take longer than loading them, nor those whose weights cannot be
        compared: sharded, quantised or not in float32.
        """
        trained_on = (self.config.get("training") or {}).get("base_sha256")
        if trained_on is None or sum(p.numel() for p in denoiser.parameters()) > HASHED_PARAMETERS:
            return
        if not all(type(p) is nn.Parameter and p.dtype == torch.float32 for p in denoiser.parameters()):
            return
        if any(p.is_meta for p in denoiser.parameters()):
            return
        here = state_sha256(unwrapped(denoiser))
        if here != trained_on:
            logger.warning(
                "base: the adapter was trained on weights %s…, the denoiser has %s…; results may differ",
                trained_on[:12],
                here[:12],
            )

    # -- files ---------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """Loads a folder or a repository on the Hub; safetensors only.

        Raises:
            ValueError: a file that is missing, damaged or not safetensors; keys, shapes or numbers that do not fit,
                naming the first; another format version.
        """
        folder = Path(str(pretrained_model_name_or_path))
        if not folder.exists() and len(folder.parts) != 2:  # the parts of an id on the Hub
            raise UserError(f"adapter: got nothing at {str(folder)!r}, expected a folder or OWNER/NAME; check the path")
        if folder.is_dir():
            folder = folder / (kwargs.get("subfolder") or "")
            kwargs["variant"] = kwargs.get("variant") or only_variant(folder)
            check_folder(folder, kwargs["variant"])
        kwargs["use_safetensors"] = True
        expected: Any = (
            read_json(folder / "config.json") if folder.is_dir() else cls.load_config(pretrained_model_name_or_path)
        )
        check_config(folder, expected, cls.__name__)
        if folder.is_dir():
            cls._check_weights(folder / weights_name(kwargs["variant"]), expected)
        adapter = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        adapter.register_to_config(_name_or_path="")  # keep local paths out of saved files
        return adapter

    @classmethod
    def _check_weights(cls, path: Path, config: Mapping[str, object]) -> None:
        """Checks keys, shapes and finite numbers of a file on the meta device, before the adapter is built."""
        try:
            with torch.device("meta"):
                empty: Any = cls.from_config(dict(config))
            wanted = {n: tuple(t.shape) for n, t in empty.state_dict().items()}
        except Exception as error:  # the file may hold values of any type
            raise UserError(
                f"{path.parent}: config.json does not describe a {cls.__name__} ({error}); restore it"
            ) from error
        with open_tensors(path) as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            missing, unexpected = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
            if missing or unexpected:
                raise UserError(
                    f"{path}: {len(missing)} keys are missing (first: {first_of(missing)}) and {len(unexpected)} "
                    f"unexpected (first: {first_of(unexpected)}); the file and config.json do not belong together"
                )
            for name, shape in found.items():
                if shape != wanted[name]:
                    raise UserError(f"{path}: {name} has shape {shape}, config.json asks for {wanted[name]}")
                check_numbers(path, name, file.get_tensor(name))

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:  # pyright: ignore
        """Writes `config.json` and one file of safetensors; the folder has no local paths and is byte-stable.

        Raises:
            ValueError: the name of a file.
            OSError: the folder cannot be written; an earlier one is unchanged.
        """
        target = Path(save_directory)
        if target.is_file():
            raise UserError(f"save_directory: got the file {str(target)!r}, expected a folder; choose another name")
        if kwargs.get("push_to_hub"):
            kwargs.setdefault("repo_id", target.name)
        kwargs |= {"safe_serialization": True, "max_shard_size": sys.maxsize}
        self.register_to_config(_name_or_path="")
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as stage:
            with write_errors(target):
                super().save_pretrained(stage, **kwargs)
                if not self.state_dict():  # diffusers writes no file for nothing
                    save_file({}, Path(stage) / weights_name(kwargs.get("variant")))
            target.mkdir(exist_ok=True)
            for path in sorted(Path(stage).iterdir()):
                os.replace(path, target / path.name)


class KeyValueAdapter(Adapter[BatchT, FeaturesT]):
    """Base class of adapters with trained key and value projections at every layer (decoupled attention)."""

    def make_projections(self, layers: Mapping[str, int], token_dim: int, rank: int = 0, *, bias: bool = False) -> None:
        """Makes one key and one value projection per layer, named in the state dict by the layer.

        Args:
            rank: 0 for full matrices, else their rank.
            bias: of full matrices.
        """
        widths = {name.replace(".", "-"): width for name, width in layers.items()}

        def projection(width: int) -> nn.Module:
            if not rank:
                return BatchInvariantLinear(token_dim, width, bias=bias)
            return nn.Sequential(
                BatchInvariantLinear(token_dim, rank, bias=False), BatchInvariantLinear(rank, width, bias=False)
            )

        def projections() -> nn.ModuleDict:
            return nn.ModuleDict({slot: projection(width) for slot, width in widths.items()})

        self.to_key, self.to_value = projections(), projections()

    def initialize_from(self, layers: Mapping[str, nn.Module]) -> None:
        for name in self.config["layers"]:
            slot, (key, value) = name.replace(".", "-"), own_projections(layers[name], name)
            _start_from(self.to_key[slot], key)
            _start_from(self.to_value[slot], value)

    def project(self, tokens: Float[Tensor, "design part token dim"]) -> dict[str, tuple[Tensor, Tensor]]:
        """Projects the tokens of all parts to keys and values by layer, [design, part * token, inner] each.

        Batch-invariant per part; see `BatchInvariantLinear` for the limits.
        """
        items, designs = tokens.flatten(0, 1).contiguous(), tokens.shape[0]  # other strides change bits

        def projected(projections: nn.ModuleDict, name: str) -> Float[Tensor, "design token inner"]:
            return projections[name.replace(".", "-")](items).unflatten(0, (designs, -1)).flatten(1, 2)

        return {name: (projected(self.to_key, name), projected(self.to_value, name)) for name in self.config["layers"]}


@torch.no_grad()
def _start_from(own: Any, frozen: Float[Tensor, "inner context"]) -> None:
    """Initialises with the frozen matrix, or its best approximation of lower rank, where the widths agree."""
    if isinstance(own, nn.Linear):
        if own.weight.shape == frozen.shape:
            own.weight.copy_(frozen)
        return
    down, up = own
    if (up.weight.shape[0], down.weight.shape[1]) == frozen.shape and not frozen.is_meta:
        left, values, right = torch.linalg.svd(frozen.float(), full_matrices=False)
        root, rank = values.sqrt(), down.weight.shape[0]
        up.weight.copy_(left[:, :rank] * root[:rank])
        down.weight.copy_(root[:rank, None] * right[:rank])
