"""The shipped models: folders of safetensors, each with a model card, found without a network."""

from pathlib import Path

ROOT = Path(__file__).parent


def available() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(folder.name for folder in ROOT.iterdir() if _is_model(folder))


def shipped(name: str) -> Path:
    """The folder of a shipped model, ready for `from_pretrained`.

    Raises:
        ValueError: an unknown name; the message lists what is there.
    """
    if name not in available():
        raise ValueError(
            f"shipped: got {name!r}, expected one of: {', '.join(available()) or 'none is installed'}; "
            "pass the path of a folder to from_pretrained for models of your own"
        )
    return ROOT / name


def _is_model(folder: Path) -> bool:
    return (folder / "model_index.json").is_file() or (folder / "config.json").is_file()


__all__ = ["available", "shipped"]
