"""Measurement of novel views of rooms: image, geometry, and their alignment."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from weftwork.datasets.readers.errors import UserError
from weftwork.evaluation.core.measurement import Measurement, Weights

if TYPE_CHECKING:
    from weftwork.evaluation.methods.views import AlignedViewsEvaluation


def _modules(name: str, *more: str) -> Weights:
    row = name.removeprefix("aligned-views").removeprefix("-")
    rows = {"": "instillation", "none": "no_instillation"}
    return Weights(name, "folders of trained modules", (rows.get(row, row), *more), several=True)


class ViewsMeasurement(Measurement):
    """Measures modules with different attention sharing between image and geometry."""

    num_inference_steps = 20
    guidance_scale = 1.0
    weights: ClassVar[Mapping[str, Weights]] = {
        "no_instillation": _modules("aligned-views-none"),
        "concatenated": _modules("aligned-views-concatenated"),
        "instillation": _modules("aligned-views", "instillation_decoder", "instillation_deepest", "instillation_half"),
        "detached": _modules("aligned-views-detached"),
        "distilled": _modules("aligned-views-distilled"),
    }

    def build(self, pipe: Any) -> "AlignedViewsEvaluation":
        from weftwork.attention_processors.views.adapter import AlignedViews
        from weftwork.evaluation.methods.views import AlignedViewsEvaluation

        views = {
            name: [AlignedViews.from_pretrained(one, pipe.unet) for one in folders]
            for name, folders in self.folders().items()
        }
        if not views:
            names = ", ".join(f"--{name}" for name in self.weights)
            raise UserError(f"views: got none, and none are shipped for this backbone; pass {names}")
        size = pipe.unet.config.sample_size * pipe.vae_scale_factor
        return AlignedViewsEvaluation(pipe=pipe, views=views, size=size, **self.settings())
