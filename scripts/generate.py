"""Generate images from a design file: prompt, sketches, texts, references and regions in JSON.

    weftwork generate examples/scene/scene.json
    weftwork generate design.json --output red.png --seed 7 --num_images 4
    weftwork generate outputs/scene.png --output outputs/blue.png --seed 8
    weftwork generate design.json --model my-stable-diffusion --adapter paired=outputs/mine
    weftwork generate --input designs.jsonl --output outputs/many
    weftwork generate design.json --inspect outputs/inspection

Defaults to the shipped model that the design names, else to that of drawings, with its adapters. Options override
settings of the file. The PNG stores the design and its seed; nothing is written after an error. With --input, existing
images are skipped, and `accelerate launch -m weftwork.scripts.cli generate …` distributes the rest over processes.
"""

import argparse
import os
import secrets
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weftwork.datasets.readers.errors import UserError, check_installed
from weftwork.pipelines.core.hardware import device_named
from weftwork.pretrained import DEFAULT_MODEL
from weftwork.scripts.generate_options import adapter_paths, opened_model, replaced, warn_of_unused
from weftwork.scripts.outputs import naming_replaced

if TYPE_CHECKING:
    from weftwork.attention_processors.core.inspection import Inspector

MAX_IMAGES: Final = 64
ABLATIONS: Final = ("heads", "layers", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork generate`."""
    parser.add_argument("design", nargs="?", type=Path, help="a design file (JSON), or an image with one")
    parser.add_argument(
        "--input", type=Path, help="JSONL file of many named designs, one per line, instead of a design"
    )
    parser.add_argument(
        "--output", type=Path, help="PNG to write (default: outputs/<name>.png); with --input the folder for all"
    )
    parser.add_argument(
        "--model", help=f"a shipped model or a folder (default: that of the design, else {DEFAULT_MODEL})"
    )
    own = "adapter or style card, by name; can be repeated"
    parser.add_argument("--adapter", action="append", default=[], metavar="NAME=PATH", help=own)
    parser.add_argument("--image_encoder", help="CLIP folder or Hub id, for references in the design")
    parser.add_argument("--seed", type=int, help="seed of the first image; further images use the following seeds")
    parser.add_argument("--num_inference_steps", type=int, help="denoising steps")
    parser.add_argument("--guidance_scale", type=float, help="1 turns guidance off")
    parser.add_argument("--height", type=int, help="in pixels")
    parser.add_argument("--width", type=int, help="in pixels")
    parser.add_argument("--negative_prompt", help="prompt that guidance leads away from")
    parser.add_argument("--strength", type=float, help="share of the steps that are run on the design's image")
    parser.add_argument("--maps", action="store_true", help="also write attention maps, as NAME-maps.png")
    seen = "also write what each attention layer and head reads, as plots and JSON; needs matplotlib"
    parser.add_argument("--inspect", type=Path, metavar="FOLDER", help=seen)
    parser.add_argument(
        "--ablate",
        choices=ABLATIONS,
        help="with --inspect: run the model again, at the step in the middle, without each layer, or also without each "
        "head (default: heads)",
    )
    parser.add_argument(
        "--device", help="device of the model, for example cuda (default: cpu; with --input that of accelerate)"
    )
    parser.add_argument("--num_images", type=int, default=1, help="images per design (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Runs `weftwork generate`.

    Raises:
        ValueError: invalid design, model or options; nothing is written.
        OSError: the images cannot be written; no partial file is left.
    """
    began = time.perf_counter()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    if (arguments.design is None) == (arguments.input is None):
        raise UserError("design, input: got neither or both; pass one design file, or --input with a file of many")
    _check_options(arguments)
    if arguments.input is not None:
        from weftwork.scripts.generate_many import run as run_many

        return run_many(arguments)
    from weftwork.pipelines.designs.reader import read_design
    from weftwork.pipelines.designs.run import (
        check_conditions,
        check_maps,
        draw_files,
        maps_path,
        numbered,
        open_pipeline,
    )

    design = replaced(read_design(arguments.design), arguments)
    if arguments.maps:
        check_maps(design)
    if arguments.inspect is not None:
        check_conditions(design, "inspect")
    if design.seed is None:
        design = replace(design, seed=secrets.randbelow(2**31))
    output = arguments.output or Path("outputs") / f"{arguments.design.stem}.png"
    _check_output(output, arguments.design)
    targets = numbered(output, arguments.num_images)
    device, adapters = device_named(arguments.device or "cpu"), adapter_paths(arguments.adapter)
    warn_of_unused(adapters, [design])
    pipe = open_pipeline(opened_model(design, arguments), adapters, design, arguments.image_encoder).to(device)
    folder, inspector = arguments.inspect, _inspector(arguments)
    with naming_replaced([*targets, *(map(maps_path, targets) if arguments.maps else ())]):
        for target in draw_files(pipe, design, targets, maps=arguments.maps, recorder=inspector):
            print(target)
    if folder is not None and inspector is not None:
        from weftwork.pipelines.designs.inspection import inspection_record, write_inspection

        for path in write_inspection(inspection_record(inspector, design, pipe), folder):
            print(path)
    print(f"took {time.perf_counter() - began:.1f} s, seed {design.seed}")


def _check_options(arguments: argparse.Namespace) -> None:
    count = arguments.num_images
    if not 1 <= count <= MAX_IMAGES:
        raise UserError(f"num_images: got {count}, expected 1 to {MAX_IMAGES}; run the command again for more")
    folder = arguments.inspect
    if folder is None:
        if arguments.ablate is not None:
            raise UserError(f"ablate: got {arguments.ablate!r} without --inspect; add it, or leave --ablate out")
        return
    if arguments.input is not None:
        raise UserError("inspect: got it with --input, expected one design; pass the file of that design instead")
    if folder.is_file():
        raise UserError(f"inspect: got {str(folder)!r}, a file, expected a folder; choose another name")
    check_installed("inspect", "matplotlib")


def _inspector(arguments: argparse.Namespace) -> "Inspector | None":
    if arguments.inspect is None:
        return None
    from weftwork.attention_processors.core.inspection import Inspector

    ablate, heads = () if arguments.ablate == "none" else (0.5,), arguments.ablate != "layers"
    return Inspector(ablate=ablate, heads=heads, with_maps=arguments.maps)


def _check_output(output: Path, design: Path) -> None:
    if output.suffix.lower() != ".png":
        raise UserError(f"output: got {str(output)!r}, expected a name that ends in .png; the design is stored in it")
    if output.is_dir():
        raise UserError(f"output: got {str(output)!r}, a folder, expected a file; add a name")
    if output.resolve() == design.resolve():
        raise UserError(f"output: got {str(output)!r}, the design's own image, expected another; choose another name")
