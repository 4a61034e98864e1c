"""Functions by which methods open their backbones, and the loading of trained modules by one name."""

from typing import Any

import pytest

from weftwork.attention_processors import methods
from weftwork.attention_processors.core.method import load
from weftwork.pretrained import available, shipped

SHIPPED = [method for method in methods().values() if method.name in available()]


@pytest.mark.parametrize("method", SHIPPED, ids=lambda method: method.name)
def test_a_methods_backbone_opens_and_takes_its_shipped_modules(method: Any) -> None:
    pipe = load(method.pipeline)(shipped(method.backbone), use_safetensors=True)
    adapter = pipe.load_adapter(shipped(method.name), "it")
    assert isinstance(adapter, load(method.adapters[0]))
