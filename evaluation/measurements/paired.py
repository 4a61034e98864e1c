"""Measurement of sketch-text pairs: attributes and outlines of garments, pair by pair."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from weftwork.evaluation.core.measurement import Measurement, Weights

if TYPE_CHECKING:
    from weftwork.evaluation.methods.paired import PairedEvaluation


class PairedMeasurement(Measurement):
    """Measures an adapter and the global-sketch baseline."""

    weights: ClassVar[Mapping[str, Weights]] = {
        "adapter": Weights("paired", "adapter folder"),
        "baseline": Weights(
            "paired-global-sketch",
            "adapter folder of the global-sketch baseline",
            ("global_sketch", "global_sketch_unnamed"),
        ),
    }

    def build(self, pipe: Any) -> "PairedEvaluation":
        from weftwork.evaluation.methods.paired import PairedEvaluation
        from weftwork.evaluation.oracles.outfits import pretrained_oracle

        folders = self.folders()
        pipe.load_adapter(folders["adapter"][0], "paired")
        if "baseline" in folders and (self.arguments.adapter is None or self.arguments.baseline is not None):
            pipe.load_adapter(folders["baseline"][0], "global_sketch")
        return PairedEvaluation(pipe=pipe, oracle=pretrained_oracle(), **self.settings())
