"""Tarballs of npm packages."""

import base64
import io
import json
import tarfile
from hashlib import sha512
from pathlib import Path
from typing import Any


def pack(path: Path, members: dict[str, Any]) -> str:
    """Writes a tarball; returns its integrity."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return base64.b64encode(sha512(path.read_bytes()).digest()).decode()
