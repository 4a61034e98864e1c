"""A picture from a design file: prompt, sketches, words and regions in JSON.

    weft generate examples/outfit/outfit.json
    weft generate design.json --output red.png --seed 7 --num_images 4
    weft generate design.json --model my-stable-diffusion --adapter paired=outputs/mine

Without --model and --adapter the shipped models are used. Options given here replace the file's. The PNG holds the
design and the seed it was made with; nothing is written when anything is wrong.
"""

import argparse
import contextlib
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from PIL import Image

    from weft.pipelines.design_file import Design

OVERRIDES: Final = ("seed", "num_inference_steps", "guidance_scale", "height", "width", "negative_prompt")
DEFAULT_MODEL: Final = "tiny-diffusion"
DEFAULT_ADAPTER: Final = "paired"
MAX_IMAGES: Final = 64
TEXT_CHUNK: Final = "weft"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `weft generate`."""
    parser.add_argument("design", type=Path, help="a design file (JSON)")
    parser.add_argument("--output", type=Path, help="PNG to write (default: outputs/<name of the design>.png)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a shipped model or a folder (default: %(default)s)")
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="NAME=FOLDER", help="an adapter for the conditions of a name"
    )
    parser.add_argument("--seed", type=int, help="seed of the first picture; the others count on from it")
    parser.add_argument("--num_inference_steps", type=int, help="denoising steps")
    parser.add_argument("--guidance_scale", type=float, help="1 turns guidance off")
    parser.add_argument("--height", type=int, help="in pixels")
    parser.add_argument("--width", type=int, help="in pixels")
    parser.add_argument("--negative_prompt", help="what guidance leads away from")
    parser.add_argument("--num_images", type=int, default=1, help="pictures to make (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """What `weft generate` does.

    Raises:
        ValueError: anything wrong with the design, the model or the options; nothing is written.
        OSError: the pictures cannot be written; none is left half-written.
    """
    began = time.perf_counter()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from weft.pipelines.design_file import read_design

    count = arguments.num_images
    if not 1 <= count <= MAX_IMAGES:
        raise ValueError(f"num_images: got {count}, expected 1 to {MAX_IMAGES}; run the command again for more")
    given = {name: value for name in OVERRIDES if (value := getattr(arguments, name)) is not None}
    design = replace(read_design(arguments.design), **given)
    if design.seed is None:
        design = replace(design, seed=secrets.randbelow(2**31))
    targets = _targets(arguments.output or Path("outputs") / f"{arguments.design.stem}.png", count)
    pipe = _pipeline(arguments.model, _adapter_folders(arguments.adapter), design)
    pictures = _pictures(pipe, design, count)
    _write(pictures, targets, design)
    for target in targets:
        print(target)
    print(f"took {time.perf_counter() - began:.1f} s, seed {design.seed}")


def _targets(output: Path, count: int) -> list[Path]:
    """Where the pictures go; several are numbered."""
    if output.suffix.lower() != ".png":
        raise ValueError(f"output: got {str(output)!r}, expected a name that ends in .png; the design is stored in it")
    if output.is_dir():
        raise ValueError(f"output: got {str(output)!r}, which is a folder, expected a file; add a name")
    return [output] if count == 1 else [output.with_stem(f"{output.stem}-{index}") for index in range(count)]


def _adapter_folders(given: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name.isidentifier() and equals and folder):
            raise ValueError(f"adapter: got {text!r}, expected NAME=FOLDER, for example paired=outputs/mine")
        if name in folders:
            raise ValueError(f"adapter: got {name!r} twice, expected each name once; drop one")
        folders[name] = Path(folder)
    return folders


def _pipeline(model: str, folders: Mapping[str, Path], design: "Design") -> Any:
    """The model with what the design needs attached to it."""
    from weft.pipelines.conditioned import ConditionedStableDiffusionPipeline
    from weft.pipelines.pretrained import available, shipped

    folder = shipped(model) if model in available() else Path(model)
    if not (folder / "model_index.json").is_file():
        raise ValueError(
            f"model: got {model!r}, expected a folder with model_index.json or a shipped model "
            f"({', '.join(available()) or 'none is installed'}); check the path"
        )
    try:
        pipe = ConditionedStableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a damaged folder fails in every way there is
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"model: got {model!r}, which cannot be opened ({reason}); copy or save it again") from error
    for name, path in folders.items():
        if not path.is_dir():
            raise ValueError(f"adapter: got {name}={path}, expected a folder there; check the path")
        pipe.load_adapter(path, name)
    for name in design.conditions:
        if name in (pipe.adapters or ()):
            continue
        if name != DEFAULT_ADAPTER:
            raise ValueError(
                f"conditions: got {name!r}, for which there is no adapter, expected a name among "
                f"{', '.join(pipe.adapters or ()) or 'none'} (attached) or {DEFAULT_ADAPTER!r} (shipped); "
                f"pass --adapter {name}=FOLDER"
            )
        pipe.load_adapter(shipped(name), name)
    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    return pipe


def _pictures(pipe: Any, design: "Design", count: int) -> list["Image.Image"]:
    import numpy as np
    import torch

    assert design.seed is not None
    for name, text in (("prompt", design.prompt), ("negative_prompt", design.negative_prompt or "")):
        tokens, most = len(pipe.tokenizer(text).input_ids) - 2, pipe.tokenizer.model_max_length - 2
        if tokens > most:
            raise ValueError(f"{name}: got {tokens} tokens, expected at most {most}; shorten it")
    size = pipe.unet.config.sample_size
    height, width = (side * pipe.vae_scale_factor for side in ((size, size) if isinstance(size, int) else size))
    images = pipe(
        design.prompt,
        negative_prompt=design.negative_prompt,
        num_inference_steps=design.num_inference_steps,
        guidance_scale=design.guidance_scale,
        height=design.height or height,
        width=design.width or width,
        num_images_per_prompt=count,
        generator=[torch.Generator().manual_seed(design.seed + index) for index in range(count)],
        conditions={name: list(pairs) for name, pairs in design.conditions.items()},
        output_type="np",
    ).images
    if not np.isfinite(images).all():
        raise FloatingPointError("picture: got NaN or infinite numbers; lower guidance_scale or the weights")
    return pipe.image_processor.numpy_to_pil(images)


def _write(pictures: Sequence["Image.Image"], targets: Sequence[Path], design: "Design") -> None:
    """All pictures, or none: each is written beside its place, and they move there when all are complete."""
    from PIL import PngImagePlugin

    assert design.seed is not None
    settings = {name: getattr(design, name) for name in OVERRIDES}
    folder = targets[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as cleaning:
        staged: list[Path] = []
        for index, picture in enumerate(pictures):
            text = json.dumps({"design": {**design.source, **settings}, "seed": design.seed + index})
            info = PngImagePlugin.PngInfo()
            info.add_text(TEXT_CHUNK, text)
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=".weft-", suffix=".png")
            cleaning.callback(Path(name).unlink, missing_ok=True)
            with os.fdopen(descriptor, "wb") as file:
                picture.save(file, "PNG", pnginfo=info)
            staged.append(Path(name))
        for path, target in zip(staged, targets, strict=True):
            path.chmod(0o666 & ~_umask())
            os.replace(path, target)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
