"""Attention recorded in one pass and used in another: the authors' numbers, gradients, errors instead of silence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file
from tiny import tiny_unet
from torch import Tensor

from weftwork.attention_processors.core.conditioning import Branch, Conditioning
from weftwork.attention_processors.core.processor import ConditionedAttnProcessor, install, layer_levels
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.views.instillation import (
    Instillation,
    RecordAttention,
    Recorded,
    UseAttention,
)
from weftwork.attention_processors.views.reference_attention import ExtendContext, References
from weftwork.training.tasks.attention_distillation import attention_distillation_loss

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1"
CONTEXT = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))


# One layer, against the authors' modules


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    """Recorded from the authors' classes: `A.image.*` and `A.geo.*` are the weights of two attention layers."""
    return load_file(Path(__file__).parents[2] / "data" / "instillation_reference.safetensors")


def layer(theirs: dict[str, Tensor], name: str) -> Attention:
    attention = Attention(32, heads=4, dim_head=8, processor=ConditionedAttnProcessor(LAYER))  # pyright: ignore
    weights = {key.removeprefix(f"A.{name}."): value for key, value in theirs.items() if key.startswith(f"A.{name}.")}
    attention.load_state_dict(weights)
    return attention.requires_grad_(False)


def call(attention: Attention, hidden: Tensor, *branches: Branch) -> Tensor:
    return attention(hidden, conditioning=Conditioning({LAYER: branches}))


def extended(theirs: dict[str, Tensor], name: str) -> Branch:
    views = torch.stack([theirs[f"A.in.{name}_ref{i}"] for i in range(2)], 1).flatten(0, 1)
    return ExtendContext(LAYER, {LAYER: views}, views=2)


def taught(theirs: dict[str, Tensor], **options: Any) -> dict[str, Recorded]:
    """What the image layer records."""
    store: dict[str, Recorded] = {}
    branches = extended(theirs, "image"), RecordAttention(LAYER, store, **options)
    out = call(layer(theirs, "image"), theirs["A.in.image_target"], *branches)
    torch.testing.assert_close(out, theirs["A.out.image"], atol=1e-6, rtol=0)
    return store


