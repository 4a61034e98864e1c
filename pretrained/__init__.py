"""The shipped models: folders of safetensors, each with a model card, found without a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weftwork.datasets.readers.errors import UserError

ROOT = Path(__file__).parent
PLACES = (ROOT, ROOT / "baselines")
"""Default models, and those that only reports read: baselines and oracles, which a checkout has and a wheel lacks."""
DEFAULT_MODEL = "tiny-drawings"
LORA = "pytorch_lora_weights.safetensors"
"""File of a LoRA in diffusers' format, whose folder has no `config.json`."""


@dataclass(frozen=True)
class ShippedModel:
    """A shipped model.

    Args:
        about: one line for listings.
        backbone: shipped model that an adapter, a LoRA or a ControlNet belongs to; empty for what belongs to none.
        condition: name of the conditions that an adapter is loaded for by itself; empty for one that has to be named.
    """

    about: str
    backbone: str = ""
    condition: str = ""


MODELS: Final[Mapping[str, ShippedModel]] = {
    "tiny-drawings": ShippedModel("small Stable Diffusion of drawings by nine designers; stock pipelines open it"),
    "paired": ShippedModel(
        "localized sketch-text pairs on tiny-drawings; a PairedAdapter", "tiny-drawings", condition="paired"
    ),
    "style": ShippedModel(
        "styles of nine designers by name, on tiny-drawings; a StyleAdapter", "tiny-drawings", condition="style"
    ),
    "tiny-diffusion": ShippedModel("small Stable Diffusion of outfits; stock pipelines open it"),
    "outfits-paired": ShippedModel(
        "localized sketch-text pairs on tiny-diffusion; a PairedAdapter", "tiny-diffusion", condition="paired"
    ),
    "outfits-style": ShippedModel(
        "eight styles of outfits by name, on tiny-diffusion; a StyleAdapter",
        "tiny-diffusion",
        condition="style",
    ),
    "tiny-rooms": ShippedModel("small Stable Diffusion of wallpapered rooms, the backbone of aligned-views"),
    "aligned-views": ShippedModel(
        "image and geometry of a new view on tiny-rooms; AlignedViews", "tiny-rooms", condition="aligned_views"
    ),
    "tiny-audio": ShippedModel("small Stable Audio of footsteps; stock pipelines open it"),
    "spatial-audio": ShippedModel(
        "boxes, depth, an audio prompt and loudness on tiny-audio; a SpatialAudioAdapter and a ControlNet",
        "tiny-audio",
        condition="spatial_audio",
    ),
}
BASELINES: Final[Mapping[str, ShippedModel]] = {
    "paired-global-sketch": ShippedModel(
        "baseline of outfits-paired: one sketch of the whole image and all texts; a PairedAdapter", "tiny-diffusion"
    ),
    "drawings-lora": ShippedModel(
        "baseline of style: one LoRA for all designers, named in the prompt", "tiny-drawings"
    ),
    "designer-oracle": ShippedModel("classifies the designers of drawings; a DesignerOracle"),
    "sketch-controlnet": ShippedModel("reads sketches of whole outfits; a ControlNetModel", "tiny-diffusion"),
    "oracle-styled": ShippedModel("the oracle of outfits, also for styled ones"),
    "spatial-audio-tokens": ShippedModel("spatial-audio with boxes as tokens alone", "tiny-audio"),
    "spatial-audio-no-time-code": ShippedModel("spatial-audio-tokens without a time code", "tiny-audio"),
    "spatial-audio-own-projections": ShippedModel(
        "spatial-audio-tokens with key and value projections of their own", "tiny-audio"
    ),
    "oracle": ShippedModel("classifies garments, colours and patterns of outfits"),
}
"""Models that only `weftwork evaluate` reads."""
ALL: Final[Mapping[str, ShippedModel]] = {**MODELS, **BASELINES}
DRAWINGS_RESCALE: Final = 0.7
"""Guidance rescale for `tiny-drawings`, which has zero terminal SNR: guidance makes its colours garish."""
IMAGE_BACKBONES: Final = ("tiny-drawings", "tiny-diffusion", "tiny-rooms")
"""Shipped models that a design may name."""


def available() -> list[str]:
    """Returns the names of the shipped models that are installed, sorted."""
    return sorted(_folders())


def shipped(name: str) -> Path:
    """Returns the folder of a shipped model, for `from_pretrained`; `ValueError` if unknown or not installed."""
    folders = _folders()
    if name in folders:
        return folders[name]
    if model := ALL.get(name):
        folder = f"pretrained/{'' if name in MODELS else 'baselines/'}{name}"
        raise UserError(
            f"shipped: {name!r} is not installed ({model.about}), its folder {folder} is missing; a "
            "checkout of the repository has it"
        )
    raise UserError(
        f"shipped: got {name!r}, expected one of: {', '.join(sorted(folders)) or 'none is installed'}; "
        "pass the path of a folder to from_pretrained for models of your own"
    )


def located(source: str | Path) -> Path:
    """Returns the folder that a name of a shipped model, the folder of a training run, or any other path stands for."""
    path = Path(source)
    if not path.exists() and str(source) in available():
        return shipped(str(source))
    result = path / "final"
    return result if result.is_dir() and not (path / "config.json").is_file() else path


def model_folder(model: str | Path) -> Path:
    """Returns the folder of a model, of a shipped one by its name, which comes before a folder here."""
    return shipped(str(model)) if str(model) in available() else Path(model)


def shipped_name(model: str | Path) -> str | None:
    """Returns the name of the shipped model that a name or a path stands for; None for any other."""
    folder = model_folder(model).resolve()
    return next((name for name, one in _folders().items() if one.resolve() == folder), None)


def image_backbone(model: str | Path) -> str | None:
    """Returns the name of the shipped image model that a name or a path stands for, which designs have; else None."""
    name = shipped_name(model)
    return name if name in IMAGE_BACKBONES else None


def adapters_of(model: str | Path) -> dict[str, str]:
    """Returns the installed adapters that belong to a model, by the name of their conditions; none unless shipped."""
    name, installed = shipped_name(model), available()
    return {
        one.condition: adapter
        for adapter, one in ALL.items()
        if one.condition and one.backbone == name and adapter in installed
    }


def backbone_of(adapter: Path) -> str:
    """Returns the name of the shipped backbone that the folder of a shipped adapter belongs to; empty for any other."""
    name = shipped_name(located(adapter).resolve())
    return "" if name is None else ALL[name].backbone


def model_name(source: str) -> str:
    """Returns the name of a model in configs and cards: of a folder (for a run's result, of the run), or its Hub id."""
    if not Path(source).is_dir():
        return source
    folder = Path(source).resolve()
    return folder.parent.name if folder.name == "final" else folder.name


def _folders() -> dict[str, Path]:
    """Folders of models by name."""
    return {one.name: one for place in PLACES if place.is_dir() for one in place.iterdir() if _is_model(one)}


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model_index.json", "config.json", "adapter/config.json", LORA))


__all__ = [
    "ALL",
    "BASELINES",
    "DEFAULT_MODEL",
    "DRAWINGS_RESCALE",
    "IMAGE_BACKBONES",
    "MODELS",
    "ShippedModel",
    "adapters_of",
    "available",
    "backbone_of",
    "image_backbone",
    "located",
    "model_folder",
    "model_name",
    "shipped",
    "shipped_name",
]
