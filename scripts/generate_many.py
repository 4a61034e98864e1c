"""Pictures of many designs, one JSON object per line: what is there is not made again, processes share the rest."""

import argparse
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tqdm.auto import tqdm

from weftwork.scripts.generate import (
    TEXT_CHUNK,
    adapter_paths,
    attach_all,
    draw,
    open_pipeline,
    overrides,
    stored,
    write_pictures,
)

if TYPE_CHECKING:
    from weftwork.pipelines.designs.design_file import Design

logger = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> None:
    """Make the pictures that are missing; one that fails does not keep the others from being made.

    Raises:
        ValueError: options that only single designs have, lines that are wrong, or pictures of other designs in the
            folder; nothing is written then.
        RuntimeError: at the end, if some pictures could not be made.
    """
    from accelerate import PartialState

    from weftwork.pipelines.designs.design_file import read_designs

    if arguments.maps or arguments.num_images != 1:
        raise ValueError("maps, num_images: got one beside --input; write a line per picture, draw maps one by one")
    folder = arguments.output or Path("outputs") / arguments.input.stem
    designs = {
        name: _seeded(replace(design, **overrides(arguments)), index)
        for index, (name, design) in enumerate(read_designs(arguments.input).items())
    }
    missing = _missing(designs, folder)
    state = PartialState()
    with state.split_between_processes(missing) as share:
        mine: Any = share
        failed = _make(arguments, {name: designs[name] for name in mine}, folder, state)
    if state.is_main_process:
        print(f"{folder}: {len(designs) - len(missing)} of {len(designs)} pictures were there, {len(missing)} to make")
    if failed:
        raise RuntimeError("\n  ".join([f"pictures: {len(failed)} could not be made; run the command again", *failed]))


def _make(arguments: argparse.Namespace, designs: Mapping[str, "Design"], folder: Path, state: Any) -> list[str]:
    """The pictures of one process; what went wrong, by name."""
    failed: list[str] = []
    pipe, shared = None, None
    given = adapter_paths(arguments.adapter)
    for name, design in tqdm(designs.items(), desc="designs", disable=not state.is_local_main_process):
        try:
            others = (tuple(design.loras), tuple(design.controlnets))
            if pipe is None or others != shared:
                pipe, shared = open_pipeline(arguments.model, given, design), others
                pipe.to(arguments.device or state.device)
                pipe.set_progress_bar_config(disable=True)
            attach_all(pipe, {}, design.conditions)
            (picture,) = draw(pipe, design, 1, None)
            write_pictures({folder / f"{name}.png": (picture, stored(design, 0))})
        except (ValueError, FloatingPointError) as error:
            failed.append(f"{name}: {error}")
    return failed


def _seeded(design: "Design", index: int) -> "Design":
    """With the line's place as seed where there is none, so that a second run draws the same."""
    return design if design.seed is not None else replace(design, seed=index)


def _missing(designs: Mapping[str, "Design"], folder: Path) -> list[str]:
    """Names whose picture is not there.

    Raises:
        ValueError: a picture of another design is there.
    """
    missing = []
    for name, design in designs.items():
        path = folder / f"{name}.png"
        if not path.is_file():
            missing.append(name)
            continue
        with Image.open(path) as picture:
            found = getattr(picture, "text", {}).get(TEXT_CHUNK)
        if found != stored(design, 0):
            raise ValueError(f"{path}: got a picture of another design; choose another --output, or remove it")
    return missing
