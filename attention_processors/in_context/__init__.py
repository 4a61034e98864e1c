"""In-context references: strengths of those that editing models read, and reference images for all other models."""

from typing import Final

from weftwork.attention_processors.core.method import Method

FOLDER: Final = "weftwork.attention_processors.in_context"

METHOD = Method(
    name="in-context",
    summary="reference images without training, or strengths of those that an editing model reads",
    adapters=(f"{FOLDER}.adapter:InContextAdapter", f"{FOLDER}.reference_only:ReferenceOnlyAdapter"),
    modalities=("image", "video"),
    conditions=(f"{FOLDER}.conditions:InContextReference", f"{FOLDER}.conditions:ReferenceOnly"),
    example=f"{FOLDER}.example:example",
    trained=False,
)
