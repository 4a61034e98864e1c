"""Fetch pinned Debian packages with recorded footsteps, and lay them out by surface with credits.

    python -m weftwork.scripts.maintenance.fetch_footsteps .cache/packages .cache/footsteps
    python -m weftwork.scripts.maintenance.fetch_footsteps .cache/packages examples/footsteps --free

Needs `apt-get` and `dpkg-deb`, and once the packages in `apt`'s lists; packages that are in the folder are not fetched
again. `--free` lays out those under CC0 and CC-BY alone. Licenses are those of the README of each game's sounds, which
names files that the packages' own `copyright` sums up.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.footsteps import CREDITS

FREE: Final = ("CC0-1.0", "CC-BY-3.0")
WHERE: Final = {
    "CC0-1.0": "creativecommons.org/publicdomain/zero/1.0",
    "CC-BY-3.0": "creativecommons.org/licenses/by/3.0",
}


@dataclass(frozen=True)
class Steps:
    """Files of a package with one surface and one author; `names` is a regular expression of whole file names."""

    names: str
    surface: str
    license: str
    author: str
    source: str = ""


@dataclass(frozen=True)
class Package:
    """A Debian package.

    Args:
        under: end of the folder of its footsteps; in a PK3 archive where the package has one.
    """

    name: str
    version: str
    sha256: str
    under: str
    steps: tuple[Steps, ...]


def _minetest(surface: str, license: str, author: str, source: str = "") -> Steps:
    page = f"freesound.org/people/{author}/{source}" if source else ""
    return Steps(rf"default_{surface}_footstep(\.\d)?\.ogg", surface, license, author, page)


OPENARENA, FLARE, LUGARU = "OpenArena Team", "Clint Bellanger and others", "Lugaru authors"
PACKAGES: Final = (
    Package(
        "minetest-data",
        "5.6.1+dfsg+~1.9.0mt8+dfsg-2",
        "91371dd2bd51cfcd4fa60c138667989a47047dfe1a47f7523b9ad1782d397585",
        "mods/default/sounds",
        (
            _minetest("metal", "CC0-1.0", "mypantsfelldown", "sounds/398937"),
            _minetest("sand", "CC0-1.0", "worthahep88", "sounds/319224"),
            _minetest("snow", "CC0-1.0", "Ryding", "sounds/94337"),
            _minetest("hard", "CC-BY-3.0", "Erdie", "sounds/41579"),
            _minetest("ice", "CC-BY-3.0", "InspectorJ", "sounds/416967"),
            _minetest("water", "CC-BY-3.0", "AGFX", "packs/1253"),
            *(
                _minetest(surface, "CC-BY-SA-3.0", "Mito551")
                for surface in ("dirt", "glass", "grass", "gravel", "wood")
            ),
        ),
    ),
    Package(
        "openarena-data",
        "0.8.5split-14",
        "fa68862434f02a826b7ef22008f25f406623abf4e37113c1bfab5460065483c8",
        "sound/player/footsteps",
        tuple(
            Steps(rf"{name}\d\.wav", surface, "GPL-2.0-or-later", OPENARENA)
            for name, surface in (
                *(("boot", "hard"), ("step", "hard"), ("clank", "metal"), ("splash", "water")),
                *(("energy", "energy"), ("flesh", "flesh"), ("mech", "machine")),
            )
        ),
    ),
    Package(
        "flare-game",
        "1.14-1",
        "4ab6a8298276013d35a0806257e130d992761af1b749041433b409c3dafec508",
        "soundfx/steps",
        tuple(
            Steps(rf"step_{name}\d\.ogg", surface, "CC-BY-SA-3.0", FLARE)
            for name, surface in (("cloth", "cloth"), ("echo", "hall"), ("leather", "leather"), ("metal", "armor"))
        ),
    ),
    Package(
        "lugaru-data",
        "1.2-6",
        "6a25e8d2d7c2d94b7873669d1f52137b2ba56e86ba5c2f08fefeacd65e526023",
        "lugaru/Sounds",
        tuple(
            Steps(rf"FootStep{name}\d\.ogg", surface, "CC-BY-SA-3.0", LUGARU)
            for name, surface in (("Grass", "grass"), ("Snow", "snow"), ("Stone", "hard"))
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder of the packages")
    parser.add_argument("folder", type=Path, help="for the footsteps")
    parser.add_argument("--free", action="store_true", help="only those under CC0 and CC-BY, and a NOTICE")
    arguments = parser.parse_args(argv)
    arguments.packages.mkdir(parents=True, exist_ok=True)
    credited: dict[str, dict[str, str]] = {}
    for package in PACKAGES:
        steps = tuple(one for one in package.steps if not arguments.free or one.license in FREE)
        if steps:
            path = fetch(package, arguments.packages)
            credited |= lay_out(replace(package, steps=steps), path, arguments.folder)
    (arguments.folder / CREDITS).write_text(json.dumps(dict(sorted(credited.items())), indent=1) + "\n")
    if arguments.free:
        (arguments.folder / "NOTICE").write_text(notice(credited))
    print(f"{len(credited)} footsteps in {arguments.folder}")


def fetch(package: Package, folder: Path) -> Path:
    """Returns the file of a package, fetched unless it is there; `ValueError` if it is not the pinned one."""
    path = folder / f"{package.name}_{package.version}_all.deb"
    if not path.is_file():
        subprocess.run(["apt-get", "download", f"{package.name}={package.version}"], cwd=folder, check=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != package.sha256:
        raise UserError(f"{path}: got SHA-256 {found}, expected {package.sha256}; remove the file and fetch it again")
    return path


def lay_out(package: Package, path: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Writes the footsteps of a package as <surface>/<package>-<file>, and returns their credits."""
    credited: dict[str, dict[str, str]] = {}
    for name, content in files_of(path, package.under):
        one = next((one for one in package.steps if re.fullmatch(one.names, name)), None)
        if one is None:
            continue
        where = folder / one.surface / f"{package.name}-{name}"
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(content)
        source = f"Debian package {package.name} {package.version}{f'; {one.source}' if one.source else ''}"
        credited[where.relative_to(folder).as_posix()] = {
            "surface": one.surface,
            "license": one.license,
            "author": one.author,
            "source": source,
        }
    return credited


def files_of(path: Path, under: str) -> Iterator[tuple[str, bytes]]:
    """Yields names and contents of the files in a folder of a package or of the PK3 archives in it."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):
            file, content = Path(member.name), archive.extractfile(member)
            assert content is not None
            if file.suffix == ".pk3":
                with zipfile.ZipFile(io.BytesIO(content.read())) as inner:
                    for name in inner.namelist():
                        if Path(name).parent.as_posix() == under:
                            yield Path(name).name, inner.read(name)
            elif file.parent.as_posix().endswith(under):
                yield file.name, content.read()


def notice(credited: dict[str, dict[str, str]]) -> str:
    """Returns the text that credits each file."""
    lines = [f"{name}: {one['author']}, {one['license']}; {one['source']}" for name, one in sorted(credited.items())]
    links = [f"{name}: {where}" for name, where in WHERE.items()]
    return "\n".join(["Recorded footsteps, unchanged but for their names.", "", *lines, "", *links, ""])


if __name__ == "__main__":
    main()
