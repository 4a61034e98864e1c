"""Frozen encoders of adapters' inputs: a pipeline's own text encoders, and vision and audio models by name."""

from weftwork.attention_processors.encoders.image import ImageEncoder, SketchEncoder, clip_normalized, normalized
from weftwork.attention_processors.encoders.text import TextEncoders

__all__ = ["ImageEncoder", "SketchEncoder", "TextEncoders", "clip_normalized", "normalized"]
