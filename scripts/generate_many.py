"""Generation from JSONL files of designs; skips existing images and distributes the rest over processes."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.inline_images import PREFIX
from weftwork.pipelines.core.hardware import device_named
from weftwork.pipelines.designs.files import FOLDERS
from weftwork.scripts.generate_options import adapter_paths, opened_model, replaced, warn_of_unused
from weftwork.scripts.outputs import naming_replaced

if TYPE_CHECKING:
    from accelerate import PartialState

    from weftwork.pipelines.designs.design import Design


def run(arguments: argparse.Namespace) -> None:
    """Generates the missing images; a failure does not stop the others.

    Raises:
        ValueError: invalid lines, or images of other designs in the folder (nothing is written); or, at the end, images
            that could not be generated.
    """
    from accelerate import PartialState

    from weftwork.pipelines.designs.identity import identity
    from weftwork.pipelines.designs.reader import IMAGE_SUFFIX, read_designs

    folder = arguments.output or Path("outputs") / arguments.input.stem
    if folder.is_file() or folder.suffix.lower() == IMAGE_SUFFIX:
        raise UserError(f"output: got {str(folder)!r}, expected a folder for all images; choose another name")
    designs = {
        name: _seeded(replaced(design, arguments), index * arguments.num_images)
        for index, (name, design) in enumerate(read_designs(arguments.input).items())
    }
    given = adapter_paths(arguments.adapter)
    made_of = {
        name: identity(one, opened_model(one, arguments), given, arguments.image_encoder)
        for name, one in designs.items()
    }
    files = _files(designs, folder, arguments)
    warn_of_unused(given, designs.values())
    missing = [name for name, design in designs.items() if not _is_made(design, made_of[name], files[name])]
    state = PartialState()
    with state.split_between_processes(missing) as share:
        mine: Any = share
        with naming_replaced(path for name in mine for path in files[name]):
            failed = _make(arguments, {name: designs[name] for name in mine}, made_of, files, state)
    if state.is_main_process:
        print(f"{folder}: {len(designs) - len(missing)} of {len(designs)} designs were there, {len(missing)} to make")
    if failed:
        count = f"images: {len(failed)} could not be made; correct these designs and run the command again"
        raise UserError("\n  ".join([count, *failed]))


def _make(
    arguments: argparse.Namespace,
    designs: Mapping[str, "Design"],
    made_of: Mapping[str, Mapping[str, str]],
    files: Mapping[str, Mapping[Path, int]],
    state: "PartialState",
) -> list[str]:
    """Generates the images of one process; returns errors prefixed with the name of their design."""
    from weftwork.pipelines.designs.run import attach_all, draw_files, open_pipeline

    failed: list[str] = []
    pipe, shared = None, None
    given = adapter_paths(arguments.adapter)
    device = device_named(arguments.device) if arguments.device else state.device
    for name, design in tqdm(designs.items(), desc="designs", disable=not state.is_local_main_process):
        try:
            model = opened_model(design, arguments)
            others = (model, tuple(design.loras), tuple(design.controlnets))
            if pipe is None or others != shared:
                pipe, shared = open_pipeline(model, given, design, arguments.image_encoder), others
                pipe.to(device)
                pipe.set_progress_bar_config(disable=True)
            attach_all(pipe, model, {}, design.conditions)
            targets = list(files[name])[: arguments.num_images]
            draw_files(pipe, design, targets, maps=arguments.maps, made_of=made_of[name])
        except UserError as error:
            failed.append(f"{name}: {error}")
    return failed


def _seeded(design: "Design", index: int) -> "Design":
    """Returns the design with a seed, by default its line index, so that runs are reproducible."""
    return design if design.seed is not None else replace(design, seed=index)


def _files(designs: Mapping[str, "Design"], folder: Path, arguments: argparse.Namespace) -> dict[str, dict[Path, int]]:
    """Returns the images of each design, and behind them their maps, with their numbers.

    `ValueError` for maps of a design without conditions, or two designs with files of one name.
    """
    from weftwork.pipelines.designs.run import check_maps, maps_path, numbered

    files: dict[str, dict[Path, int]] = {}
    owners: dict[Path, str] = {}
    for name, design in designs.items():
        images = numbered(folder / f"{name}.png", arguments.num_images)
        files[name] = {path: index for index, path in enumerate(images)}
        if arguments.maps:
            files[name] |= {maps_path(path): index for path, index in files[name].items()}
        for path in files[name]:
            if (other := owners.setdefault(path, name)) != name:
                raise UserError(f"name: got {other!r} and {name!r}, which both write {path.name}; rename one")
        if arguments.maps:
            try:
                check_maps(design)
            except UserError as error:
                raise UserError(f"{name}: {error}") from error
    return files


def _is_made(design: "Design", made_of: Mapping[str, str], files: Mapping[Path, int]) -> bool:
    """Whether all files of a design are there and whole; `ValueError` for images of another design or model."""
    from weftwork.pipelines.designs.design import SETTINGS
    from weftwork.pipelines.designs.files import stored_in
    from weftwork.pipelines.designs.run import stored

    whole = True
    for path, index in files.items():
        found = stored_in(path) if path.is_file() else None
        if found is None:
            whole = False
            continue
        before = found.pop("made_of", {})  # images of earlier versions have none
        expected = json.loads(stored(design, index, folder=path.parent))
        if before and "model" not in found["design"]:  # of an earlier version; `before` has its digest
            expected["design"].pop("model", None)
        used = {key: value for key, value in expected["design"].items() if key in SETTINGS}
        of_paths = {**expected, "design": {**design.source, **used}}  # as earlier versions stored it
        alike = before and _without_files(found) == _without_files(expected)
        if not alike and found not in (expected, of_paths):
            raise UserError(f"{path}: got an image of another design; choose another --output, or remove it")
        changed = [name for name, digest in made_of.items() if before and before.get(name) != digest]
        if changed or (before and set(before) - set(made_of)):
            other = changed[0] if changed else min(set(before) - set(made_of))
            raise UserError(f"{path}: got an image made with other {other}; choose another --output, or remove it")
    return whole


def _without_files(value: object) -> object:
    """Returns a record without images and paths of weights, whose content `made_of` has as well."""
    if isinstance(value, dict):
        return {key: _without_files(one) for key, one in value.items() if key not in FOLDERS.values()}
    if isinstance(value, list):
        return [_without_files(one) for one in value]
    return None if isinstance(value, str) and value.startswith(PREFIX) else value
