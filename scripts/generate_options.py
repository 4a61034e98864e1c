"""Options shared by commands that generate images."""

import argparse
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from weftwork.datasets.readers.errors import UserError, nearest
from weftwork.pretrained import DEFAULT_MODEL, image_backbone

if TYPE_CHECKING:
    from weftwork.pipelines.designs.design import Design

logger = logging.getLogger(__name__)


def replaced(design: "Design", arguments: argparse.Namespace) -> "Design":
    """Returns the design with its settings overridden by options, and with the shipped model that draws it."""
    from weftwork.pipelines.designs.design import SETTINGS

    given = {name: value for name in SETTINGS if (value := getattr(arguments, name)) is not None}
    return replace(design, **given, model=image_backbone(opened_model(design, arguments)))


def opened_model(design: "Design", arguments: argparse.Namespace) -> str:
    """Returns the model that a design is drawn by: of the option, else of the design, else the default one."""
    return arguments.model or design.model or DEFAULT_MODEL


def adapter_paths(given: Sequence[str]) -> dict[str, Path]:
    """Parses arguments NAME=PATH; `ValueError` for an invalid one, or a duplicate name."""
    paths: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name.isidentifier() and equals and path):
            raise UserError(f"adapter: got {text!r}, expected NAME=PATH, for example paired=outputs/mine")
        if name in paths:
            raise UserError(f"adapter: got {name!r} twice, expected each name once; drop one")
        paths[name] = Path(path)
    return paths


def warn_of_unused(adapters: Iterable[str], designs: Iterable["Design"]) -> None:
    """Logs a warning for each adapter without conditions of its name in any design."""
    used = dict.fromkeys(name for design in designs for name in design.conditions)
    for name in adapters:
        if name not in used:
            remedy = nearest(name, used, f"leave --adapter {name} out")
            logger.warning("adapter: %r has no effect without conditions of this name; %s", name, remedy)
