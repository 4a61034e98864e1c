"""A picture from a design file: prompt, sketches, words and regions in JSON.

    weftwork generate examples/outfit/outfit.json
    weftwork generate design.json --output red.png --seed 7 --num_images 4
    weftwork generate design.json --model my-stable-diffusion --adapter paired=outputs/mine
    weftwork generate --input designs.jsonl --output outputs/many

Without --model and --adapter the shipped models are used. Options given here replace the file's. The PNG holds the
design and the seed it was made with; nothing is written when anything is wrong. With --input, pictures that are there
are not made again, and `accelerate launch -m weftwork.scripts.cli generate …` shares the rest among processes.
"""

import argparse
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weftwork.datasets.readers.atomic import atomic_path

if TYPE_CHECKING:
    from PIL import Image

    from weftwork.attention_processors.core.attention_maps import MapRecorder
    from weftwork.pipelines.designs.design_file import Control, Design, Lora

OVERRIDES: Final = ("seed", "num_inference_steps", "guidance_scale", "height", "width", "negative_prompt")
DEFAULT_MODEL: Final = "tiny-diffusion"
SHIPPED_ADAPTERS: Final = ("paired", "style")
"""What conditions of these names take where --adapter says nothing else."""
MAX_IMAGES: Final = 64
TEXT_CHUNK: Final = "weftwork"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `weftwork generate`."""
    parser.add_argument("design", nargs="?", type=Path, help="a design file (JSON)")
    parser.add_argument("--input", type=Path, help="many designs instead, one JSON object per line, each with a name")
    parser.add_argument(
        "--output", type=Path, help="PNG to write (default: outputs/<name>.png); with --input the folder for all"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a shipped model or a folder (default: %(default)s)")
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="an adapter, or a style card, by name",
    )
    parser.add_argument("--seed", type=int, help="seed of the first picture; the others count on from it")
    parser.add_argument("--num_inference_steps", type=int, help="denoising steps")
    parser.add_argument("--guidance_scale", type=float, help="1 turns guidance off")
    parser.add_argument("--height", type=int, help="in pixels")
    parser.add_argument("--width", type=int, help="in pixels")
    parser.add_argument("--negative_prompt", help="what guidance leads away from")
    parser.add_argument("--maps", action="store_true", help="also write where each pair acted, as NAME-maps.png")
    parser.add_argument(
        "--device", help="where the model runs, for example cuda (default: cpu; with --input what accelerate finds)"
    )
    parser.add_argument("--num_images", type=int, default=1, help="pictures to make (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """What `weftwork generate` does.

    Raises:
        ValueError: anything wrong with the design, the model or the options; nothing is written.
        OSError: the pictures cannot be written; none is left half-written.
    """
    began = time.perf_counter()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    from weftwork.attention_processors.core.attention_maps import MapRecorder
    from weftwork.pipelines.designs.design_file import read_design

    if (arguments.design is None) == (arguments.input is None):
        raise ValueError("design, input: got neither or both; pass one design file, or --input with a file of many")
    if arguments.input is not None:
        from weftwork.scripts.generate_many import run as run_many

        return run_many(arguments)
    count = arguments.num_images
    if not 1 <= count <= MAX_IMAGES:
        raise ValueError(f"num_images: got {count}, expected 1 to {MAX_IMAGES}; run the command again for more")
    design = replace(read_design(arguments.design), **overrides(arguments))
    if arguments.maps and not any(design.conditions.values()):
        raise ValueError("maps: got a design without conditions, expected some; add pairs or leave --maps out")
    if design.seed is None:
        design = replace(design, seed=secrets.randbelow(2**31))
    targets = _targets(arguments.output or Path("outputs") / f"{arguments.design.stem}.png", count)
    pipe = open_pipeline(arguments.model, adapter_paths(arguments.adapter), design).to(arguments.device or "cpu")
    recorder = MapRecorder() if arguments.maps else None
    pictures = draw(pipe, design, count, recorder)
    files = {
        target: (picture, stored(design, i)) for i, (target, picture) in enumerate(zip(targets, pictures, strict=True))
    }
    if recorder is not None:
        sheets = _map_sheets(recorder, design, pictures)
        files |= {
            t.with_stem(f"{t.stem}-maps"): (s, stored(design, i))
            for i, (t, s) in enumerate(zip(targets, sheets, strict=True))
        }
    write_pictures(files)
    for target in files:
        print(target)
    print(f"took {time.perf_counter() - began:.1f} s, seed {design.seed}")


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """What options replace in designs."""
    return {name: value for name in OVERRIDES if (value := getattr(arguments, name)) is not None}


def _targets(output: Path, count: int) -> list[Path]:
    """Where the pictures go; several are numbered."""
    if output.suffix.lower() != ".png":
        raise ValueError(f"output: got {str(output)!r}, expected a name that ends in .png; the design is stored in it")
    if output.is_dir():
        raise ValueError(f"output: got {str(output)!r}, which is a folder, expected a file; add a name")
    return [output] if count == 1 else [output.with_stem(f"{output.stem}-{index}") for index in range(count)]


def adapter_paths(given: Sequence[str]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name.isidentifier() and equals and path):
            raise ValueError(f"adapter: got {text!r}, expected NAME=PATH, for example paired=outputs/mine")
        if name in paths:
            raise ValueError(f"adapter: got {name!r} twice, expected each name once; drop one")
        paths[name] = Path(path)
    return paths


def open_pipeline(model: str, adapters: Mapping[str, Path], design: "Design") -> Any:
    """The model with what the design needs on top of it."""
    from weftwork.pipelines.core.mixin import ConditionedStableDiffusionControlNetPipeline, open_conditioned
    from weftwork.pipelines.core.pretrained import available, shipped

    folder = shipped(model) if model in available() else Path(model)
    if not (folder / "model_index.json").is_file():
        raise ValueError(
            f"model: got {model!r}, expected a folder with model_index.json or a shipped model "
            f"({', '.join(available()) or 'none is installed'}); check the path"
        )
    with _opening("model", model):
        pipe: Any = open_conditioned(folder, local_files_only=True)
    if design.controlnets:
        controlnets = [_controlnet(control.controlnet) for control in design.controlnets]
        pipe = ConditionedStableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=controlnets)
    _add_loras(pipe, design.loras)
    attach_all(pipe, adapters, design.conditions)
    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    return pipe


def attach_all(pipe: Any, given: Mapping[str, Path], conditions: Mapping[str, Any]) -> None:
    """The adapters and cards that are given, and shipped ones for conditions that have none."""
    from weftwork.attention_processors import StyleCard, StyleCards
    from weftwork.pipelines.core.pretrained import available, shipped

    for name, path in given.items():
        if path.is_file():
            pipe.attach(**{name: StyleCards.of([StyleCard.load(path)])})
        elif path.is_dir():
            pipe.load_adapter(path, name)
        else:
            raise ValueError(f"adapter: got {name}={path}, expected a folder or a style card there; check the path")
    ready = [name for name in SHIPPED_ADAPTERS if name in available()]
    for name in conditions:
        if name in (pipe.adapters or ()):
            continue
        if name not in ready:
            raise ValueError(
                f"conditions: got {name!r}, for which there is no adapter, expected a name among "
                f"{', '.join(pipe.adapters or ()) or 'none'} (attached) or {', '.join(ready) or 'none'} (shipped); "
                f"pass --adapter {name}=PATH"
            )
        pipe.load_adapter(shipped(name), name)


@contextlib.contextmanager
def _opening(what: str, source: object) -> Iterator[None]:
    """One kind of error for files that diffusers cannot open: damaged ones fail in every way there is."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{what}: got {str(source)!r}, which cannot be opened ({reason}); copy or save it again"
        ) from error


