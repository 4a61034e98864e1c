"""The synthetic creatures: exact truth in every style, deterministic samples, splits without common triples."""

import itertools
import pickle

import numpy as np
import pytest
from PIL import Image

from weftwork.datasets.synthetic.creatures import (
    ACCESSORIES,
    COLORS,
    GENERIC_CAPTIONS,
    NEUTRAL,
    POSES,
    PROMPT,
    SPECIES,
    SPLITS,
    STYLES,
    Creature,
    CreatureSample,
    caption,
    cells,
    render,
    sample,
    split_of,
    style_caption,
)
from weftwork.datasets.synthetic.words import DETAILS

LOOKS = (NEUTRAL, *STYLES)


def words(text: str) -> set[str]:
    return set(text.replace(",", "").split())


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def distance(one: CreatureSample, other: CreatureSample) -> float:
    return float(np.abs(one.image.astype(int) - other.image).mean())


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_arguments_give_the_same_sample(split: str) -> None:
    first, again = sample(split, 5, seed=3), pickle.loads(pickle.dumps(sample(split, 5, seed=3)))
    for name in ("creature", "style", "caption", "style_caption"):
        assert getattr(first, name) == getattr(again, name)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)


def test_split_seed_and_index_change_the_image() -> None:
    pictures = [sample("train", 0), sample("train", 1), sample("test", 0), sample("train", 0, seed=1)]
    for one, other in itertools.combinations(pictures, 2):
        assert not np.array_equal(one.image, other.image)


def test_render_repeats_a_sample_from_its_seed() -> None:
    drawn = sample("test", 9, seed=2)
    again = render(drawn.creature, drawn.style, seed=(SPLITS.index("test"), 2, 9))
    assert np.array_equal(again.image, drawn.image)
    assert again.style_caption == drawn.style_caption


def test_splits_share_no_triple_and_training_knows_every_pair() -> None:
    of_split = {split: set(cells(split)) for split in SPLITS}
    assert sum(len(triples) for triples in of_split.values()) == len(SPECIES) * len(COLORS) * len(STYLES)
    assert len(set.union(*of_split.values())) == len(SPECIES) * len(COLORS) * len(STYLES)
    for options in itertools.combinations(enumerate((SPECIES, COLORS, STYLES)), 2):
        (first, one), (second, other) = options
        assert {(cell[first], cell[second]) for cell in of_split["train"]} == set(itertools.product(one, other))
    for split, place in itertools.product(("validation", "test"), range(3)):
        assert {cell[place] for cell in of_split[split]} == set((SPECIES, COLORS, STYLES)[place])
        assert 0.1 < len(of_split[split]) / 800 < 0.2


def test_the_neutral_look_is_training_in_full() -> None:
    assert len(cells("train", NEUTRAL)) == len(SPECIES) * len(COLORS)
    assert not any(style == NEUTRAL for _, _, style in cells("train"))
    assert split_of(Creature("cat", "red", "left", "none"), NEUTRAL) == "train"


@pytest.mark.parametrize("split", SPLITS)
def test_samples_show_triples_of_their_split_only(split: str) -> None:
    drawn = [sample(split, index, size=64) for index in range(12)]
    assert {split_of(s.creature, s.style) for s in drawn} == {split}
    assert len({s.style for s in drawn}) > 3
    assert NEUTRAL not in {s.style for s in drawn}
    assert {sample(split, index, style="neon", size=64).style for index in range(2)} == {"neon"}


def test_the_mask_is_the_same_in_every_style_and_color() -> None:
    for index, (species, pose) in enumerate(zip(SPECIES, itertools.cycle(POSES), strict=False)):
        accessory = ACCESSORIES[index % 4]
        masks = [
            render(Creature(species, COLORS[(index + i) % 10], pose, accessory), style, seed=index, size=64).mask
            for i, style in enumerate(LOOKS[index % 2 :: 2])
        ]
        assert all(np.array_equal(mask, masks[0]) for mask in masks), species


