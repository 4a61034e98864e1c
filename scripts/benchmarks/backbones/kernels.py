"""Rows of the table about attention kernels and compiled blocks."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import torch
from diffusers import ContextParallelConfig, ParallelConfig
from diffusers.models import attention_dispatch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor, nn

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.core.processor import attention_layers, conditioned, install
from weftwork.datasets.readers.errors import UserError
from weftwork.scripts.benchmarks.backbones.cells import Cell, Parts, Row, close, equal, moved
from weftwork.scripts.benchmarks.backbones.tiny import Made, run
from weftwork.scripts.benchmarks.backbones.tiny import parts as tiny_parts

FLASH: Final = AttentionBackendName.FLASH
CHANGES: Final = 20
MORE_GRAPHS: Final = 2
"""Graphs that a conditioned denoiser may have more than the stock model."""


def _with_kernel(name: str, tolerance: float) -> Callable[[Cell], None]:
    @torch.no_grad()
    def check(cell: Cell) -> None:
        """A kernel chosen before attaching or after gives what the default one gives."""
        parts, before = cell.parts(), cell.parts()
        install(parts.denoiser)
        wanted = parts.output()
        with _restored():
            for one in (parts, before):
                one.denoiser.set_attention_backend(name)
            install(before.denoiser)
            for one, when in ((parts, "after"), (before, "before")):
                close(one.output(), wanted, tolerance, f"chosen {when} attaching")

    return check


@contextmanager
def _restored() -> Iterator[None]:
    """Restores the kernel of the process, which `set_attention_backend` changes too."""
    kernel, flash = _AttentionBackendRegistry._active_backend, _AttentionBackendRegistry._backends[FLASH]
    required = attention_dispatch._check_attention_backend_requirements
    try:
        yield
    finally:
        _AttentionBackendRegistry._active_backend, _AttentionBackendRegistry._backends[FLASH] = kernel, flash
        attention_dispatch._check_attention_backend_requirements = required


class NoMaskError(ValueError):
    """The error of flash attention."""


class Unmasked:
    """The native kernel as one that takes no masks, and fewer heads of keys and values, as flash attention does."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *, attn_mask: Tensor | None = None, **arguments: Any) -> Tensor:
        if attn_mask is not None:
            raise NoMaskError("`attn_mask` is not supported for flash-attn 2.")
        self.calls += 1
        grouped = arguments["query"].shape[2] != arguments["key"].shape[2]
        native: Any = _AttentionBackendRegistry._backends[AttentionBackendName.NATIVE]
        return native(**arguments, **({"enable_gqa": True} if grouped else {}))


@torch.no_grad()
def without_masks(cell: Cell) -> None:
    """On a kernel that refuses masks, conditions act as on others; where the stock model needs masks, it refuses."""
    parts = cell.parts()
    masks = {name for name, value in parts.inputs.items() if name.endswith("_mask") and _needless(parts, name, value)}
    parts = cell.parts(without=masks)
    twin = copy.deepcopy(parts.denoiser)
    install(parts.denoiser)
    wanted = parts.output()
    with _restored():
        kernel = Unmasked()
        _AttentionBackendRegistry._backends[FLASH] = kernel
        attention_dispatch._check_attention_backend_requirements = lambda backend: None
        for denoiser in (parts.denoiser, twin):
            denoiser.set_attention_backend(FLASH)
        if _refuses(lambda: run(twin, parts.inputs)):
            if not _refuses(parts.output):
                raise AssertionError("the stock model refuses the kernel, but the conditioned one does not")
            return
        before = kernel.calls
        close(parts.output(), wanted, 1e-5, "a kernel without masks")
        if kernel.calls == before:
            raise AssertionError("no layer's attention ran on the kernel")


def _needless(parts: Parts, name: str, mask: Tensor) -> bool:
    """Whether a mask hides nothing and the denoiser can do without it."""
    try:
        run(parts.denoiser, {key: value for key, value in parts.inputs.items() if key != name})
    except Exception:
        return False
    return bool(mask.all())


def _refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except ValueError as error:
        return "attn_mask" in str(error)
    return False


