"""The evaluation of ControlNets on small hands, on a tiny model."""

import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diffusers import ControlNetModel
from PIL import Image
from tiny import tiny_pipe

from weftwork.attention_processors.parts.cross_gates import CrossGatedControlNetModel
from weftwork.datasets.readers.images import read_image
from weftwork.evaluation.methods.parts import PartEvaluation
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.files import stored_if_any
from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import draw, open_pipeline
from weftwork.scripts.cli import main
from weftwork.training.tasks.controlnet import new_controlnet

SCORES = {"tip_error", "cuff_error", "tips_found", "tips_correct"}


def test_rows_of_a_tiny_model(tmp_path: Path) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    new_controlnet(pipe, 0.0).save_pretrained(tmp_path / "first")
    new_controlnet(pipe, 0.0).save_pretrained(tmp_path / "second")
    CrossGatedControlNetModel.of(new_controlnet(pipe, 0.0)).save_pretrained(tmp_path / "gated")
    given = {"parts": [tmp_path / "first", tmp_path / "second"], "global_only": [tmp_path / "second"]}
    given["cross_gated"] = [tmp_path / "gated"]
    first = replace(PartEvaluation.open(pipe, given), count=3, num_inference_steps=1)
    assert tuple(first.rows()) == (
        "real", "reconstruction", "other_hand", "no_condition", "parts", "global_only",
        "cross_gated",
    )  # fmt: skip
    report = first.run(tmp_path / "report", seeds=(0, 1))
    scores = {row.name: dict(row.scores) for row in report.rows}
    assert all(set(row) == SCORES for row in scores.values())
    assert scores["real"]["tip_error"] < 0.05 < 0.3 < scores["other_hand"]["tip_error"]
    assert scores["parts"] == scores["cross_gated"] == scores["no_condition"]  # ControlNets are new
    assert (tmp_path / "report/parts.png").is_file()
    record = stored_if_any(tmp_path / "report/parts/parts-1.png")
    assert record is not None and record["design"]["controlnets"][0]["controlnet"] == "../../first"
    assert main(["report", str(tmp_path / "report"), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("<div>first") == 3 and str(tmp_path) not in page
    link = re.search(r'download="parts-1.json" href="data:application/json;base64,(.*?)"', page)
    assert link is not None
    (tmp_path / "saved.json").write_bytes(b64decode(link[1]))
    design = read_design(tmp_path / "saved.json")
    assert design.controlnets[0].controlnet == tmp_path / "first"
    pipe.save_pretrained(tmp_path / "model")
    [again] = draw(open_pipeline(tmp_path / "model", {}, design), design)
    shown = read_image(tmp_path / "report/parts/parts-1.png")
    again = again.resize(shown.size, Image.Resampling.BILINEAR)
    assert np.abs(np.subtract(shown, again, dtype=float)).mean() < 2, "the design makes the image"


def test_the_seed_chooses_the_controlnet(tmp_path: Path) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    nets = [ControlNetModel.from_unet(pipe.unet) for _ in range(2)]
    used = []
    for seed in (0, 1):
        evaluation = PartEvaluation(pipe=pipe, controlnets={"parts": nets}, seed=seed)
        used.append(evaluation.rows()["parts"].args[1])  # pyright: ignore[reportFunctionMemberAccess]
    assert used[0] is nets[0] and used[1] is nets[1]


def test_the_command_leaves_out_rows_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path / "model")
    given = ["evaluate", "parts", "--model", str(tmp_path / "model"), "--limit", "2", "--num_inference_steps", "1"]
    assert main([*given, "--output", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert "other_hand" in table and "global_only" not in table