@pytest.mark.parametrize("style", LOOKS)
def test_every_style_shows_every_content(style: str) -> None:
    for index, species in enumerate(SPECIES):
        creature = Creature(species, COLORS[index], POSES[index % 4], ACCESSORIES[(index + index // 4) % 4])
        shown = render(creature, style, seed=index)
        assert (shown.image.shape, shown.image.dtype) == ((128, 128, 3), np.uint8)
        assert (shown.mask.shape, shown.mask.dtype) == ((128, 128), np.bool_)
        assert 0.08 < shown.mask.mean() < 0.45, species
        border = np.concatenate([shown.mask[0], shown.mask[-1], shown.mask[:, 0], shown.mask[:, -1]])
        assert not border.any(), species


@pytest.mark.parametrize("style", LOOKS)
def test_colors_can_be_told_apart_in_every_style(style: str) -> None:
    seen = {}
    for color in COLORS:
        shown = render(Creature("elephant", color, "right", "none"), style, seed=4, size=64)
        seen[color] = shown.image[shown.mask].astype(float).mean(axis=0)
    for one, other in itertools.combinations(COLORS, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 25, (one, other)
    for color, (high, low) in {"red": (0, 2), "blue": (2, 0), "yellow": (0, 2), "green": (1, 0)}.items():
        assert seen[color][high] > seen[color][low] + 25, color
    assert seen["black"].mean() < 120 < seen["white"].mean()


def test_styles_differ_from_each_other() -> None:
    creature = Creature("turtle", "green", "right", "hat")
    pictures = [render(creature, style, seed=1) for style in LOOKS]
    assert min(distance(one, other) for one, other in itertools.combinations(pictures, 2)) > 15


def test_species_and_poses_differ_in_their_masks_more_than_seeds_do() -> None:
    def mask(species: str, pose: str, seed: int) -> np.ndarray:
        return render(Creature(species, "red", pose, "none"), NEUTRAL, seed=seed, size=64).mask

    for species in SPECIES[::3]:
        poses = [mask(species, pose, 0) for pose in POSES]
        assert max(overlap(one, other) for one, other in itertools.combinations(poses, 2)) < 0.86, species
    shapes = {species: mask(species, "right", 0) for species in SPECIES}
    for one, other in itertools.combinations(SPECIES, 2):
        assert overlap(shapes[one], shapes[other]) < 0.8, (one, other)
    again = [overlap(shapes[species], mask(species, "right", 1)) for species in SPECIES]
    assert 0.55 < np.mean(again) < 0.95


def test_accessories_are_seen_and_leave_the_rest_of_the_figure() -> None:
    for species in SPECIES[1::3]:
        bare = render(Creature(species, "blue", "front", "none"), NEUTRAL, seed=3)
        for accessory in ACCESSORIES[1:]:
            worn = render(Creature(species, "blue", "front", accessory), NEUTRAL, seed=3)
            changed = np.abs(worn.image.astype(int) - bare.image).sum(axis=-1) > 60
            assert changed.sum() > 60, (species, accessory)
            assert overlap(bare.mask, worn.mask) > 0.7, (species, accessory)
            assert (bare.mask & ~worn.mask).sum() == 0


@pytest.mark.parametrize("size", [64, 256])
def test_other_sizes_show_the_same_image(size: int) -> None:
    one, resized = (sample("train", 1, style=NEUTRAL, size=pixels) for pixels in (128, size))
    assert resized.image.shape == (size, size, 3)
    shrunk = [np.asarray(Image.fromarray(s.image).resize((32, 32), Image.Resampling.BOX), int) for s in (one, resized)]
    assert np.abs(shrunk[0] - shrunk[1]).mean() < 3


@pytest.mark.parametrize("style", STYLES)
def test_captions_name_the_content_and_only_style_captions_the_style(style: str) -> None:
    rng = np.random.default_rng(0)
    for index, (species, color) in enumerate(itertools.product(SPECIES, COLORS)):
        creature = Creature(species, color, POSES[index % 4], ACCESSORIES[index // 2 % 4])
        full, styled = caption(creature, rng), style_caption(creature, style, rng)
        assert {species, color} <= words(full) & words(styled)
        assert creature.accessory == "none" or creature.accessory in words(full)
        assert not words(full) & {*STYLES, "pixels"}
        assert {style, f"{style}s"} & words(styled)
        kinds = words(caption(creature, rng, "kinds"))
        assert species in kinds
        assert color not in kinds
        assert caption(creature, rng, "generic") in GENERIC_CAPTIONS
        assert len(caption(creature, rng, "partial")) < len(full) + 12
        assert style_caption(creature, NEUTRAL, np.random.default_rng(1)) == caption(creature, np.random.default_rng(1))


def test_captions_are_varied_plain_text() -> None:
    creature = Creature("octopus", "orange", "left", "hat")
    rng = np.random.default_rng(0)
    texts = [caption(creature, rng, detail) for detail in DETAILS for _ in range(40)]
    assert all(text.isascii() and text == text.lower().strip() and "  " not in text for text in texts)
    assert all(text.startswith(("a ", "an ")) for text in texts)
    assert len(set(texts)) > 20
    assert PROMPT in GENERIC_CAPTIONS
    shown = sample("train", 3)
    assert shown.style_caption.startswith(f"{shown.caption}, ")


CAT = Creature("cat", "red", "left", "none")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: sample("dev", 0), "split: got 'dev', expected one of train, validation, test"),
        (lambda: sample("train", -1), "index, seed: got -1 and 0, expected both at least 0"),
        (lambda: sample("train", 0, style="oil"), "style: got 'oil', expected one of neutral, ink"),
        (lambda: sample("test", 0, style=NEUTRAL), "style: got 'neutral' for the test split.*train split only"),
        (lambda: sample("train", 0, size=100), "size: got 100, expected 64, 128 or 256"),
        (lambda: render(CAT, "oil", seed=0), "style: got 'oil', expected one of"),
        (lambda: render(CAT, "ink", seed=-1), "seed: got -1, expected integers of at least 0"),
        (lambda: split_of(CAT, "oil"), "style: got 'oil', expected one of"),
        (lambda: caption(CAT, np.random.default_rng(0), "long"), "detail: got 'long', expected one of full, partial"),
        (lambda: style_caption(CAT, "oil", np.random.default_rng(0)), "style: got 'oil', expected one of"),
        (
            lambda: Creature("dog", "red", "left", "none"),
            "species: got 'dog', expected one of cat, rabbit",
        ),
        (
            lambda: Creature("cat", "teal", "left", "none"),
            "color: got 'teal', expected one of red, orange",
        ),
        (lambda: Creature("cat", "red", "up", "none"), "pose: got 'up', expected one of left, right"),
        (
            lambda: Creature("cat", "red", "left", "cape"),
            "accessory: got 'cape', expected one of none, hat",
        ),
    ],
)
def test_errors_say_what_is_wrong(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
