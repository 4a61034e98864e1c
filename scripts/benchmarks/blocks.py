"""Cost of wrapped processors and of conditions, on full-width blocks with random weights; memory of references.

Rows of a backbone are steps relative to `stock`: `again` is the stock step once more, whose difference is noise,
`unused` has wrapped processors without conditions, `pairs` four pairs in regions. `references` rows are the peak
memory of tensors of a step with two references, per number of image tokens, without and with weights in regions.
`_masked` rows are those of `weftwork benchmark style`, on a CPU: two images in regions beside diffusers' IP-Adapter.

On a CPU the clock is the time that this process computes, in one thread, so that other processes disturb it little.
"""

import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import diffusers
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weftwork.attention_processors.core.conditioning import Conditioning, EncodedTokens
from weftwork.attention_processors.core.example import Inputs
from weftwork.attention_processors.core.families import call_layout
from weftwork.attention_processors.core.layers import select_layers
from weftwork.attention_processors.core.processor import attention_layers, conditioned, install
from weftwork.attention_processors.core.strength import Schedule
from weftwork.attention_processors.in_context.adapter import InContextAdapter
from weftwork.attention_processors.in_context.conditions import InContextReference
from weftwork.scripts.benchmarks import style
from weftwork.scripts.benchmarks.backbones.tiny import Made, ids
from weftwork.scripts.benchmarks.timing import interleaved, ratios
from weftwork.scripts.converters.ip_adapter import BASES

PAIRS: Final = 4
TOKENS: Final = 32
"""Tokens of a pair, the default of `PairFormer`."""
REGION: Final = (0.0, 0.0, 0.5, 1.0)
SD15: Final[Inputs] = {
    **BASES["sd15"],
    "block_out_channels": (320, 640),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "layers_per_block": 1,
}
"""The first two levels of Stable Diffusion 1.5, with fewer blocks."""
SDXL: Final[Inputs] = {
    **BASES["sdxl"],
    "transformer_layers_per_block": (1, 1, 2),
    "layers_per_block": 1,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@dataclass(frozen=True)
class Size:
    """Size of the denoisers.

    Args:
        latents: side of the latents of U-Nets.
        tokens: side of the grid of image tokens of transformers.
        text: number of text tokens.
        heads: number of heads of transformers; None for all.
        unet: differences of the configs of U-Nets.
        grids: sides of the grids of `references`.
    """

    latents: int
    tokens: int
    text: int
    heads: int | None
    unet: Inputs
    grids: tuple[int, ...]


SIZES: Final[Mapping[str, Size]] = {
    "full": Size(48, 12, 32, None, {}, (32, 45, 64)),
    "tiny": Size(8, 4, 7, 2, {"norm_num_groups": 8, "cross_attention_dim": 32}, (8, 16)),
}


def device() -> torch.device:
    """Returns the accelerator where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def clock() -> float:
    """Returns the seconds that this process has computed; with an accelerator, those that have passed."""
    if device().type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def empty(kind: type, **config: Any) -> Any:
    """Returns a denoiser with random weights, which its own initialisation would take minutes for."""
    with torch.device("meta"):
        model = kind(**config)
    model.to_empty(device=device())
    if device().type != "cpu":
        model.to(torch.bfloat16)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    return model.eval().requires_grad_(False)


def _unet(config: Inputs, narrow: tuple[int, ...], size: Size) -> Made:
    channels = {"block_out_channels": narrow} if size.unet else {}
    model = empty(diffusers.UNet2DConditionModel, **{**config, **size.unet, **channels})
    width = model.config["cross_attention_dim"]
    inputs: dict[str, object] = {"sample": torch.randn(1, 4, size.latents, size.latents), "timestep": torch.tensor(500)}
    inputs["encoder_hidden_states"] = torch.randn(1, 77, width)
    if model.config["addition_embed_type"]:
        inputs["added_cond_kwargs"] = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.ones(1, 6)}
    return model, inputs


def sd15(size: Size) -> Made:
    return _unet(SD15, (16, 32), size)


def sdxl(size: Size) -> Made:
    return _unet(SDXL, (64, 128, 256), size)


def flux(size: Size) -> Made:
    return _flux(size.tokens, size, 0, num_layers=1, num_single_layers=1)


def _flux(side: int, size: Size, references: int, **config: Any) -> Made:
    heads = {} if size.heads is None else {"num_attention_heads": size.heads}
    model = empty(diffusers.FluxTransformer2DModel, in_channels=64, **heads, **config)
    places = torch.cat([ids(side, side, image=image) for image in range(1 + references)])
    return model, {
        "hidden_states": torch.randn(1, len(places), 64), "img_ids": places, "timestep": torch.tensor([0.5]),
        "encoder_hidden_states": torch.randn(1, size.text, 4096), "txt_ids": torch.zeros(size.text, 3),
        "pooled_projections": torch.randn(1, 768),
    }  # fmt: skip


def z_image(size: Size) -> Made:
    heads = 30 if size.heads is None else size.heads
    narrow = {"dim": 128 * heads, "n_heads": heads, "n_kv_heads": heads}
    model = empty(diffusers.ZImageTransformer2DModel, n_layers=1, n_refiner_layers=1, **narrow)
    latents = torch.randn(16, 1, 2 * size.tokens, 2 * size.tokens)
    return model, {"x": [latents], "t": torch.tensor([0.5]), "cap_feats": [torch.randn(size.text, 2560)]}


def four_pairs(denoiser: nn.Module) -> EncodedTokens:
    """Returns keys and values of four pairs, each with a soft region of its own, at all layers that read the text."""
    count = PAIRS * TOKENS
    return EncodedTokens(
        {
            name: (torch.randn(1, count, width), torch.randn(1, count, width))
            for name, width in select_layers(denoiser, "all").items()
        },
        None,
        torch.ones(1, count, dtype=torch.bool),
        torch.arange(PAIRS).repeat_interleave(TOKENS),
        torch.ones(1, PAIRS),
        [[Schedule()] * PAIRS],
        torch.rand(1, PAIRS, 64, 64),
    )


def moved(value: Any) -> Any:
    """Returns inputs on the device, in its precision."""
    if isinstance(value, Tensor):
        wide = value.is_floating_point() and device().type != "cpu"
        return value.to(device(), torch.bfloat16 if wide else None)
    if isinstance(value, Mapping):
        return {name: moved(one) for name, one in value.items()}
    return [moved(one) for one in value] if isinstance(value, list) else value


def step_tasks(denoiser: nn.Module, inputs: Inputs) -> dict[str, Callable[[], None]]:
    """Returns steps of one backbone: stock ones, and wrapped ones without conditions and with four pairs."""
    here = next(denoiser.parameters()).device
    stock = {name: layer.processor for name, layer in attention_layers(denoiser).items()}
    conditioning = Conditioning.of({"pairs": four_pairs(denoiser)}, call_layout(denoiser, inputs)).to(here)
    install(denoiser)
    wrapped = {name: layer.processor for name, layer in attention_layers(denoiser).items()}

    @torch.no_grad()
    def step(processors: Mapping[str, Any], conditioning: Conditioning | None = None) -> None:
        for name, layer in attention_layers(denoiser).items():
            layer.set_processor(processors[name])
        if conditioning is None:
            denoiser(**inputs, return_dict=False)
            return
        with conditioned(denoiser, conditioning):
            denoiser(**inputs, return_dict=False)

    return {
        "stock": lambda: step(stock),
        "again": lambda: step(stock),
        "unused": lambda: step(wrapped),
        "pairs": lambda: step(wrapped, conditioning),
    }


@torch.no_grad()
def reference_memory(size: Size) -> dict[str, dict[str, float]]:
    """Returns the peak memory of tensors of a step, weights of the denoiser not counted, and of a mask instead."""
    rows = {}
    for side in size.grids:
        narrow = replace(size, heads=size.heads or 4)
        denoiser, inputs = _flux(side, narrow, 2, num_layers=1, num_single_layers=1)
        inputs = moved(inputs)
        adapter = InContextAdapter.for_denoiser(denoiser)
        install(denoiser)
        designs = [[InContextReference(index, weight=0.5, region=REGION) for index in range(2)]]
        encoded = adapter(adapter.features(adapter.collate(designs), {}))
        conditioning = Conditioning.of({"references": encoded}, call_layout(denoiser, inputs)).to(device())
        tokens = inputs["hidden_states"].shape[1]
        peaks = [_peak(denoiser, inputs, one) for one in (Conditioning({}), conditioning)]
        mask = (tokens + size.text) ** 2 * denoiser.dtype.itemsize / 2**20
        added = {"added_kb_per_token": 1024 * (peaks[1] - peaks[0]) / tokens}
        peak = {"stock_mb": peaks[0], "weighted_mb": peaks[1]}
        rows[f"references_{tokens}"] = {**peak, **added, "dense_mask_mb": mask}
    return rows


class TensorMemory(TorchDispatchMode):
    """Counts the bytes of tensors that operations within the block make, and the most that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: Inputs | None = None
    ) -> object:
        self._count((args, kwargs), made=False)
        out = func(*args, **(kwargs or {}))
        self._count(out, made=True)
        return out

    def _count(self, values: object, made: bool) -> None:
        for one in tree_leaves(values):
            if isinstance(one, Tensor) and id(storage := one.untyped_storage()) not in self.known:
                self.known[id(storage)] = storage.nbytes() if made else 0
                self.now += self.known[id(storage)]
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, id(storage))

    def _freed(self, key: int) -> None:
        self.now -= self.known.pop(key)


