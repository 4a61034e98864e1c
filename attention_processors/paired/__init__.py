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
    evaluation="weftwork.evaluation.measurements.paired:MEASUREMENT",
    validation={
        "outfits": ("weftwork.evaluation.methods.paired:validate", "pairs"),
        "drawings": ("weftwork.evaluation.methods.drawings:validate", "pairs", "drawings", "cache_dir"),
    },
    demo_page="weftwork.scripts.demo.draw:DrawPage",
    example="weftwork.attention_processors.paired.example:example",
    usage=(
        "from weftwork.attention_processors import SketchTextPair",
        'pair = SketchTextPair("sketch.png", "a red hat", region="sketch")',
        'image = pipe("a red hat", conditions={"paired": [pair]}, num_inference_steps=20).images[0]',
    ),
)
