"""Data and scores of the fine-tuning examples: 20 images in a new style, 20 outfits with a new garment colour.

    python -m weftwork.scripts.maintenance.finetuning_examples draw examples/finetuning
    python -m weftwork.scripts.maintenance.finetuning_examples designs outputs/keep --count 40
    python -m weftwork.scripts.maintenance.finetuning_examples style --adapter outputs/chalk/final
    python -m weftwork.scripts.maintenance.finetuning_examples pairs --adapter outputs/turquoise/final

`designs` writes designs of known outfits, for `weftwork train paired --class_designs`.

`style` and `pairs` generate unseen cases with the shipped and the fine-tuned adapter, and print the scores of both
below those of true renders. Style: one of ten as a classifier reads it, fitted to renders (chalk, plain, and the eight
styles of outfits). Garment colour: the nearest of eleven to the median within the garment's true mask.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image
from scipy import ndimage
from torch import Tensor

from weftwork.attention_processors.paired.samples import pairs
from weftwork.datasets.readers.pair_folder import PairSample, write_pair_folder
from weftwork.datasets.synthetic import outfits
from weftwork.datasets.synthetic.outfits import Garment, OutfitSample
from weftwork.datasets.synthetic.outfits.drawing import RGB
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.design import Design
from weftwork.pretrained import shipped

if TYPE_CHECKING:
    from weftwork.evaluation.oracles.styles import StyleReader

STYLE: Final = "chalk"
SHIPPED: Final = "outfits-style"
COLOR: Final = "turquoise"
TURQUOISE: Final = (36, 206, 190)
COUNT: Final = 20
CASES: Final = 64
BOARD: Final = (38, 70, 58)
SETTINGS: Final[Mapping[str, Any]] = {"num_inference_steps": 20, "guidance_scale": 3.0}
SEED: Final = 5
"""Seed of the images; models were trained on those of seed 0."""

Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("draw", help="write the image folders").add_argument("folder", type=Path)
    keep = what.add_parser("designs", help="write designs of outfits that the shipped adapter knows")
    keep.add_argument("folder", type=Path)
    keep.add_argument("--count", type=int, default=2 * COUNT)
    for name in ("style", "pairs"):
        one = what.add_parser(name, help="scores before and after")
        one.add_argument("--adapter", type=Path, required=True, help="the fine-tuned adapter")
        one.add_argument("--cases", type=int, default=CASES)
        one.add_argument("--sheet", type=Path, help="write the first images here, as PNG")
    arguments = parser.parse_args()
    if arguments.what == "draw":
        draw(arguments.folder)
        return
    if arguments.what == "designs":
        write_designs(arguments.folder, arguments.count)
        return
    score = {"style": score_style, "pairs": score_pairs}[arguments.what]
    for row, scores in score(arguments.adapter, arguments.cases, arguments.sheet).items():
        print(f"{row:24}" + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))


def draw(folder: Path) -> None:
    """Writes the data of both examples."""
    style = folder / "style"
    style.mkdir(parents=True)
    rows = []
    for index in range(COUNT):
        drawn = outfits.sample("train", index, seed=SEED)
        Image.fromarray(chalk(drawn)).save(style / f"{index:02}.png")
        rows.append(json.dumps({"file_name": f"{index:02}.png", "text": drawn.caption, "style": STYLE}))
    (style / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    pairs = []
    for index in range(COUNT):
        drawn, place = recolored("train", index)
        texts = tuple(t.replace("blue", COLOR) if i == place else t for i, t in enumerate(drawn.texts))
        sketches = tuple(Image.fromarray(s) if (s < 128).any() else None for s in drawn.sketches)
        whole = Image.fromarray(drawn.image)
        places = tuple(_box(mask) for mask in drawn.masks)
        pairs.append(PairSample(whole, sketches, texts, outfits.PROMPT, None, str(index), places))
    write_pair_folder(pairs, folder / "pairs")


def write_designs(folder: Path, count: int) -> None:
    """Writes designs of outfits of the training split as `folder/designs.jsonl`, with their sketches inside."""
    folder.mkdir(parents=True)
    shown = [pairs(outfits.sample("train", index, seed=SEED + 1)) for index in range(count)]
    rows = [json.dumps(Design(outfits.PROMPT, conditions={"paired": one}).record()) for one in shown]
    (folder / "designs.jsonl").write_text("\n".join(rows) + "\n")


def chalk(drawn: OutfitSample) -> Pixels:
    """Turns a render without a style into coloured chalk on a green board: outlines, and hatching of garments."""
    values = drawn.image.astype(np.float32)
    rng = np.random.default_rng(int(values.sum()))
    soft = ndimage.gaussian_filter(values, (1, 1, 0))
    edges = np.hypot(ndimage.sobel(soft, 0), ndimage.sobel(soft, 1)).max(-1) / 255
    rows, columns = np.mgrid[: values.shape[0], : values.shape[1]]
    hatching = 0.5 * ((rows + columns) % 5 < 2) * ndimage.binary_erosion(drawn.masks.any(0), iterations=2)
    strength = np.clip(np.maximum(1.4 * edges, hatching), 0, 1) * rng.uniform(0.65, 1.0, edges.shape)
    peak = values.max(-1, keepdims=True)
    powder = 90 + 165 * values / np.maximum(peak, 60)
    board = np.asarray(BOARD) + 10 * ndimage.gaussian_filter(rng.normal(0, 4, edges.shape), 3)[..., None]
    image = board * (1 - strength[..., None]) + powder * strength[..., None]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def recolored(split: str, index: int) -> tuple[OutfitSample, int]:
    """Returns an outfit whose largest garment is turquoise in the image (blue in its labels), and its index."""
    drawn = outfits.sample(split, index, seed=SEED)
    place = int(np.argmax(drawn.masks.sum((1, 2))))
    garments = [Garment.of(g.kind, "blue" if i == place else _other(g.color), g.pattern) for i, g in
                enumerate(drawn.garments)]  # fmt: skip
    key = (outfits.SPLITS.index(split), SEED, index)
    drawn = outfits.render(garments, seed=key)
    image, mask = drawn.image.copy(), drawn.masks[place]
    blue = np.clip((image[mask][:, 2:].astype(float) - image[mask][:, :2].max(1, keepdims=True)) / 122, 0, 1)
    image[mask] = np.clip(image[mask] + blue * (np.asarray(TURQUOISE) - RGB["blue"]) + 0.5, 0, 255).astype(np.uint8)
    return replace(drawn, image=image), place


def _other(color: str) -> str:
    """Replaces blue of other garments, whose texts would be ambiguous."""
    return "red" if color == "blue" else color


def _box(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of a mask in fractions; None if empty."""
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    ends = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
    left, top, right, bottom = (round(float(end), 3) for end in ends)
    return left, top, right, bottom


