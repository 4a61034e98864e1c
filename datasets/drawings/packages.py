"""Reader of emoji sets in npm tarballs: Iconify's icon sets, and Emojibase's names."""

import base64
import json
import re
import tarfile
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha512
from pathlib import Path
from typing import Any, Final

from weftwork.datasets.drawings.code_points import normalized
from weftwork.datasets.drawings.collection import Drawings, Subject
from weftwork.datasets.drawings.sets import NAMES, SETS, Package
from weftwork.datasets.readers.errors import UserError

GROUPS_LEFT_OUT: Final = (None, 2, 8, 9)
"""Numbers of Emojibase's groups: none, components, symbols, flags."""
CODED_NAMES: Final = ("twemoji", "noto", "fluent_flat")
"""Sets whose icon names are known by code points; the other sets use the same names."""
Row = Mapping[str, Any]
"""An object of a package's JSON."""
CATEGORY_WORDS: Final = {
    **dict.fromkeys(("hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed"), "hand"),
    **dict.fromkeys(("person-gesture", "person-role", "person-activity", "person-sport", "person-resting"), "person"),
    **dict.fromkeys(("place-map", "place-geographic", "place-other"), "place"),
    "person-symbol": "person",
    "person-fantasy": "fantasy person",
    "hand-prop": "hand",
    "body-parts": "body part",
    "animal-marine": "sea animal",
    "plant-other": "plant",
    "food-prepared": "food",
    "food-asian": "asian food",
    "food-sweet": "sweet food",
    "place-religious": "religious building",
    "transport-ground": "vehicle",
    "transport-water": "boat",
    "transport-air": "aircraft",
    "sky-weather": "sky",
    "award-medal": "medal",
    "arts-crafts": "art",
    "musical-instrument": "musical instrument",
    "light-video": "light",
    "book-paper": "paper",
    "other-object": "object",
    **dict.fromkeys(("cat-face", "monkey-face"), "animal face"),
}
"""By Emojibase's subgroup, where its last word does not say it; faces of all moods are "face"."""


def read_packages(folder: Path, keys: Iterable[str] = SETS) -> Drawings:
    """The drawings of all subjects that are no flag or symbol, in their base skin tone.

    Args:
        folder: tarballs as `npm pack` writes them.

    Raises:
        FileNotFoundError: a tarball is missing.
        ValueError: a tarball is not the pinned one.
    """
    keys = list(keys)
    wanted = [NAMES, *(SETS[key].package for key in sorted({*keys, *CODED_NAMES}))]
    check_present(folder, wanted)
    data, groups = members(folder, NAMES, "en/data.json", "meta/groups.json")
    subjects = {
        normalized(row["hexcode"]): _subject(row, groups["subgroups"])
        for row in data
        if row.get("group") not in GROUPS_LEFT_OUT
    }
    icons = {key: members(folder, SETS[key].package, "icons.json", "chars.json") for key in {*keys, *CODED_NAMES}}
    codes = _codes_by_name(data, {key: icons[key][1] for key in CODED_NAMES})
    vectors = {key: _vectors(icons[key][0], icons[key][1], codes) for key in keys}
    known = {key: {code: text for code, text in rows.items() if code in subjects} for key, rows in vectors.items()}
    return Drawings(subjects, known)


def check_present(folder: Path, packages: Collection[Package]) -> None:
    """Raises FileNotFoundError, with the command that fetches them, if tarballs are missing."""
    absent = [f"{one.name}@{one.version}" for one in packages if not (folder / one.file_name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"{folder}: {len(absent)} of {len(packages)} tarballs not found; run `mkdir -p {folder} && "
            f"npm pack {' '.join(absent)} --pack-destination {folder}`"
        )


def check_integrity(path: Path, package: Package) -> None:
    """Raises ValueError unless a tarball has the pinned SHA-512."""
    found = base64.b64encode(sha512(path.read_bytes()).digest()).decode()
    if found != package.integrity:
        raise UserError(f"{path.name}: got SHA-512 {found}, expected {package.integrity}; fetch it again")


def members(folder: Path, package: Package, *names: str) -> list[Any]:
    """JSON files of a tarball, which is checked."""
    path = folder / package.file_name
    check_integrity(path, package)
    with tarfile.open(path) as tar:
        files = [tar.extractfile(f"package/{name}") for name in names]
        return [json.loads(file.read()) for file in files if file is not None]


def _subject(row: Row, subgroups: Mapping[str, str]) -> Subject:
    name = row["label"].lower().replace(": ", " with ").replace("’", "'")
    category = subgroups[str(row["subgroup"])]
    words = "face" if category.startswith("face") else CATEGORY_WORDS.get(category, category.split("-")[-1])
    return Subject(name, tuple(tag.lower() for tag in row.get("tags", ())), words)


def _codes_by_name(data: Iterable[Row], coded: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Code points by the names that icon sets use."""
    codes: dict[str, str] = {}
    for row in data:
        for variant in (row, *row.get("skins", ())):
            codes.setdefault(_slug(variant["label"]), normalized(variant["hexcode"]))
    for characters in coded.values():
        for code, name in characters.items():
            codes.setdefault(name, normalized(code))
    return codes


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", re.sub("[’']", "", label.lower())).strip("-")


def _vectors(icons: Row, characters: Mapping[str, str], codes: Mapping[str, str]) -> dict[str, str]:
    """SVG texts by code points; icons without any that are known are left out."""
    names = {normalized(code): name for code, name in characters.items()}
    squeezed = {name.replace("-", ""): code for name, code in codes.items()}
    for name in (*icons["icons"], *icons.get("aliases", {})):
        code = codes.get(name) or squeezed.get(name.replace("-", ""))
        if code is not None:
            names.setdefault(code, name)
    return {code: _svg(icons, name) for code, name in names.items()}


def _svg(icons: Row, name: str) -> str:
    while name in icons.get("aliases", {}):
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    left, top, width, height = (
        icon.get(side, icons.get(side, default))
        for side, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
