"""The synthetic outfits: exact truth, deterministic samples, splits without common triples."""

import itertools
import pickle

import numpy as np
import pytest
from PIL import Image, ImageFilter

from weftwork.datasets.synthetic.outfits import (
    COLORS,
    GENERIC_CAPTIONS,
    KINDS,
    KINDS_BY_SLOT,
    PATTERNS,
    PROMPT,
    SLOTS,
    SPLITS,
    STYLES,
    Garment,
    OutfitSample,
    caption,
    describe,
    render,
    sample,
    split_of,
    triples,
)
from weftwork.datasets.synthetic.outfits.drawing import RGB
from weftwork.datasets.synthetic.outfits.texts import reworded
from weftwork.datasets.synthetic.words import DETAILS


@pytest.fixture(scope="module")
def outfits() -> list[OutfitSample]:
    return [sample("train", index) for index in range(60)]


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.filter(ImageFilter.MaxFilter(2 * pixels + 1))) > 0


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_arguments_give_the_same_sample(split: str) -> None:
    first, again = sample(split, 5, seed=3), pickle.loads(pickle.dumps(sample(split, 5, seed=3)))
    assert first.garments == again.garments
    assert (first.texts, first.caption) == (again.texts, again.caption)
    for name in ("image", "masks", "sketches"):
        assert np.array_equal(getattr(first, name), getattr(again, name))


def test_split_seed_and_index_change_the_image() -> None:
    pictures = [sample("train", 0), sample("train", 1), sample("test", 0), sample("train", 0, seed=1)]
    for one, other in itertools.combinations(pictures, 2):
        assert not np.array_equal(one.image, other.image)


def test_splits_share_no_triple_and_training_knows_every_pair() -> None:
    of_split = {split: [g for slot in SLOTS for g in triples(split, slot)] for split in SPLITS}
    assert sum(len(garments) for garments in of_split.values()) == len(KINDS) * len(COLORS) * len(PATTERNS)
    assert len({g for garments in of_split.values() for g in garments}) == 13 * 10 * 6
    train = of_split["train"]
    assert {(g.kind, g.color) for g in train} == set(itertools.product(KINDS, COLORS))
    assert {(g.kind, g.pattern) for g in train} == set(itertools.product(KINDS, PATTERNS))
    assert {(g.color, g.pattern) for g in train} == set(itertools.product(COLORS, PATTERNS))
    for split in ("validation", "test"):
        assert {g.kind for g in of_split[split]} == set(KINDS)
        assert {g.color for g in of_split[split]} == set(COLORS)
        assert {g.pattern for g in of_split[split]} == set(PATTERNS)


@pytest.mark.parametrize("split", SPLITS)
def test_outfits_show_triples_of_their_split_only(split: str) -> None:
    garments = [g for index in range(25) for g in sample(split, index).garments]
    assert {split_of(garment) for garment in garments} == {split}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_count_is_met(count: int) -> None:
    for index in range(6):
        outfit = sample("validation", index, count=count)
        assert len(outfit.garments) == len(outfit.masks) == len(outfit.sketches) == len(outfit.texts) == count
        assert len({garment.slot for garment in outfit.garments}) == count


def test_drawn_counts_are_mostly_three_or_four(outfits: list[OutfitSample]) -> None:
    counts = [len(outfit.garments) for outfit in outfits]
    assert set(counts) <= {1, 2, 3, 4}
    assert np.mean([count >= 3 for count in counts]) > 0.6


def test_shapes_and_types(outfits: list[OutfitSample]) -> None:
    for outfit in outfits:
        count = len(outfit.garments)
        assert (outfit.image.shape, outfit.image.dtype) == ((128, 128, 3), np.uint8)
        assert (outfit.masks.shape, outfit.masks.dtype) == ((count, 128, 128), np.bool_)
        assert (outfit.sketches.shape, outfit.sketches.dtype) == ((count, 128, 128), np.uint8)


def test_masks_are_disjoint_and_large(outfits: list[OutfitSample]) -> None:
    for outfit in outfits:
        assert outfit.masks.sum(axis=0).max() == 1
        for garment, mask in zip(outfit.garments, outfit.masks, strict=True):
            assert mask.sum() >= (400 if garment.slot in ("top", "bottom") else 200)


