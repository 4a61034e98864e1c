"""Rows of the table about single calls: bits, batches, regions, schedules, sums, LoRA and gradients."""

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.core.processor import attention_layers, install, restore
from weftwork.attention_processors.style.example import example as style
from weftwork.scripts.benchmarks.backbones.cells import Cell, Parts, Row, close, equal, moved

LEFT = (0.0, 0.0, 0.5, 1.0)
"""Left half of the canvas."""


@torch.no_grad()
def acts(cell: Cell) -> None:
    """The branch moves the output, and other conditions move it elsewhere."""
    parts = cell.parts()
    stock = parts.run()
    install(parts.denoiser)
    moved(parts.output(), stock)


@torch.no_grad()
def unused(cell: Cell) -> None:
    """Wrapped processors without conditions, and designs without any, are the stock model."""
    parts = cell.parts()
    stock, keys = parts.run(), list(parts.denoiser.state_dict())
    install(parts.denoiser)
    equal(parts.run(), stock, "wrapped without conditions")
    equal(parts.output(parts.conditioning([[], []])), stock, "designs without conditions")
    if list(parts.denoiser.state_dict()) != keys:
        raise AssertionError("the denoiser's state dict has other keys")


@torch.no_grad()
def off(cell: Cell) -> None:
    """Weights of 0, or what leaves the model as it is, are the stock model."""
    parts = cell.parts()
    stock = parts.run()
    install(parts.denoiser)
    if parts.example.neutral is not None:
        equal(parts.output(**parts.example.neutral), stock, f"conditions of {dict(parts.example.neutral)}")
    if parts.example.neutral != {"weight": 0.0}:
        moved(parts.output(weight=0.0), parts.output(weight=0.5), "weights of 0")


@torch.no_grad()
def detached(cell: Cell) -> None:
    """The very objects that stood in the denoiser are back."""
    parts = cell.parts()
    stock, found = parts.run(), _processors(parts.denoiser)
    hooks = sum(len(module._forward_pre_hooks) for module in parts.denoiser.modules())
    install(parts.denoiser)
    parts.output()
    restore(parts.denoiser)
    now = _processors(parts.denoiser)
    if any(now[name] is not found[name] for name in found):
        raise AssertionError("detach left other processors than it found")
    if sum(len(module._forward_pre_hooks) for module in parts.denoiser.modules()) != hooks:
        raise AssertionError("detach left hooks")
    equal(parts.run(), stock, "detached")


def _processors(denoiser: nn.Module) -> dict[str, object]:
    return {name: layer.processor for name, layer in attention_layers(denoiser).items()}


@torch.no_grad()
def batched(cell: Cell) -> None:
    """A batch of two prompts is its rows."""
    parts = cell.parts()
    install(parts.denoiser)
    both, first = parts.output(), parts.first_row()
    single = parts.output(parts.conditioning(parts.conditions()[:1], first), first)
    close(both[: len(single)], single, 1e-4, "a batch and its first row")


@torch.no_grad()
def in_region(cell: Cell) -> None:
    """In the first layer, places outside of a region attend as without the condition, and those inside as with it."""
    parts = cell.parts()
    install(parts.denoiser)
    none, left = parts.conditioning(weight=0.0), parts.conditioning(region=LEFT)
    whole = parts.conditioning(region=(0.0, 0.0, 1.0, 1.0))
    outs = [_places(parts, one) for one in (none, left, whole)]
    half = outs[0].shape[-2] // 2
    equal(outs[1][..., half:, :], outs[0][..., half:, :], "attention outside of the region")
    close(outs[1][..., :half, :], outs[2][..., :half, :], 1e-5, "attention inside of the region")
    if not (outs[2] != outs[0]).any(-1).all():
        raise AssertionError("a place of the image attends as without the condition")
    if parts.example.neutral == {"weight": 0.0}:
        seen, stock = parts.seen(left).out, parts.seen(none).out
        begin, end = _span(parts, seen.shape[1])
        for others in (slice(begin), slice(end, None)):
            equal(seen[:, others], stock[:, others], "attention of other tokens")


def _span(parts: Parts, queries: int) -> tuple[int, int]:
    tokens = family_of(parts.denoiser).tokens(parts.denoiser, parts.inputs)
    assert tokens is not None
    return tokens.span(queries)


