"""Reports of evaluations and benchmarks, the rows of the paired evaluation, and the HTML page."""

import json
import math
import re
from base64 import b64decode
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from tiny import tiny_pipe, tiny_unet

from weftwork.attention_processors import Style
from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.paired.samples import pairs
from weftwork.datasets.readers.inline_images import from_text
from weftwork.evaluation.core.report import Report, Row
from weftwork.evaluation.methods.paired import PairedEvaluation, outfits_of
from weftwork.evaluation.oracles.outfits import Oracle
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.files import moved_paths, path_from, stored_if_any, write_images
from weftwork.pipelines.designs.identity import content_digest
from weftwork.pipelines.designs.reader import as_design
from weftwork.pipelines.designs.run import draw, stored
from weftwork.pretrained import shipped
from weftwork.scripts.benchmarks.style import DENOISERS, steps
from weftwork.scripts.benchmarks.timing import interleaved, ratios
from weftwork.scripts.cli import main

ROWS = [
    *(
        "real",
        "reconstruction",
        "no_condition",
        "text_only",
        "pairs_without_regions",
        "pairs",
        "pairs_reworded",
        "pairs_unnamed",
        "pairs_wild",
    ),
    *("texts_swapped", "sketches_swapped", "pairs_1", "pairs_2", "pairs_3", "pairs_4"),
]
SCORES = {"color_accuracy", "pattern_accuracy", "kind_accuracy", "leakage", "sketch_iou"}


def test_a_report_prints_and_writes_the_same_rows(tmp_path: Path) -> None:
    report = Report("evaluation", "paired", [Row("a", {"x": 0.5}), Row("b", {"x": math.nan, "y": 1.0})], 3, 7, "test")
    lines = report.table().splitlines()
    assert lines[0].split() == ["paired", "x", "y"]
    assert [line.split() for line in lines[1:]] == [["a", "0.500", "-"], ["b", "-", "1.000"]]
    content = json.loads(report.write(tmp_path).read_text())
    assert content["rows"] == [
        {"name": "a", "scores": {"x": 0.5}},
        {"name": "b", "scores": {"x": None, "y": 1.0}},
    ]
    assert (content["kind"], content["split"], content["seed"], content["count"]) == ("evaluation", "test", 3, 7)
    assert content["versions"]["torch"] and content["hardware"]
    assert [p.name for p in tmp_path.iterdir()] == ["paired.json"]


def test_scores_of_several_seeds_are_means_with_their_spread(tmp_path: Path) -> None:
    rows = [Row.over_seeds("a", [{"x": 0.2}, {"x": 0.4}, {"x": 0.6}]), Row.over_seeds("b", [{"x": 0.5}])]
    report = Report("evaluation", "paired", rows, [0, 1, 2])
    assert [line.split() for line in report.table().splitlines()[1:]] == [["a", "0.400", "±0.200"], ["b", "0.500"]]
    content = json.loads(report.write(tmp_path).read_text())
    assert content["seed"] == [0, 1, 2]
    assert content["rows"] == [
        {"name": "a", "scores": {"x": 0.4}, "spread": {"x": 0.2}},
        {"name": "b", "scores": {"x": 0.5}},
    ]


@pytest.fixture(scope="module")
def evaluation() -> PairedEvaluation:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.register_modules(unet=tiny_unet(sample_size=16))
    pipe.register_to_config(_name_or_path=str(shipped("tiny-diffusion")))  # as one that was opened there
    adapter = PairedAdapter.for_denoiser(
        pipe.unet, token_dim=32, image_dim=16, text_dim=32, norm_groups=8, num_heads=4, num_layers=1,
        num_readout_tokens=4, sketch_encoder="strokes", sketch_size=32,
    )  # fmt: skip
    pipe.attach(paired=adapter)
    return PairedEvaluation(pipe=pipe, oracle=Oracle().eval(), split="validation", count=2, num_inference_steps=1)


def test_the_evaluation_fills_all_rows(evaluation: PairedEvaluation, tmp_path: Path) -> None:
    report = evaluation.run(tmp_path)
    assert [row.name for row in report.rows] == ROWS
    assert all(set(row.scores) == SCORES for row in report.rows)
    assert json.loads((tmp_path / "paired.json").read_text())["split"] == "validation"
    with Image.open(tmp_path / "paired.png") as sheet:
        assert sheet.size == (150 + 8 * 128, len(ROWS) * 128)


