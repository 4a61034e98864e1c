"""Measure a method on unseen cases, beside its ceilings and baselines: a table, a JSON file and a contact sheet.

weftwork evaluate paired      attributes and outlines of garments, pair by pair
weftwork evaluate style       style and content of creatures; --curve plots them over the weight
weftwork evaluate composition pairs, a style, a LoRA and a ControlNet, each alone and together
weftwork evaluate aligned-views  picture and geometry of new views of rooms
weftwork evaluate spatial-audio  side, distance and time of steps that are heard
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from weftwork.pretrained import backbone

METHODS: Final[Mapping[str, str]] = {
    "paired": "localized pairs of sketch and text",
    "style": "styles by name",
    "composition": "conditions of several kinds on one picture",
    "aligned-views": "picture and geometry of new views",
    "spatial-audio": "stereo sound that follows what is seen",
}
DEFAULTS: Final[Mapping[str, tuple[int, float]]] = {"aligned-views": (20, 1.0), "spatial-audio": (50, 2.0)}
"""Steps and guidance, where they are not those of most."""
STYLE_ADAPTERS: Final[Mapping[str, str]] = {
    "style": "additive, of creatures and outfits",
    "style_creatures": "additive, of creatures alone",
    "style_gated": "gated",
    "style_concat": "joint softmax",
    "reference": "IP-Adapter",
}
VIEWS: Final[Mapping[str, str]] = {
    "no_instillation": "aligned-views-none",
    "concatenated": "aligned-views-concatenated",
    "instillation": "aligned-views",
    "detached": "aligned-views-detached",
    "distilled": "aligned-views-distilled",
}
SOUNDS: Final[Mapping[str, str]] = {
    "spatial": "spatial-audio",
    "tokens_only": "spatial-audio-tokens",
    "no_time_code": "spatial-audio-no-time-code",
    "own_projections": "spatial-audio-own-projections",
}
"""By row, the shipped modules."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    several = parser.add_subparsers(dest="method", required=True, metavar="method")
    for name, text in METHODS.items():
        one = several.add_parser(name, help=text)
        one.add_argument("--output", type=Path, default=Path("outputs/evaluation"), help="folder of the report")
        one.add_argument("--limit", type=int, default=200, help="cases per row")
        one.add_argument("--seed", type=int, nargs="+", default=[0], help="of cases and noise; several give a spread")
        one.add_argument("--split", choices=("test", "validation"), default="test", help="validation is for choosing")
        one.add_argument("--model", help=f"folder of the backbone (default: the shipped {backbone(name)})")
        one.add_argument("--device", default="cpu", help="where the model runs, for example cuda")
        steps, scale = DEFAULTS.get(name, (20, 3.0))
        one.add_argument("--num_inference_steps", type=int, default=steps)
        one.add_argument("--guidance_scale", type=float, default=scale)
        one.add_argument("--rows", nargs="*", default=(), help="only these rows")
    paired, style, composition, views, sounds = (several.choices[name] for name in METHODS)
    paired.add_argument("--adapter", default=None, help="adapter folder (default: the shipped one)")
    paired.add_argument("--baseline", default=None, help="adapter folder of the global-sketch baseline")
    for name, text in STYLE_ADAPTERS.items():
        style.add_argument(f"--{name}", default=None, help=f"adapter folder: {text} (default: the shipped one)")
    style.add_argument("--image_encoder", default=None, help="folder of the encoder that --reference reads through")
    style.add_argument(
        "--lora", default=None, help="folder of a LoRA that reads style names (default: the shipped one)"
    )
    for name in ("paired", "style", "lora", "controlnet"):
        composition.add_argument(f"--{name}", default=None, help=f"folder of the {name} (default: the shipped one)")
    for name in SOUNDS:
        sounds.add_argument(f"--{name}", default=None, help="folder of trained modules (default: the shipped ones)")
    for name in VIEWS:
        views.add_argument(
            f"--{name}",
            nargs="+",
            help="folders of trained modules, one per --seed (default: the shipped ones, for every seed)",
        )
    style.add_argument("--curve", action="store_true", help="scores over the weight, as a plot; needs matplotlib")


def run(arguments: argparse.Namespace) -> None:
    """Print the table and write the report."""
    from weftwork.evaluation.core.curve import check_plots, plot_curve

    if arguments.method == "style" and arguments.curve:
        check_plots()
    if arguments.limit < 1:
        raise ValueError(f"limit: got {arguments.limit}, expected at least 1")
    measure = {
        "paired": _paired,
        "style": _style,
        "composition": _composition,
        "aligned-views": _aligned_views,
        "spatial-audio": _spatial_audio,
    }
    evaluation: Any = measure[arguments.method](arguments, _pipeline(arguments))
    report = evaluation.run(arguments.output, arguments.rows, arguments.seed)
    print(report.table())
    if arguments.method == "style" and arguments.curve:
        plot_curve(evaluation.curve(), arguments.output)
    print(f"written to {arguments.output}")


