"""JSON files that hold one object, such as `config.json`."""

import json
from pathlib import Path
from typing import Any

from weftwork.datasets.readers.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        ValueError: not JSON, or not an object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: got a text that is not JSON ({error}); restore it") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: got a {type(config).__name__}, expected an object of options; restore it")
    return config
