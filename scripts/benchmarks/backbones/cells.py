"""Cells of the table of methods and families: what a row of it is given to check."""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention
from weftwork.attention_processors.core.call_rows import rows_of
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.example import Example, Inputs
from weftwork.attention_processors.core.families import call_layout, family_of
from weftwork.attention_processors.core.method import Method, load
from weftwork.attention_processors.core.processor import conditioned
from weftwork.scripts.benchmarks.backbones.tiny import Made, parts, run

Options = Mapping[str, Any]
"""Options of conditions by name, such as `weight`."""


@dataclass(frozen=True)
class Row:
    """A property that must hold for every method on every family.

    Args:
        check: raises any exception, whose text is the reason, where the property does not hold.
        regions: whether it is about regions, which denoisers without a grid do not have.
        attention: whether it is about the attention of layers, which methods that act on the prompt or on the latents
            leave alone.
        differentiable: whether denoisers with it have gradients on a CPU, which methods that act on the latents need.
        package: package without which it cannot be asked.
        method: the only method that it is asked of, where methods do not matter; None for all.
    """

    name: str
    check: Callable[["Cell"], None]
    regions: bool = False
    attention: bool = False
    differentiable: bool = True
    package: str | None = None
    method: str | None = None

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return self.package is None or find_spec(self.package) is not None


@dataclass
class Parts:
    """A fresh denoiser, the inputs of a call for two prompts, and one method's example; all may be changed."""

    denoiser: Any
    inputs: Inputs
    example: Example

    def run(self, inputs: Inputs | None = None) -> Tensor:
        """Returns the output of a call."""
        return run(self.denoiser, self.inputs if inputs is None else inputs)

    def conditions(self, **options: Any) -> list[list[Condition]]:
        """Returns conditions of two designs, which differ."""
        return [list(self.example.conditions(seed, **options)) for seed in (0, 1)]

    def conditioning(
        self, designs: Sequence[Sequence[Condition]] | None = None, inputs: Inputs | None = None, **options: Any
    ) -> Conditioning:
        """Returns what acts in a call with these inputs; without designs those of `conditions`."""
        encoded = self.example.encoded(self.conditions(**options) if designs is None else designs)
        return self.laid_out({"it": encoded}, inputs)

    def laid_out(self, encoded: Mapping[str, Any], inputs: Inputs | None = None) -> Conditioning:
        """Returns encoded conditions, by name, as they act in a call with these inputs."""
        return Conditioning.of(encoded, call_layout(self.denoiser, self.inputs if inputs is None else inputs))

    def output(self, conditioning: Conditioning | None = None, inputs: Inputs | None = None, **options: Any) -> Tensor:
        """Returns the output of a call with conditions; the denoiser's processors are wrapped before."""
        made = self.conditioning(inputs=inputs, **options) if conditioning is None else conditioning
        with conditioned(self.denoiser, made):
            return self.run(inputs)

    def seen(self, conditioning: Conditioning) -> "Seen":
        """Returns the attention of the first layer that has branches, in a call with conditions."""
        spy, first = Seen(), next(iter(conditioning.branches))
        branches = {**conditioning.branches, first: (*conditioning.branches[first], spy)}
        with conditioned(self.denoiser, replace(conditioning, branches=branches, names={}, recorder=None)):
            self.run()
        return spy

    def first_row(self) -> Inputs:
        """Returns the inputs of the first prompt alone."""
        return rows_of(self.inputs, [0])


class Seen(Branch):
    """Last branch of a layer, which keeps what the layer attends with and returns."""

    linear = True

    out: Tensor
    """Attention with all branches, [row, query, head, dim]."""

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        self.out = out
        return out


@dataclass(frozen=True)
class Cell:
    """One method on one family: makes the parts that a row checks, anew each time.

    The branch of the method moves the output of the denoiser that `parts` returns; this is checked before any row.
    """

    method: Method
    make: Callable[[], Made]
    shared: dict[str, object] = field(default_factory=dict)
    """Results that rows keep for other rows of this cell."""

    @property
    def backbone(self) -> str:
        """Name of the family's tiny denoiser, see `tiny.FAMILIES`."""
        return self.make.__name__

    def denoiser(self) -> Made:
        """Returns a denoiser and the inputs of a call for two prompts."""
        return copy.deepcopy(_made(self.make))

    def parts(
        self, change: Callable[[nn.Module], object] = lambda denoiser: None, without: Collection[str] = ()
    ) -> Parts:
        """Returns the parts of the cell.

        Args:
            change: function that changes the stock denoiser before anything is made for it.
            without: names of inputs that are left out.
        """
        denoiser, inputs = self.denoiser()
        inputs = {name: value for name, value in inputs.items() if name not in without}
        change(denoiser)
        torch.manual_seed(3)
        example: Example = load(self.method.example or "")(denoiser)
        return Parts(denoiser, example.inputs(inputs), example)

    def applies(self, row: Row) -> bool:
        """Whether the property can be asked: image methods are not for audio nor the reverse, which has no regions;
        methods that act on the latents need gradients, and leave attention as it is, as those of the prompt do."""
        if row.method not in (None, self.method.name):
            return False
        acts_on = self.method.acts_on
        if (row.attention and acts_on != "attention") or (acts_on == "latents" and not row.differentiable):
            return False
        modality = family_of(_made(self.make)[0]).modality
        return modality in self.method.modalities and not (row.regions and modality == "audio")


@cache
def _made(make: Callable[[], Made]) -> Made:
    return parts(make)


def equal(got: Tensor, wanted: Tensor, what: str) -> None:
    """Raises unless two tensors are the same, bit for bit.

    Raises:
        AssertionError: names what differs, and by how much.
    """
    if got.shape != wanted.shape:
        raise AssertionError(f"{what}: got shape {tuple(got.shape)}, expected {tuple(wanted.shape)}")
    if not torch.equal(got, wanted):
        raise AssertionError(f"{what}: differs by {float((got - wanted).abs().max()):.1e}, expected the same bits")


def close(got: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """Raises unless two tensors are the same within a tolerance.

    Raises:
        AssertionError: names what differs, and by how much.
    """
    worst = float((got - wanted).abs().max())
    if not worst <= tolerance:  # NaN is not
        raise AssertionError(f"{what}: differs by {worst:.1e}, expected at most {tolerance:.0e}")


def moved(got: Tensor, stock: Tensor, what: str = "the branch", least: float = 1e-5) -> None:
    """Raises unless an output differs from another.

    Raises:
        AssertionError: it does not, or not by enough, or is not finite.
    """
    if not bool(got.isfinite().all()):
        raise AssertionError(f"{what}: got numbers that are not finite")
    by = float((got - stock).abs().max())
    if by < least:
        raise AssertionError(f"{what}: moves the output by {by:.1e}, expected at least {least:.0e}")


def cells(methods: Iterable[Method], makers: Iterable[Callable[[], Made]]) -> list[Cell]:
    """Returns the cells of methods that have an example on families."""
    makers = list(makers)
    return [Cell(method, make) for method in methods if method.example for make in makers]
