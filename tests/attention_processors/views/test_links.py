"""Attention recorded in one denoiser's pass and used in another's: references, gradients, compilation."""

import pytest
import torch
from tiny_links import LAYER, denoised, denoiser, gradients, latents

from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.views.instillation import Instillation
from weftwork.attention_processors.views.reference_attention import References


@torch.no_grad()
def test_a_student_of_itself_is_itself_and_of_another_is_not() -> None:
    teacher, student = denoiser(1), denoiser(2)
    link = Instillation()
    plain = denoised(teacher, latents(1))
    assert torch.equal(denoised(teacher, latents(1), link=link.record()), plain)
    assert torch.equal(denoised(teacher, latents(1), link=link.use()), plain)
    assert (denoised(student, latents(1), link=link.use()) - denoised(student, latents(1))).abs().max() > 1e-3


@torch.no_grad()
def test_only_chosen_layers_are_kept_and_nothing_stale() -> None:
    unet, link = denoiser(1), Instillation(layers=r"up_blocks\..*\.attn1")
    denoised(unet, latents(1), link=link.record())
    assert link.store and all(name.startswith("up_blocks") and name.endswith("attn1") for name in link.store)
    link.clear()
    with pytest.raises(ValueError, match=r"up_blocks\.1.*attn1: got no recorded attention"):
        denoised(unet, latents(1), link=link.use())


@pytest.mark.parametrize("views", [1, 2, 3])
@torch.no_grad()
def test_any_number_of_references_extends_the_target(views: int) -> None:
    reference, target = denoiser(1), denoiser(2)
    references, link = References(), Instillation()
    denoised(reference, latents(5, 2 * views), references=references.record())
    taps = {"references": references.extend(views), "link": link.record()}
    seen = denoised(target, latents(2), **taps)
    assert (seen - denoised(target, latents(2))).abs().max() > 1e-3
    assert link.store[LAYER].key.shape[1] == (1 + views) * link.store[LAYER].query.shape[1]
    used = denoised(denoiser(3), latents(3), references=references.extend(views), link=link.use())
    assert used.isfinite().all()


@torch.no_grad()
def test_views_of_one_row_do_not_reach_another() -> None:
    reference, target, references = denoiser(1), denoiser(2), References()
    pictures = latents(5, 4)
    outs = []
    for change in (0.0, 1.0):
        moved = pictures.clone()
        moved[2:] += change
        denoised(reference, moved, references=references.record())
        outs.append(denoised(target, latents(2), references=references.extend(2)))
    assert torch.equal(outs[0][0], outs[1][0])
    assert (outs[0][1] - outs[1][1]).abs().max() > 1e-3


@pytest.mark.parametrize("gradient", ["live", "detach"])
def test_gradients_reach_the_teacher_or_do_not(gradient: str) -> None:
    teacher, student = denoiser(1), denoiser(2)
    link = Instillation(gradient=gradient)
    denoised(teacher, latents(1), link=link.record())
    denoised(student, latents(2), link=link.use()).square().mean().backward()
    reached = gradients(teacher)
    assert not any(name.startswith("conv_out") for name in reached)
    assert any(name.endswith("attn1.to_q.weight") for name in reached) == (gradient == "live")
    assert bool(reached) == (gradient == "live")


def test_unused_parameters_are_those_without_gradient() -> None:
    teacher, student = denoiser(1), denoiser(2)
    link = Instillation()
    denoised(teacher, latents(1), link=link.record())
    denoised(student, latents(2), link=link.use()).square().mean().backward()
    without = {name for name, _ in student.named_parameters()} - set(gradients(student))
    unused = link.unused_parameters(student)
    layers = sum(name.endswith("attn1") for name in layer_levels(student))
    assert set(unused) <= without and len(unused) == 2 * layers
    assert not any("attn1.to_q" in name or "attn1.to_k" in name for name in without - set(unused))
    assert Instillation(strength=0.5).unused_parameters(student) == []


def test_checkpointing_leaves_every_gradient_as_it_is() -> None:
    found = []
    for checkpointing in (False, True):
        teacher, student, link = denoiser(1), denoiser(2), Instillation()
        for unet in (teacher, student):
            unet.train()
            if checkpointing:
                unet.enable_gradient_checkpointing()
        image = denoised(teacher, latents(1), link=link.record())
        geometry = denoised(student, latents(2), link=link.use())
        (image.square().mean() + 3 * geometry.square().mean()).backward()
        found.append({**gradients(teacher), **{f"student.{n}": g for n, g in gradients(student).items()}})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_attention_recorded_without_gradients_is_refused_where_they_are_wanted() -> None:
    teacher, student, link = denoiser(1), denoiser(2), Instillation()
    with torch.no_grad():
        denoised(teacher, latents(1), link=link.record())
        denoised(student, latents(2), link=link.use())
    with pytest.raises(ValueError, match=r"recorded without gradients, expected live ones; .* pass gradient='detach'"):
        denoised(student, latents(2), link=link.use())


@torch.no_grad()
def test_sources_are_rows_that_there_are() -> None:
    link, unet = Instillation(), denoiser(1)
    denoised(unet, latents(1), link=link.record())
    for wrong in ([0, 2], [-1, 1]):
        with pytest.raises(ValueError, match=r"attn1: got the source (2|-1), expected rows from 0 to 1; correct it"):
            denoised(unet, latents(1), link=link.use(torch.tensor(wrong)))


@pytest.mark.slow
@torch.no_grad()
def test_links_compile_whole() -> None:
    teacher, student, link = denoiser(1), denoiser(2), Instillation()
    plain = [denoised(teacher, latents(1), link=link.record()), denoised(student, latents(2), link=link.use())]
    compiled = [torch.compile(unet, fullgraph=True) for unet in (teacher, student)]
    for _ in range(2):
        link.clear()
        outs = [
            denoised(compiled[0], latents(1), link=link.record()),
            denoised(compiled[1], latents(2), link=link.use()),
        ]
        for out, expected in zip(outs, plain, strict=True):
            torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
