"""Check the table of methods and families, then published models from local folders, one image each.

    python -m weftwork.scripts.maintenance.check_published models --output outputs/published --device cuda

`models` has a folder of diffusers' format for each model at hand, by the names in `MODELS`. Of each, the pipeline draws
with the same seed: as it is; with an adapter attached or detached again, which must not change a bit; and with
tokens of the prompt seen in the left half alone, which must move the image. Images are written to the output.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from weftwork.attention_processors import RegionalAdapter, RegionalPrompt
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines import attach, conditions, detach
from weftwork.pipelines.core.call import denoisers
from weftwork.pipelines.core.opening import open_conditioned
from weftwork.scripts.benchmarks.backbones import table

MODELS: Mapping[str, Mapping[str, Any]] = {
    "sd-1.5": {},
    "sdxl": {},
    "flux.1": {"height": 512, "width": 512},
    "flux.2": {"height": 512, "width": 512},
    "sd-3.5": {"height": 512, "width": 512},
    "qwen-image": {"height": 512, "width": 512},
    "z-image": {"height": 512, "width": 512},
    "wan": {"height": 256, "width": 256, "num_frames": 5},
}
"""Arguments of calls by the name of a model's folder."""
PROMPT = "a photograph of a red house on a hill"
PART = (4, 6)
"""Tokens of the prompt that are seen in the left half alone."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help=f"folder with some of {', '.join(MODELS)}")
    parser.add_argument("--output", type=Path, default=Path("outputs/published"), help="folder of images")
    parser.add_argument("--device", default="cpu", help="of the models, for example cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--num_inference_steps", type=int, default=8)
    parser.add_argument("--table", action=argparse.BooleanOptionalAction, default=True, help="check the table first")
    arguments = parser.parse_args(argv)
    at_hand = [name for name in MODELS if (arguments.models / name).is_dir()]
    if not at_hand:
        raise UserError(f"models: got a folder with none of {', '.join(MODELS)}; put diffusers folders there")
    failed = table.check((), arguments.output) if arguments.table else 0
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        reason = checked(arguments, name) if name in at_hand else "not at hand"
        failed |= reason not in (None, "not at hand")
        print(f"{name}: {reason or 'holds'}", flush=True)
    return int(failed)


def checked(arguments: argparse.Namespace, name: str) -> str | None:
    """Draws with one model and writes the images; returns what does not hold, or None."""
    pipe = open_conditioned(arguments.models / name, torch_dtype=getattr(torch, arguments.dtype), use_safetensors=True)
    pipe.to(arguments.device).set_progress_bar_config(disable=True)

    def drawn(title: str) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        out = pipe(
            PROMPT, num_inference_steps=arguments.num_inference_steps, generator=generator, output_type="np",
            **MODELS[name],
        )[0]  # fmt: skip
        pixels = np.asarray(out, np.float32)
        frame = pixels.reshape(-1, *pixels.shape[-3:])[0]
        with atomic_path(arguments.output / f"{name}-{title}.png") as stage:
            Image.fromarray((frame * 255).round().astype(np.uint8)).save(stage, format="PNG")
        return pixels

    stock = drawn("stock")
    attach(pipe, part=RegionalAdapter.for_denoiser(denoisers(pipe)[0]))
    unused = drawn("unused")
    with conditions(pipe, {"part": RegionalPrompt(tokens=PART, region=(0.0, 0.0, 0.5, 1.0))}):
        left = drawn("left")
    detach(pipe)
    detached = drawn("detached")
    if not (np.array_equal(unused, stock) and np.array_equal(detached, stock)):
        return "an unused or detached adapter changes the image"
    return None if np.isfinite(left).all() and np.abs(left - stock).max() > 0 else "a region does not change the image"


if __name__ == "__main__":
    raise SystemExit(main())
