"""Files below a folder."""

from pathlib import Path


def files_below(folder: Path, above: frozenset[Path] = frozenset()) -> list[Path]:
    """Returns all files below a folder, sorted; folders may be links, as in caches of models.

    Args:
        above: real paths of the folders around it, into which a link does not lead again.
    """
    real = folder.resolve()
    if real in above or not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            found += files_below(path, above | {real})
        elif path.is_file():
            found.append(path)
    return found
