"""The measurement of novel views."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement, Weights


def _views(name: str, *rows: str) -> Weights:
    return Weights(name, "folders of trained modules", rows, several=True)


MEASUREMENT: Final = Measurement(
    "Measurement of novel views, of rooms or of your own clips: image, geometry, and their alignment.",
    "weftwork.evaluation.methods.views:AlignedViewsEvaluation",
    {
        "no_instillation": _views("aligned-views-none", "no_instillation"),
        "concatenated": _views("aligned-views-concatenated", "concatenated"),
        "instillation": _views(
            *("aligned-views", "instillation", "instillation_generated", "instillation_latents", "instillation_pixels"),
            *("instillation_decoder", "instillation_deepest", "instillation_half"),
        ),
        "detached": _views("aligned-views-detached", "detached"),
        "distilled": _views("aligned-views-distilled", "distilled"),
    },
    backbone="tiny-rooms",
    guidance_scale=1.0,
    places={"clips": (None, "folder of clips with cameras and depth instead of rooms, no split")},
)
