"""Measurement of style adapters: style and content of creatures; --curve plots both over the weight."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from weftwork.datasets.readers.errors import UserError
from weftwork.evaluation.core.measurement import Measurement, Weights

if TYPE_CHECKING:
    from weftwork.evaluation.core.report import Report
    from weftwork.evaluation.core.runner import Evaluation
    from weftwork.evaluation.methods.style import StyleEvaluation


class StyleMeasurement(Measurement):
    """Measures style adapters, an IP-Adapter and a LoRA."""

    weights: ClassVar[Mapping[str, Weights]] = {
        "style": Weights("style", "adapter folder: additive, of creatures and outfits", ("style",)),
        "style_creatures": Weights(
            "style-creatures", "adapter folder: additive, of creatures alone", ("style_creatures",)
        ),
        "style_gated": Weights("style-gated", "adapter folder: gated", ("style_gated",)),
        "style_concat": Weights("style-concat", "adapter folder: joint softmax", ("style_concat",)),
        "reference": Weights("style-reference", "adapter folder: IP-Adapter", ("reference_branch",)),
        "image_encoder": Weights(
            "creature-encoder", "folder of the encoder that --reference reads through", ("reference_branch",)
        ),
        "lora": Weights("style-lora", "folder of a LoRA that reads style names", ("lora",)),
    }

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--curve", action="store_true", help="scores over the weight, as a plot; needs matplotlib")

    def check(self) -> None:
        from weftwork.evaluation.core.curve import check_plots

        super().check()
        if self.arguments.curve:
            check_plots()

    def build(self, pipe: Any) -> "StyleEvaluation":
        from weftwork.attention_processors.encoders import ImageEncoder
        from weftwork.evaluation.methods.style import StyleEvaluation
        from weftwork.evaluation.oracles.creatures import pretrained_creature_oracle

        files = {name: folders[0] for name, folders in self.folders().items()}
        for name in files:
            if name not in ("lora", "image_encoder"):
                pipe.load_adapter(files[name], name)
        if "reference" in files:
            if "image_encoder" not in files:
                raise UserError("image_encoder: got none, needed by --reference; pass the encoder it was trained with")
            pipe.set_encoders(image=ImageEncoder.from_pretrained(str(files["image_encoder"])))
        oracle = pretrained_creature_oracle()
        return StyleEvaluation(pipe=pipe, files=files, oracle=oracle, **self.settings())

    def finish(self, evaluation: "Evaluation", report: "Report") -> Sequence[Path]:
        from weftwork.evaluation.core.curve import plot_curve
        from weftwork.evaluation.methods.style import StyleEvaluation

        if self.arguments.curve and isinstance(evaluation, StyleEvaluation):
            return [plot_curve(evaluation.curve(), self.arguments.output)]
        return ()
