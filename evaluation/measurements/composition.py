"""Measurement of several methods on one image: pairs, a style, a LoRA and a ControlNet, alone and together."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from weftwork.evaluation.core.measurement import Measurement, Weights

if TYPE_CHECKING:
    from weftwork.evaluation.methods.composition import CompositionEvaluation


class CompositionMeasurement(Measurement):
    """Measures adapters of two methods, with and without a LoRA and a ControlNet of diffusers."""

    weights: ClassVar[Mapping[str, Weights]] = {
        "paired": Weights("paired", "folder of the paired adapter"),
        "style": Weights("style", "folder of the style adapter"),
        "lora": Weights("style-lora", "folder of the LoRA", ("lora", "pairs_lora", "together")),
        "controlnet": Weights(
            "sketch-controlnet", "folder of the ControlNet", ("controlnet", "pairs_controlnet", "together")
        ),
    }

    def build(self, pipe: Any) -> "CompositionEvaluation":
        from diffusers import ControlNetModel

        from weftwork.evaluation.methods.composition import CompositionEvaluation
        from weftwork.evaluation.oracles.creatures import pretrained_creature_oracle
        from weftwork.evaluation.oracles.outfits import pretrained_oracle

        files = {name: folders[0] for name, folders in self.folders().items()}
        for name in ("paired", "style"):
            pipe.load_adapter(files[name], name)
        controlnet: Any = None
        if "controlnet" in files:
            controlnet = ControlNetModel.from_pretrained(files["controlnet"])
            controlnet.to(pipe.device)
        return CompositionEvaluation(
            pipe=pipe,
            lora=files.get("lora"),
            controlnet=controlnet,
            oracle=pretrained_oracle(styled=True),
            style_oracle=pretrained_creature_oracle(),
            **self.settings(),
        )
