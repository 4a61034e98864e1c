"""One measurement per method: the options of `weftwork evaluate`, importable without heavy libraries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from weftwork.attention_processors.core.method import Method, methods
from weftwork.datasets.drawings.sets import TARBALLS
from weftwork.evaluation.core.measurement import Measurement, Weights

PAIRED: Final = Measurement(
    "Measurement of sketch-text pairs: attributes and outlines of garments, pair by pair.",
    "weftwork.evaluation.methods.paired:PairedEvaluation",
    {
        "adapter": Weights("paired", "adapter folder"),
        "baseline": Weights(
            "paired-global-sketch",
            "adapter folder of the global-sketch baseline",
            ("global_sketch", "global_sketch_unnamed"),
            beside="adapter",
        ),
    },
)
STYLE: Final = Measurement(
    "Measurement of style adapters: style and content of creatures; --curve plots both over the weight.",
    "weftwork.evaluation.methods.style:StyleEvaluation",
    {
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
    },
    curve=("style_accuracy", "content_accuracy", "shape_consistency"),
)
COMPOSITION: Final = Measurement(
    "Measurement of several methods on one image: pairs, a style, a LoRA and a ControlNet, alone and together.",
    "weftwork.evaluation.methods.composition:CompositionEvaluation",
    {
        "paired": Weights("paired", "folder of the paired adapter"),
        "style": Weights("style", "folder of the style adapter"),
        "lora": Weights("style-lora", "folder of the LoRA", ("lora", "pairs_lora", "together")),
        "controlnet": Weights(
            "sketch-controlnet", "folder of the ControlNet", ("controlnet", "pairs_controlnet", "together")
        ),
    },
)


def _views(name: str, *rows: str) -> Weights:
    return Weights(name, "folders of trained modules", rows, several=True)


VIEWS: Final = Measurement(
    "Measurement of novel views of rooms: image, geometry, and their alignment.",
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
    guidance_scale=1.0,
)


def _audio(name: str, *rows: str) -> Weights:
    return Weights(name, "folder of trained modules", rows)


AUDIO: Final = Measurement(
    "Measurement of spatial audio: side, distance and time of audible footsteps.",
    "weftwork.evaluation.methods.audio:SpatialAudioEvaluation",
    {
        "spatial": _audio("spatial-audio"),
        "tokens_only": _audio("spatial-audio-tokens", "tokens_only"),
        "no_time_code": _audio("spatial-audio-no-time-code", "no_time_code"),
        "own_projections": _audio("spatial-audio-own-projections", "own_projections"),
    },
    num_inference_steps=50,
    guidance_scale=2.0,
)


def _drawings(kind: str, *rows: str) -> Weights:
    return Weights(f"drawings-{kind}", f"folder of the {kind}", rows)


DRAWINGS: Final = Measurement(
    "Measurement of pairs, styles and references on drawings that training left out: --split cells shows subjects that "
    "other designers showed in training, --split subjects those of no designer. Needs the drawings (docs/drawings.md) "
    'and networks of others: pip install ".[drawings,instruments]".',
    "weftwork.evaluation.methods.drawings:DrawingsEvaluation",
    {
        "oracle": _drawings("oracle"),
        "paired": _drawings("paired", "pairs", "pairs_unnamed", "pairs_wild", "texts_swapped", "sketches_swapped"),
        "global_sketch": _drawings("global-sketch", "global_sketch", "global_sketch_unnamed"),
        "style": _drawings("style", "style", "pairs_style"),
        "reference": _drawings("reference", "reference"),
        "image_encoder": _drawings("encoder", "reference"),
        "lora": _drawings("lora", "lora"),
    },
    splits=("cells", "subjects"),
    places={
        "drawings": (TARBALLS, "npm tarballs, or SVG files"),
        "cache_dir": (Path(".cache/pictures"), "rendered drawings"),
    },
)


def measured() -> Mapping[str, Method]:
    """Returns all methods with an evaluation by name, evaluations of several methods last."""
    found = {name: method for name, method in methods().items() if method.evaluation is not None}
    several = {
        "composition": ("conditions of several methods on one image", "tiny-diffusion"),
        "drawings": ("pairs, styles and references on drawings by several designers", "tiny-drawings"),
    }
    return found | {
        name: Method(name, summary, (), backbone=backbone, evaluation=f"{__name__}:{name.upper()}")
        for name, (summary, backbone) in several.items()
    }
