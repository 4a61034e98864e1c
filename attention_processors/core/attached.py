"""Attached adapters as one pipeline component, which is saved, moved and offloaded like any other."""

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import nn

from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.batch import Batch
from weftwork.attention_processors.core.conditioning import Encoded
from weftwork.attention_processors.core.frozen_weights import computing
from weftwork.attention_processors.core.method import adapter_path, load, methods
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.json_object import read_json

DOTTED = ".adapter"
OUR_NAMES = ("weftwork", "weft")
"""Names of this package, earlier ones included: folders saved under these still load."""


class AttachedAdapters(ModelMixin, ConfigMixin):
    """Mapping of attached adapters by name, in the order of attaching.

    On disk: `config.json` with the class of each, and one adapter folder per name.
    """

    _skip_layerwise_casting_patterns = (r"\.roles\.",)
    """Networks with weights of the denoiser, which are cast as it is."""

    def __init__(self, adapters: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        given = dict(adapters or {})
        self._modules_by_name = nn.ModuleDict({n: a for n, a in given.items() if isinstance(a, nn.Module)})
        if next(self.parameters(), None) is None:  # hooks of offloading look at the first parameter
            self.place = nn.Parameter(torch.empty(0), requires_grad=False)
        self.weights: dict[str, float] = {name: 1.0 for name in given}
        self.register_to_config()

    def __getitem__(self, name: str) -> Adapter:
        found = self._modules_by_name[name]
        assert isinstance(found, Adapter)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules_by_name)

    def __len__(self) -> int:
        return len(self._modules_by_name)

    def __contains__(self, name: object) -> bool:
        return name in list(self._modules_by_name)

    def items(self) -> Iterator[tuple[str, Adapter]]:
        return ((name, self[name]) for name in self)

    def forward(self, name: str, features: Batch) -> Encoded:
        """Runs one adapter on its features; called through this module so that offloading hooks run."""
        with computing(self[name].own_modules()):
            return self._modules_by_name[name](features)

    def save_pretrained(  # pyright: ignore
        self, save_directory: Any, variant: str | None = None, **kwargs: Any
    ) -> None:
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        kinds = {name: [_stable_module(type(adapter)), type(adapter).__name__] for name, adapter in self.items()}
        # Adapters have no variants; in a folder of a variant, diffusers wants a dot in all names.
        suffix = "" if variant is None else DOTTED
        for name, adapter in self.items():
            adapter.save_pretrained(folder / f"{name}{suffix}", **kwargs)
        text = {"_class_name": type(self).__name__, "adapters": kinds, "weights": self.weights}
        (folder / "config.json").write_text(json.dumps(text, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "AttachedAdapters":  # pyright: ignore
        """Loads a folder that `save_pretrained` wrote.

        Raises:
            ValueError: an adapter class outside weftwork that the caller has not imported.
        """
        folder = Path(pretrained_model_name_or_path) / (kwargs.pop("subfolder", None) or "")
        config = read_json(folder / "config.json")
        dtype = kwargs.get("dtype") or kwargs.get("torch_dtype")
        places = {name: folder / name for name in config["adapters"]}
        places = {name: p if p.is_dir() else p.with_name(f"{name}{DOTTED}") for name, p in places.items()}
        loaded = {n: _adapter_class(*kind).from_pretrained(places[n]) for n, kind in config["adapters"].items()}
        attached = cls(loaded)
        attached.weights.update(config["weights"])
        return attached if dtype is None else attached.to(dtype)  # pyright: ignore


_USERS: WeakKeyDictionary[nn.Module, WeakSet[nn.Module]] = WeakKeyDictionary()
"""Denoisers of the pipelines that an adapter is attached to."""


def own_copy(adapter: Adapter, denoiser: nn.Module) -> Adapter:
    """Returns the adapter for a pipeline: a copy if that of another denoiser uses it, since pipelines move and cast
    their parts, at once or later."""
    if any(other is not denoiser for other in _USERS.get(adapter, ())):
        adapter = copy.deepcopy(adapter)
    _USERS.setdefault(adapter, WeakSet()).add(denoiser)
    return adapter


def release(adapter: Adapter, denoiser: nn.Module) -> None:
    """Forgets that the pipeline of a denoiser uses an adapter."""
    _USERS.get(adapter, WeakSet()).discard(denoiser)


PUBLIC = "weftwork.attention_processors"
"""Module name of this package's classes in saved folders, since files may move."""
AttachedAdapters.__module__ = PUBLIC  # diffusers writes it to model_index.json


def _stable_module(kind: type) -> str:
    return PUBLIC if kind.__module__.startswith(f"{PUBLIC}.") else kind.__module__


def use_public_name(index: dict[str, Any]) -> None:
    """Corrects the class of `adapters` in the index of a pipeline folder that an earlier version saved."""
    module, name = index.get("adapters") or ("", "")
    if name in ("AdapterBank", AttachedAdapters.__name__) and str(module).partition(".")[0] in OUR_NAMES:
        index["adapters"] = [PUBLIC, AttachedAdapters.__name__]


def adapter_class(folder: str | Path) -> type[Adapter]:
    """Returns the class of the adapter in a local folder or a repository on the Hub.

    Raises:
        ValueError: no `config.json`, or a class that no installed method registers.
    """
    if (Path(folder) / "config.json").is_file():
        config = read_json(Path(folder) / "config.json")
    elif Path(folder).exists():
        raise UserError(f"{folder}: config.json is missing; give the folder of one adapter")
    else:
        config = {**Adapter.load_config(str(folder))}  # pyright: ignore[reportGeneralTypeIssues]
    name = config.get("_class_name")
    path = adapter_path(str(name))
    if path is None:
        known = ", ".join(sorted(one.partition(":")[2] for m in methods().values() for one in m.adapters))
        raise UserError(f"{folder}: got class {name!r}, expected one of {known}; install the package that has it")
    return load(path)


def _adapter_class(module: str, name: str) -> type[Adapter]:
    """Returns a registered class, or one of a module that is already imported: folders never trigger imports."""
    path = adapter_path(name)
    registered = path is not None and (module.partition(".")[0] in OUR_NAMES or path.startswith(f"{module}:"))
    found = load(path) if path is not None and registered else getattr(sys.modules.get(module), name, None)
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        raise UserError(f"adapters: got class {module}.{name}, which is no imported Adapter; import {module} first")
    return found
