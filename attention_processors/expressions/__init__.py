"""Expressions of people, by name or from an image (DICE-Talk's emotion module)."""

from typing import Final

from weftwork.attention_processors.core.method import Method

BANKS: Final = ("nearest", "all", "none")
"""Codes that an expression reads; see `bank`."""
FOLDER: Final = "weftwork.attention_processors.expressions"

METHOD = Method(
    name="expressions",
    summary="expressions of people, by name, mixed, or from an image of another person",
    adapters=(f"{FOLDER}.adapter:ExpressionAdapter",),
    conditions=(f"{FOLDER}.conditions:Expression",),
    modalities=("image", "video"),
    trainer="weftwork.training.trainers.expressions:ExpressionTrainer",
    evaluation="weftwork.evaluation.measurements.expressions:MEASUREMENT",
    example=f"{FOLDER}.example:example",
    usage=(
        "from weftwork.attention_processors import Expression",
        'names = pipe.adapters["expressions"].config["expressions"]',
        'given = {"expressions": Expression(names[0], guidance=2.0)}',
        'image = pipe("a person with an afro", conditions=given, num_inference_steps=20).images[0]',
    ),
)
