"""Names of subjects and words that `fetch_drawings` writes for the demo."""

from pathlib import Path

from weftwork.attention_processors.encoders.vocabulary import TRAINED_WORDS
from weftwork.datasets.drawings.collection import Drawings
from weftwork.datasets.drawings.splits import split_of
from weftwork.scripts.maintenance.fetch_drawings import trained_names, trained_words

ROOT = Path(__file__).parents[3]


def test_the_demo_suggests_names_of_the_training_split_alone() -> None:
    sample = Drawings.read(ROOT / "examples/drawings")
    names = (ROOT / "scripts/demo/assets/subjects.txt").read_text(encoding="utf-8").splitlines()
    trained = trained_names(sample)
    unseen = {subject.name for code, subject in sample.subjects.items() if split_of(code, "noto") == "subjects"}
    assert len(trained) > 40 and set(trained) <= set(names)
    assert unseen and not unseen & set(names)


def test_the_words_are_those_of_captions() -> None:
    found = trained_words(Drawings.read(ROOT / "examples/drawings"))
    words = TRAINED_WORDS.read_text(encoding="utf-8").splitlines()
    assert words == sorted(set(words)) and set(found) < set(words) and len(found) > 150
    assert {"beige", "noto", "admission"} < set(found)
