"""Evaluation of several subjects per image: scores have their extremes where they should, and rows are filled."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import subject_adapter, tiny_pipe, tiny_unet
from tiny_baselines import tiny_vision_model

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.reference.adapter import ReferenceAdapter
from weftwork.datasets.drawings.collection import Drawings
from weftwork.datasets.drawings.rendered import open_rendered
from weftwork.datasets.drawings.scenes import SIZE
from weftwork.evaluation.core.curve import plot_curve
from weftwork.evaluation.measurements.subjects import MEASUREMENT
from weftwork.evaluation.methods.subjects import CURVE, SubjectEvaluation
from weftwork.evaluation.oracles.instruments import Instruments
from weftwork.evaluation.scores.subjects import score_subjects, windows
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline

ROOT = Path(__file__).parents[3]
ROWS = ["real", "reconstruction", "other_scene", "text_only", "subjects", "no_localization", "reference"]


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(images, 8).flatten(1)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> SubjectEvaluation:
    folder = tmp_path_factory.mktemp("subjects")
    few = Drawings.read(ROOT / "examples/drawings")
    few.only(list(few.vectors), list(few.subjects)[::4]).save(folder / "drawings")
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.register_modules(unet=tiny_unet(sample_size=SIZE // 8))
    encoder = ImageEncoder(tiny_vision_model().eval())
    sizes = {"image_dim": encoder.model.config.projection_dim, "image_size": encoder.model.config.image_size}
    for seed, name in enumerate(("subjects_0", "subjects_1", "no_localization_0")):
        torch.manual_seed(seed)
        pipe.attach(**{name: subject_adapter(pipe.unet, **sizes)})
    pipe.attach(reference=ReferenceAdapter.for_denoiser(pipe.unet, image_dim=128, token_dim=32, image_size=128))
    pipe.set_encoders(image=encoder)
    trained = {"subjects": ["subjects_0", "subjects_1"], "no_localization": ["no_localization_0"]}
    instruments = Instruments(lambda a, b: (a - b).abs().mean((1, 2, 3)), thumbnails)
    drawings = open_rendered(folder / "drawings", folder)
    settings = {"count": 3, "num_inference_steps": 2}
    made = SubjectEvaluation(pipe=pipe, drawings=drawings, instruments=instruments, trained=trained)
    return replace(made, split="cells", **settings)


def test_every_row_is_generated_and_scored(evaluation: SubjectEvaluation, tmp_path: Path) -> None:
    assert [len(own.rows) >= 2 for _, own in evaluation.cases] == [True] * 3
    report = evaluation.run(tmp_path)
    assert [row.name for row in report.rows] == [*ROWS, "reference_regions"]
    assert all(set(row.scores) == {"subjects_right", "all_right", "identity_blending"} for row in report.rows)
    rows = evaluation.rows()
    images = {name: rows[name]()[0] for name in ("text_only", "subjects", "reference", "reference_regions")}
    drawn = list(images.values())
    assert not any(torch.equal(one, other) for i, one in enumerate(drawn) for other in drawn[:i])
    other = replace(evaluation, seed=1).rows()["subjects"]
    assert other.args == ("subjects_1",)  # pyright: ignore[reportFunctionMemberAccess]


def test_delayed_subjects_change_less(evaluation: SubjectEvaluation, tmp_path: Path) -> None:
    rows = evaluation.curve()
    changes = [row.scores["layout_change"] for row in rows]
    assert len(changes) == len(CURVE) and changes[0] > changes[-1] == 0  # of two steps, none is behind 0.7
    path = plot_curve("subjects", rows, MEASUREMENT.curve, tmp_path, MEASUREMENT.curve_over)
    assert path.is_file() and (tmp_path / "subjects-curve.json").is_file()


def test_rows_that_read_images_need_their_encoder(evaluation: SubjectEvaluation) -> None:
    for option in ("subjects", "no_localization", "reference"):
        with pytest.raises(ValueError, match="image_encoder: got none, needed by images of subjects"):
            SubjectEvaluation.open(evaluation.pipe, {option: [Path("adapter")]})
    with pytest.raises(ValueError, match=r"curve: got no adapter of subjects.*pass --subjects"):
        replace(evaluation, trained={}).curve()


def test_scores_know_shown_missing_and_blended_subjects() -> None:
    eye = torch.eye(4)
    shown = score_subjects([eye[[0, 1]]], [(0, 1)])
    assert shown == {"subjects_right": 1, "all_right": 1, "identity_blending": 0}
    assert score_subjects([eye[[0, 2]]], [(0, 1)])["subjects_right"] == 0.5
    blended = score_subjects([(eye[0] + eye[1])[None] / 2**0.5], [(0, 1)])
    assert blended["all_right"] == 1 and blended["identity_blending"] == pytest.approx(0.5**0.5)


def test_windows_cover_the_image() -> None:
    image = torch.zeros(2, 3, 16, 16)
    image[1, :, 12:, 12:] = 1
    found = windows(image).unflatten(0, (2, -1))
    assert found.shape == (2, 13, 3, 16, 16) and not found[0].any()
    assert [i for i, one in enumerate(found[1]) if one.max() > 0.5] == [8, 12]
