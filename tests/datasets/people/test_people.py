"""People: assembly of parts, labels that are seen in the image, splits, and the pinned tarball."""

from pathlib import Path

import numpy as np
import pytest
from tiny_people import people_folder

from weftwork.datasets.people import EXPRESSIONS, Person, open_parts, sample, split_of
from weftwork.datasets.people.dataset import caption, labels
from weftwork.datasets.people.parts import CLOTHES, HAIR, SKIN, draw, svg

PERSON = Person("a mohawk", "brown", "green")


def test_parts_and_colours_are_those_of_the_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = open_parts(people_folder(tmp_path, monkeypatch))
    image = draw(parts, PERSON, "rage", 64)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    hair, face = list(HAIR).index("a mohawk"), list(EXPRESSIONS).index("rage")
    for (row, column), color in {
        (60, 60): CLOTHES["green"],
        (30, 60): SKIN["brown"],
        (4 + hair, 7): "#b58143",
        (4 + face, 27): "#000000",
    }.items():
        assert "#" + bytes(image[row, column]).hex() == color, (row, column)
    dark = (image.sum(-1) == 0).sum()
    assert dark == 6 * (2 + 2 * face)  # components without a variant are left out
    assert "translate(44 4)" not in svg(parts, PERSON, "rage")


def test_samples_repeat_and_splits_share_no_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = people_folder(tmp_path, monkeypatch)
    one, again = sample(folder, "test", 3), sample(folder, "test", 3)
    assert np.array_equal(one.image, again.image) and one.person == again.person
    assert labels("test", 3) == (one.person, one.expression) != labels("test", 3, seed=1)
    for split in ("train", "validation", "test"):
        drawn = [labels(split, index) for index in range(80)]
        assert all(split_of(person) == split for person, _ in drawn)
        assert len({expression for _, expression in drawn}) == len(EXPRESSIONS)


def test_captions() -> None:
    assert caption(PERSON) == "a person with brown skin, a mohawk and green clothes"
    assert caption(PERSON, "rage") == f"{caption(PERSON)}, showing rage"


def test_absent_and_other_tarballs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"npm pack @dicebear/styles@10\.6\.0"):
        open_parts(tmp_path / "absent")
    folder = people_folder(tmp_path, monkeypatch)
    next(folder.glob("*.tgz")).write_bytes(b"other")
    with pytest.raises(ValueError, match="SHA-512"):
        open_parts(folder)
