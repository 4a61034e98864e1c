"""Generation from JSONL files of designs; skips existing images and distributes the rest over processes."""

import argparse
import json
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

    from weftwork.pipelines.designs.identity import identity
    from weftwork.pipelines.designs.reader import read_designs

    if arguments.maps or arguments.num_images != 1:
        raise UserError("maps, num_images: got one beside --input; write a line per image, draw maps one by one")
    folder = arguments.output or Path("outputs") / arguments.input.stem
    designs = {
        name: _seeded(replaced(design, arguments), index)
        for index, (name, design) in enumerate(read_designs(arguments.input).items())
    }
    given = adapter_paths(arguments.adapter)
    made_of = {n: identity(one, arguments.model, given, arguments.image_encoder) for n, one in designs.items()}
    missing = _missing(designs, made_of, folder)
    state = PartialState()
    with state.split_between_processes(missing) as share:
        mine: Any = share
        failed = _make(arguments, {name: designs[name] for name in mine}, made_of, folder, state)
    if state.is_main_process:
        print(f"{folder}: {len(designs) - len(missing)} of {len(designs)} images were there, {len(missing)} to make")
    if failed:
        raise UserError("\n  ".join([f"images: {len(failed)} could not be made; run the command again", *failed]))


def _make(
    arguments: argparse.Namespace,
    designs: Mapping[str, "Design"],
    made_of: Mapping[str, Mapping[str, str]],
    folder: Path,
    state: "PartialState",
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
            write_images({folder / f"{name}.png": (image, stored(design, made_of=made_of[name]))})
        except UserError as error:
            failed.append(f"{name}: {error}")
    return failed


def _seeded(design: "Design", index: int) -> "Design":
    """Returns the design with a seed, by default its line index, so that runs are reproducible."""
    return design if design.seed is not None else replace(design, seed=index)


def _missing(designs: Mapping[str, "Design"], made_of: Mapping[str, Mapping[str, str]], folder: Path) -> list[str]:
    """Returns the names of designs without a whole image.

    Raises:
        ValueError: the folder holds an image of another design, or one that was made by other things.
    """
    from weftwork.pipelines.designs.run import stored, stored_in

    missing = []
    for name, design in designs.items():
        path = folder / f"{name}.png"
        found = stored_in(path) if path.is_file() else None
        if found is None:
            missing.append(name)
            continue
        before = found.pop("made_of", {})  # images of earlier versions have none
        if found != json.loads(stored(design)):
            raise UserError(f"{path}: got an image of another design; choose another --output, or remove it")
        changed = [thing for thing, digest in made_of[name].items() if before and before.get(thing) != digest]
        if changed or (before and set(before) - set(made_of[name])):
            other = changed[0] if changed else min(set(before) - set(made_of[name]))
            raise UserError(f"{path}: got an image made with another {other}; choose another --output, or remove it")
    return missing
