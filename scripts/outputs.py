"""Messages about files that commands replace."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming_replaced(paths: Iterable[Path]) -> Iterator[None]:
    """Prints a line for each of these files that existed before the block and was replaced in it."""
    before = {path: stamp for path in paths if (stamp := _stamp(path)) is not None}
    try:
        yield
    finally:
        for path, stamp in before.items():
            if _stamp(path) not in (stamp, None):
                print(f"replaced: {path}")


def _stamp(path: Path) -> tuple[int, int] | None:
    if not path.is_file():
        return None
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns
