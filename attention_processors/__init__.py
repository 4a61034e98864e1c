"""The only code that touches attention: processors, branches, and the adapters that fill them."""

from pathlib import Path
from typing import Any

from weftwork.attention_processors.core.adapter import Adapter, KeyValueAdapter, read_json
from weftwork.attention_processors.core.attached import AdapterBank
from weftwork.attention_processors.core.attention_maps import MapRecorder, overlay
from weftwork.attention_processors.core.conditioning import Branch, Conditioning, DecoupledBranch, EncodedTokens
from weftwork.attention_processors.core.processor import ConditionedAttnProcessor
from weftwork.attention_processors.core.strength import Layout, Schedule
from weftwork.attention_processors.encoders import ImageEncoder, SketchEncoder, TextEncoders
from weftwork.attention_processors.paired.adapter import GlobalSketch, PairedAdapter, SketchTextPair
from weftwork.attention_processors.reference.adapter import Reference, ReferenceAdapter
from weftwork.attention_processors.style.adapter import Style, StyleAdapter, StyleCard, StyleCards
from weftwork.attention_processors.views.instillation import Instillation, Taps
from weftwork.attention_processors.views.reference_attention import References

ADAPTERS: dict[str, type[Adapter]] = {
    "PairedAdapter": PairedAdapter,
    "ReferenceAdapter": ReferenceAdapter,
    "StyleAdapter": StyleAdapter,
    "StyleCards": StyleCards,
}
"""Adapter classes by the name that `config.json` gives."""


def adapter_class(folder: str | Path) -> type[Adapter]:
    """The class of the adapter in a local folder or a repository on the Hub.

    Raises:
        ValueError: no `config.json`, or a class weftwork does not know.
    """
    config: dict[str, Any]
    if (Path(folder) / "config.json").is_file():
        config = read_json(Path(folder) / "config.json")
    elif Path(folder).exists():
        raise ValueError(f"{folder}: config.json is missing; give the folder of one adapter")
    else:
        config = {**Adapter.load_config(str(folder))}  # pyright: ignore[reportGeneralTypeIssues, reportAssignmentType]
    name = config.get("_class_name")
    if name not in ADAPTERS:
        raise ValueError(
            f"{folder}: got class {name!r}, expected one of {', '.join(ADAPTERS)}; it is no weftwork adapter"
        )
    return ADAPTERS[name]


__all__ = [
    "Adapter",
    "AdapterBank",
    "Branch",
    "ConditionedAttnProcessor",
    "Conditioning",
    "DecoupledBranch",
    "EncodedTokens",
    "GlobalSketch",
    "ImageEncoder",
    "Instillation",
    "KeyValueAdapter",
    "Layout",
    "MapRecorder",
    "PairedAdapter",
    "Reference",
    "ReferenceAdapter",
    "References",
    "Schedule",
    "SketchEncoder",
    "SketchTextPair",
    "Style",
    "StyleAdapter",
    "StyleCard",
    "StyleCards",
    "Taps",
    "TextEncoders",
    "adapter_class",
    "overlay",
]
