"""Functions by which methods open their backbones, and the loading of trained modules by one name."""

import pytest

from weftwork.attention_processors import methods
from weftwork.attention_processors.core.method import load
from weftwork.pretrained import ALL, available, shipped

SHIPPED = [name for name in available() if ALL[name].condition]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_adapter_fits_its_backbone(name: str) -> None:
    method = next(one for one in methods().values() if one.option == ALL[name].condition)
    pipe = load(method.pipeline)(shipped(ALL[name].backbone), use_safetensors=True)
    adapter = pipe.load_adapter(shipped(name), "it")
    assert isinstance(adapter, load(method.adapters[0]))
