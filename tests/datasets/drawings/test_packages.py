"""Reader of emoji packages: tarballs in npm's format, names across sets, integrity."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from remedies import check
from tiny_packages import pack

from weftwork.datasets.drawings import packages, sets
from weftwork.datasets.drawings.packages import read_packages

ROWS = [
    {"label": "fire engine", "hexcode": "1F692", "group": 5, "subgroup": 54, "tags": ["Truck"]},
    {"label": "woman: red hair", "hexcode": "1F469-200D-1F9B0", "group": 1, "subgroup": 23},
    {"label": "flag: Peru", "hexcode": "1F1F5-1F1EA", "group": 9, "subgroup": 98},
]
ICONS = {
    "width": 32,
    "height": 32,
    "icons": {"fire-engine": {"body": "<path/>"}, "flag-peru": {"body": "<circle/>", "left": 2}},
    "aliases": {"fireengine": {"parent": "fire-engine"}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    groups = {"subgroups": {"54": "transport-ground", "23": "person", "98": "country-flag"}}
    digest = pack(tmp_path / sets.NAMES.file_name, {"en/data.json": ROWS, "meta/groups.json": groups})
    monkeypatch.setattr(packages, "NAMES", replace(sets.NAMES, integrity=digest))
    pinned = {}
    for key in (*packages.CODED_NAMES, "fxemoji"):
        icons = {**ICONS, "icons": {"fireengine": {"body": "<path/>"}}, "aliases": {}} if key == "fxemoji" else ICONS
        chars = {} if key == "fxemoji" else {"1f692": "fire-engine", "1f1f5-1f1ea": "flag-peru"}
        one = sets.SETS[key]
        digest = pack(tmp_path / one.package.file_name, {"icons.json": icons, "chars.json": chars})
        pinned[key] = replace(one, package=replace(one.package, integrity=digest))
    monkeypatch.setattr(packages, "SETS", pinned)
    return tmp_path


def test_drawings_are_found_by_code_points_and_by_name(folder: Path) -> None:
    drawings = read_packages(folder, ["twemoji", "fxemoji"])
    assert {key: list(texts) for key, texts in drawings.vectors.items()} == {"twemoji": ["1F692"], "fxemoji": ["1F692"]}
    assert 'viewBox="0 0 32 32"><path/></svg>' in drawings.vectors["twemoji"]["1F692"]


def test_subjects_have_names_tags_and_categories(folder: Path) -> None:
    subjects = read_packages(folder, ["twemoji"]).subjects
    assert {s.name: (s.tags, s.category) for s in subjects.values()} == {
        "fire engine": (("truck",), "vehicle"),
        "woman with red hair": ((), "person"),
    }


def test_missing_and_other_tarballs_are_fetched(folder: Path) -> None:
    """By the command in the error, which fetches all that are missing; here it copies them."""
    noto, names = folder / sets.SETS["noto"].package.file_name, folder / sets.NAMES.file_name
    tarballs = {path.name: path.read_bytes() for path in (noto, names)}

    def fetched(packages: str) -> Any:
        for wanted in packages.split():
            name = wanted.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz"
            (folder / name).write_bytes(tarballs[name])
        return read_packages(folder, ["noto"])

    noto.unlink()
    names.unlink()
    words = f"2 of 4 tarballs not found; run `mkdir -p {folder} && npm pack (.*) --pack-destination {folder}`"
    with pytest.raises(FileNotFoundError, match=words) as missing:
        read_packages(folder, ["noto"])
    packages = re.findall(words, str(missing.value))[0]
    assert fetched(packages)
    pack(noto, {"icons.json": {}, "chars.json": {}})
    check(("; fetch it again", lambda _: read_packages(folder, ["noto"]), lambda _: fetched(packages)), folder)
