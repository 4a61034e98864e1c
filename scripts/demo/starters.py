"""Beginnings of the demo's canvas by what a model knows: prompt, designers, words for a layer, example designs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from weftwork.attention_processors.encoders.vocabulary import known_words
from weftwork.datasets.drawings.sets import SETS
from weftwork.datasets.readers.inline_images import as_text
from weftwork.scripts.demo.widgets import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DRAWINGS: Final = Path(__file__).with_name("assets")
"""Folder of example designs of drawings."""
EXAMPLE: Final = "example-"
"""Beginning of their file names."""
OUTFITS: Final = {"three garments": (3, 3), "four garments": (8, 4)}
"""By name the index and the number of garments."""
OUTFIT_PROMPT: Final = "a person wearing an outfit"


@dataclass(frozen=True)
class Starter:
    """What the canvas shows first.

    Args:
        prompt: the first prompt.
        text: words for a layer, shown where it has none.
        designers: names in prompts, each as "NAME style".
        examples: functions that return designs for an adapter of pairs, by name.
    """

    prompt: str = ""
    text: str = "a red car"
    designers: Sequence[str] = ()
    examples: Mapping[str, Callable[[str], Record]] = field(default_factory=dict)


def starter_of(tokenizer: "PreTrainedTokenizerBase | None") -> Starter:
    """Returns the beginning for a model by its vocabulary, which names the designers of drawings, or garments."""
    if tokenizer is not None and len(tokenizer.tokenize("twemoji")) == 1:
        designers = [one.words for one in SETS.values()]
        files = sorted(DRAWINGS.glob(f"{EXAMPLE}*.json"))
        examples = {one.stem.removeprefix(EXAMPLE).replace("-", " "): partial(_drawing, one.name) for one in files}
        return Starter(f"{designers[0]} style, on a white background", "a red house", designers, examples)
    if "outfit" in known_words(tokenizer):
        examples = {name: partial(outfit, name) for name in OUTFITS}
        return Starter(OUTFIT_PROMPT, "a red striped jacket", examples=examples)
    return Starter()


def _drawing(name: str, adapter: str) -> Record:
    design = json.loads((DRAWINGS / name).read_text(encoding="utf-8"))
    return {**design, "conditions": {adapter: design["conditions"]["paired"]}}


def outfit(name: str, adapter: str) -> Record:
    """Returns the design of an outfit of the synthetic dataset's validation split, for an adapter of pairs."""
    from weftwork.datasets.synthetic.outfits import sample

    index, number = OUTFITS[name]
    drawn = sample("validation", index, count=number)
    pairs = [
        {"sketch": as_text(Image.fromarray(sketch)), "text": text, "region": "sketch"}
        for sketch, text in zip(drawn.sketches, drawn.texts, strict=True)
    ]
    return {"prompt": OUTFIT_PROMPT, "conditions": {adapter: pairs}}