def test_images_of_rows_are_written_with_their_designs_and_shown(evaluation: PairedEvaluation, tmp_path: Path) -> None:
    evaluation.run(tmp_path, ("real", "pairs", "no_condition"), seeds=[3, 4])
    rows = json.loads((tmp_path / "paired.json").read_text())["rows"]
    assert [row["images"] for row in rows[:2]] == [[f"paired/{n}-{i}.png" for i in (0, 1)] for n in ("real", "pairs")]
    assert [row.get("truth") for row in rows] == [None, "real", "real"]
    assert stored_if_any(tmp_path / "paired/real-0.png") is None
    record = stored_if_any(tmp_path / "paired/pairs-1.png")
    assert record is not None
    design = as_design(record["design"], from_text)
    assert design.model == "tiny-diffusion"
    sample = outfits_of("validation", 3, 2)[1]
    assert content_digest(design.conditions["paired"]) == content_digest(pairs(sample))
    again = np.asarray(draw(evaluation.pipe, design)[0].resize((128, 128), Image.Resampling.BILINEAR), int)
    with Image.open(tmp_path / "paired/pairs-1.png") as image:
        assert np.abs(np.asarray(image, int) - again).mean() < 2, "the design makes the image"
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    links = re.findall(r'<a download="(.*?)" href="data:application/json;base64,(.*?)"', page)
    assert [name for name, _ in links] == [f"{n}-{i}.json" for n in ("pairs", "no_condition") for i in (0, 1)]
    assert json.loads(b64decode(links[1][1])) == record["design"]
    assert all(page.count(text) >= 1 for text in sample.texts) and page.count("the true image") == 4
    assert page.count('alt="paired"') == 0, "no contact sheet beside single images"


def test_generated_images_are_shown_with_their_designs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    red, design = (
        Image.new("RGB", (8, 8), "red"),
        Design("a <b>", seed=1, conditions={"style": [Style("ink", end=0.5)]}),
    )
    write_images({tmp_path / name: (red, stored(design)) for name in ("one.png", "one-maps.png", "run/class/two.png")})
    write_images({tmp_path / "other.png": (red, None)})
    (tmp_path / "run/metrics.jsonl").touch()
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "page.html")]) == 0
    assert "0 reports, 1 training runs, 1 generated images" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 1 and "<p>a &lt;b&gt;</p>" in page and "<div>ink, end 0.5</div>" in page


def test_paths_in_designs_hold_no_place_of_the_machine(tmp_path: Path) -> None:
    page, lora = tmp_path / "out/../out/page", tmp_path / "models/lora"
    assert path_from(page, lora) == "../../models/lora"
    assert path_from(page, Path("/elsewhere/lora")) == "lora"
    design = {"prompt": "", "loras": [{"lora": "/gone/lora"}], "controlnets": [{"controlnet": "net"}]}
    (tmp_path / "images/net").mkdir(parents=True)
    assert moved_paths(design, tmp_path / "images", tmp_path / "out") == {
        **design, "loras": [{"lora": "lora"}], "controlnets": [{"controlnet": "../images/net"}]
    }  # fmt: skip


def test_the_evaluation_can_be_kept_to_some_rows(evaluation: PairedEvaluation, tmp_path: Path) -> None:
    assert [row.name for row in evaluation.run(tmp_path, ("real", "pairs")).rows] == ["real", "pairs"]


