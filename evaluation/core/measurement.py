"""Options of `weftwork evaluate METHOD`, as records that load no library, so that `--help` is quick."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from weftwork.attention_processors.core.method import load
from weftwork.datasets.readers.errors import UserError
from weftwork.pretrained import ALL, DEFAULT_MODEL, available, located, shipped, shipped_name

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from weftwork.evaluation.core.runner import Evaluation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Trained weights of evaluation rows, and the option that replaces the shipped ones.

    Args:
        shipped: name of the shipped model; empty where none is. Required ones without a backbone, such as oracles, are
            for all models, others for that of the measurement.
        help: content of the folder.
        rows: rows that need these weights and are skipped without them; empty if the weights are required.
        several: whether the option takes one folder per seed.
        beside: option whose own weights leave out these shipped ones.
    """

    shipped: str
    help: str
    rows: tuple[str, ...] = ()
    several: bool = False
    beside: str = ""


@dataclass(frozen=True)
class Measurement:
    """The measurement of a method.

    Args:
        description: of the command.
        evaluation: `Evaluation` class, as `"package.module:name"`.
        weights: by option.
        backbone: shipped model that is measured unless another is named.
        num_inference_steps, guidance_scale: defaults of the options.
        curve: scores that the option `--curve` plots over the weight of the condition; none for no such option.
        curve_over: label of its axis; none for the weight.
        splits: of the cases; the first is the default.
        places: further folders by option, with their defaults, None for no folder, and contents.
    """

    description: str
    evaluation: str
    weights: Mapping[str, Weights]
    backbone: str = DEFAULT_MODEL
    num_inference_steps: int = 20
    guidance_scale: float = 3.0
    curve: tuple[str, ...] = ()
    curve_over: str = ""
    splits: tuple[str, ...] = ("test", "validation")
    places: Mapping[str, tuple[Path | None, str]] = field(default_factory=dict)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options of this method."""
        steps, scale, split = self.num_inference_steps, self.guidance_scale, self.splits[0]
        parser.add_argument("--split", choices=self.splits, default=split, help=f"of the cases (default: {split})")
        parser.add_argument("--num_inference_steps", type=int, default=steps, help="denoising steps")
        parser.add_argument("--guidance_scale", type=float, default=scale, help="1 turns guidance off")
        for name, one in self.weights.items():
            text = f"{one.help} (default: the shipped {one.shipped})" if one.shipped else one.help
            if one.several:
                parser.add_argument(f"--{name}", nargs="+", type=Path, help=f"one per --seed: {text}")
            else:
                parser.add_argument(f"--{name}", type=Path, help=text)
        for name, (default, text) in self.places.items():
            text = text if default is None else f"{text} (default: {default})"
            parser.add_argument(f"--{name}", type=Path, default=default, help=text)
        if self.curve:
            text = f"scores over the {self.curve_over or 'weight'}, as a plot; needs matplotlib"
            parser.add_argument("--curve", action="store_true", help=text)

    def open(self, pipe: "DiffusionPipeline", arguments: argparse.Namespace) -> "Evaluation":
        """Returns the evaluation of a pipeline of the method's backbone; `ValueError` as `folders`."""
        return replace(
            load(self.evaluation).open(pipe, self.folders(arguments)),
            split=arguments.split,
            count=arguments.limit,
            num_inference_steps=arguments.num_inference_steps,
            guidance_scale=arguments.guidance_scale,
        )

    def folders(self, arguments: argparse.Namespace) -> dict[str, Sequence[Path]]:
        """Returns `places`, and the folders of `weights`, given or shipped; logs requested rows that lack weights.

        Raises:
            ValueError: required weights are neither given nor shipped.
        """
        found: dict[str, Sequence[Path]] = {
            name: [getattr(arguments, name)] for name in self.places if getattr(arguments, name) is not None
        }
        of_backbone = arguments.model is None or shipped_name(arguments.model) == self.backbone
        for name, one in self.weights.items():
            given = getattr(arguments, name)
            if given is not None:
                found[name] = [located(one) for one in (given if isinstance(given, list) else [given])]
            elif one.beside and getattr(arguments, one.beside) is not None:
                continue
            elif one.shipped in available() and (of_backbone or not (one.rows or ALL[one.shipped].backbone)):
                found[name] = [shipped(one.shipped)]
            elif not one.rows:
                raise UserError(f"{name}: got none, and none is shipped for this backbone; train one, pass --{name}")
            elif of_backbone and (rows := [row for row in one.rows if row in (arguments.rows or one.rows)]):
                where = (
                    "or run in a checkout, which has it in pretrained/baselines" if one.shipped else "none is shipped"
                )
                what = one.shipped or one.help
                logger.info(
                    "rows left out: %s; %s is not in this installation: pass --%s, %s",
                    *(", ".join(rows), what, name, where),
                )
        return found