def test_plain_masks_show_the_color_of_their_garment() -> None:
    for index, (kind, color) in enumerate(itertools.product(KINDS, COLORS)):
        if index % 3:  # each colour and each kind still occurs four times
            continue
        outfit = render([Garment.of(kind, color, "plain")], seed=[7, KINDS.index(kind)])
        seen = np.median(outfit.image[outfit.masks[0]].astype(float), axis=0)
        distance = {name: np.abs(seen - np.asarray(rgb)).sum() for name, rgb in RGB.items()}
        assert min(distance, key=lambda name: distance[name]) == color


@pytest.mark.parametrize("pattern", PATTERNS[1:])
def test_the_base_color_covers_the_majority(pattern: str) -> None:
    garment = Garment.of("sweater", "blue", pattern)
    outfit, plain = (render([g], seed=11) for g in (garment, Garment.of("sweater", "blue", "plain")))
    assert np.array_equal(outfit.masks, plain.masks)
    difference = np.abs(outfit.image.astype(int) - plain.image).sum(axis=-1)
    assert not difference[~grown(outfit.masks[0], 2)].any()
    assert 0.15 < np.mean(difference[outfit.masks[0]] > 150) < 0.5


@pytest.mark.parametrize(("style", "reach"), [("professional", 2), ("wild", 9)])
def test_sketches_are_strokes_at_the_garment(style: str, reach: int) -> None:
    for index in range(15):
        outfit = sample("train", index, sketch_style=style)
        for mask, sketch in zip(outfit.masks, outfit.sketches, strict=True):
            ink = sketch < 160
            assert ink.sum() > 20
            assert not ink[~grown(mask, reach)].any()
            assert np.mean(ink[mask]) < 0.75


def test_sketches_tell_neither_color_nor_pattern() -> None:
    one, other = (render([Garment.of("jacket", *look)], seed=4) for look in (("red", "dotted"), ("white", "plain")))
    assert np.array_equal(one.sketches, other.sketches)
    assert not np.array_equal(one.image, other.image)


def test_styles_differ_in_the_sketches_only() -> None:
    tidy, wild = (sample("train", 2, sketch_style=style) for style in ("professional", "wild"))
    assert np.array_equal(tidy.image, wild.image)
    assert (tidy.texts, tidy.caption) == (wild.texts, wild.caption)
    assert not np.array_equal(tidy.sketches, wild.sketches)


def test_render_repeats_a_sample_from_its_seed() -> None:
    outfit = sample("test", 9, seed=2)
    again = render(outfit.garments[::-1], seed=(SPLITS.index("test"), 2, 9))
    assert again.garments == outfit.garments
    assert np.array_equal(again.image, outfit.image)


def test_other_garments_leave_the_person_as_it_is() -> None:
    bare, dressed = render([], seed=3), render([Garment.of("hat", "red", "plain")], seed=3)
    unchanged = ~grown(dressed.masks[0], 8)
    assert np.abs(bare.image.astype(int) - dressed.image)[unchanged].max() == 0
    assert bare.masks.shape == bare.sketches.shape == (0, 128, 128)


@pytest.mark.parametrize("size", [64, 256])
def test_other_sizes_show_the_same_image(size: int) -> None:
    outfit, resized = sample("train", 1), sample("train", 1, size=size)
    assert resized.image.shape == (size, size, 3)
    shrunk = [
        np.asarray(Image.fromarray(o.image).resize((32, 32), Image.Resampling.BOX), int) for o in (outfit, resized)
    ]
    assert np.abs(shrunk[0] - shrunk[1]).mean() < 3


def test_texts_name_their_garment_in_few_words() -> None:
    rng = np.random.default_rng(0)
    garments = [Garment.of(*look) for look in itertools.product(KINDS, COLORS, PATTERNS)]
    texts = [describe(garment, rng) for garment in garments for _ in range(4)]
    captions = [caption(garments[i::97], rng, detail) for i in range(97) for detail in DETAILS]
    everything = [*texts, *captions, *GENERIC_CAPTIONS]
    vocabulary = {word for text in everything for word in text.replace(",", "").split()}
    assert len(vocabulary) <= 150
    assert all(text.isascii() and text == text.lower() and text == text.strip() for text in everything)
    assert not any("  " in text for text in everything)
    assert PROMPT in GENERIC_CAPTIONS


def test_other_words_of_a_garment() -> None:
    rng = np.random.default_rng(0)
    skirt, jacket, boots = (
        Garment.of("skirt", "blue", "dotted"),
        Garment.of("jacket", "brown", "plain"),
        Garment.of("boots", "black", "checked"),
    )
    found = [{reworded(garment, rng) for _ in range(200)} for garment in (skirt, jacket, boots)]
    assert {"a dotted blue skirt", "polka dot blue skirt", "blue dotted skirt"} <= found[0]
    assert {"plain brown jacket", "a solid brown jacket", "brown plain jacket"} <= found[1]
    usual = {describe(garment, rng) for garment in (skirt, jacket, boots) for _ in range(400)}
    assert found[2] == {"checked black boots", "plaid black boots"}
    assert not usual & set.union(*found)


