"""Splits of drawings: code points of one spelling, variants together, shares as stated."""

import pytest

from weftwork.datasets.drawings.code_points import base_of, normalized
from weftwork.datasets.drawings.splits import SPLITS, split_of


def test_code_points_have_one_spelling() -> None:
    assert normalized("1f481-200d-2640-fe0f") == "1F481-200D-2640"
    assert normalized("23-20e3") == "0023-20E3"


@pytest.mark.parametrize(
    ("variants", "base"),
    [
        (("1F468-200D-1F373", "1F469-1F3FD-200D-1F373", "1F9D1-200D-1F373"), "1F9D1-200D-1F373"),
        (("1F481", "1F481-1F3FB", "1F481-1F3FB-200D-2642-FE0F"), "1F481"),
        (("1F46B", "1F46C-1F3FF", "1F9D1-200D-1F91D-200D-1F9D1"), "1F9D1-200D-1F91D-200D-1F9D1"),
        (("2764", "2764-FE0F"), "2764"),
    ],
)
def test_skin_tones_and_genders_share_a_base(variants: tuple[str, ...], base: str) -> None:
    assert {base_of(code) for code in variants} == {base}
    assert len({split_of(code, "noto") for code in variants}) == 1


def test_splits_never_change() -> None:
    assert [split_of(code, "noto") for code in ("1F98A", "1F626", "1F685")] == ["train", "cells", "subjects"]
    assert [split_of("1F697", designer) for designer in ("noto", "fluent", "twemoji")] == ["train", "train", "cells"]


def test_held_out_subjects_are_held_out_of_all_designers() -> None:
    codes = [f"{0x1F300 + i:X}" for i in range(900)]
    splits = {code: [split_of(code, designer) for designer in "abcde"] for code in codes}
    unseen = [code for code, row in splits.items() if "subjects" in row]
    assert all(set(splits[code]) == {"subjects"} for code in unseen)
    assert 0.07 < len(unseen) / len(codes) < 0.13
    seen = [split for code, row in splits.items() if code not in unseen for split in row]
    assert set(seen) == set(SPLITS) - {"subjects"}
    assert 0.08 < seen.count("cells") / len(seen) < 0.12
