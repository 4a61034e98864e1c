"""Adapters, image encoders and LoRAs that evaluations load into their pipeline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin

REFERENCE = "reference"
ENCODER = "image_encoder"
Trained = Mapping[str, Sequence[str]]
"""Names of the attached adapters by row, several if they were trained with different seeds."""
Choice = TypeVar("Choice")


def load_trained(pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]], rows: Sequence[str]) -> Trained:
    """Loads all folders of those of `rows` that have some."""
    trained = {row: [f"{row}_{index}" for index in range(len(folders[row]))] for row in rows if row in folders}
    for row, names in trained.items():
        for name, folder in zip(names, folders[row], strict=True):
            pipe.load_adapter(folder, name)
    return trained


def of_seed(trained: Mapping[str, Sequence[Choice]], seed: int) -> dict[str, Choice]:
    """Returns what an evaluation's seed chooses in each row."""
    return {row: several[seed % len(several)] for row, several in trained.items()}


def load_adapters(pipe: ConditionedPipelineMixin, files: Mapping[str, Path], names: Sequence[str]) -> None:
    """Loads those of `names` that have a folder, and the encoder that `reference` needs; `ValueError` without it."""
    for name in names:
        if name in files:
            pipe.load_adapter(files[name], name)
    if REFERENCE in names and REFERENCE in files:
        if ENCODER not in files:
            raise UserError(f"{ENCODER}: got none, needed by --{REFERENCE}; pass the encoder it was trained with")
        pipe.set_encoders(image=ImageEncoder.from_pretrained(str(files[ENCODER])))