def test_full_captions_name_all_and_lesser_ones_less(outfits: list[OutfitSample]) -> None:
    rng = np.random.default_rng(0)
    outfit = next(o for o in outfits if len(o.garments) == 4)
    full, kinds = caption(outfit.garments, rng, "full"), caption(outfit.garments, rng, "kinds")
    for garment in outfit.garments:
        assert f"{garment.color} {garment.pattern}" in full
        assert garment.kind in full
        assert garment.kind in kinds
    assert not any(color in kinds for color in COLORS)
    assert len(caption(outfit.garments, rng, "partial")) < len(full)
    assert caption(outfit.garments, rng, "generic") in GENERIC_CAPTIONS
    assert outfit.caption.startswith("a person ")


def test_every_kind_can_be_worn_with_every_other() -> None:
    for index, kinds in enumerate([*itertools.product(*KINDS_BY_SLOT.values())][::2]):
        outfit = render([Garment.of(kind, "red", "plain") for kind in kinds], seed=index)
        assert all(mask.sum() >= 100 for mask in outfit.masks), kinds


@pytest.mark.parametrize("index", [1, 3])
def test_a_style_changes_the_image_and_nothing_else(index: int) -> None:
    plain, *styled = (sample("test", index, style=style) for style in (None, *STYLES))
    for one in styled:
        assert (one.garments, one.texts, one.caption) == (plain.garments, plain.texts, plain.caption)
        assert np.array_equal(one.masks, plain.masks) and np.array_equal(one.sketches, plain.sketches)
        assert (one.image.shape, one.image.dtype) == (plain.image.shape, plain.image.dtype)
    for one, other in itertools.combinations([plain, *styled], 2):
        assert np.abs(one.image.astype(float) - other.image).mean() > 10


@pytest.mark.parametrize("style", STYLES)
def test_garments_keep_their_colors_in_every_style(style: str) -> None:
    """Red trousers under a blue sweater are the redder part, and the other way round."""
    for upper, lower in (("red", "blue"), ("blue", "red")):
        garments = [Garment.of("sweater", upper, "plain"), Garment.of("trousers", lower, "plain")]
        shown = render(garments, seed=2, style=style)
        above, below = (shown.image[mask].astype(float).mean(0) for mask in shown.masks)
        redder = (above[0] - above[2]) - (below[0] - below[2])
        assert redder > 60 if upper == "red" else redder < -60


def test_a_styled_image_repeats_and_is_alike_in_other_sizes() -> None:
    first, again = (sample("train", 2, style="woodcut").image for _ in range(2))
    assert np.array_equal(first, again)
    large = Image.fromarray(sample("train", 2, style="poster", size=256).image).resize((128, 128))
    assert np.abs(np.asarray(large).astype(float) - sample("train", 2, style="poster").image).mean() < 12


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: sample("train", 0, style="oil"), "style: got 'oil'"),
        (lambda: sample("dev", 0), "split: got 'dev', expected one of train, validation, test"),
        (lambda: sample("train", -1), "index, seed: got -1 and 0, expected both at least 0"),
        (lambda: sample("train", 0, count=5), "count: got 5, expected 1 to 4 garments"),
        (lambda: sample("train", 0, count=0), "count: got 0, expected 1 to 4 garments"),
        (lambda: sample("train", 0, size=100), "size: got 100, expected 64, 128 or 256"),
        (
            lambda: sample("train", 0, sketch_style="neat"),
            "sketch_style: got 'neat', expected one of professional, wild",
        ),
        (lambda: caption([], np.random.default_rng(0), "long"), "detail: got 'long', expected one of full, partial"),
        (lambda: Garment.of("kilt", "red", "plain"), "kind: got 'kilt', expected one of t-shirt"),
        (lambda: Garment("top", "hat", "red", "plain"), "slot: got 'top' for a hat, expected 'accessory'"),
        (
            lambda: render([Garment.of("hat", "red", "plain"), Garment.of("bag", "red", "plain")], seed=0),
            "garments: got slots accessory, accessory, expected each at most once",
        ),
    ],
)
def test_errors_say_what_is_wrong(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
