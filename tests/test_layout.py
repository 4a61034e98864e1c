"""The repository's shape: root folders are the sub-packages of weftwork, nothing is shadowed, files stay small."""

import ast
import importlib.util
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weftwork.pretrained import available, shipped

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES, MAX_BODY_LINES = 350, 45
NOT_IN_THE_WHEEL = {"training/recipes", "scripts/maintenance", "scripts/maintenance/oracles"}
NOT_PACKAGES = {"tests", "docs", "examples", "outputs", "build", "dist"}

pytestmark = pytest.mark.skipif(not (ROOT / "attention_processors").is_dir(), reason="not in a checkout")


def folders() -> list[Path]:
    """Root folders that hold modules, nested ones too."""
    found = [f for f in sorted(ROOT.iterdir()) if f.is_dir() and f.name[0] != "." and f.name not in NOT_PACKAGES]
    roots = [root for root in found if any(root.rglob("*.py"))]
    return sorted({*roots, *(path.parent for root in roots for path in root.rglob("*.py"))})


def modules() -> list[Path]:
    return [path for folder in folders() for path in sorted(folder.glob("*.py"))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_folder_with_modules_is_packaged_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    setuptools = pytest.importorskip("setuptools")
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    packaged = [name(folder) for folder in folders() if name(folder) not in NOT_IN_THE_WHEEL]
    assert given["package_dir"] == {f"weftwork.{root}": root for root in packaged if "/" not in root}  # covers children
    assert set(given["packages"]) == {f"weftwork.{folder.replace('/', '.')}" for folder in packaged}


def test_the_type_checker_sees_the_same_folders() -> None:
    links = {link.name: link.resolve() for link in (ROOT / ".typecheck" / "weftwork").iterdir()}
    assert links == {folder.name: folder for folder in folders() if folder.parent == ROOT}


def test_no_package_shadows_hugging_faces_datasets() -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists()
    assert not (ROOT / "weftwork").exists()
    spec = importlib.util.find_spec("datasets")
    assert spec is not None and spec.origin is not None, "install Hugging Face's datasets"
    assert ROOT / "datasets" not in Path(spec.origin).resolve().parents


def test_weft_is_a_namespace() -> None:
    spec = importlib.util.find_spec("weftwork")
    assert spec is not None and spec.origin is None


def test_every_package_is_typed() -> None:
    roots = [folder for folder in folders() if folder.parent == ROOT]
    assert not [name(root) for root in roots if not (root / "py.typed").is_file()]  # speaks for the folders below


def test_every_shipped_model_has_a_card() -> None:
    assert not [model for model in available() if not (shipped(model) / "README.md").is_file()]


def test_the_wheel_imports_nothing_that_it_leaves_out() -> None:
    left_out = tuple(f"weftwork.{folder.replace('/', '.')}" for folder in NOT_IN_THE_WHEEL)
    packed = [path for path in modules() if name(path.parent) not in NOT_IN_THE_WHEEL]
    assert not [name(path) for path in packed if any(package in path.read_text() for package in left_out)]


def long_parts(path: Path, tree: ast.Module, lines: int) -> Iterator[str]:
    """Yields what is beyond the budgets in a file."""
    if lines > MAX_FILE_LINES:
        yield f"{name(path)}: {lines} lines, expected at most {MAX_FILE_LINES}; split the file"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > MAX_BODY_LINES:
                yield f"{name(path)}: {node.name}: {length} lines, expected at most {MAX_BODY_LINES}; split it"


def test_budgets_and_docstrings() -> None:
    wrong, packaged = [], set(modules())
    for path in [*packaged, *(ROOT / "tests").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        wrong += long_parts(path, tree, len(text.splitlines()))
        if path in packaged and text.strip() and not ast.get_docstring(tree):
            wrong.append(f"{name(path)}: no docstring; say the idea of the file in one line")
    assert not wrong, "\n".join(wrong)