def test_queries_and_keys_are_those_of_the_authors(theirs: dict[str, Tensor]) -> None:
    kept = taught(theirs)[LAYER]
    for ours, name in ((kept.query, "query"), (kept.key, "key")):
        heads_in_rows = ours.transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(heads_in_rows, theirs[f"A.rec.{name}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("share", ["query_key", "probabilities"])
def test_the_instilled_layer_is_that_of_the_authors(theirs: dict[str, Tensor], share: str) -> None:
    store = taught(theirs, share=share)
    hidden = theirs["A.in.geo_target"]
    out = call(layer(theirs, "geo"), hidden, extended(theirs, "geo"), UseAttention(LAYER, store))
    torch.testing.assert_close(out, theirs["A.out.geo_instilled"], atol=1e-6, rtol=0)
    if share == "probabilities":
        maps = store[LAYER].probabilities
        assert maps is not None
        torch.testing.assert_close(maps.flatten(0, 1), theirs["A.probs"], atol=1e-6, rtol=0)


def test_keys_of_the_target_alone_and_no_instillation(theirs: dict[str, Tensor]) -> None:
    hidden, geometry = theirs["A.in.geo_target"], layer(theirs, "geo")
    alone = call(geometry, hidden, UseAttention(LAYER, taught(theirs), keys="target"))
    torch.testing.assert_close(alone, theirs["A.out.geo_instilled_selfonly"], atol=1e-6, rtol=0)
    own = call(geometry, hidden, extended(theirs, "geo"))
    torch.testing.assert_close(own, theirs["A.out.geo_own_qk"], atol=1e-6, rtol=0)


def test_what_fell_back_in_silence_is_an_error(theirs: dict[str, Tensor]) -> None:
    geometry, hidden, references = layer(theirs, "geo"), theirs["A.in.geo_target"], extended(theirs, "geo")
    torch.testing.assert_close(
        call(geometry, hidden, references), theirs["A.out.geo_silent_fallback"], atol=1e-6, rtol=0
    )
    with pytest.raises(ValueError, match=rf"{LAYER}: got no recorded attention"):
        call(geometry, hidden, references, UseAttention(LAYER, {}))
    store: dict[str, Recorded] = {}
    call(layer(theirs, "image"), theirs["A.in.image_target"], RecordAttention(LAYER, store))
    with pytest.raises(ValueError, match=rf"{LAYER}: got 16 recorded keys for 48 values"):
        call(geometry, hidden, references, UseAttention(LAYER, store))


def test_strength_blends_and_is_exact_at_0(theirs: dict[str, Tensor]) -> None:
    geometry, hidden, references = layer(theirs, "geo"), theirs["A.in.geo_target"], extended(theirs, "geo")
    store = taught(theirs)

    def at(strength: float) -> Tensor:
        return call(
            geometry, hidden, references, UseAttention(LAYER, store, strength=torch.full((1, 1, 1, 1), strength))
        )

    own = call(geometry, hidden, references)
    assert torch.equal(at(0.0), own)
    torch.testing.assert_close(at(1.0), theirs["A.out.geo_instilled"], atol=1e-6, rtol=0)
    torch.testing.assert_close(at(0.25), 0.75 * own + 0.25 * theirs["A.out.geo_instilled"], atol=1e-6, rtol=0)


def test_rows_take_the_rows_they_are_given(theirs: dict[str, Tensor]) -> None:
    geometry, hidden, references = layer(theirs, "geo"), theirs["A.in.geo_target"], extended(theirs, "geo")
    store = taught(theirs)
    first = UseAttention(LAYER, store, source=torch.tensor([0, 0]))
    out = call(geometry, hidden, references, first)
    torch.testing.assert_close(out[0], theirs["A.out.geo_instilled"][0], atol=1e-6, rtol=0)
    assert (out[1] - theirs["A.out.geo_instilled"][1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda kept: (kept.query[:1], kept.key[:1]), "got 1 rows of 16 queries and 4 heads, expected 2 of 16 and 4"),
        (lambda kept: (kept.query[:, :9], kept.key), "got 2 rows of 9 queries"),
        (lambda kept: (kept.query[:, :, :2], kept.key[:, :, :2]), "16 queries and 2 heads, expected 2 of 16 and 4"),
    ],
    ids=["rows", "canvas", "heads"],
)
def test_entries_that_do_not_fit_are_refused(
    theirs: dict[str, Tensor], make: Callable[[Recorded], tuple[Tensor, Tensor]], message: str
) -> None:
    store = {LAYER: Recorded(*make(taught(theirs)[LAYER]), None, True)}
    with pytest.raises(ValueError, match=f"{LAYER}: .*{message}"):
        call(layer(theirs, "geo"), theirs["A.in.geo_target"], extended(theirs, "geo"), UseAttention(LAYER, store))


def test_references_of_other_rows_are_refused(theirs: dict[str, Tensor]) -> None:
    views = torch.zeros(3, 16, 32)
    with pytest.raises(ValueError, match=rf"{LAYER}: got references of shape \(3, 16, 32\), expected 2 x 2 rows"):
        call(layer(theirs, "geo"), theirs["A.in.geo_target"], ExtendContext(LAYER, {LAYER: views}, views=2))
    with pytest.raises(ValueError, match=f"{LAYER}: got no recorded input"):
        call(layer(theirs, "geo"), theirs["A.in.geo_target"], ExtendContext(LAYER, {}, views=2))


# Two denoisers


def denoiser(seed: int) -> Any:
    """A U-Net with weights of its own; its parameters take gradients."""
    unet: Any = tiny_unet()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    install(unet)
    return unet.requires_grad_(True)


def latents(seed: int, rows: int = 2) -> Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def denoised(unet: Any, x: Tensor, **encoded: Any) -> Tensor:
    """The output of a U-Net with these taps."""
    kwargs = {}
    if encoded:
        kwargs["conditioning"] = Conditioning.of(encoded, Layout(layer_levels(unet), (8, 8)))
    context = CONTEXT.repeat_interleave(len(x) // 2, 0) if len(x) > 2 else CONTEXT[: len(x)]
    return unet(x, 500, context, cross_attention_kwargs=kwargs).sample


def gradients(unet: Any) -> dict[str, Tensor]:
    return {name: p.grad for name, p in unet.named_parameters() if p.grad is not None and bool(p.grad.abs().max() > 0)}


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
    with pytest.raises(ValueError, match=r"up_blocks\.0.*attn1: got no recorded attention"):
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


def test_dead_parameters_are_those_without_gradient() -> None:
    teacher, student = denoiser(1), denoiser(2)
    link = Instillation()
    denoised(teacher, latents(1), link=link.record())
    denoised(student, latents(2), link=link.use()).square().mean().backward()
    without = {name for name, _ in student.named_parameters()} - set(gradients(student))
    dead = link.dead_parameters(student)
    layers = sum(name.endswith("attn1") for name in layer_levels(student))
    assert set(dead) <= without and len(dead) == 2 * layers
    assert not any("attn1.to_q" in name or "attn1.to_k" in name for name in without - set(dead))
    assert Instillation(strength=0.5).dead_parameters(student) == []


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
def test_one_batch_is_two_passes_over_the_same_weights() -> None:
    unet, link = denoiser(1), Instillation()
    teacher, student = latents(1, 1), latents(2, 1)
    plain = denoised(unet, torch.cat([teacher, student]))
    both = denoised(unet, torch.cat([teacher, student]), link=link.within_batch(torch.tensor([0, 0])))
    assert torch.equal(both[0], plain[0])
    assert (both[1] - plain[1]).abs().max() > 1e-3
    context = CONTEXT[:1]
    layout = Layout(layer_levels(unet), (8, 8))
    for x, row, tap in ((teacher, 0, link.record()), (student, 1, link.use())):
        conditioning = Conditioning.of({"link": tap}, layout)
        text = context if row == 0 else CONTEXT[1:]
        out = unet(x, 500, text, cross_attention_kwargs={"conditioning": conditioning}).sample
        torch.testing.assert_close(out[0], both[row], atol=1e-5, rtol=0)


@torch.no_grad()
def test_sources_are_rows_that_there_are() -> None:
    link, unet = Instillation(), denoiser(1)
    for wrong in ([0, 2], [-1, 1]):
        with pytest.raises(ValueError, match=r"within_batch: got the source (2|-1), expected rows from 0 to 1"):
            link.within_batch(torch.tensor(wrong))
    denoised(unet, latents(1), link=link.record())
    with pytest.raises(ValueError, match=r"attn1: got the source 5, expected rows from 0 to 1; correct it"):
        denoised(unet, latents(1), link=link.use(torch.tensor([0, 5])))


@pytest.mark.parametrize("gradient", ["live", "detach"])
def test_gradients_within_one_batch(gradient: str) -> None:
    unet, x = denoiser(1), latents(1).requires_grad_()
    link = Instillation(gradient=gradient)
    out = denoised(unet, x, link=link.within_batch(torch.tensor([0, 0])))
    out[1].square().mean().backward()
    assert x.grad is not None
    assert bool(x.grad[0].abs().max() > 0) == (gradient == "live")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": "maps"}, "share: got 'maps', expected one of query_key, probabilities"),
        ({"keys": "first"}, "keys: got 'first'"),
        ({"gradient": "off"}, "gradient: got 'off'"),
        ({"strength": 1.5}, r"strength: got 1.5, expected a number in \[0, 1\]"),
        ({"share": "probabilities", "keys": "target"}, "keys: got 'target' with probabilities"),
    ],
    ids=str,
)
def test_bad_links_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Instillation(**options)


def test_bad_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="a source has another source"):
        Instillation().within_batch(torch.tensor([1, 2, 2]))
    with pytest.raises(ValueError, match="within_batch: got a strength"):
        Instillation(strength=0.5).within_batch(torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="got sources for 3 rows, expected 2"):
        denoised(denoiser(1), latents(1), link=Instillation().within_batch(torch.tensor([0, 0, 0])))


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


# Attention as a target


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


def test_distillation_does_not_depend_on_how_much_is_looked_at_together() -> None:
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