def _controlnet(folder: Path) -> Any:
    from diffusers import ControlNetModel

    with _opening("controlnet", folder):
        return ControlNetModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)


def _add_loras(pipe: Any, loras: "Sequence[Lora]") -> None:
    weights = {f"lora_{index}": lora.weight for index, lora in enumerate(loras)}
    for name, lora in zip(weights, loras, strict=True):
        with _opening("lora", lora.lora):
            pipe.load_lora_weights(lora.lora, adapter_name=name, local_files_only=True, use_safetensors=True)
    if weights:
        pipe.set_adapters(list(weights), list(weights.values()))


def draw(
    pipe: Any, design: "Design", count: int, recorder: "MapRecorder | None", **options: Any
) -> list["Image.Image"]:
    """Pictures of a design; `options` go to the pipeline's call."""
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
        recorder=recorder,
        output_type="np",
        **options,
        **_control_arguments(design.controlnets),
    ).images
    if not np.isfinite(images).all():
        raise FloatingPointError("picture: got NaN or infinite numbers; lower guidance_scale or the weights")
    return pipe.image_processor.numpy_to_pil(images)


def _control_arguments(controls: "Sequence[Control]") -> dict[str, Any]:
    if not controls:
        return {}
    return {
        "image": [control.image for control in controls],
        "controlnet_conditioning_scale": [control.weight for control in controls],
        "control_guidance_start": [control.start for control in controls],
        "control_guidance_end": [control.end for control in controls],
    }


def _map_sheets(recorder: "MapRecorder", design: "Design", pictures: Sequence["Image.Image"]) -> list["Image.Image"]:
    """Per picture the influence of every pair on it, side by side in the order of the design, a whole sketch last."""
    from PIL import Image

    from weftwork.attention_processors.core.attention_maps import overlay

    maps = {name: recorder.maps("influence", adapter=name) for name, pairs in design.conditions.items() if pairs}
    sheets = []
    for row, picture in enumerate(pictures):
        views = [overlay(picture, maps[n][row, i]) for n, pairs in design.conditions.items() for i in range(len(pairs))]
        sheet = Image.new("RGB", (picture.width * len(views), picture.height))
        for index, view in enumerate(views):
            sheet.paste(view, (picture.width * index, 0))
        sheets.append(sheet)
    return sheets


def stored(design: "Design", index: int) -> str:
    """What a picture knows of its making; a design file in itself under `design`."""
    assert design.seed is not None
    settings = {name: getattr(design, name) for name in OVERRIDES}
    return json.dumps(
        {"design": {**design.source, **settings, "seed": design.seed + index}, "seed": design.seed + index}
    )


def write_pictures(files: Mapping[Path, tuple["Image.Image", str]]) -> None:
    """Write all images, or none: they move to their places when all are complete."""
    from PIL import PngImagePlugin

    with contextlib.ExitStack() as staged:
        for target, (picture, text) in files.items():
            info = PngImagePlugin.PngInfo()
            info.add_text(TEXT_CHUNK, text)
            picture.save(staged.enter_context(atomic_path(target)), "PNG", pnginfo=info)
