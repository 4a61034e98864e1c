"""Regional prompts: texts and parts of the prompt that act in regions of the image."""

from typing import Final

from weftwork.attention_processors.core.method import Method

FOLDER: Final = "weftwork.attention_processors.regional"

METHOD = Method(
    name="regional",
    summary="texts that act in regions of the image",
    adapters=(f"{FOLDER}.adapter:RegionalAdapter",),
    conditions=(f"{FOLDER}.conditions:RegionalPrompt",),
    example=f"{FOLDER}.example:example",
    exports=(f"{FOLDER}.conditions:joined_prompts",),
    trained=False,
)
