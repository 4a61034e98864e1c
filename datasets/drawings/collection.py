"""Vector drawings of named subjects, from a folder of SVG files or from the npm tarballs."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

SUBJECTS_FILE: Final = "subjects.json"


@dataclass(frozen=True)
class Subject:
    """A subject: what drawings of all designers show.

    Args:
        name: such as "fire engine", in lower case.
        tags: other words for it.
        category: such as "mammal".
    """

    name: str
    tags: tuple[str, ...]
    category: str


@dataclass(frozen=True)
class Drawings:
    """SVG texts by set and code points, and the subjects by code points."""

    subjects: Mapping[str, Subject]
    vectors: Mapping[str, Mapping[str, str]]

    @classmethod
    def read(cls, folder: Path) -> "Drawings":
        """Read what `save` wrote: `subjects.json` and one `<set>/<code points>.svg` per drawing."""
        if not (folder / SUBJECTS_FILE).is_file():
            raise FileNotFoundError(f"folder: got {folder}, expected {SUBJECTS_FILE} in it; see `Drawings.save`")
        rows = json.loads((folder / SUBJECTS_FILE).read_text())
        vectors: dict[str, dict[str, str]] = {}
        for path in sorted(folder.glob("*/*.svg")):
            vectors.setdefault(path.parent.name, {})[path.stem] = path.read_text()
        subjects = {code: Subject(row["name"], tuple(row["tags"]), row["category"]) for code, row in rows.items()}
        return cls(subjects, vectors)

    def save(self, folder: Path) -> None:
        """Write the drawings as SVG files, for `read`."""
        for key, texts in self.vectors.items():
            (folder / key).mkdir(parents=True, exist_ok=True)
            for code, text in texts.items():
                (folder / key / f"{code}.svg").write_text(text + "\n")
        rows = {code: asdict(subject) for code, subject in self.subjects.items()}
        (folder / SUBJECTS_FILE).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")

    def only(self, keys: Collection[str], codes: Collection[str]) -> "Drawings":
        """The drawings of some sets and subjects."""
        subjects = {code: subject for code, subject in self.subjects.items() if code in codes}
        vectors = {
            key: {code: text for code, text in self.vectors[key].items() if code in codes}
            for key in self.vectors
            if key in keys
        }
        return Drawings(subjects, vectors)
