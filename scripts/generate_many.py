"""Generation from JSONL files of designs; skips existing images and distributes the rest over processes."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.hardware import device_named
from weftwork.scripts.generate_options import adapter_paths, replaced

if TYPE_CHECKING:
    from accelerate import PartialState

    from weftwork.pipelines.designs.design import Design


def run(arguments: argparse.Namespace) -> None:
    """Generates the missing images; a failure does not stop the others.

    Raises:
        ValueError: options of single designs, invalid lines, or images of other designs in the folder (nothing is
            written); or, at the end, images that could not be generated.
    """
    from accelerate import PartialState

    from weftwork.pipelines.designs.reader import read_designs

    if arguments.maps or arguments.num_images != 1:
        raise UserError("maps, num_images: got one beside --input; write a line per image, draw maps one by one")
    folder = arguments.output or Path("outputs") / arguments.input.stem
    designs = {
        name: _seeded(replaced(design, arguments), index)
        for index, (name, design) in enumerate(read_designs(arguments.input).items())
    }
    missing = _missing(designs, folder)
    state = PartialState()
    with state.split_between_processes(missing) as share:
        mine: Any = share
        failed = _make(arguments, {name: designs[name] for name in mine}, folder, state)
    if state.is_main_process:
        print(f"{folder}: {len(designs) - len(missing)} of {len(designs)} images were there, {len(missing)} to make")
    if failed:
        raise UserError("\n  ".join([f"images: {len(failed)} could not be made; run the command again", *failed]))


def _make(
    arguments: argparse.Namespace, designs: Mapping[str, "Design"], folder: Path, state: "PartialState"
) -> list[str]:
    """Generates the images of one process; returns errors prefixed with the name of their design."""
    from weftwork.pipelines.designs.run import attach_all, draw, open_pipeline, stored, write_images

    failed: list[str] = []
    pipe, shared = None, None
    given = adapter_paths(arguments.adapter)
    device = device_named(arguments.device) if arguments.device else state.device
    for name, design in tqdm(designs.items(), desc="designs", disable=not state.is_local_main_process):
        try:
            others = (tuple(design.loras), tuple(design.controlnets))
            if pipe is None or others != shared:
                pipe, shared = open_pipeline(arguments.model, given, design, arguments.image_encoder), others
                pipe.to(device)
                pipe.set_progress_bar_config(disable=True)
            attach_all(pipe, {}, design.conditions)
            (image,) = draw(pipe, design)
            write_images({folder / f"{name}.png": (image, stored(design))})
        except UserError as error:
            failed.append(f"{name}: {error}")
    return failed


def _seeded(design: "Design", index: int) -> "Design":
    """Returns the design with a seed, by default its line index, so that runs are reproducible."""
    return design if design.seed is not None else replace(design, seed=index)


def _missing(designs: Mapping[str, "Design"], folder: Path) -> list[str]:
    """Returns the names of designs without an image.

    Raises:
        ValueError: the folder holds an image of another design.
    """
    from weftwork.pipelines.designs.run import stored, stored_in

    missing = []
    for name, design in designs.items():
        path = folder / f"{name}.png"
        if not path.is_file():
            missing.append(name)
            continue
        if stored_in(path) != stored(design):
            raise UserError(f"{path}: got an image of another design; choose another --output, or remove it")
    return missing
