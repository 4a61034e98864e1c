"""Localized sketch-text pairs (LOTS)."""

from weftwork.attention_processors.core.method import Method

METHOD = Method(
    name="paired",
    summary="localized pairs of sketch and text",
    adapters=("weftwork.attention_processors.paired.adapter:PairedAdapter",),
    conditions=(
        "weftwork.attention_processors.paired.conditions:SketchTextPair",
        "weftwork.attention_processors.paired.conditions:GlobalSketch",
    ),
    trainer="weftwork.training.trainers.paired:PairedTrainer",
    evaluation="weftwork.evaluation.measurements:PAIRED",
    validation="weftwork.evaluation.methods.paired:validate",
    demo_page="weftwork.scripts.demo.outfit:OutfitPage",
)
