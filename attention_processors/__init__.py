"""Conditions, adapters and the branches that they add to the attention of frozen denoisers; imported on first use."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weftwork.attention_processors.attention_control.adapter import (
        AttentionControlAdapter as AttentionControlAdapter,
    )
    from weftwork.attention_processors.attention_control.conditions import Attend as Attend
    from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter as SpatialAudioAdapter
    from weftwork.attention_processors.audio.conditions import AudioPrompt as AudioPrompt
    from weftwork.attention_processors.audio.conditions import BoxTrack as BoxTrack
    from weftwork.attention_processors.audio.conditions import DepthClip as DepthClip
    from weftwork.attention_processors.audio.conditions import Envelope as Envelope
    from weftwork.attention_processors.core.adapter import Adapter as Adapter
    from weftwork.attention_processors.core.adapter import KeyValueAdapter as KeyValueAdapter
    from weftwork.attention_processors.core.attached import AttachedAdapters as AttachedAdapters
    from weftwork.attention_processors.core.attached import adapter_class as adapter_class
    from weftwork.attention_processors.core.attention_maps import MapRecorder as MapRecorder
    from weftwork.attention_processors.core.attention_maps import overlay as overlay
    from weftwork.attention_processors.core.branch import Branch as Branch
    from weftwork.attention_processors.core.branch import DecoupledBranch as DecoupledBranch
    from weftwork.attention_processors.core.condition import Condition as Condition
    from weftwork.attention_processors.core.conditioning import Conditioning as Conditioning
    from weftwork.attention_processors.core.conditioning import EncodedTokens as EncodedTokens
    from weftwork.attention_processors.core.inspection import Inspector as Inspector
    from weftwork.attention_processors.core.method import Method as Method
    from weftwork.attention_processors.core.method import methods as methods
    from weftwork.attention_processors.core.processor import conditioned as conditioned
    from weftwork.attention_processors.core.strength import Layout as Layout
    from weftwork.attention_processors.core.strength import Schedule as Schedule
    from weftwork.attention_processors.encoders import ImageEncoder as ImageEncoder
    from weftwork.attention_processors.encoders import SketchEncoder as SketchEncoder
    from weftwork.attention_processors.encoders import TextEncoders as TextEncoders
    from weftwork.attention_processors.expressions.adapter import ExpressionAdapter as ExpressionAdapter
    from weftwork.attention_processors.expressions.conditions import Expression as Expression
    from weftwork.attention_processors.in_context.adapter import InContextAdapter as InContextAdapter
    from weftwork.attention_processors.in_context.conditions import InContextReference as InContextReference
    from weftwork.attention_processors.in_context.conditions import ReferenceOnly as ReferenceOnly
    from weftwork.attention_processors.in_context.reference_only import ReferenceOnlyAdapter as ReferenceOnlyAdapter
    from weftwork.attention_processors.paired.adapter import PairedAdapter as PairedAdapter
    from weftwork.attention_processors.paired.conditions import GlobalSketch as GlobalSketch
    from weftwork.attention_processors.paired.conditions import SketchTextPair as SketchTextPair
    from weftwork.attention_processors.reference.adapter import ReferenceAdapter as ReferenceAdapter
    from weftwork.attention_processors.reference.conditions import Reference as Reference
    from weftwork.attention_processors.regional.adapter import RegionalAdapter as RegionalAdapter
    from weftwork.attention_processors.regional.conditions import RegionalPrompt as RegionalPrompt
    from weftwork.attention_processors.regional.conditions import joined_prompts as joined_prompts
    from weftwork.attention_processors.style.adapter import StyleAdapter as StyleAdapter
    from weftwork.attention_processors.style.adapter import StyleCards as StyleCards
    from weftwork.attention_processors.style.card import StyleCard as StyleCard
    from weftwork.attention_processors.style.conditions import Style as Style
    from weftwork.attention_processors.subjects.adapter import SubjectAdapter as SubjectAdapter
    from weftwork.attention_processors.subjects.conditions import Subject as Subject
    from weftwork.attention_processors.views.adapter import AlignedViews as AlignedViews
    from weftwork.attention_processors.views.conditions import ReferenceView as ReferenceView
    from weftwork.attention_processors.views.instillation import Instillation as Instillation
    from weftwork.attention_processors.views.instillation import Taps as Taps
    from weftwork.attention_processors.views.reference_attention import References as References

_CORE = {
    f"{__name__}.core.adapter": "Adapter KeyValueAdapter",
    f"{__name__}.core.attached": "AttachedAdapters adapter_class",
    f"{__name__}.core.condition": "Condition",
    f"{__name__}.core.branch": "Branch DecoupledBranch",
    f"{__name__}.core.conditioning": "Conditioning EncodedTokens",
    f"{__name__}.core.method": "Method methods",
    f"{__name__}.core.strength": "Layout Schedule",
    f"{__name__}.core.attention_maps": "MapRecorder overlay",
    f"{__name__}.core.inspection": "Inspector",
    f"{__name__}.core.processor": "conditioned",
    f"{__name__}.encoders": "ImageEncoder SketchEncoder TextEncoders",
}
_CORE_NAMES = {name: module for module, names in _CORE.items() for name in names.split()}


@cache
def _module_of() -> dict[str, str]:
    """Modules by public name: of the core, and of the methods' folders."""
    methods = import_module(f"{__name__}.core.method").own_methods().values()
    paths = [path for one in methods for path in (*one.adapters, *one.conditions, *one.exports)]
    return _CORE_NAMES | {name: module for module, _, name in (path.partition(":") for path in paths)}


def __getattr__(name: str) -> Any:
    if name == "ModelMixin":  # diffusers looks here for it when it loads an `AttachedAdapters` of this module
        return import_module("diffusers").ModelMixin
    if name == "__all__":
        return sorted(_module_of())
    module = _CORE_NAMES.get(name) or _module_of().get(name)  # methods import the core's names while they are found
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)
