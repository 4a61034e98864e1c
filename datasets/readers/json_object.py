"""JSON objects: files that hold one, such as `config.json`, and objects without doubled keys."""

import json
from pathlib import Path
from typing import Any

from weftwork.datasets.readers.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; `ValueError` for anything else."""
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: got a text that is not JSON ({error}), expected an object; restore it") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: got a {type(config).__name__}, expected an object of options; restore it")
    return config


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Makes the object of these keys and values, for `object_pairs_hook` of `json.loads`.

    Raises:
        ValueError: a key given twice.
    """
    record = dict(pairs)
    if len(record) < len(pairs):
        raise UserError(f"a key given twice among {', '.join(key for key, _ in pairs)}")
    return record
