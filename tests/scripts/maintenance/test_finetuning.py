"""Fine-tuning examples: the commands of their page teach a style and a colour with twenty images each."""

import re
import shlex
from pathlib import Path

import pytest

from weftwork.datasets.synthetic.outfits import sample
from weftwork.pretrained import available, shipped
from weftwork.scripts.cli import main
from weftwork.scripts.maintenance.finetuning_examples import chalk, draw, recolored, score_pairs, score_style

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "finetuning"


def test_the_data_are_what_the_script_draws(tmp_path: Path) -> None:
    draw(tmp_path)
    drawn, kept = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.name != "README.md"}
        for folder in (tmp_path, EXAMPLES)
    )
    assert drawn.keys() == kept.keys()
    assert all(drawn[name] == kept[name] for name in drawn if name.suffix == ".jsonl")


def test_the_changed_garment_is_the_only_blue_one() -> None:
    drawn, place = recolored("train", 3)
    assert [g.color == "blue" for g in drawn.garments] == [i == place for i in range(len(drawn.garments))]
    inside = drawn.image[drawn.masks[place]].astype(int)
    assert (inside[:, 1] - inside[:, 0]).max() > 100  # green and blue, not blue alone


def commands(folder: Path) -> list[list[str]]:
    """Returns the commands of the page, with their outputs in a folder."""
    text = (EXAMPLES / "README.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^weftwork (train .*)$", text, re.MULTILINE)
    places = {
        "outputs/": f"{folder}/",
        "examples/": f"{ROOT / 'examples'}/",
        "pretrained/": f"{shipped('outfits-style').parent}/",
    }
    for old, new in places.items():
        lines = [line.replace(old, new) for line in lines]
    return [shlex.split(line) for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif("outfits-style" not in available(), reason="the shipped models are not installed")
def test_twenty_images_teach_a_style(tmp_path: Path) -> None:
    assert main([*commands(tmp_path)[0], "--report_to", "none"]) == 0
    styles = score_style(tmp_path / "chalk" / "final", 32)
    assert styles["after"]["style"] > styles["before"]["style"] + 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif("outfits-paired" not in available(), reason="the shipped models are not installed")
def test_twenty_outfits_teach_a_colour(tmp_path: Path) -> None:
    assert main([*commands(tmp_path)[1], "--report_to", "none"]) == 0
    pairs = score_pairs(tmp_path / "turquoise" / "final", 32)
    assert pairs["after"]["turquoise"] > pairs["before"]["turquoise"] + 0.3


def test_chalk_is_not_what_it_was_drawn_from() -> None:
    drawn = sample("train", 0)
    assert chalk(drawn).shape == drawn.image.shape
    assert chalk(drawn)[:8, :8].mean() < 80 < drawn.image[:8, :8].mean()
