"""Attention backends that take no masks, such as flash and sage: a stand-in runs in their place."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from tiny import paired_adapter, paired_conditions, tiny_pipe
from torch import Tensor

from weftwork.attention_processors.core.attention_backends import MASKING, backend_for
from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.processor import attention_layers, conditioned, install
from weftwork.attention_processors.core.wrapper import can_wrap
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.benchmarks.backbones.kernels import Unmasked
from weftwork.scripts.benchmarks.backbones.tiny import flux, made, wan


@pytest.fixture(params=[AttentionBackendName.FLASH, AttentionBackendName.SAGE])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[AttentionBackendName, Unmasked]:
    stand_in = Unmasked()
    monkeypatch.setitem(_AttentionBackendRegistry._backends, request.param, stand_in)
    return request.param, stand_in


def use(name: AttentionBackendName, denoiser: Any, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `set_attention_backend`, which asks for the packages, and as the context manager `attention_backend`."""
    if how == "process":
        monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", name)
    else:
        for layer in attention_layers(denoiser).values():
            layer.processor._attention_backend = name  # pyright: ignore


@pytest.mark.parametrize("how", ["process", "processors"])
@pytest.mark.parametrize(
    ("conditions", "adapter"),
    [
        ({"region": (0.0, 0.0, 0.5, 1.0)}, {}),
        ({}, {}),
        ({"start": 0.5}, {"masking": "pair", "anchored": 0.2}),
    ],
    ids=["regions", "several parts", "anchors"],
)
def test_conditions_act_alike(
    backend: Any, how: str, conditions: Any, adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn() -> Any:
        noise = torch.Generator().manual_seed(0)
        given = {"paired": paired_conditions(**conditions)}
        return pipe("a", conditions=given, num_inference_steps=2, generator=noise, output_type="np").images

    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(paired=paired_adapter(pipe.unet, **adapter))
    expected = drawn()
    use(backend[0], pipe.unet, how, monkeypatch)
    assert (drawn() == expected).all() and backend[1].calls, "the text's attention stays on the user's backend"


class Masked(Branch):
    """Attention to the layer's own tokens, half of them hidden."""

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        mask = torch.zeros(query.shape[0], 1, 1, own.key.shape[1])
        mask[..., ::2] = -torch.inf
        return out + attend(query, own.key, own.value, mask)


@pytest.mark.parametrize("family", [flux, wan], ids=lambda one: one.__name__)
@torch.no_grad()
def test_branches_of_transformers_act_alike(family: Any, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, call = made(family)
    install(model)
    layers = [name for name, layer in attention_layers(model).items() if can_wrap(layer.processor)]
    conditioning = Conditioning({name: (Masked(),) for name in layers})
    with conditioned(model, conditioning):
        expected = call(model)
        use(backend[0], model, "process", monkeypatch)
        assert torch.equal(call(model), expected) and backend[1].calls


def test_only_masks_move_to_another_backend() -> None:
    flash, mask = AttentionBackendName.FLASH, torch.zeros(1)
    assert backend_for(None, flash) == flash and backend_for(mask, "flash") == AttentionBackendName.NATIVE
    assert backend_for(mask, None) is None and all(backend_for(mask, one) == one for one in MASKING)
