"""The evaluation of expressions: rows and scores with known readings, and one run on tiny models."""

from pathlib import Path

import numpy as np
import pytest
from tiny import expression_adapter, tiny_pipe
from tiny_people import people_folder

from weftwork.datasets.people import EXPRESSIONS, Person
from weftwork.evaluation.core.loading import of_seed
from weftwork.evaluation.methods.expressions import ExpressionEvaluation
from weftwork.evaluation.oracles.people import LABELS, PersonOracle, PersonReading
from weftwork.evaluation.scores.people import score_people
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline

ROWS = ("real", "reconstruction", "no_condition", "text_only", "names", "images", "no_bank_names", "no_bank_images")


def test_scores_of_known_readings() -> None:
    one, other = Person("an afro", "pale", "blue"), Person("an afro", "dark", "red")
    seen = Person("an afro", "dark", "blue")
    readings = [PersonReading(seen, ("fear", "rage", "smile")), PersonReading(one, ("smile", "fear", "rage"))]
    scores = score_people(readings, [one, one], [("rage", "fear"), ("fear",)], [other, other])
    assert scores == {
        "expression_accuracy": 0.5,
        "expressions_mixed": 0.5,
        "identity_accuracy": pytest.approx(5 / 6),
        "identity_leakage": 0.25,
    }
    assert np.isnan(score_people(readings, [one, one], [("fear",)] * 2, [one, one])["identity_leakage"])


def test_rows_of_tiny_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    options = {"expressions": list(EXPRESSIONS), "embedder_size": 32}
    pipe.attach(expressions=expression_adapter(pipe.unet, **options))
    pipe.attach(no_bank=expression_adapter(pipe.unet, bank="none", **options))
    oracle = PersonOracle(LABELS, (8, 8, 8, 8)).eval()
    trained = {"expressions": ["expressions"], "no_bank": ["expressions", "no_bank"]}
    settings = {
        "trained": trained,
        "count": 2,
        "num_inference_steps": 1,
        "folder": people_folder(tmp_path, monkeypatch),
    }
    evaluation = ExpressionEvaluation(pipe=pipe, oracle=oracle, **settings)
    assert tuple(evaluation.rows()) == (*ROWS, "guided", "mixed")
    assert [of_seed(trained, seed)["no_bank"] for seed in (0, 1, 2)] == ["expressions", "no_bank", "expressions"]
    report = evaluation.run(tmp_path / "report", only=("real", "no_bank_images", "guided", "mixed"), seeds=(0, 1))
    scores = {row.name: dict(row.scores) for row in report.rows}
    common = {"expression_accuracy", "identity_accuracy", "identity_leakage"}
    assert all(common <= set(row) for row in scores.values())
    assert [name for name, row in scores.items() if "expressions_mixed" in row] == ["mixed"]
    assert (tmp_path / "report/expressions.png").is_file()
    for one, other in zip(evaluation.samples, evaluation.others, strict=True):
        assert one.person != other
