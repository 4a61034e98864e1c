"""`Method` records and the registry of all methods, installed packages included."""

import functools
import importlib
import logging
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final, Literal

from weftwork.datasets.readers.errors import UserError

logger = logging.getLogger(__name__)

GROUP: Final = "weftwork.methods"
"""The entry point group in which other packages register their methods."""

SHARED: Final = ("core", "encoders")
"""Folders that are not methods."""
OPEN_CONDITIONED: Final = "weftwork.pipelines.core.opening:open_conditioned"
"""Default of `Method.pipeline`."""


@dataclass(frozen=True)
class Method:
    """One conditioning method as commands, pipelines and the demo see it.

    Classes and functions are given as `"package.module:name"` and imported on first use, so that listing all methods
    imports neither torch nor diffusers.

    Args:
        name: name of the method in commands, design files and shipped models, for example "paired".
        summary: one line for listings.
        adapters: `Adapter` classes; the first is the one that training makes.
        conditions: `Condition` classes.
        modalities: kinds of denoisers that the conditions can be about.
        pipeline: function that opens a folder or Hub id of a backbone as a pipeline.
        trainer: `Trainer` class; None for a method that cannot be trained.
        evaluation: `Measurement`; None for a method without an evaluation.
        validation: by synthetic dataset, for `weftwork train --validation_cases`: function of a pipeline and trained
            module that returns the `Evaluation` of unseen cases, its row, and options of training that it takes too.
        demo_page: class of a page of the demo; None shows a form made from the fields of the conditions.
        example: function of a denoiser that returns an `Example`, which `weftwork benchmark backbones --check` runs on
            all families of denoisers.
        trained: False for a method without weights, whose adapter is made for the denoiser by `for_denoiser`.
        acts_on: what of a denoiser's call the conditions change: "attention", "prompt" (its embeddings) or "latents".
        exports: names beside adapters and conditions that `weftwork.attention_processors` exports.
        usage: Python lines of a model card, imports first, that use a pipeline `pipe` with the trained adapter.
    """

    name: str
    summary: str
    adapters: tuple[str, ...]
    conditions: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("image", "video", "audio")
    pipeline: str = OPEN_CONDITIONED
    trainer: str | None = None
    evaluation: str | None = None
    validation: Mapping[str, tuple[str, str, *tuple[str, ...]]] = field(default_factory=dict, hash=False)
    demo_page: str | None = None
    example: str | None = None
    trained: bool = True
    acts_on: Literal["attention", "prompt", "latents"] = "attention"
    exports: tuple[str, ...] = ()
    usage: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """Its name in Python and in options."""
        return self.name.replace("-", "_")

    @property
    def opens_itself(self) -> bool:
        """Whether the method has a pipeline of its own."""
        return self.pipeline != OPEN_CONDITIONED

    def snippet(self, base: str, adapter: str) -> str:
        """Returns the Python text of a model card that opens a backbone with the trained adapter and uses it.

        Args:
            base, adapter: expressions of the folders or Hub ids.
        """
        module, _, opener = self.pipeline.partition(":")
        imports = [line for line in self.usage if line.startswith("from ")]
        if "shipped(" in f"{base}{adapter}":
            imports.append("from weftwork.pretrained import shipped")
        imports.append(f"from {module} import {opener.partition('.')[0]}")
        made = [f"pipe = {opener}({base})", f'pipe.load_adapter({adapter}, "{self.option}")']
        calls = [line for line in self.usage if not line.startswith("from ")]
        return "\n".join([*sorted(imports), "", *made, *calls, ""])


@cache
def own_methods() -> Mapping[str, Method]:
    """Returns the methods of this package's folders by name; a folder is one if its `__init__` has `METHOD`.

    Raises:
        ValueError: two methods of one name.
    """
    found: dict[str, Method] = {}
    package = importlib.import_module(__name__.removesuffix(".core.method"))
    for folder in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if folder.ispkg and folder.name.rpartition(".")[2] not in SHARED:
            _add(found, getattr(importlib.import_module(folder.name), "METHOD", None), folder.name)
    return found


@cache
def methods() -> Mapping[str, Method]:
    """Returns all methods by name: those of this package's folders, then those of installed packages.

    Raises:
        ValueError: two methods of one name.
    """
    found = dict(own_methods())
    for entry in entry_points(group=GROUP):
        try:
            method = entry.load()
        except Exception as error:  # an error of one installed package must not break the other methods
            logger.warning(
                "%s: entry point %r cannot be loaded (%s); update or remove the package", GROUP, entry, error
            )
            continue
        _add(found, method, entry.value)
    return found


def _add(found: dict[str, Method], method: object, source: str) -> None:
    if not isinstance(method, Method):
        return
    if method.name in found:
        raise UserError(f"method: got {method.name!r} from {source}, which is registered already; rename one of them")
    found[method.name] = method


def load(path: str) -> Any:
    """Imports the object at `"package.module:name"` or `"package.module:Class.name"`."""
    module, _, name = path.partition(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def adapter_path(class_name: str) -> str | None:
    """Returns the path of a registered adapter class, as its folder's `config.json` names it."""
    return next((p for m in methods().values() for p in m.adapters if p.partition(":")[2] == class_name), None)


def method_of(class_name: str) -> Method | None:
    """Returns the method of a registered adapter class."""
    return next((one for one in methods().values() if adapter_path(class_name) in one.adapters), None)
