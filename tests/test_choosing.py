"""The page about which method to use: its scores are those of the pages with results."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
if not DOCS.is_dir():
    pytest.skip("not in a checkout", allow_module_level=True)
PAGE = (DOCS / "choosing.md").read_text()
Rows = dict[str, dict[str, str]]
"""Cells of a table by row and column."""
NAME = re.compile(r"[^`]*`(.*?)`.*")


def rows(text: str, of: str) -> Rows:
    """Returns the first table of a page with a row `of`; a name in backquotes stands for its row."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *body = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        found = {NAME.sub(r"\1", name): dict(zip(head[1:], cells, strict=True)) for name, *cells in body}
        if of in found:
            return {name: {key: cell.split(" ")[0] for key, cell in row.items()} for name, row in found.items()}
    raise AssertionError(f"no table with {of}")


OUTFITS = rows((DOCS / "results.md").read_text(), "pairs_unnamed")


@pytest.mark.parametrize(
    ("page", "names"),
    [
        (
            "composition",
            {
                "ControlNet on all sketches, constant prompt": "controlnet",
                "pairs": "pairs",
                "both": "pairs_controlnet",
            },
        ),
    ],
)
def test_a_table_has_the_measured_scores(page: str, names: dict[str, str]) -> None:
    measured = rows((DOCS / f"{page}.md").read_text(), list(names.values())[-1])
    shown = rows(PAGE, list(names)[-1])
    assert set(shown) == set(names)
    for name, row in shown.items():
        assert row == {column: measured[names[name]][column] for column in row}


@pytest.mark.parametrize(
    ("sentence", "column", "names"),
    [
        ("as well as pairs do ({} and {})", "colour", ("text_only", "pairs")),
        ("(sketch IoU {} and {})", "sketch IoU", ("text_only", "pairs")),
        (
            "one sketch with all texts has {} of the colours, and pairs {}",
            "colour",
            ("global_sketch_unnamed", "pairs_unnamed"),
        ),
    ],
)
def test_a_sentence_has_the_measured_scores(sentence: str, column: str, names: tuple[str, ...]) -> None:
    assert sentence.format(*(OUTFITS[name][column] for name in names)) in " ".join(PAGE.split())


def test_no_other_score_is_named() -> None:
    assert len(re.findall(r"\d\.\d{3}", PAGE)) == 9 + 6