def test_what_was_measured_before_an_interruption_is_kept(
    evaluation: PairedEvaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(PairedEvaluation, "rows", lambda self: {"real": lambda: drawn, "pairs": interrupted})
    drawn = (torch.zeros(2, 3, 128, 128), {"kind": 0.5})
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(tmp_path)
    rows = json.loads((tmp_path / "paired.json").read_text())["rows"]
    assert [(row["name"], row["scores"]) for row in rows] == [("real", {"kind": 0.5})]


def test_every_seed_draws_other_cases(evaluation: PairedEvaluation, tmp_path: Path) -> None:
    [row] = evaluation.run(tmp_path, ["real"], seeds=[0, 1]).rows
    alone = [evaluation.run(tmp_path, ["real"], seeds=[seed]).rows[0].scores["sketch_iou"] for seed in (0, 1)]
    assert alone[0] != alone[1]
    assert row.scores["sketch_iou"] == pytest.approx(sum(alone) / 2)


def test_a_row_that_does_not_exist_is_named(evaluation: PairedEvaluation, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows: got pears, expected some of real, .*pairs_4"):
        evaluation.run(tmp_path, ["real", "pears"])
    assert not list(tmp_path.iterdir())


def test_rounds_are_interleaved_and_ratios_taken_within_a_round() -> None:
    calls: list[str] = []
    seconds = interleaved(2, a=lambda: calls.append("a"), b=lambda: calls.append("b"))
    assert calls == ["a", "b"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
    rows = ratios({"a": [1.0, 2.0, 4.0], "b": [2.0, 2.0, 16.0]}, "a")
    assert rows["b"] == {"seconds": 2.0, "ratio": 2.0, "ratio_minimum": 1.0, "ratio_maximum": 4.0}


@pytest.mark.slow
def test_the_benchmark_of_instillation_counts_what_is_held(tmp_path: Path) -> None:
    assert main(["benchmark", "training", "--size", "tiny", "--rounds", "1", "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "benchmark-training.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["encoding", "cached"] and rows[1]["scores"]["ratio"] == 1
    assert main(["benchmark", "audio", "--size", "tiny", "--rounds", "1", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "benchmark-audio.json").read_text())
    names = ["stock", "tokens", "stock_and_controlnet", "both", "length_43", "length_86", "length_172"]
    names += ["command", "sound_2s", "sound_4s", "sound_8s"]
    assert [row["name"] for row in report["rows"]] == names
    assert main(["benchmark", "instillation", "--size", "tiny", "--rounds", "1", "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "benchmark-instillation.json").read_text())["rows"]
    scores = {row["name"]: row["scores"] for row in rows}
    assert list(scores)[:4] == ["two_passes", "instillation", "probabilities", "held"]
    assert scores["two_passes"]["ratio"] == 1
    layer = scores["down_blocks.0.attentions.0.transformer_blocks.0.attn1"]
    assert layer["query_key_bytes"] == 4 * 16 * (256 + 3 * 256)  # a query and three keys per place, 16 numbers each
    assert layer["probability_bytes"] == 4 * 256 * 3 * 256
    layers = [row for name, row in scores.items() if name.endswith("attn1")]
    assert scores["held"]["query_key_bytes"] == sum(row["query_key_bytes"] for row in layers)


def test_the_benchmark_of_linear_attention_is_a_ratio(tmp_path: Path) -> None:
    assert main(["benchmark", "linear", "--size", "tiny", "--rounds", "1", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "benchmark-linear.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["queries_1024_keys_16", "queries_1024_keys_77"]
    assert all(row["scores"]["ratio"] > 0 for row in report["rows"])


@pytest.mark.slow
def test_the_benchmark_of_growth_counts_what_is_held(tmp_path: Path) -> None:
    assert main(["benchmark", "growth", "--size", "tiny", "--rounds", "1", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "benchmark-growth.json").read_text())
    rows = {row["name"]: row["scores"] for row in report["rows"]}
    assert (
        rows["pairs_1"]["held_mb"] < rows["pairs_4"]["held_mb"] == pytest.approx(rows["side_128"]["held_mb"], rel=0.05)
    )
    assert rows["side_64"]["held_mb"] < rows["side_128"]["held_mb"]
    assert 10 < rows["data"]["kept_kb"] < 1000


def test_the_benchmark_of_styles_fills_all_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "style", "--size", "tiny", "--rounds", "2", "--output", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "benchmark-style.json").read_text())
    rows = {row["name"]: row["scores"] for row in content["rows"]}
    timed = [f"{who}{masks}" for masks in ("", "_masked") for who in ("stock", "diffusers", "weftwork")]
    assert list(rows) == [f"{name}_{row}" for name in DENOISERS["tiny"] for row in (*timed, "card")]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["benchmark-style", *rows]
    assert (content["kind"], content["count"]) == ("benchmark", 2)
    for name, scores in rows.items():
        assert all(score is not None for score in scores.values()), name
        if name.endswith("_card"):
            assert 0 < scores["percent"] < 1
        else:
            assert min(scores["ratio"], scores["attention_seconds"], scores["attention_ratio"]) > 0
        if "_weft" in name:
            assert scores["difference"] < 1e-4


@pytest.mark.parametrize("name", DENOISERS["tiny"])
def test_steps_that_are_compared_are_the_same_and_not_the_stock_one(name: str) -> None:
    tasks = steps(UNet2DConditionModel(**DENOISERS["tiny"][name]).eval())
    for task in tasks.values():
        task()
    samples = {name: task.sample for name, task in tasks.items()}
    for suffix in ("", "_masked"):
        torch.testing.assert_close(samples[f"weftwork{suffix}"], samples[f"diffusers{suffix}"], rtol=0, atol=1e-4)
        assert (samples[f"weftwork{suffix}"] - samples["stock"]).abs().max() > 1e-2
    assert (samples["weftwork_masked"] - samples["weftwork"]).abs().max() > 1e-2


# The page of all reports


def test_the_page_has_every_report_and_needs_no_network(tmp_path: Path) -> None:
    rows = [Row("a <b>", {"score": 0.5, "bytes": 12345.0}, {"score": 0.01}), Row("other", {"score": float("nan")})]
    Report("evaluation", "one", rows, [0, 1], 7, "test", {"steps": 3}).write(tmp_path / "deep/er")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "deep/er/one.png")
    Image.new("RGB", (4, 4), (0, 255, 0)).save(tmp_path / "deep/er/one-curve.png")
    Report("benchmark", "benchmark-step", [Row("plain", {"ratio": 1.0})]).write(tmp_path)
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    for name, rows in (("plain", [1]), ("bare", [{"name": "a"}])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"kind": "benchmark", "name": "others", "rows": rows}))
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("<table>") == 2 and page.count("data:image/png;base64,") == 2
    assert "a &lt;b&gt;" in page and "<b>" not in page and "12,345" in page and "±0.010" in page
    assert "seed [0, 1]" in page and "steps 3" in page and "torch " in page and "split test" in page
    assert not re.search(r"(src|href)=.?https?:", page)
    assert page.index("one</h2>") < page.index("benchmark-step</h2>")


def test_a_page_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "folders: no reports found in" in capsys.readouterr().err
    Report("benchmark", "step", [Row("plain", {"ratio": 1.0})]).write(tmp_path)
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "page.txt")]) == 2
