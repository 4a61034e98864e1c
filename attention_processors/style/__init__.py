"""Styles by name (PokeFusion)."""

from weftwork.attention_processors.core.method import Method

METHOD = Method(
    name="style",
    summary="styles by name",
    adapters=(
        "weftwork.attention_processors.style.adapter:StyleAdapter",
        "weftwork.attention_processors.style.adapter:StyleCards",
    ),
    conditions=("weftwork.attention_processors.style.conditions:Style",),
    exports=("weftwork.attention_processors.style.card:StyleCard",),
    trainer="weftwork.training.trainers.style:StyleTrainer",
    validation={
        "outfits": ("weftwork.evaluation.methods.composition:validate", "style"),
        "drawings": ("weftwork.evaluation.methods.drawings:validate", "style", "drawings", "cache_dir"),
    },
    demo_page="weftwork.scripts.demo.style:StylePage",
    example="weftwork.attention_processors.style.example:example",
    usage=(
        "from weftwork.attention_processors import Style",
        'names = pipe.adapters["style"].config["styles"]',
        'image = pipe("a red cat", conditions={"style": Style(names[0])}, num_inference_steps=20).images[0]',
    ),
)
