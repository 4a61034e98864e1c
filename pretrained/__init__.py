"""The shipped models: folders of safetensors, each with a model card, found without a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from weftwork.datasets.readers.errors import UserError

ROOT = Path(__file__).parent
PLACES = (ROOT, ROOT / "baselines")
"""Default models, and those that only reports read: baselines and oracles, which a checkout has and a wheel lacks."""
DEFAULT_MODEL = "tiny-diffusion"
LORA = "pytorch_lora_weights.safetensors"
"""File of a LoRA in diffusers' format, whose folder has no `config.json`."""


MODELS: Final[Mapping[str, str]] = {
    "tiny-diffusion": "small Stable Diffusion of outfits and creatures; stock pipelines open it",
    "paired": "localized sketch-text pairs on tiny-diffusion; a PairedAdapter",
    "style": "eight styles by name on tiny-diffusion, of creatures and outfits; a StyleAdapter",
    "tiny-rooms": "small Stable Diffusion of wallpapered rooms, the backbone of aligned-views",
    "aligned-views": "image and geometry of a new view on tiny-rooms; AlignedViews",
    "tiny-audio": "small Stable Audio of footsteps; stock pipelines open it",
    "spatial-audio": "boxes, depth, an audio prompt and loudness on tiny-audio; a SpatialAudioAdapter and a ControlNet",
}
BASELINES: Final[Mapping[str, str]] = {
    "paired-global-sketch": "baseline of paired: one sketch of the whole image and all texts; a PairedAdapter",
    "style-creatures": "style, of creatures alone; a StyleAdapter",
    "style-gated": "style-creatures with gated fusion; a StyleAdapter",
    "style-concat": "style-creatures in one softmax with the text; a StyleAdapter",
    "style-reference": "baseline of style: style of a reference image; a ReferenceAdapter",
    "creature-encoder": "image encoder of style-reference; a CLIPVisionModelWithProjection",
    "style-lora": "baseline of style: one LoRA for all styles, named in the prompt; diffusers' format",
    "creature-oracle": "classifies style, species, colour and pose of creatures",
    "sketch-controlnet": "reads sketches of whole outfits; a ControlNetModel",
    "oracle-styled": "the oracle of outfits, also for styled ones",
    "spatial-audio-tokens": "spatial-audio with boxes as tokens alone",
    "spatial-audio-no-time-code": "spatial-audio-tokens without a time code",
    "spatial-audio-own-projections": "spatial-audio-tokens with key and value projections of their own",
    "oracle": "classifies garments, colours and patterns of outfits",
}
"""Models that only `weftwork evaluate` reads."""


def available() -> list[str]:
    """Returns the names of the shipped models that are installed, sorted."""
    return sorted(_folders())


def shipped(name: str) -> Path:
    """Returns the folder of a shipped model, for `from_pretrained`; `ValueError` if unknown or not installed."""
    folders = _folders()
    if name in folders:
        return folders[name]
    if about := {**MODELS, **BASELINES}.get(name):
        folder = f"pretrained/{'' if name in MODELS else 'baselines/'}{name}"
        raise UserError(
            f"shipped: {name!r} is not installed ({about}), its folder {folder} is missing; a "
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


__all__ = ["BASELINES", "DEFAULT_MODEL", "MODELS", "available", "located", "model_name", "shipped"]
