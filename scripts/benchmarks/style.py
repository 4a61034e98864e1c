"""Cost of reference adapters relative to diffusers' IP-Adapter on the same weights, and size of a style card.

Three denoisers share all tensors (random weights): the stock one, one with diffusers' IP-Adapter, and one with ours. A
step is one forward pass of two rows, as with guidance, without gradients. Conditions are one image without a mask, or
two images in the left and the right half; both denoisers are called as by their pipelines.

Adapters change only text attention, a few percent of a step. So the stock step over a step with an adapter is a lower
bound of the ratio of steps, and the ratio of time in text attention within the same steps is reported as well.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.layers import select_names
from weftwork.attention_processors.core.processor import attention_layers, conditioned, install
from weftwork.attention_processors.core.strength import GUIDED, Layout
from weftwork.attention_processors.reference.adapter import Reference, ReferenceAdapter
from weftwork.attention_processors.style.adapter import StyleAdapter, StyleCards
from weftwork.scripts.benchmarks.timing import interleaved, ratios
from weftwork.scripts.converters.ip_adapter import BASES, adapter_to_ip_adapter

Config = Mapping[str, Any]
REDUCED_XL: Config = {
    **BASES["sdxl"],
    "block_out_channels": (128, 256, 512),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (2, 4, 8),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 64,
}
"""SDXL (blocks, heads of 64, text width, added embeddings) with fewer and narrower layers."""
NARROW: Config = {"norm_num_groups": 8, "layers_per_block": 1, "sample_size": 16}
DENOISERS: Mapping[str, Mapping[str, Config]] = {
    "full": {"sd15": {**BASES["sd15"], "sample_size": 64}, "reduced_xl": REDUCED_XL},
    "tiny": {
        "tiny_sd15": {**BASES["sd15"], **NARROW, "block_out_channels": (16, 16, 32, 32), "cross_attention_dim": 32},
        "tiny_xl": {**REDUCED_XL, **NARROW, "block_out_channels": (16, 32, 64), "cross_attention_dim": 64},
    },
}
"""Configs by size and name."""
IMAGE_DIM = 1024
PIXELS_PER_LATENT = 8
HALVES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))
TEXT_TOKENS = 77


class TextAttentionClock:
    """Accumulates the seconds spent in text attention layers; set to 0 before a forward pass."""

    def __init__(self, denoiser: UNet2DConditionModel, clock: Callable[[], float]) -> None:
        self.seconds = self._entered = 0.0
        self.clock = clock
        layers = attention_layers(denoiser)
        for name in select_names(list(layers), "all"):
            layers[name].register_forward_pre_hook(self._enter)
            layers[name].register_forward_hook(self._leave)

    def _enter(self, *_: object) -> None:
        self._entered = self.clock()

    def _leave(self, *_: object) -> None:
        self.seconds += self.clock() - self._entered


@dataclass
class Step:
    """Repeatable forward pass; keeps its last output and the seconds of text attention of each run."""

    forward: Callable[[], Tensor]
    clock: TextAttentionClock
    sample: Tensor = field(default_factory=lambda: torch.empty(0))
    attention: list[float] = field(default_factory=list)

    @torch.no_grad()
    def __call__(self) -> None:
        self.clock.seconds = 0.0
        self.sample = self.forward()
        self.attention.append(self.clock.seconds)


def measure(size: str, rounds: int) -> dict[str, dict[str, float]]:
    """Returns the rows of all denoisers of a size.

    `ratio` and `attention_ratio` are relative to diffusers with as many images, `difference` is the largest absolute
    difference of the outputs over the largest absolute output, `percent` the parameters of a style card over the
    denoiser's.
    """
    rows = {}
    for name, config in DENOISERS[size].items():
        torch.manual_seed(0)
        denoiser = UNet2DConditionModel(**config).eval().requires_grad_(False)
        measured = {**timed(steps(denoiser), rounds), "card": {"percent": card_percent(denoiser)}}
        rows |= {f"{name}_{row}": scores for row, scores in measured.items()}
    return rows


def steps(denoiser: UNet2DConditionModel, clock: Callable[[], float] = time.perf_counter) -> dict[str, Step]:
    """Returns the stock step, and steps of diffusers and weftwork with one image and with two masked images."""
    context, side = denoiser.config["cross_attention_dim"], denoiser.config["sample_size"]
    adapter = ReferenceAdapter.for_denoiser(denoiser, image_dim=IMAGE_DIM, token_dim=context).eval()
    theirs, ours = _with_diffusers(denoiser, adapter), _twin(denoiser)
    install(ours)
    latents, text = torch.randn(2, denoiser.config["in_channels"], side, side), torch.randn(2, TEXT_TOKENS, context)
    images, added = torch.randn(2, IMAGE_DIM), _added(denoiser)
    layout = Layout(layer_levels(ours), (side, side), halves=GUIDED)
    clocks = {twin: TextAttentionClock(twin, clock) for twin in (denoiser, theirs, ours)}

    def step(twin: UNet2DConditionModel, images: Mapping[str, object], **kwargs: object) -> Step:
        options = {"added_cond_kwargs": {**added, **images}, "cross_attention_kwargs": kwargs or None}
        return Step(lambda: twin(latents, 500, text, **options).sample, clocks[twin])

    def our_step(*references: Reference) -> Step:
        encoded = conditioning(*references)

        def run() -> Tensor:
            with conditioned(ours, encoded):
                return ours(latents, 500, text, added_cond_kwargs=added).sample

        return Step(run, clocks[ours])

    def embeds(shown: Tensor) -> dict[str, list[Tensor]]:
        return {"image_embeds": [torch.stack([torch.zeros_like(shown), shown])]}

    @torch.no_grad()
    def conditioning(*references: Reference) -> Conditioning:
        encoded = adapter(adapter.features(adapter.collate([references]), {}))
        return Conditioning.of({"reference": encoded}, layout)

    halves = [Reference(embeds=image, region=box) for image, box in zip(images, HALVES, strict=True)]
    return {
        "stock": step(denoiser, {}),
        "diffusers": step(theirs, embeds(images[:1])),
        "weftwork": our_step(Reference(embeds=images[0])),
        "diffusers_masked": step(theirs, embeds(images), ip_adapter_masks=[_masks(side * PIXELS_PER_LATENT)]),
        "weftwork_masked": our_step(*halves),
    }


def card_percent(denoiser: UNet2DConditionModel) -> float:
    """Parameters of one baked style in decoder layers, in percent of the denoiser's."""
    width = denoiser.config["cross_attention_dim"]
    adapter = StyleAdapter.for_denoiser(denoiser, layers="decoder", styles=["ink"], token_dim=width)
    held, all_of_it = (
        sum(parameter.numel() for parameter in module.parameters())
        for module in (StyleCards.of([adapter.bake("ink")]), denoiser)
    )
    return 100 * held / all_of_it