def _peak(denoiser: nn.Module, inputs: Inputs, conditioning: Conditioning) -> float:
    with conditioned(denoiser, conditioning), TensorMemory() as memory:
        denoiser(**inputs, return_dict=False)
    return memory.peak / 2**20


def masked(size: str, rounds: int) -> dict[str, dict[str, float]]:
    """Returns two images in regions beside diffusers' IP-Adapter with masks, as time within text attention too."""
    config = {**SD15, "sample_size": 32} if size == "full" else style.DENOISERS["tiny"]["tiny_sd15"]
    denoiser = diffusers.UNet2DConditionModel(**config).eval().requires_grad_(False)
    tasks = style.steps(denoiser, clock)
    chosen = {name: task for name, task in tasks.items() if name == "stock" or name.endswith("_masked")}
    return style.timed(chosen, rounds, clock, ["_masked"])


BACKBONES: Final[Mapping[str, Callable[[Size], Made]]] = {"sd15": sd15, "sdxl": sdxl, "flux": flux, "z_image": z_image}


def measure(size: str, rounds: int) -> dict[str, dict[str, float]]:
    """Returns the rows of the report."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = {}
    for name, make in BACKBONES.items():
        denoiser, inputs = make(SIZES[size])
        seconds = interleaved(rounds, clock, **step_tasks(denoiser, moved(inputs)))
        rows |= {f"{name}_{row}": scores for row, scores in ratios(seconds, "stock").items()}
    return {**rows, **reference_memory(SIZES[size]), **masked(size, rounds)}
