"""The base of measurements: the options of `weftwork evaluate METHOD`, and its evaluation."""

import argparse
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from weftwork.datasets.readers.errors import UserError
from weftwork.pretrained import available, located, shipped

if TYPE_CHECKING:
    from weftwork.evaluation.core.report import Report
    from weftwork.evaluation.core.runner import Evaluation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Trained weights of evaluation rows, and the option that replaces the shipped ones.

    Args:
        shipped: name of the shipped model.
        help: content of the folder.
        rows: rows that need these weights and are skipped without them; empty if the weights are required.
        several: whether the option takes one folder per seed.
    """

    shipped: str
    help: str
    rows: tuple[str, ...] = ()
    several: bool = False


class Measurement(ABC):
    """Measures one method. Importing a measurement's module should load no library, so that `--help` is quick.

    Args:
        arguments: parsed options, those of `add_arguments` among them.
    """

    weights: ClassVar[Mapping[str, Weights]] = {}
    """By option."""
    num_inference_steps: ClassVar[int] = 20
    guidance_scale: ClassVar[float] = 3.0

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the options of this method."""
        for name, one in cls.weights.items():
            text = f"{one.help} (default: the shipped {one.shipped})"
            if one.several:
                parser.add_argument(f"--{name}", nargs="+", type=Path, help=f"one per --seed: {text}")
            else:
                parser.add_argument(f"--{name}", type=Path, help=text)

    def check(self) -> None:
        """Checks the options before models are loaded.

        Raises:
            ValueError: an option out of its range.
        """
        if self.arguments.limit < 1:
            raise UserError(f"limit: got {self.arguments.limit}, expected at least 1; raise it")

    @abstractmethod
    def build(self, pipe: Any) -> "Evaluation":
        """Returns the evaluation of a pipeline of the method's backbone."""

    def finish(self, evaluation: "Evaluation", report: "Report") -> Sequence[Path]:
        """Writes further files into `arguments.output` and returns their paths."""
        return ()

    def settings(self) -> dict[str, Any]:
        """Returns the options common to all evaluations."""
        arguments = self.arguments
        return {
            "split": arguments.split,
            "count": arguments.limit,
            "num_inference_steps": arguments.num_inference_steps,
            "guidance_scale": arguments.guidance_scale,
        }

    def folders(self) -> dict[str, list[Path]]:
        """Returns the folders of `weights`, given or shipped, and logs the rows skipped for lack of weights.

        Raises:
            ValueError: required weights are neither given nor shipped.
        """
        found: dict[str, list[Path]] = {}
        for name, one in self.weights.items():
            given = getattr(self.arguments, name)
            if given is not None:
                found[name] = [located(one) for one in (given if isinstance(given, list) else [given])]
            elif self.arguments.model is None and one.shipped in available():
                found[name] = [shipped(one.shipped)]
            elif not one.rows:
                raise UserError(f"{name}: got none, and none is shipped for this backbone; train one, pass --{name}")
            elif self.arguments.model is None:
                logger.info(
                    "rows left out: %s; %s is not in this installation: pass --%s, or run in a checkout, which has it "
                    "in pretrained/baselines",
                    *(", ".join(one.rows), one.shipped, name),
                )
        return found
