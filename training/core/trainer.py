"""The base of trainers: options, checks, task and data of one method, for `weftwork train`."""

import argparse
from abc import ABC
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from weftwork.attention_processors.core.method import load
from weftwork.datasets.drawings.sets import TARBALLS
from weftwork.datasets.readers.errors import UserError
from weftwork.pretrained import DEFAULT_MODEL, backbone_of
from weftwork.training.core.config import ConfigT, from_arguments
from weftwork.training.core.config import add_arguments as add_config_arguments

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch.utils.data import Dataset

    from weftwork.datasets.drawings.rendered import RenderedDrawings
    from weftwork.training.core.task import AnyTask
    from weftwork.training.core.validation import Part

DRAWINGS: Final = "drawings"
"""The synthetic dataset made of drawings by others."""

BACKBONES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("outfits", "people", "hands"), "tiny-diffusion"),
    DRAWINGS: "tiny-drawings",
}
"""Shipped backbones of synthetic datasets, unless one is named."""


@dataclass(frozen=True)
class Groups:
    """Option groups of all methods, to which a trainer adds its own options."""

    model: "argparse._ArgumentGroup"
    data: "argparse._ArgumentGroup"


@dataclass(frozen=True)
class Prepared:
    """A task with its dataset.

    Args:
        provenance: saved in the config of the result, with steps, batch size and seed.
        held_out: samples of the validation loss.
    """

    task: "AnyTask"
    data: "Dataset[Any]"
    provenance: Mapping[str, object]
    held_out: "Part[Any] | None" = None


@dataclass(frozen=True)
class NoOptions:
    """No options."""


