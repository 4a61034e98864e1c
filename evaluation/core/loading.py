"""Adapters, image encoders and LoRAs that evaluations load into their pipeline."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin

REFERENCE = "reference"
ENCODER = "image_encoder"


def load_adapters(pipe: ConditionedPipelineMixin, files: Mapping[str, Path], names: Sequence[str]) -> None:
    """Loads those of `names` that have a folder, and the encoder that `reference` needs; `ValueError` without it."""
    for name in names:
        if name in files:
            pipe.load_adapter(files[name], name)
    if REFERENCE in names and REFERENCE in files:
        if ENCODER not in files:
            raise UserError(f"{ENCODER}: got none, needed by --{REFERENCE}; pass the encoder it was trained with")
        pipe.set_encoders(image=ImageEncoder.from_pretrained(str(files[ENCODER])))
