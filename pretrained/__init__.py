"""The shipped models: folders of safetensors, each with a model card, found without a network."""

from pathlib import Path

ROOT = Path(__file__).parent
PLACES = (ROOT, ROOT / "baselines")
"""Default models, and those that only reports read: baselines and oracles, which a checkout has and a wheel lacks."""
DEFAULT_MODEL = "tiny-diffusion"
LORA = "pytorch_lora_weights.safetensors"
"""What diffusers calls a LoRA in a folder; such a folder has no `config.json`, nor has one of an adapter and more."""


def available() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(_folders())


def shipped(name: str) -> Path:
    """The folder of a shipped model, ready for `from_pretrained`.

    Raises:
        ValueError: an unknown name; the message lists what is there.
    """
    folders = _folders()
    if name not in folders:
        raise ValueError(
            f"shipped: got {name!r}, expected one of: {', '.join(sorted(folders)) or 'none is installed'}; "
            "pass the path of a folder to from_pretrained for models of your own; oracles and "
            "baselines are in pretrained/baselines of a checkout"
        )
    return folders[name]


def model_name(source: str) -> str:
    """What configs and cards call a model: a folder's name, or its id on the Hub."""
    return Path(source).name if Path(source).is_dir() else source


def _folders() -> dict[str, Path]:
    """Folders of models by name."""
    return {one.name: one for place in PLACES if place.is_dir() for one in place.iterdir() if _is_model(one)}


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model_index.json", "config.json", "adapter/config.json", LORA))


__all__ = ["available", "model_name", "shipped"]
