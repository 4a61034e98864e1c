"""Defaults of the demo's canvas are chosen by the model's vocabulary."""

import string
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_studio
from transformers import CLIPTokenizer

from weftwork.attention_processors.encoders.vocabulary import WORD, known_words, unknown_words
from weftwork.datasets.drawings.captions import Depicted, DepictedScene, caption
from weftwork.datasets.drawings.collection import Drawings
from weftwork.datasets.drawings.colors import PALETTE
from weftwork.datasets.drawings.sets import SETS, notice
from weftwork.datasets.drawings.splits import split_of
from weftwork.pretrained import shipped
from weftwork.scripts.demo.studio import ImageStudio

pytest.importorskip("gradio")

from weftwork.scripts.demo.canvas_defaults import ASSETS, SUBJECTS, defaults_of, outfit

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def studio() -> ImageStudio:
    return tiny_studio()


@pytest.mark.parametrize(("name", "count"), [("three garments", 3), ("four garments", 4)])
def test_examples_are_designs(studio: ImageStudio, name: str, count: int) -> None:
    design = studio.design(outfit(name, "paired"))
    assert design.prompt and len(design.conditions["paired"]) == count


def tokenizer_of(words: list[str]) -> CLIPTokenizer:
    """A small vocabulary that has these words."""
    letters = list(string.ascii_lowercase)
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    merges = []
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = ["".join(parts[:2])]
            tokens.append(parts[0])
    tokens = list(dict.fromkeys(tokens))
    return CLIPTokenizer(vocab={one: index for index, one in enumerate(tokens)}, merges=list(dict.fromkeys(merges)))


WORDS = {
    "drawings": ["house", "outfit", "twemoji"],
    "outfits": ["outfit", "jacket"],
    "others": ["house", "jacket"],
}


@pytest.mark.parametrize("knows", WORDS)
def test_defaults_fit_the_vocabulary(studio: ImageStudio, knows: str) -> None:
    defaults = defaults_of(tokenizer_of(WORDS[knows]))
    designs = {name: studio.design(make("paired")) for name, make in defaults.examples.items()}
    texts = [one.text or "" for design in designs.values() for one in design.conditions["paired"]]
    assert bool(defaults.designers) == (knows == "drawings") and bool(designs) == (knows != "others")
    assert any("skirt" in text for text in texts) == (knows == "outfits")
    if defaults.designers:
        assert {"noto", "twemoji", "flat fluent"} < set(defaults.designers)
        assert {"cat", "fire engine", "dark red"} < set(defaults.hints)
        assert all(any(f"{name} style" in design.prompt for name in defaults.designers) for design in designs.values())


def test_each_designer_has_a_sample_and_is_attributed() -> None:
    with Image.open(ASSETS / "designers.png") as image:
        pixels = np.asarray(image.convert("RGBA"))
    samples = np.split(pixels, len(SETS), axis=1)
    assert all(one.shape == (64, 64, 4) and one[..., 3].any() for one in samples)
    assert len({one.tobytes() for one in samples}) == len(SETS)
    assert (ASSETS / "NOTICE").read_text() == notice()


def test_subjects_of_the_training_split_are_suggested() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(shipped("tiny-drawings") / "tokenizer")
    names, words = SUBJECTS.read_text(encoding="utf-8").splitlines(), known_words(tokenizer)
    assert names == sorted(set(names)) and {"red", "house", "hippopotamus"} < set(words) and "roof" not in words
    said = {word for name in names for word in WORD.findall(name)}
    assert said <= set(words) and sum(len(tokenizer.tokenize(word)) > 1 for word in said) < 5


def test_words_of_captions_are_known() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(shipped("tiny-drawings") / "tokenizer")
    words = set(defaults_of(tokenizer).words)
    drawings = Drawings.read(ROOT / "examples/drawings")
    seen = [one for code, one in drawings.subjects.items() if split_of(code, "noto") == "train"]
    rng, said = np.random.default_rng(0), set[str]()
    for subject, color, style, _ in product(seen, PALETTE, SETS.values(), range(2)):
        depicted = Depicted(subject.name, subject.tags, subject.category, (color, "dark red"))
        said |= set(WORD.findall(caption(DepictedScene((depicted,), style.words, color), rng)))
    assert said <= words and sum(len(tokenizer.tokenize(word)) > 1 for word in said) > 20
    assert unknown_words(tokenizer, " ".join([*said, "lamborghini", "roof"])) == ["lamborghini", "roof"]
