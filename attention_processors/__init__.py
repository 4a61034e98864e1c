"""The only code that touches attention: processors, branches, and the adapters that fill them."""

from pathlib import Path
from typing import Any

from weft.attention_processors.adapter import Adapter, KeyValueAdapter, read_json
from weft.attention_processors.bank import AdapterBank
from weft.attention_processors.conditioning import Branch, Conditioning, DecoupledBranch, EncodedTokens
from weft.attention_processors.encoders import ImageEncoder, SketchEncoder, TextEncoders
from weft.attention_processors.instillation import Instillation, Taps
from weft.attention_processors.maps import MapRecorder, overlay
from weft.attention_processors.paired import GlobalSketch, PairedAdapter, SketchTextPair
from weft.attention_processors.processor import ConditionedAttnProcessor
from weft.attention_processors.reference import Reference, ReferenceAdapter
from weft.attention_processors.reference_attention import References
from weft.attention_processors.strength import Layout, Schedule
from weft.attention_processors.style import Style, StyleAdapter, StyleCard, StyleCards

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
        ValueError: no `config.json`, or a class weft does not know.
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
        raise ValueError(f"{folder}: got class {name!r}, expected one of {', '.join(ADAPTERS)}; it is no weft adapter")
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
