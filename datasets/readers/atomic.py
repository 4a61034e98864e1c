"""Atomic writes: a file or folder appears complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns errors of safetensors, such as those of a full disk, into `OSError`."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written ({error}); make room, or choose another place") from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path of the same name to write a file or folder to, which then replaces `path`.

    Parent folders are made. After an exception, `path` is as it was and the temporary file is gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as stage:
        partial = Path(stage) / path.name
        with write_errors(path):
            yield partial
        if partial.is_dir() and path.exists():  # a folder can replace only an empty one
            os.replace(path, f"{stage}/{path.name}-before")
        os.replace(partial, path)
