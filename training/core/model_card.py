"""Model card of a trained adapter: training options, scores and sample images; upload to the Hub."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.hardware import hardware

SAMPLES = 4
"""Validation images copied beside the card."""


def write_card(folder: Path, run: Path, about: Mapping[str, Any]) -> Path:
    """Writes `README.md` beside trained weights, with the last validation's scores and images.

    Args:
        folder: of the weights.
        run: of the training, with its metrics and validation images.
        about: `method`, `base`, `license`, `parameters`, `training` (a mapping) and `usage` (Python text, may be
            empty).
    """
    images = _samples(run / "validation", folder / "samples")
    rows = _metrics(run / "metrics.jsonl")
    scores = {name: value for name, value in _last_scores(rows).items() if isinstance(value, float | int)}
    seconds = sum(row.get("seconds") or 0 for row in rows)
    training = {key: value for key, value in about["training"].items() if not isinstance(value, Mapping)}
    lines = [
        "---",
        f"license: {about['license']}",
        f"base_model: {about['base']}",
        "library_name: diffusers",
        f"tags: [weftwork, {about['method']}]",
        "---",
        "",
        f"# {about['method']}",
        "",
        f"A `{about['method']}` adapter for {about['base']}, trained with weftwork.",
        "",
        *(["```python", about["usage"].rstrip("\n"), "```", ""] if about["usage"] else []),
        "| training | |",
        "| --- | --- |",
        f"| trained parameters | {about['parameters']:,} |",
        *(f"| {name} | {value} |" for name, value in training.items()),
        f"| time | {seconds / 60:.1f} minutes of steps on {hardware()} |",
        *(["", "| score | last validation |", "| --- | --- |"] if scores else []),
        *(f"| {name} | {value:.4g} |" for name, value in scores.items()),
        *(line for name in images for line in ("", f"![sample](samples/{name})")),
        "",
    ]
    with atomic_path(folder / "README.md") as partial:
        partial.write_text("\n".join(lines), encoding="utf-8")
    return folder / "README.md"


def _metrics(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _last_scores(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the scores of the last validation."""
    usual = {"step", "loss", "learning_rate", "seconds"}
    more = [{key: value for key, value in row.items() if key not in usual} for row in rows]
    return next((row for row in reversed(more) if row), {})


def _samples(source: Path, target: Path) -> list[str]:
    """Copies images of the last validation and returns their file names."""
    found = sorted(source.glob("*.png")) if source.is_dir() else []
    last = [path for path in found if found and path.name[:6] == found[-1].name[:6]][:SAMPLES]
    if last:
        target.mkdir(exist_ok=True)
    for path in last:
        shutil.copyfile(path, target / path.name)
    return [path.name for path in last]


def push(folder: Path, repo_id: str) -> str:
    """Uploads a trained folder to the Hub, to a private repository unless it exists; returns its URL.

    `ValueError` without network or write access; the local folder is not changed.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        url = api.create_repo(repo_id, exist_ok=True, private=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=[".*", "state/*"])
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise UserError(
            f"push_to_hub: {repo_id!r} could not be written ({error}); the result is in {folder}: log in with "
            f"`hf auth login` and run `hf upload {repo_id} {folder} --private`"
        ) from error
    return str(url)
