"""Attention distillation from a teacher to a student."""

import pytest
import torch
from tiny_links import LAYER, denoised, denoiser, gradients, latents

from weftwork.attention_processors.views.instillation import Instillation
from weftwork.training.tasks.attention_distillation import attention_distillation_loss


@pytest.mark.parametrize("kind", ["kl", "mse", "logits"])
def test_distillation_is_0_for_equals_and_moves_the_student_only(kind: str) -> None:
    teacher, student = denoiser(1), denoiser(2)
    kept, own = Instillation(), Instillation()
    denoised(teacher, latents(1), link=kept.record())
    assert attention_distillation_loss(kept.store, kept.store, kind) == 0
    denoised(student, latents(1), link=own.record())
    loss = attention_distillation_loss(kept.store, own.store, kind)
    assert loss > 0
    loss.backward()
    assert not gradients(teacher)
    assert any(name.endswith("attn1.to_q.weight") for name in gradients(student))


def test_distillation_does_not_depend_on_the_chunk_size() -> None:
    found = []
    for queries in (7, 1000):
        teacher, student, kept, own = denoiser(1), denoiser(2), Instillation(), Instillation()
        denoised(teacher, latents(1), link=kept.record())
        denoised(student, latents(1), link=own.record())
        loss = attention_distillation_loss(kept.store, own.store, queries=queries)
        loss.backward()
        found.append((loss.detach(), gradients(student)[f"{LAYER}.to_q.weight"]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-7)


def test_distillation_learns() -> None:
    teacher, student, kept = denoiser(1), denoiser(2), Instillation(gradient="detach")
    with torch.no_grad():
        denoised(teacher, latents(1), link=kept.record())
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        own = Instillation()
        denoised(student, latents(1), link=own.record())
        loss = attention_distillation_loss(kept.store, own.store)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_bad_targets_are_refused() -> None:
    unet, kept, other = denoiser(1), Instillation(), Instillation(layers=r"mid.*attn1")
    denoised(unet, latents(1), link=kept.record())
    with pytest.raises(ValueError, match="kind: got 'l1', expected one of kl, mse, logits"):
        attention_distillation_loss(kept.store, kept.store, "l1")
    denoised(unet, latents(1), link=other.record())
    with pytest.raises(ValueError, match=r"layers: got down_blocks\.0.* from one of teacher and student only"):
        attention_distillation_loss(kept.store, other.store)
    denoised(unet, latents(1, 1), link=other.record())
    with pytest.raises(ValueError, match=f"{LAYER}: got maps"):
        attention_distillation_loss({LAYER: kept.store[LAYER]}, other.store)