def _pipeline(arguments: argparse.Namespace) -> Any:
    from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
    from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
    from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
    from weftwork.pretrained import shipped

    kinds = {"aligned-views": AlignedViewsPipeline, "spatial-audio": VideoToAudioPipeline}
    kind: Any = kinds.get(arguments.method, ConditionedStableDiffusionPipeline)
    return kind.from_pretrained(arguments.model or str(shipped(backbone(arguments.method)))).to(arguments.device)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "split": arguments.split,
        "count": arguments.limit,
        "num_inference_steps": arguments.num_inference_steps,
        "guidance_scale": arguments.guidance_scale,
    }


def _paired(arguments: argparse.Namespace, pipe: Any) -> Any:
    from weftwork.evaluation.methods.paired import PairedEvaluation
    from weftwork.evaluation.oracles.outfits import pretrained_oracle
    from weftwork.pretrained import available, shipped

    pipe.load_adapter(arguments.adapter or shipped("paired"), "paired")
    baseline = arguments.baseline
    if baseline is None and arguments.adapter is None and "paired-global-sketch" in available():
        baseline = shipped("paired-global-sketch")
    if baseline is not None:
        pipe.load_adapter(baseline, "global_sketch")
    return PairedEvaluation(pipe=pipe, oracle=pretrained_oracle(), **_settings(arguments))


def _style(arguments: argparse.Namespace, pipe: Any) -> Any:
    from weftwork.attention_processors.encoders import ImageEncoder
    from weftwork.evaluation.methods.style import StyleEvaluation
    from weftwork.evaluation.oracles.creatures import pretrained_creature_oracle

    files = _folders(arguments, (*STYLE_ADAPTERS, "lora", "image_encoder"), needed=("style",))
    for name in STYLE_ADAPTERS:
        if name in files:
            pipe.load_adapter(files[name], name)
    if "reference" in files:
        if "image_encoder" not in files:
            raise ValueError("image_encoder: got none beside --reference; pass the folder it was trained with")
        pipe.set_encoders(image=ImageEncoder.from_pretrained(str(files["image_encoder"])))
    return StyleEvaluation(
        pipe=pipe,
        files=files,
        oracle=pretrained_creature_oracle(),
        **_settings(arguments),
    )


def _composition(arguments: argparse.Namespace, pipe: Any) -> Any:
    from diffusers import ControlNetModel

    from weftwork.evaluation.methods.composition import CompositionEvaluation
    from weftwork.evaluation.oracles.creatures import pretrained_creature_oracle
    from weftwork.evaluation.oracles.outfits import pretrained_oracle

    files = _folders(arguments, ("paired", "style", "lora", "controlnet"), needed=("paired", "style"))
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
        **_settings(arguments),
    )


def _aligned_views(arguments: argparse.Namespace, pipe: Any) -> Any:
    from weftwork.attention_processors.views.adapter import AlignedViews
    from weftwork.evaluation.methods.views import AlignedViewsEvaluation

    views = {}
    for name in VIEWS:
        folders = [_folder(arguments, name, given) for given in getattr(arguments, name) or [None]]
        if several := [AlignedViews.from_pretrained(one, pipe.unet) for one in folders if one is not None]:
            views[name] = several
    if not views:
        names = ", ".join(f"--{name}" for name in VIEWS)
        raise ValueError(f"views: got none, and none are shipped for this backbone; pass {names}")
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    return AlignedViewsEvaluation(pipe=pipe, views=views, size=size, **_settings(arguments))


def _spatial_audio(arguments: argparse.Namespace, pipe: Any) -> Any:
    from weftwork.attention_processors.encoders.audio_statistics import AudioStatistics
    from weftwork.evaluation.methods.audio import SpatialAudioEvaluation

    folders = _folders(arguments, tuple(SOUNDS), needed=())
    if "spatial" not in folders:
        raise ValueError(
            "spatial: got no trained modules, and none are shipped for this backbone; train some, pass --spatial"
        )
    pipe.set_encoders(audio=AudioStatistics(pipe.vae))
    return SpatialAudioEvaluation(
        pipe=pipe, modules={name: (folder,) for name, folder in folders.items()}, **_settings(arguments)
    )


def _folders(arguments: argparse.Namespace, names: Sequence[str], needed: Sequence[str]) -> dict[str, Path]:
    """What there is of these, given or shipped."""
    found = {name: _folder(arguments, name, getattr(arguments, name)) for name in names}
    for name in needed:
        if found[name] is None:
            raise ValueError(
                f"{name}: got no adapter, and none is shipped for this backbone; train one (weftwork train {name}), "
                f"pass --{name}"
            )
    return {name: folder for name, folder in found.items() if folder is not None}


def _folder(arguments: argparse.Namespace, name: str, given: str | None) -> Path | None:
    """The folder a user named, or the shipped one if there is one and the backbone is the shipped one, too."""
    from weftwork.pretrained import available, shipped

    known = {
        "reference": "style-reference",
        "image_encoder": "creature-encoder",
        "lora": "style-lora",
        "controlnet": "sketch-controlnet",
        **VIEWS,
        **SOUNDS,
    }
    if given is not None:
        return Path(given)
    model = known.get(name, name.replace("_", "-"))
    return Path(shipped(model)) if model in available() and arguments.model is None else None