def score_style(adapter: Path, cases: int, sheet: Path | None = None) -> dict[str, dict[str, float]]:
    """Returns, by row, the share of images read as chalk (or as the asked style), and accuracies of garments."""
    from weftwork.attention_processors.style.adapter import Style
    from weftwork.evaluation.core.images import as_tensor, generate
    from weftwork.evaluation.oracles.outfits import pretrained_oracle
    from weftwork.evaluation.scores.outfits import score_outfits

    shown = [outfits.sample("test", index, seed=SEED) for index in range(cases)]
    reader, oracle = _reader(), pretrained_oracle(styled=True)

    def scored(images: Tensor, styles: Sequence[str]) -> dict[str, float]:
        scores = score_outfits(shown, oracle.read(images))
        right = [seen == style for seen, style in zip(reader.read(images), styles, strict=True)]
        return {"style": float(np.mean(right)), "kind": scores.kind_accuracy, "colour": scores.color_accuracy}

    prompts, seeds, new = [one.caption for one in shown], list(range(cases)), [STYLE] * cases
    known = [outfits.STYLES[index % len(outfits.STYLES)] for index in range(cases)]
    rendered = {"true renders": as_tensor([chalk(one) for one in shown])}
    rows = {"true renders": scored(rendered["true renders"], new)}
    for row, folder, given, expected in (
        ("before", SHIPPED, None, new),
        ("before, neon", SHIPPED, ["neon"] * cases, new),
        ("after", adapter, new, new),
        ("known styles before", SHIPPED, known, known),
        ("known styles after", adapter, known, known),
    ):
        conditions = {} if given is None else {"style": [[Style(one)] for one in given]}
        rendered[row] = generate(_pipe(folder, "style"), prompts, conditions, seeds, name=row, **SETTINGS)
        rows[row] = scored(rendered[row], expected)
    _keep(sheet, rendered)
    return rows


