"""Oracle of creatures: predictions, scores of its predictions, and resumable training."""

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from remedies import check_call

from weftwork.datasets.synthetic.creatures import ACCESSORIES, NEUTRAL, STYLES, Creature, CreatureSample, render, sample
from weftwork.evaluation.oracles.creatures import (
    ATTRIBUTES,
    CreatureOracle,
    CreatureReading,
    pretrained_creature_oracle,
)
from weftwork.evaluation.scores.creatures import score_creatures, shape_consistency
from weftwork.pretrained import available
from weftwork.scripts.maintenance.oracles.check_creatures import check_creature_oracle
from weftwork.scripts.maintenance.oracles.check_outfits import CHANGES
from weftwork.scripts.maintenance.oracles.train_creatures import (
    CreatureOracleTask,
    MaskedCreatures,
    augment,
    main,
    oracle_loss,
)
from weftwork.training.core.config import TrainingConfig
from weftwork.training.core.loop import train
from weftwork.training.data import image_cache

TINY = (8, 8, 8, 8, 8)
needs_weights = pytest.mark.skipif("creature-oracle" not in available(), reason="the oracle is not installed")


def batch_of(creatures: list[CreatureSample]) -> torch.Tensor:
    return torch.from_numpy(np.stack([creature.image for creature in creatures])).permute(0, 3, 1, 2) / 255


def truth(shown: CreatureSample) -> CreatureReading:
    """Returns the reading of a perfect oracle."""
    return CreatureReading(shown.style, **dataclasses.asdict(shown.creature), mask=torch.from_numpy(shown.mask))


def same(one: CreatureReading, other: CreatureReading) -> bool:
    return torch.equal(one.mask, other.mask) and all(getattr(one, name) == getattr(other, name) for name in ATTRIBUTES)


def reading(mask: torch.Tensor) -> CreatureReading:
    return CreatureReading("ink", "cat", "red", "left", "none", mask)


