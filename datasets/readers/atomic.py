"""Atomic writes: a file or folder appears complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from safetensors import SafetensorError

from weftwork.datasets.readers.errors import UserError

CUT: Final = "unexpected pos"
"""In errors of torch.save, of a file that is cut short."""


class WriteError(OSError):
    """A file or folder could not be written; the message names it."""


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns errors of writing that name no file, such as those of a full disk, into a `WriteError` with the path."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        named = isinstance(error, WriteError) or getattr(error, "filename", None) is not None
        if named or (isinstance(error, RuntimeError) and CUT not in str(error)):
            raise
        reason = getattr(error, "strerror", None) or error
        raise WriteError(f"{path}: cannot be written ({reason}); make room, or choose another place") from error


def check_new_folder(path: Path) -> None:
    """Raises `ValueError` if a folder would replace something there: a file, or a folder with files."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: got a file or a folder with files, expected none; name another, or remove it")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path of the same name to write a file or folder to, which then replaces `path`.

    Parent folders are made. After an exception, `path` is as it was and the temporary file is gone. Errors of writing
    name `path`, see `write_errors`.
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