def _keep(sheet: Path | None, rendered: Mapping[str, Tensor]) -> None:
    """Writes a contact sheet of the first images of every row."""
    from weftwork.evaluation.core.images import SHEET_COLUMNS, contact_sheet

    if sheet is not None:
        contact_sheet([(row, images[:SHEET_COLUMNS]) for row, images in rendered.items()]).save(sheet)


def _reader() -> "StyleReader":
    """Returns a reader of chalk, the look without a style, and the eight styles of outfits."""
    from weftwork.evaluation.core.images import as_tensor
    from weftwork.evaluation.oracles.styles import RENDERS, StyleReader, renders

    drawn = [outfits.sample("train", index, seed=SEED + 1) for index in range(RENDERS)]
    styled = {style: renders(style) for style in outfits.STYLES}
    return StyleReader.fit({STYLE: as_tensor([chalk(one) for one in drawn]), "plain": renders(None), **styled})


def score_pairs(adapter: Path, cases: int, sheet: Path | None = None) -> dict[str, dict[str, float]]:
    """Returns, by row, colour accuracy of the turquoise garments and of the others."""
    from weftwork.evaluation.core.images import as_tensor, generate
    from weftwork.evaluation.oracles.outfits import pretrained_oracle

    shown = [recolored("test", index) for index in range(cases)]
    oracle = pretrained_oracle()
    designs = []
    for drawn, place in shown:
        row = pairs(drawn)
        row[place] = replace(row[place], text=drawn.texts[place].replace("blue", COLOR))
        designs.append(row)

    def scored(images: Tensor) -> dict[str, float]:
        pixels = (images.movedim(1, -1).numpy() * 255).round().astype(np.uint8)
        seen = [_color(image, drawn.masks[place]) for image, (drawn, place) in zip(pixels, shown, strict=True)]
        others = [
            reading.slots[g.slot].color == g.color if g.slot in reading.slots else False
            for reading, (drawn, place) in zip(oracle.read(images), shown, strict=True)
            for i, g in enumerate(drawn.garments)
            if i != place
        ]
        return {COLOR: float(np.mean([color == COLOR for color in seen])), "other colours": float(np.mean(others))}

    rendered = {"true renders": as_tensor([drawn.image for drawn, _ in shown])}
    rows = {"true renders": scored(rendered["true renders"])}
    for row, folder in (("before", "paired"), ("after", adapter)):
        prompts, seeds = [outfits.PROMPT] * cases, list(range(cases))
        rendered[row] = generate(_pipe(folder, "paired"), prompts, {"paired": designs}, seeds, name=row, **SETTINGS)
        rows[row] = scored(rendered[row])
    _keep(sheet, rendered)
    return rows


def _color(image: Pixels, mask: np.ndarray) -> str:
    """Returns the colour nearest to the median of the inner part of a mask."""
    inner: np.ndarray = ndimage.binary_erosion(mask, iterations=2)
    median = np.median(image[inner if inner.any() else mask], 0)
    known = {**RGB, COLOR: TURQUOISE}
    return min(known, key=lambda name: float(np.abs(median - known[name]).sum()))


def _pipe(folder: str | Path, name: str) -> ConditionedStableDiffusionPipeline:
    """Returns the default model with one adapter."""
    pipe = ConditionedStableDiffusionPipeline.from_pretrained(str(shipped("tiny-diffusion")))
    pipe.load_adapter(shipped(folder) if isinstance(folder, str) else folder, name)
    return pipe


if __name__ == "__main__":
    main()