def box(top: int, left: int, height: int, width: int) -> CreatureReading:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return reading(mask)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few images rendered in this process, since starting processes takes longer."""
    folder = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_cache, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(1))
        MaskedCreatures(folder, 5, 3, seed=1)
    return folder


@pytest.fixture(scope="module")
def drawn(cache: Path) -> MaskedCreatures:
    return MaskedCreatures(cache, 5, 3, seed=1)


@pytest.fixture(scope="module")
def oracle() -> CreatureOracle:
    return pretrained_creature_oracle()


def test_a_perfect_reading_scores_one() -> None:
    creatures = [sample("test", index) for index in range(3)]
    assert dataclasses.astuple(score_creatures(creatures, [truth(one) for one in creatures])) == (1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("change", "scores"),
    [
        ({"style": "none of them"}, (0.5, 1, 1, 1, 1)),
        ({"species": "snail"}, (1, 5 / 6, 0.5, 1, 1)),
        ({"color": "white"}, (1, 5 / 6, 1, 0.5, 1)),
        ({"pose": "front", "color": "white"}, (1, 4 / 6, 1, 0.5, 0.5)),
        ({"accessory": "balloon"}, (1, 1, 1, 1, 1)),
    ],
)
def test_every_wrong_attribute_counts_where_it_belongs(change: dict[str, str], scores: tuple[float, ...]) -> None:
    shown = render(Creature("cat", "red", "left", "none"), "neon", seed=0, size=64)
    readings = [truth(shown), dataclasses.replace(truth(shown), **change)]
    assert dataclasses.astuple(score_creatures([shown, shown], readings)) == pytest.approx(scores)


def test_nothing_scores_nan() -> None:
    assert all(math.isnan(score) for score in dataclasses.astuple(score_creatures([], [])))


def test_scores_need_one_reading_per_sample() -> None:
    with pytest.raises(ValueError, match="readings: got 0, expected 1, one per sample; read one image per sample"):
        score_creatures([sample("test", 0, size=64)], [])


def test_shapes_are_compared_wherever_they_stand() -> None:
    assert shape_consistency([box(0, 0, 10, 6), box(20, 20, 10, 6), box(3, 9, 10, 6)]) == 1
    assert shape_consistency([box(1, 2, 10, 6), box(8, 9, 6, 10)]) == pytest.approx(36 / 84)
    assert shape_consistency([box(0, 0, 4, 4), box(0, 0, 8, 8)]) == pytest.approx(1 / 4)


def test_shape_consistency_is_the_mean_over_pairs() -> None:
    one, other = box(0, 0, 4, 4), box(0, 0, 8, 8)
    assert shape_consistency([one, other, other]) == pytest.approx((1 / 4 + 1 / 4 + 1) / 3)


def test_an_image_without_a_creature_overlaps_with_none() -> None:
    nothing = reading(torch.zeros(32, 32, dtype=torch.bool))
    assert shape_consistency([nothing, nothing]) == 0
    assert shape_consistency([nothing, box(0, 0, 4, 4)]) == 0


@pytest.mark.parametrize(
    ("readings", "text"),
    [
        ([box(0, 0, 4, 4)], "readings: got 1, expected at least 2; read images of one creature"),
        (
            [box(0, 0, 4, 4), reading(torch.ones(64, 64, dtype=torch.bool))],
            r"masks: got sizes \[\(32, 32\), \(64, 64\)\], expected one; read images of the same size",
        ),
    ],
)
def test_shapes_that_cannot_be_compared_raise(readings: list[CreatureReading], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        shape_consistency(readings)


def test_readings_have_known_names_and_masks_of_the_size_of_the_image() -> None:
    untrained = CreatureOracle(TINY).eval()
    for size in (64, 128):
        for seen in untrained.read(torch.rand(2, 3, size, size)):
            assert all(getattr(seen, name) in options for name, options in ATTRIBUTES.items())
            assert (seen.mask.shape, seen.mask.dtype) == ((size, size), torch.bool)


def test_a_saved_oracle_reads_the_same(tmp_path: Path) -> None:
    saved, images = CreatureOracle(TINY, width=8).eval(), torch.rand(2, 3, 128, 128)
    saved.save_pretrained(tmp_path)
    loaded = CreatureOracle.from_pretrained(tmp_path)
    assert all(map(same, saved.read(images), loaded.read(images)))


def test_the_oracle_is_small() -> None:
    assert CreatureOracle().num_parameters() <= 600_000


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(1, 4, 128, 128), r"images: got shape \(1, 4, 128, 128\), expected \(batch, 3, height, width\)"),
        (torch.full((1, 3, 128, 128), -1.0), r"images: got values in \[-1, -1\], expected \[0, 1\]"),
    ],
)
def test_wrong_images_raise(images: torch.Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        CreatureOracle(TINY).read(images)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CreatureOracle((8, 8, 8, 8, 12)), r"channels: got \(8, 8, 8, 8, 12\), expected five multiples of 8"),
    ],
)
def test_wrong_settings_raise(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_remedies_of_counts(tmp_path: Path) -> None:
    words = "styled, neutral: got 0 and 1, expected at least 1 and 0; draw more images"
    check_call(lambda styled: MaskedCreatures(tmp_path, styled, 1, seed=1), 0, words, 1)


def test_drawn_images_are_samples_of_the_training_split(drawn: MaskedCreatures) -> None:
    shown = [sample("train", i, seed=1) for i in range(5)] + [
        sample("train", i, seed=1, style=NEUTRAL) for i in range(3)
    ]
    assert len(drawn) == 8
    for index, expected in enumerate(shown):
        image, places = drawn[index]
        assert np.array_equal(image[:3].permute(1, 2, 0).numpy(), expected.image)
        assert np.array_equal(image[3].numpy() == 255, expected.mask)
        names = [options[place] for options, place in zip(ATTRIBUTES.values(), places.tolist(), strict=True)]
        assert names == [getattr(truth(expected), name) for name in ATTRIBUTES]


def test_augmentation_moves_the_mask_along_and_never_mirrors(drawn: MaskedCreatures) -> None:
    images = torch.stack([drawn[index][0] for index in range(8)])
    augmented, masks = augment(images, torch.Generator().manual_seed(0))
    again, _ = augment(images, torch.Generator().manual_seed(0))
    assert torch.equal(augmented, again)
    assert augmented.shape == (8, 3, 128, 128) and masks.shape == (8, 128, 128)
    assert augmented.min() >= 0 and augmented.max() <= 1
    for image, changed, mask in zip(images.float() / 255, augmented, masks, strict=True):
        steps = [(row, column) for row in range(-6, 7) for column in range(-6, 7)]
        matches = [step for step in steps if torch.equal(image[3].roll(step, (0, 1)), mask)]
        assert len(matches) == 1
        moved = image[:3].roll(matches[0], (1, 2))
        apart, apart_from_mirrored = (
            (changed - other)[:, 8:-8, 8:-8].abs().mean() for other in (moved, moved.flip(-1))
        )
        assert apart < min(0.25, 0.8 * apart_from_mirrored)


def test_the_loss_falls_where_logits_are_right(drawn: MaskedCreatures) -> None:
    images, places = CreatureOracleTask(CreatureOracle(TINY)).collate([drawn[0], drawn[1]])
    logits = CreatureOracle(TINY)(images[:, :3] / 255)
    masks = (images[:, 3] / 255).float()
    right = {
        name: 20 * torch.nn.functional.one_hot(places[:, i], len(options)).float()
        for i, (name, options) in enumerate(ATTRIBUTES.items())
    }
    best = oracle_loss(dataclasses.replace(logits, mask=40 * (masks - 0.5), attributes=right), masks, places)
    assert best < 1e-3 < oracle_loss(logits, masks, places)


def test_an_interrupted_training_ends_with_the_bits_of_a_straight_one(drawn: MaskedCreatures, tmp_path: Path) -> None:
    def run(folder: str, steps: int, resume: str | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        config = TrainingConfig(
            str(tmp_path / folder), steps, 2, lr_scheduler="constant", checkpointing_steps=2, use_cpu=True,
            resume_from_checkpoint=resume,
        )  # fmt: skip
        return CreatureOracle.from_pretrained(
            train(CreatureOracleTask(CreatureOracle(TINY)), drawn, config)
        ).state_dict()

    straight = run("straight", 5)
    run("cut off", 3)
    resumed = run("cut off", 5, "latest")
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_the_command_leaves_an_oracle_and_its_scores(cache: Path, tmp_path: Path) -> None:
    options = {"styled": 5, "neutral": 3, "held_out": 2, "cache_dir": cache, "output_dir": tmp_path / "run"}
    options |= {"max_train_steps": 1, "train_batch_size": 2}
    main([text for name, value in options.items() for text in (f"--{name}", str(value))] + ["--use_cpu"])
    oracle = CreatureOracle.from_pretrained(tmp_path / "run" / "final")
    assert "content_accuracy" in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert str(tmp_path) not in (tmp_path / "run" / "final" / "config.json").read_text()
    scores = check_creature_oracle(oracle, "test", 2)
    assert list(scores) == list(CHANGES)
    assert all(0 <= score <= 1 for row in scores.values() for score in dataclasses.astuple(row))


@pytest.mark.slow
@needs_weights
def test_the_pretrained_oracle_reads_triples_it_has_never_seen(oracle: CreatureOracle) -> None:
    for name, scores in check_creature_oracle(oracle, "test", 64, seed=5).items():
        assert min(scores.style_accuracy, scores.species_accuracy, scores.color_accuracy) > 0.97, name
        assert min(scores.pose_accuracy, scores.accessory_accuracy) > 0.95, name
        assert scores.mask_iou > 0.89, name


@needs_weights
def test_the_pretrained_oracle_sees_what_changes(oracle: CreatureOracle) -> None:
    plain = Creature("rabbit", "blue", "left", "none")
    for change in ({"color": "orange"}, {"pose": "right"}, {"species": "turtle"}, {"accessory": ACCESSORIES[3]}):
        changed = dataclasses.replace(plain, **change)
        seen, other = oracle.read(batch_of([render(one, "poster", seed=3) for one in (plain, changed)]))
        differs = {name for name in ATTRIBUTES if getattr(seen, name) != getattr(other, name)}
        assert differs == set(change)


@needs_weights
def test_the_pretrained_oracle_tells_the_styles_of_one_creature(oracle: CreatureOracle) -> None:
    looks = [NEUTRAL, *STYLES]
    creatures = [render(Creature("dragon", "green", "front", "hat"), style, seed=4) for style in looks]
    readings = oracle.read(batch_of(creatures))
    assert [seen.style for seen in readings] == looks
    assert shape_consistency(readings) > 0.9


@needs_weights
def test_reading_in_batches_is_reading_one_by_one(oracle: CreatureOracle) -> None:
    images = batch_of([sample("test", index) for index in range(3)])
    for together, image in zip(oracle.read(images), images, strict=True):
        alone = oracle.read(image[None])[0]
        assert all(getattr(together, name) == getattr(alone, name) for name in ATTRIBUTES)
        assert (together.mask != alone.mask).sum() < 3
