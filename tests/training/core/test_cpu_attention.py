"""Attention of training in bfloat16 on a CPU is computed explicitly, where it is short."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_training import Records, config, make_task
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from weftwork.training.core import cpu_attention
from weftwork.training.core.cpu_attention import explicit_attention
from weftwork.training.core.loop import train

FUSED, EXPLICIT = "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_attention_math"


def inputs() -> list[Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 5, 8, generator=drawn).bfloat16().requires_grad_() for _ in range(3)]


def attend(states: Sequence[Tensor]) -> tuple[Tensor, set[str]]:
    """The result, with gradients in `states`, and the kernels that ran."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        result = F.scaled_dot_product_attention(*states)
        result.float().square().sum().backward()
    return result, {event.key for event in seen.key_averages()} & {FUSED, EXPLICIT}


def test_short_attention_is_explicit_and_the_same_up_to_rounding() -> None:
    plain, explicit = inputs(), inputs()
    before, kernels = attend(plain)
    assert kernels == {FUSED}
    with explicit_attention(wanted=True):
        after, kernels = attend(explicit)
    assert kernels == {EXPLICIT}
    torch.testing.assert_close(after, before, atol=2e-2, rtol=2e-2)
    for one, other in zip(explicit, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize(("wanted", "most"), [(False, 2**25), (True, 2 * 3 * 5 * 5 - 1)])
def test_it_is_fused_where_it_is_long_or_not_asked_for(
    wanted: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "MOST", most)
    with explicit_attention(wanted=wanted):
        assert attend(inputs())[1] == {FUSED}


def test_settings_of_torch_are_as_before_also_after_an_error() -> None:
    allowed = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed
    before = allowed()
    with pytest.raises(KeyError), explicit_attention(wanted=True):
        assert allowed()
        raise KeyError
    assert allowed() == before
    assert attend(inputs())[1] == {FUSED}


@pytest.mark.parametrize(("precision", "kernel"), [("no", FUSED), ("bf16", EXPLICIT)])
def test_training_in_bfloat16_on_a_cpu_uses_it(precision: str, kernel: str, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # of other tests' precision
    task = make_task()
    loss, kernels = task.loss, set[str]()

    def profiled(*arguments: Any) -> Any:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            result = loss(*arguments)
        kernels.update(event.key for event in seen.key_averages())
        return result

    task.loss = profiled  # pyright: ignore[reportAttributeAccessIssue]
    train(task, Records(task.module), config(tmp_path, mixed_precision=precision, max_train_steps=1))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert kernels & {FUSED, EXPLICIT} == {kernel}
