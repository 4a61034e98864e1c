"""One thread, one seed, no network, and the table of methods as a fixture."""

import gc
import os
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

gc.disable()  # until all modules are imported

import pytest  # noqa: E402
import torch  # noqa: E402
from tiny import METHODS, Method, seed  # noqa: E402

torch.set_num_threads(1)

FOR_MAINTAINERS = ("training/recipes", "scripts/maintenance")
"""Packages that the wheel leaves out; their tests are not collected without them."""
collect_ignore = [
    str(Path(__file__).parent / folder)
    for folder in FOR_MAINTAINERS
    if find_spec(f"weftwork.{folder.replace('/', '.')}") is None
]
LONG = ("evaluation", "training", "pretrained", "scripts", "test_readme.py")
"""Folders and files of the longest tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files with long tests first, so that parallel workers end at about the same time."""
    root = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(root).parts[0] not in LONG)


def pytest_collection_finish() -> None:
    """Leaves the objects of imported modules out of garbage collections, which take a tenth of the time otherwise."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


@pytest.fixture(autouse=True)
def _seed() -> None:
    seed(0)


@pytest.fixture(autouse=True)
def _few_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation images of training are made in few steps."""
    if {"training", "scripts"} & set(request.path.parts):
        monkeypatch.setattr("weftwork.training.tasks.adapter.SHEET_STEPS", 2)


@pytest.fixture(params=METHODS, ids=lambda m: m.name)
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


@pytest.fixture(params=[one for one in METHODS if one.trained], ids=lambda m: m.name)
def trained(request: pytest.FixtureRequest) -> Method:
    """A method with weights."""
    return request.param
