"""Imports point one way, between folders and between modules, lazy ones included."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "weftwork"
DATASETS = ("datasets.readers", "datasets.synthetic", "datasets.drawings", "datasets.people")
BELOW: Mapping[str, set[str]] = {
    "datasets.readers": set(),
    "datasets.synthetic": {"datasets.readers"},
    "datasets.drawings": {"datasets.readers", "datasets.synthetic"},
    "datasets.people": {"datasets.readers", "datasets.synthetic", "datasets.drawings"},
    "pretrained": {"datasets.readers"},
    "attention_processors": {"datasets.readers", "pretrained"},
    "pipelines": {"attention_processors", "datasets.readers", "pretrained"},
    "training": {"pipelines", "attention_processors", *DATASETS, "pretrained"},
    "evaluation": {"pipelines", "attention_processors", *DATASETS, "pretrained"},
}
"""By room, the rooms that it may import; `scripts` may import all."""
NOT_IN_THE_WHEEL = ("training.recipes", "scripts.maintenance")

pytestmark = pytest.mark.skipif(not (ROOT / "attention_processors").is_dir(), reason="not in a checkout")


@cache
def imports() -> Mapping[str, set[str]]:
    """Modules of the package that each module imports, without those for type checkers alone."""
    roots = {room.partition(".")[0] for room in BELOW} | {"scripts"}
    paths = {named(path): path for root in sorted(roots) for path in (ROOT / root).rglob("*.py")}
    return {
        name: {one for names in found(path) if (one := next((n for n in names if n in paths), name)) != name}
        for name, path in paths.items()
    }


def named(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def found(path: Path) -> Iterator[list[str]]:
    """Per import of a file the names after `weftwork.` of the module that it may be, the longest first."""
    for node in walked(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [[f"{node.module}.{one.name}", node.module] for one in node.names]
        elif isinstance(node, ast.Import):
            names = [[one.name] for one in node.names]
        else:
            continue
        yield from ([one.removeprefix(f"{PACKAGE}.") for one in row] for row in names if row[0].startswith(PACKAGE))


def walked(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from walked(node)


def room(module: str) -> str:
    return next((one for one in BELOW if f"{module}.".startswith(f"{one}.")), "scripts")


def folder(module: str) -> str:
    """The folder of a module; a folder's own `__init__` belongs to it."""
    return module if (ROOT / module.replace(".", "/")).is_dir() else module.rpartition(".")[0]


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """The first cycle of a graph, or nothing."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        ring = next(filter(None, (visit(one, [*path, node]) for one in sorted(graph[node]))), [])
        done.add(node)
        return ring

    return next(filter(None, (visit(node, []) for node in sorted(graph))), [])


def test_rooms_import_only_those_below() -> None:
    wrong = [
        f"{name} imports {one}"
        for name, others in imports().items()
        for one in sorted(others)
        if room(name) != "scripts" and room(one) not in {room(name), *BELOW[room(name)]}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other() -> None:
    assert not cycle(imports())


def test_no_folders_import_each_other() -> None:
    graph: dict[str, set[str]] = {folder(name): set() for name in imports()}
    for name, others in imports().items():
        graph[folder(name)] |= {folder(one) for one in others} - {folder(name)}
    assert not cycle(graph)


def test_what_a_wheel_lacks_is_imported_by_nothing_in_it() -> None:
    def lacking(name: str) -> bool:
        return f"{name}.".startswith(tuple(f"{one}." for one in NOT_IN_THE_WHEEL))

    wrong = [f"{name} imports {one}" for name, others in imports().items() for one in others if lacking(one)]
    assert not [one for one in wrong if not lacking(one.partition(" ")[0])]
