"""New views with geometry (MoAI): cross-modal attention instillation and reference attention."""

from typing import Final

from weftwork.attention_processors.core.method import Method

SHARINGS: Final = ("instillation", "concatenated", "distilled", "none")
"""Inputs of the geometry role from the image role, see `AlignedViews`."""

METHOD = Method(
    name="aligned-views",
    summary="image and geometry of a new view",
    adapters=("weftwork.attention_processors.views.adapter:AlignedViews",),
    conditions=("weftwork.attention_processors.views.conditions:ReferenceView",),
    modalities=("image", "video"),
    exports=(
        "weftwork.attention_processors.views.instillation:Instillation",
        "weftwork.attention_processors.views.instillation:Taps",
        "weftwork.attention_processors.views.reference_attention:References",
    ),
    trainer="weftwork.training.trainers.views:ViewsTrainer",
    pipeline="weftwork.pipelines.views.pipeline:AlignedViewsPipeline.from_pretrained",
    evaluation="weftwork.evaluation.measurements.views:MEASUREMENT",
    demo_page="weftwork.scripts.demo.views:ViewPage",
    validation={"rooms": ("weftwork.evaluation.methods.views:validate", "views")},
    example="weftwork.attention_processors.views.example:example",
    usage=(
        "from weftwork.datasets.synthetic.rooms import sample",
        "from weftwork.attention_processors import ReferenceView",
        'views = sample("test", 0, size=pipe.unet.config.sample_size * pipe.vae_scale_factor).views',
        'references = [ReferenceView.of_view(views[name]) for name in ("reference_0", "reference_1")]',
        'image = pipe(references, views["interpolating"].camera, num_inference_steps=20).images[0]',
    ),
)