def _places(parts: Parts, conditioning: Conditioning) -> Tensor:
    """Returns the first layer's attention by place, [row, frame, height, width, channel]."""
    layer, out = next(iter(conditioning.branches)), parts.seen(conditioning).out
    assert conditioning.layout is not None
    begin, end = _span(parts, out.shape[1])
    return out[:, begin:end].flatten(2).unflatten(1, (-1, *conditioning.layout.grid(layer)))


@torch.no_grad()
def scheduled(cell: Cell) -> None:
    """A condition acts from its start on, and not before."""
    parts = cell.parts()
    install(parts.denoiser)
    without, always, late = parts.output(weight=0.0), parts.conditioning(), parts.conditioning(start=0.5)
    for step in (0, 1, 2, 3, 0):
        for one in (always, late):
            one.set_step(step, 4)
        wanted = without if step < 2 else parts.output(always)
        equal(parts.output(late), wanted, f"step {step} of 4 of a condition that starts at half")


@torch.no_grad()
def summed(cell: Cell) -> None:
    """Beside styles, each of the two adds what it adds alone; with styles at 0, its output keeps its bits.

    Styles do not act in layers of linear attention; there, it stands beside another one of the same method.
    """
    parts = cell.parts()
    install(parts.denoiser)
    mine = parts.example.encoded(parts.conditions())
    alone = parts.laid_out({"mine": mine})
    layers = list(alone.branches)
    linear = any(family_of(parts.denoiser).role(name) == "linear" for name in layers)
    other = parts.example if linear else style(parts.denoiser, layers)
    theirs, absent = (other.encoded([other.conditions(seed, weight=w) for seed in (0, 1)]) for w in (1.0, 0.0))
    beside_absent = parts.output(parts.laid_out({"mine": mine, "other": absent}))
    equal(beside_absent, parts.output(alone), "beside styles of weight 0")
    named = ({"mine": mine, "other": theirs}, {"other": theirs}, {"other": absent})
    both, added, none = (parts.seen(parts.laid_out(one)).out for one in named)
    moved(added, none, "styles beside it")
    close(both - parts.seen(alone).out, added - none, 1e-5, "what styles add beside it")


@torch.no_grad()
def with_lora(cell: Cell) -> None:
    """LoRAs that were there before, or come after, act beside the condition."""
    plain = cell.parts().run()
    before, after = cell.parts(_add_lora), cell.parts()
    install(before.denoiser)
    stock = before.run()
    moved(stock, plain, "the LoRA")
    both = before.output()
    moved(both, stock)
    install(after.denoiser)
    alone = after.output()
    moved(both, alone, "the LoRA beside the branch")
    _add_lora(after.denoiser)
    equal(after.run(), stock, "a LoRA that comes later, without conditions")
    if after.example.neutral is not None:
        equal(after.output(**after.example.neutral), stock, "a LoRA that comes later, at weight 0")
    moved(after.output(), stock)


def _add_lora(denoiser: nn.Module) -> None:
    """Adds LoRAs that act to all projections of attention layers."""
    names = [
        f"{layer}.{name}"
        for layer, module in attention_layers(denoiser).items()
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear)
    ]
    torch.manual_seed(5)
    inject_adapter_in_model(LoraConfig(r=2, init_lora_weights=False, target_modules=names), denoiser, "default")
    denoiser.requires_grad_(False)


def gradients(cell: Cell) -> None:
    """Gradients reach all of the adapter that the conditions use, and nothing of the denoiser."""
    parts = cell.parts()
    install(parts.denoiser)
    parts.denoiser.requires_grad_(False)
    trained = dict(parts.example.adapter.named_parameters())
    out = parts.output()
    if not trained:
        if out.requires_grad:
            raise AssertionError("the output has a gradient without anything to train")
        return
    out.square().mean().backward()
    if any(parameter.grad is not None for parameter in parts.denoiser.parameters()):
        raise AssertionError("the denoiser's parameters have gradients")
    layers = [n for n, p in trained.items() if n.startswith(("to_key.", "to_value.")) and not _has_gradient(p)]
    if layers or not any(map(_has_gradient, trained.values())):
        raise AssertionError(f"no gradient in {layers[0] if layers else 'any parameter'}")


def _has_gradient(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.isfinite().all()) and bool(parameter.grad.any())


ROWS = (
    Row("unused", unused),
    Row("weight 0", off),
    Row("detach", detached),
    Row("batch", batched),
    Row("region", in_region, regions=True, attention=True),
    Row("schedule", scheduled),
    Row("sum", summed, attention=True),
    Row("LoRA", with_lora),
    Row("gradients", gradients),
)
