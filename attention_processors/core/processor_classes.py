"""Tables of attention processor classes for wrapping: the calls that branches belong to, and equal classes."""

from collections.abc import Mapping
from typing import Final

from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    MochiAttnProcessor2_0,
    SanaLinearAttnProcessor2_0,
)

from weftwork.attention_processors.core.linear_attention import LinearAttnProcessor
from weftwork.attention_processors.core.row_attention import RowAttnProcessor

MAIN_CALLS: Final[Mapping[str, tuple[int, ...]]] = {
    "WanAttnProcessor": (1,),  # the first reads the image of image-to-video models
    "FluxIPAdapterAttnProcessor": (0,),
    "SD3IPAdapterJointAttnProcessor2_0": (0,),
    "IPAdapterAttnProcessor2_0": (0,),
    "IPAdapterXFormersAttnProcessor": (0,),
    "StableAudio3SelfAttnProcessor": (0, 2),  # the third is that of models without a difference of two
    "StableAudio3CrossAttnProcessor": (0, 2),
}
"""Of processors that call attention at several places: the calls that branches belong to, in the order of the source;
one of them runs."""
SUBTRACTED: Final[Mapping[str, tuple[int, ...]]] = {
    "StableAudio3SelfAttnProcessor": (1,),
    "StableAudio3CrossAttnProcessor": (1,),
}
"""Calls whose result is subtracted from that of the main one: biases on keys that are there act in both."""
EQUAL: Final[Mapping[type, type]] = {
    AttnProcessor: AttnProcessor2_0,
    SanaLinearAttnProcessor2_0: LinearAttnProcessor,
    MochiAttnProcessor2_0: RowAttnProcessor,
}
"""Processors without an attention function, or with a call of it for each row: the one whose code runs while there are
branches or a backend was chosen."""