@torch.no_grad()
def refused_in_parallel(cell: Cell) -> None:
    """Conditions are refused by name, and nothing else is, if processes share the tokens of a call."""
    parts = cell.parts()
    install(parts.denoiser)
    stock = parts.run()
    conditioning = parts.conditioning()
    parts.denoiser._parallel_config = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=2))
    try:
        parts.output(conditioning)
    except UserError as error:
        if "context parallelism" not in str(error):
            raise
    else:
        raise AssertionError("conditions act under context parallelism, where they are not laid out")
    parts.denoiser._parallel_config = None
    equal(parts.run(), stock, "after the refusal")


# -- compiled blocks -----------------------------------------------------------------------------------------


def compile_blocks(denoiser: Any, backend: str) -> None:
    """Compiles the repeated blocks of a denoiser; of classes that name none, the items of its lists of blocks."""
    if getattr(denoiser, "_repeated_blocks", None):
        denoiser.compile_repeated_blocks(fullgraph=True, backend=backend)
        return
    for blocks in denoiser.modules():
        for block in blocks if isinstance(blocks, nn.ModuleList) else ():
            if attention_layers(block):
                block.compile(fullgraph=True, backend=backend)


def _graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@contextmanager
def _fresh_compiler() -> Iterator[None]:
    for reset in (torch._dynamo.reset, torch._dynamo.utils.counters.clear):
        reset()
    try:
        yield
    finally:
        torch._dynamo.reset()


@cache
def _stock_graphs(make: Callable[[], Made]) -> int:
    denoiser, inputs = tiny_parts(make)
    with _fresh_compiler():
        compile_blocks(denoiser, "eager")
        run(denoiser, inputs)
        return _graphs()


def _compiled(backend: str, tolerance: float) -> Callable[[Cell], None]:
    @torch.no_grad()
    def check(cell: Cell) -> None:
        """Compiled blocks give the eager result with few more graphs, and none more for other values."""
        expected, parts = _stock_graphs(cell.make) + MORE_GRAPHS, cell.parts()
        compiled = copy.deepcopy(parts.denoiser)
        stock = parts.run()
        for denoiser in (parts.denoiser, compiled):
            install(denoiser)
        with _fresh_compiler():
            compile_blocks(compiled, backend)
            graphs = 0
            for index in range(CHANGES + 1):
                conditioning = parts.conditioning(_changed(parts, index))
                conditioning.set_step(index % 4, 4)
                out = parts.output(conditioning)
                if index % 4 == 0:
                    moved(out, stock)
                with torch._dynamo.config.patch(error_on_recompile=index > 0), conditioned(compiled, conditioning):
                    close(run(compiled, parts.inputs), out, tolerance, f"compiled, change {index}")
                graphs = graphs or _graphs()
            if graphs > expected:
                raise AssertionError(f"compiled: got {graphs} graphs, expected at most {expected}")
            if _graphs() != graphs:
                raise AssertionError(f"compiled: got {_graphs() - graphs} graphs more for other values")

    return check


def _changed(parts: Parts, index: int) -> list[list[Condition]]:
    """Returns conditions of two designs, which differ by the index in tokens, weights, regions and schedules.

    Among three successive seeds all examples have as many tokens.
    """
    values: dict[str, Any] = {"weight": 0.3 + 0.1 * index, "start": 0.0, "end": 1.0 - 0.02 * index}
    has_regions = not any("region" in kind.refused for kind in parts.example.adapter.condition_type)
    if has_regions and family_of(parts.denoiser).modality != "audio":
        values["region"] = (0.0, 0.0, 0.3 + 0.03 * index, 1.0)
    return [list(parts.example.conditions(seed, **values)) for seed in (2 + 3 * index, index)]


ROWS = (
    Row("native kernel", _with_kernel("native", 0.0)),
    Row("flex kernel", _with_kernel("flex", 1e-5), differentiable=False),
    Row("kernel without masks", without_masks),
    Row("context parallel", refused_in_parallel),
    Row("compiled", _compiled("eager", 1e-5), differentiable=False),
    Row("compiled with inductor", _compiled("inductor", 1e-3), method="style"),
)
