"""The shipped models by name: what each is, and where it lies."""

from collections.abc import Mapping
from typing import Final

from weftwork.pretrained import available, shipped

DESCRIPTIONS: Final[Mapping[str, str]] = {
    "tiny-diffusion": "a complete small Stable Diffusion of people in outfits and creatures; stock pipelines open it",
    "paired": "localized sketch-text pairs on tiny-diffusion; a PairedAdapter",
    "paired-global-sketch": "the baseline of paired: one sketch of the whole, with all words; a PairedAdapter",
    "style": "eight styles by name on tiny-diffusion, of creatures and outfits; a StyleAdapter",
    "style-creatures": "the same of creatures alone, for `weftwork evaluate style`; a StyleAdapter",
    "style-gated": "that with the fusion gated, for `weftwork evaluate style`; a StyleAdapter",
    "style-concat": "that in one softmax with the text, for `weftwork evaluate style`; a StyleAdapter",
    "style-reference": "the style of a picture, the baseline of style; a ReferenceAdapter",
    "creature-encoder": "reads pictures for style-reference; a CLIPVisionModelWithProjection",
    "style-lora": "one LoRA for all styles, named in the prompt; the baseline of style in diffusers' own format",
    "creature-oracle": "reads style, species, colour and pose of a creature; read by `weftwork evaluate style`",
    "sketch-controlnet": "reads sketches of whole outfits, for `weftwork evaluate composition`; a ControlNetModel",
    "oracle-styled": "the oracle that reads styled outfits, too; what `weftwork evaluate composition` measures with",
    "tiny-rooms": "a small Stable Diffusion of papered rooms, unfinished; modules for views are trained on it",
    "aligned-views": "picture and geometry of a new view on tiny-rooms; AlignedViews",
    "tiny-audio": "a complete small Stable Audio of footsteps; stock pipelines open it",
    "spatial-audio": "boxes, depth, a prompt and loudness on tiny-audio; a SpatialAudioAdapter and a ControlNet",
    "spatial-audio-tokens": "that with boxes as tokens alone, for `weftwork evaluate spatial-audio`",
    "spatial-audio-no-time-code": "tokens alone, without times, for `weftwork evaluate spatial-audio`",
    "spatial-audio-own-projections": "tokens with keys and values of their own, for `weftwork evaluate spatial-audio`",
    "oracle": "reads garments, colours and patterns off a picture; what `weftwork evaluate paired` measures with",
}
"""One line per shipped model. A model that is named here may be missing from an installation; see `available`."""

__all__ = ["DESCRIPTIONS", "available", "shipped"]
