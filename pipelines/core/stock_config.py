"""Configs of folders that stock diffusers opens."""

import json
from collections.abc import Collection


def named_as(name: str, config: str, without: Collection[str] = ()) -> str:
    """Returns a config in JSON with the name of another class, and without some of its options."""
    kept = {key: value for key, value in json.loads(config).items() if key not in without}
    return json.dumps({**kept, "_class_name": name}, indent=2, sort_keys=True) + "\n"
