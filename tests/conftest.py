"""One thread, one seed, no network, and the table of methods as a fixture."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest
import torch
from tiny import METHODS, Method

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=METHODS, ids=lambda m: m.name)
def method(request: pytest.FixtureRequest) -> Method:
    return request.param
