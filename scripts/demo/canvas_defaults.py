"""Defaults of the demo's canvas, chosen by the model's vocabulary: prompt, hint for a layer, designers, examples."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from weftwork.attention_processors.encoders.vocabulary import known_words
from weftwork.datasets.drawings.colors import PALETTE
from weftwork.datasets.drawings.sets import SETS
from weftwork.datasets.readers.inline_images import as_text
from weftwork.pretrained import DRAWINGS_RESCALE
from weftwork.scripts.demo.widgets import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASSETS: Final = Path(__file__).with_name("assets")
EXAMPLE: Final = "example-"
"""Beginning of the file names of example designs of drawings, in `assets`."""
SUBJECTS: Final = ASSETS / "subjects.txt"
"""Names of the subjects of the drawings' training split, written by `scripts.maintenance.fetch_drawings`."""
OUTFITS: Final = {"three garments": (3, 3), "four garments": (8, 4)}
"""By name the index and the number of garments."""
OUTFIT_PROMPT: Final = "a person wearing an outfit"


@dataclass(frozen=True)
class CanvasDefaults:
    """Content of the canvas before a user changes anything.

    Args:
        design: a design without conditions.
        text: example of a layer's text, shown in a layer without one.
        designers: designers that the model knows; prompts name them as "NAME style".
        words: words that the model knows; none where its vocabulary is open.
        hints: words and names that are suggested for a layer's text; without any, `words` are.
        examples: functions that return designs for an adapter of pairs, by name.
    """

    design: Record = field(default_factory=lambda: {"prompt": ""})
    text: str = "a red car"
    designers: Sequence[str] = ()
    words: Sequence[str] = ()
    hints: Sequence[str] = ()
    examples: Mapping[str, Callable[[str], Record]] = field(default_factory=dict)


def defaults_of(tokenizer: "PreTrainedTokenizerBase | None") -> CanvasDefaults:
    """Returns the defaults for a vocabulary: with "twemoji" those of drawings, with "outfit" those of outfits."""
    words = known_words(tokenizer)
    if "twemoji" in words:
        designers = [one.words for one in SETS.values()]
        files = sorted(ASSETS.glob(f"{EXAMPLE}*.json"))
        examples = {one.stem.removeprefix(EXAMPLE).replace("-", " "): partial(_drawing, one) for one in files}
        design = {"prompt": f"{designers[0]} style, on a white background", "guidance_rescale": DRAWINGS_RESCALE}
        names = SUBJECTS.read_text(encoding="utf-8").splitlines()
        return CanvasDefaults(design, "a red house", designers, words, [*PALETTE, *names], examples)
    if "outfit" in words:
        examples = {name: partial(outfit, name) for name in OUTFITS}
        return CanvasDefaults({"prompt": OUTFIT_PROMPT}, "a red striped jacket", words=words, examples=examples)
    return CanvasDefaults(words=words)


def _drawing(file: Path, adapter: str) -> Record:
    design = json.loads(file.read_text(encoding="utf-8"))
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