def timed(
    tasks: Mapping[str, Step],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    suffixes: Sequence[str] = ("", "_masked"),
) -> dict[str, dict[str, float]]:
    """Returns rows without and with masks, each with the stock step."""
    seconds = interleaved(rounds, clock, **tasks)
    rows: dict[str, dict[str, float]] = {}
    for suffix in suffixes:
        ours, theirs = f"weftwork{suffix}", f"diffusers{suffix}"
        beside = {f"stock{suffix}": "stock", theirs: theirs, ours: ours}
        whole = ratios({row: seconds[task] for row, task in beside.items()}, theirs)
        attention = ratios({row: tasks[task].attention[-rounds:] for row, task in beside.items()}, theirs)
        for row, scores in whole.items():
            rows[row] = {**scores, **{f"attention_{name}": attention[row][name] for name in ("seconds", "ratio")}}
        wanted = tasks[theirs].sample
        rows[ours]["difference"] = float((tasks[ours].sample - wanted).abs().max() / wanted.abs().max())
    return rows


def _twin(denoiser: UNet2DConditionModel) -> UNet2DConditionModel:
    """Copies the module but shares its tensors, so that attention processors are independent."""
    with torch.device("meta"):
        twin = UNet2DConditionModel.from_config(denoiser.config)
    assert isinstance(twin, UNet2DConditionModel)
    twin.load_state_dict(denoiser.state_dict(), assign=True)
    return twin.eval().requires_grad_(False)


def _with_diffusers(denoiser: UNet2DConditionModel, adapter: ReferenceAdapter) -> UNet2DConditionModel:
    """Returns a twin with the adapter, loaded by diffusers as a published checkpoint."""
    twin = _twin(denoiser)
    twin._load_ip_adapter_weights([adapter_to_ip_adapter(adapter.config, adapter.state_dict(), denoiser)])
    return twin


def _masks(side: int) -> Tensor:
    """Masks of the left and right half in diffusers' format, [1, image, height, width]."""
    masks = torch.zeros(1, 2, side, side)
    masks[:, 0, :, : side // 2] = masks[:, 1, :, side // 2 :] = 1
    return masks


def _added(denoiser: UNet2DConditionModel) -> dict[str, Tensor]:
    """Returns SDXL's pooled text embeddings and sizes; empty for other denoisers."""
    if denoiser.config["addition_embed_type"] is None:
        return {}
    width = denoiser.config["projection_class_embeddings_input_dim"] - 6 * denoiser.config["addition_time_embed_dim"]
    generator = torch.Generator().manual_seed(0)
    return {"text_embeds": torch.randn(2, width, generator=generator), "time_ids": torch.ones(2, 6)}
