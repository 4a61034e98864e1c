"""In-context references: strengths of the reference images that FLUX.1 Kontext, FLUX.2 and Qwen-Image Edit read."""

from typing import Final

from weftwork.attention_processors.core.method import Method

FOLDER: Final = "weftwork.attention_processors.in_context"

METHOD = Method(
    name="in-context",
    summary="strengths of reference images that an editing model reads",
    adapters=(f"{FOLDER}.adapter:InContextAdapter",),
    modalities=("image", "video"),
    conditions=(f"{FOLDER}.conditions:InContextReference",),
    example=f"{FOLDER}.example:example",
    trained=False,
)
