"""Oracle of outfits: predictions, and scores when attributes are swapped, lost or misplaced."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from remedies import check_call
from torch.utils.data import TensorDataset

from weftwork.datasets.synthetic.outfits import Garment, OutfitSample, render, sample
from weftwork.evaluation.oracles.outfits import Oracle, Reading, SlotReading, pretrained_oracle
from weftwork.evaluation.scores.outfits import score_outfits
from weftwork.scripts.maintenance.oracles.outfit_data import augment, gaussian_blur, render_examples
from weftwork.scripts.maintenance.oracles.train_outfits import OutfitOracleTask, main
from weftwork.training.core.config import TrainingConfig
from weftwork.training.core.loop import train

TINY = (8, 8, 8, 8)


def batch_of(outfits: list[OutfitSample]) -> torch.Tensor:
    return torch.from_numpy(np.stack([outfit.image for outfit in outfits])).permute(0, 3, 1, 2) / 255


def truth(outfit: OutfitSample) -> Reading:
    """Returns the reading of a perfect oracle."""
    pairs = zip(outfit.garments, outfit.masks, strict=True)
    return Reading(
        {g.slot: SlotReading(g.kind, g.color, g.pattern, torch.from_numpy(mask), int(mask.sum())) for g, mask in pairs}
    )


def changed(reading: Reading, slot: str, **values: object) -> Reading:
    return Reading({**reading.slots, slot: dataclasses.replace(reading.slots[slot], **values)})


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return pretrained_oracle()


@pytest.fixture
def outfit() -> OutfitSample:
    garments = [Garment.of("sweater", "red", "dotted"), Garment.of("long skirt", "blue", "striped")]
    return render(garments, seed=0)


def test_a_perfect_reading_scores_one_without_leakage() -> None:
    outfits = [sample("test", index) for index in range(4)]
    scores = score_outfits(outfits, [truth(outfit) for outfit in outfits])
    assert dataclasses.astuple(scores) == (1, 1, 1, 0, 1)


def test_swapped_colors_are_wrong_and_leak(outfit: OutfitSample) -> None:
    swapped = changed(changed(truth(outfit), "top", color="blue"), "bottom", color="red")
    scores = score_outfits([outfit], [swapped])
    assert (scores.color_accuracy, scores.pattern_accuracy, scores.kind_accuracy) == (0, 1, 1)
    assert scores.leakage == 0.5  # two of two colours, none of two patterns


def test_a_foreign_color_is_wrong_but_does_not_leak(outfit: OutfitSample) -> None:
    scores = score_outfits([outfit], [changed(truth(outfit), "top", color="green")])
    assert (scores.color_accuracy, scores.leakage) == (0.5, 0)


def test_leaked_patterns_count(outfit: OutfitSample) -> None:
    scores = score_outfits([outfit], [changed(truth(outfit), "top", pattern="striped")])
    assert (scores.pattern_accuracy, scores.leakage) == (0.5, 0.25)


def test_equal_neighbours_cannot_leak() -> None:
    alike = render([Garment.of("sweater", "red", "plain"), Garment.of("skirt", "red", "plain")], seed=0)
    assert math.isnan(score_outfits([alike], [truth(alike)]).leakage)


def test_a_missing_slot_counts_as_wrong(outfit: OutfitSample) -> None:
    only_top = Reading({"top": truth(outfit).slots["top"]})
    scores = score_outfits([outfit], [only_top])
    assert (scores.color_accuracy, scores.pattern_accuracy, scores.kind_accuracy) == (0.5, 0.5, 0.5)
    assert scores.sketch_iou == 0.5


def test_patterns_of_small_garments_are_not_scored() -> None:
    small = render([Garment.of("sneakers", "red", "dotted")], seed=1)
    small = dataclasses.replace(small, masks=small.masks & (np.cumsum(small.masks, axis=2) < 5))
    scores = score_outfits([small], [changed(truth(small), "shoes", pattern="plain")])
    assert math.isnan(scores.pattern_accuracy)
    assert scores.color_accuracy == 1


def test_a_shifted_garment_lowers_the_overlap(outfit: OutfitSample) -> None:
    mask = truth(outfit).slots["top"].mask
    scores = score_outfits([outfit], [changed(truth(outfit), "top", mask=mask.roll(10, dims=1))])
    assert 0.5 < scores.sketch_iou < 0.9


def test_scores_need_one_reading_per_sample(outfit: OutfitSample) -> None:
    with pytest.raises(ValueError, match="readings: got 0, expected 1, one per sample; read one image per sample"):
        score_outfits([outfit], [])


def test_masks_of_another_size_raise(outfit: OutfitSample) -> None:
    other = changed(truth(outfit), "top", mask=torch.ones(64, 64, dtype=torch.bool))
    words = r"masks: got \(64, 64\) from the reading, expected \(128, 128\) .*; read images of the size of the samples"
    check_call(lambda reading: score_outfits([outfit], [reading]), other, words, truth(outfit))


def test_the_pretrained_oracle_reads_held_out_garments(oracle: Oracle) -> None:
    outfits = [sample("test", 5000 + index) for index in range(32)]
    for images in (batch_of(outfits), gaussian_blur(batch_of(outfits), 0.8)):
        scores = score_outfits(outfits, oracle.read(images))
        assert min(scores.color_accuracy, scores.pattern_accuracy, scores.kind_accuracy) > 0.95
        assert scores.leakage < 0.02
        assert scores.sketch_iou > 0.85


def test_the_pretrained_oracle_sees_swapped_garments(oracle: Oracle, outfit: OutfitSample) -> None:
    swapped = render([Garment.of("sweater", "blue", "striped"), Garment.of("long skirt", "red", "dotted")], seed=0)
    scores = score_outfits([outfit], oracle.read(batch_of([swapped])))
    assert dataclasses.astuple(scores)[:4] == (0, 0, 1, 1)
    assert scores.sketch_iou > 0.85


def test_empty_slots_have_no_reading(oracle: Oracle) -> None:
    outfits = [sample("validation", index, count=1) for index in range(12)]
    readings = oracle.read(batch_of(outfits))
    assert [set(reading.slots) for reading in readings] == [{outfit.garments[0].slot} for outfit in outfits]


def test_reading_in_batches_is_reading_one_by_one(oracle: Oracle) -> None:
    images = batch_of([sample("test", index) for index in range(3)])
    together, alone = oracle.read(images), [oracle.read(image[None])[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        assert {slot: seen.color for slot, seen in one.slots.items()} == {
            slot: seen.color for slot, seen in other.slots.items()
        }


def test_masks_have_the_size_of_the_image(oracle: Oracle) -> None:
    large = sample("test", 1, size=256)
    reading = oracle.read(batch_of([large]))[0]
    assert all(seen.mask.shape == (256, 256) for seen in reading.slots.values())
    assert score_outfits([large], [reading]).sketch_iou > 0.8


def test_the_oracle_is_small(oracle: Oracle) -> None:
    assert oracle.num_parameters() <= 400_000


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(1, 4, 128, 128), r"images: got shape \(1, 4, 128, 128\), expected \(batch, 3, height, width\)"),
        (torch.full((1, 3, 128, 128), -1.0), r"images: got values in \[-1, -1\], expected \[0, 1\]"),
    ],
)
def test_wrong_images_raise(oracle: Oracle, images: torch.Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        oracle.read(images)


def test_training_mode_raises() -> None:
    with pytest.raises(ValueError, match=r"got training mode, expected evaluation mode; call .eval\(\)"):
        Oracle(TINY).train().read(torch.zeros(1, 3, 128, 128))


def test_a_share_of_the_renders_is_styled() -> None:
    plain, some = render_examples("train", 8, seed=0), render_examples("train", 8, seed=0, styled_share=0.25)
    changed = [not torch.equal(one, other) for one, other in zip(plain.images, some.images, strict=True)]
    assert sum(changed) == 2
    assert torch.equal(plain.slots, some.slots) and torch.equal(plain.attributes, some.attributes)


def test_augmentation_keeps_values_and_truth_in_place() -> None:
    examples = render_examples("train", 8, seed=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        images, shown = augment(examples, generator)
        assert images.isfinite().all()
    assert images.min() >= 0 and images.max() <= 1
    for index, kept in enumerate((8, 5, 8)):  # three of the images have random colours and no colour label
        same = (shown.attributes[..., index] == examples.attributes[..., index]).all(dim=1)
        assert same.sum() == kept
    assert abs((shown.slots > 0).sum() - (examples.slots > 0).sum()) == 0


def test_an_interrupted_training_ends_with_the_bits_of_a_straight_one(tmp_path: Path) -> None:
    examples = TensorDataset(*render_examples("train", 4, seed=0))

    def run(folder: str, steps: int, resume: str | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        config = TrainingConfig(
            str(tmp_path / folder), steps, 2, lr_scheduler="constant", checkpointing_steps=2, use_cpu=True,
            resume_from_checkpoint=resume,
        )  # fmt: skip
        return Oracle.from_pretrained(train(OutfitOracleTask(Oracle(TINY)), examples, config)).state_dict()

    straight = run("straight", 5)
    run("cut off", 3)
    resumed = run("cut off", 5, "latest")  # statistics of batch normalization included
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_the_command_goes_on_from_an_oracle(tmp_path: Path) -> None:
    Oracle(TINY).save_pretrained(tmp_path / "first")
    options = {"renders": 4, "max_train_steps": 2, "train_batch_size": 2, "init_from": tmp_path / "first"}
    main([f"--{name}={value}" for name, value in {**options, "output_dir": tmp_path / "run"}.items()] + ["--use_cpu"])
    assert Oracle.from_pretrained(tmp_path / "run/final").config["channels"] == list(TINY)
    assert str(tmp_path) not in (tmp_path / "run/final/config.json").read_text()
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2