class Trainer(ABC):
    """Trains one method.

    Importing a trainer's module should load no library, so that `--help` is fast.

    Args:
        arguments: parsed options, including those of `add_arguments`.
    """

    options: ClassVar[type]
    """Dataclass of the objective's options, which become flags."""
    options_title: ClassVar[str] = "objective and dropout"
    model_options: ClassVar[type] = NoOptions
    """Dataclass of options of a new adapter."""
    also_with_init_from: ClassVar[Sequence[str]] = ()
    """Those of them that have an effect with --init_from too."""
    data_options: ClassVar[type] = NoOptions
    """Dataclass of further options of the data."""
    preparation: ClassVar[str]
    """`"package.module:name"` of a function of the trainer and the pipeline, for `prepare`."""
    folder: ClassVar[str] = "folder of your own data"
    """Help of --train_data_dir."""
    backbone: ClassVar[str] = DEFAULT_MODEL
    """Shipped backbone of own data and of datasets without one in `BACKBONES`."""
    synthetic_datasets: ClassVar[Sequence[str]] = ()
    """Synthetic datasets, the choices of --synthetic; without any there is no such option."""
    samples: ClassVar[int] = 0
    """Default size of a synthetic dataset."""
    sources: ClassVar[Sequence[str]] = ("train_data_dir", "synthetic")
    """Options of which exactly one names the data."""
    own_only: ClassVar[Sequence[str]] = ()
    """Options without effect on a synthetic dataset."""
    synthetic_only: ClassVar[Sequence[str]] = ()
    """Options without effect on user data."""
    without_effect: ClassVar[Sequence[str]] = ()
    """Options of all methods without effect on this one."""
    shards: ClassVar[bool] = True
    """True if FSDP may shard the backbone."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments

    @property
    def default_backbone(self) -> str:
        """The shipped backbone unless one is named: of a shipped --init_from, else of the data."""
        start = self.arguments.init_from
        return (start and backbone_of(start)) or BACKBONES.get(self.synthetic or "", self.backbone)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, groups: Groups) -> None:
        """Adds the options of this method."""
        add_config_arguments(groups.model, cls.model_options)
        groups.data.add_argument("--train_data_dir", type=Path, help=cls.folder)
        if cls.synthetic_datasets:
            groups.data.add_argument(
                "--synthetic", choices=cls.synthetic_datasets, help="train on a synthetic dataset instead"
            )
            groups.data.add_argument("--samples", type=int, default=cls.samples, help="size of the synthetic dataset")
        if DRAWINGS in cls.synthetic_datasets:
            groups.data.add_argument(
                "--drawings",
                type=Path,
                help=f"of --synthetic {DRAWINGS}: SVG files, or npm tarballs (default: {TARBALLS})",
            )
        add_config_arguments(groups.data, cls.data_options)
        add_config_arguments(parser.add_argument_group(cls.options_title), cls.options)

    def check(self) -> None:
        """Validates the options before anything is loaded.

        Raises:
            ValueError: an option out of its range, options without effect, or not exactly one source of data.
        """
        self.read(self.options)
        self._check_model()
        sources = [f"--{name}" for name in self.sources if hasattr(self.arguments, name)]
        given = [f"--{name}" for name in self.sources if getattr(self.arguments, name, None) is not None]
        if len(given) != 1:
            raise UserError(f"data: got {' and '.join(given) or 'none'}; pass exactly one of {', '.join(sources)}")
        where, idle = f"a synthetic dataset of {self.arguments.method}", self.own_only
        if self.synthetic is None:
            where, idle = f"own data of {self.arguments.method}", self.synthetic_only
            if getattr(self.arguments, "samples", self.samples) != self.samples:
                idle = (*idle, "samples")
        if not 0 <= self.arguments.validation_split < 1:
            raise UserError(
                f"validation_split: got {self.arguments.validation_split}, expected a share in [0, 1); lower it"
            )
        for name in (*idle, *self.without_effect):
            if getattr(self.arguments, name, None):
                raise UserError(f"{name}: has no effect with {where}; leave it out")
        if self.synthetic != DRAWINGS and getattr(self.arguments, "drawings", None):
            raise UserError(f"drawings: has no effect without --synthetic {DRAWINGS}; leave it out")

    def _check_model(self) -> None:
        if not self.arguments.init_from:
            if hasattr(self.arguments, "image_encoder") and not self.arguments.image_encoder:
                raise UserError(
                    "image_encoder: got none; name a CLIP vision model, for example openai/clip-vit-large-patch14"
                )
            return
        for entry in fields(self.model_options):
            given = getattr(self.arguments, entry.name)
            if given != entry.default and entry.name not in self.also_with_init_from:
                raise UserError(
                    f"{entry.name}: got {given} beside --init_from, expected none, since it is an option of a new "
                    "adapter; leave one of them out"
                )

    def prepare(self, pipe: "DiffusionPipeline") -> Prepared:
        """Returns the task and its data for a frozen pipeline of the method's backbone, on its device.

        `--validation_split` holds some of the data out; `ValueError` if it cannot.
        """
        prepared: Prepared = load(self.preparation)(self, pipe)
        if not self.arguments.validation_split:
            return prepared
        from weftwork.training.core.validation import split

        data, held_out = split(prepared.data, self.arguments.validation_split)
        return replace(prepared, data=data, held_out=held_out)

    def shown(self, data: "Dataset[Any]", count: int) -> list[int]:
        """Returns the indices of the samples that validation shows: held-out ones if there are some, else the first."""
        from weftwork.training.core.validation import held_out

        return (held_out(data, self.arguments.validation_split) or list(range(len(cast(Sized, data)))))[:count]

    def read(self, config: type[ConfigT]) -> ConfigT:
        """Returns the options of a dataclass."""
        return from_arguments(config, self.arguments)

    @property
    def synthetic(self) -> str | None:
        """Name of the synthetic dataset to train on, if any."""
        return getattr(self.arguments, "synthetic", None)

    def rendered(self) -> "RenderedDrawings":
        """Returns the drawings of `--drawings`, rendered once."""
        from weftwork.datasets.drawings.rendered import open_rendered

        return open_rendered(self.arguments.drawings or TARBALLS, self.arguments.cache_dir)

    @property
    def data_name(self) -> str:
        """Name of the training data for model cards."""
        return self.synthetic or getattr(self.arguments, "dataset_name", None) or self.arguments.train_data_dir.name
