"""Remedies in errors of commands: the same command succeeds after them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from remedies import Wrong, check_command
from tiny import drawn_sketch, tiny_pipe
from tiny_designs import PAIR

from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.evaluation.core.report import Report, Row
from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
from weftwork.pretrained import available
from weftwork.scripts.cli import main

DESIGN: dict[str, Any] = {"prompt": "a", "seed": 3, "num_inference_steps": 1, "height": 64}
DESIGNS: dict[str, Any] = {
    "plain": DESIGN,
    "pairs": {**DESIGN, "conditions": {"paired": [PAIR]}},
    "own": {**DESIGN, "conditions": {"mine": [PAIR]}, "loras": [{"lora": "lora"}]},
    "damaged": {**DESIGN, "loras": [{"lora": "jacket.png"}]},
    "whole": {**DESIGN, "conditions": {"paired": [PAIR, {"global_sketch": "jacket.png"}]}},
    "long": {**DESIGN, "prompt": "x " * 200},
}
LINES: dict[str, list[Any]] = {
    "two": [{"name": "a", **DESIGNS["pairs"]}, {"name": "b", **DESIGNS["pairs"]}],
    "alike": [{"name": "a", **DESIGNS["pairs"]}, {"name": "a-maps", **DESIGNS["pairs"]}],
    "plain": [DESIGN],
    "long": [DESIGNS["long"]],
}


@pytest.fixture(scope="module")
def files(models: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A tiny model, adapters, designs, and a photograph with depth and modules for its views."""
    folder = tmp_path_factory.mktemp("files")
    drawn_sketch().save(folder / "jacket.png")
    for name, design in DESIGNS.items():
        (folder / f"{name}.json").write_text(json.dumps(design))
    for name, lines in LINES.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pipe: Any = tiny_pipe(AlignedViewsPipeline)
    AlignedViews.for_denoiser(pipe.unet, rank=1).save_pretrained(folder / "modules")
    pipe.save_pretrained(folder / "views")
    Image.new("RGB", (64, 64), "navy").save(folder / "photo.png")
    np.save(folder / "depth.npy", 2 + np.linspace(0, 1, 64)[:, None] + np.zeros((64, 64)))
    np.save(folder / "wide.npy", np.ones((9, 64)))
    (folder / "moai/geometry_reference").mkdir(parents=True)
    (folder / "moai/geometry_reference/config.json").write_text("{}")
    (folder / "folder.png").mkdir()
    shutil.copytree(models / "paired", folder / "unfinished/checkpoint-1")
    (folder / "unfinished/checkpoint-1/state").mkdir()
    (folder / "unfinished/checkpoint-1/state/progress.json").write_text("{}")
    return [*folder.iterdir(), *models.iterdir()]


@pytest.fixture
def place(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with links to these files."""
    for path in files:
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


GENERATE = "generate --model model"
PLAIN = f"{GENERATE} plain.json"
PAIRS = f"{GENERATE} pairs.json --adapter paired=paired"
MANY = f"{GENERATE} --input two.jsonl --adapter paired=paired --maps"
GENERATIONS: dict[str, list[Wrong]] = {
    f"{PLAIN} --num_images 2 --output a.png": [
        (GENERATE, "got neither or both; pass one design file"),
        (f"{PLAIN} --input two.jsonl", "got neither or both; pass one design file"),
        (f"{PLAIN} --num_images 65", "expected 1 to 64; run the command again for more"),
        (f"{PLAIN} --output a.jpg", "expected a name that ends in .png; the design is stored in it"),
        (f"{PLAIN} --output folder.png", "got 'folder.png', a folder, expected a file; add a name"),
        (f"{PLAIN} --maps", "got a design without conditions, .* or leave --maps out"),
        (f"{PLAIN} --model x", r"a shipped model \(tiny-drawings, tiny-diffusion, tiny-rooms\); check the path"),
        (f"{GENERATE} long.json", "prompt: got 200 tokens, expected at most 75; shorten it"),
    ],
    f"{PAIRS} --maps": [
        (f"{PLAIN} --maps", "got a design without conditions, expected some; add pairs"),
        (f"{PAIRS} --adapter paired=x", "got 'paired' twice, expected each name once; drop one"),
        (f"{GENERATE} pairs.json --adapter paired=x", "expected a folder or a style card there; check the path"),
        (f"{GENERATE} whole.json --adapter paired=paired", "trained without one; leave it out"),
    ],
    f"{PAIRS} --inspect seen --ablate layers": [
        (f"{PLAIN} --inspect seen", "inspect: got a design without conditions, .*; add pairs or leave --inspect out"),
        (f"{PAIRS} --ablate layers", "got 'layers' without --inspect; add it, or leave --ablate out"),
        (f"{MANY} --inspect seen", "got it with --input, expected one design; pass the file of that design instead"),
        (f"{PAIRS} --inspect pairs.json", "got 'pairs.json', a file, expected a folder; choose another name"),
    ],
    MANY: [
        (GENERATE, "or --input with a file of many"),
        (MANY.replace("two", "alike"), "got 'a' and 'a-maps', which both write a-maps.png; rename one"),
        (MANY.replace("two", "plain"), "000001: maps: got a design without conditions, expected some; add pairs"),
        (MANY.replace("paired=paired", "paired=x"), "got 'x', where nothing is; check the path"),
        (
            f"{GENERATE} --input long.jsonl",
            "1 could not be made; correct these designs and run the command again\n  000001: prompt: got 200",
        ),
    ],
    f"{GENERATE} own.json --adapter mine=paired": [
        (f"{GENERATE} own.json", "'mine', for which there is no adapter.*; pass --adapter mine=PATH"),
        (f"{GENERATE} own.json --adapter mine=paired --guidance_scale 1e38", "NaN or infinite.*; lower guidance_scale"),
        (f"{GENERATE} damaged.json", "lora: got '.*', which cannot be opened .*; copy or save it again"),
    ],
}


@pytest.mark.parametrize("right", GENERATIONS)
@pytest.mark.usefixtures("place")
def test_remedies_of_generate(right: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_command(right, GENERATIONS[right], capsys)


def test_other_images_are_kept_elsewhere_or_removed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many, made = f"{GENERATE} --output many --input plain.jsonl", place / "many/000001.png"
    assert main(many.split()) == 0
    other = f"{many} --seed 7"
    wrong = [
        (other, "got an image of another design; choose another --output"),
        (f"{many} --adapter paired=paired", "got an image made with other adapter paired; choose another --output"),
    ]
    check_command(f"{other} --output elsewhere", wrong, capsys)
    drawn_sketch().save(made)
    assert main(many.split()) == 2
    assert "got an image that weftwork did not make; choose another --output, or remove it" in capsys.readouterr().err
    made.unlink()
    assert main(many.split()) == 0


SOUND = "sound --prompt steps --seconds 1 --num_inference_steps 1"
VIEW = "view photo.png --depth depth.npy --model views --adapter modules --num_inference_steps 1"
MEASURE = "evaluate paired --model model --adapter paired --rows real --limit 1 --output reports"
COMMANDS: dict[str, list[Wrong]] = {
    "inspect paired": [
        ("inspect folder.png", "no safetensors files found; see `weftwork convert`"),
        ("inspect jacket.png", "got no valid safetensors .*; copy or convert it again"),
    ],
    "inspect unfinished/checkpoint-1": [
        ("inspect unfinished", "got a run without a result; pass one of its checkpoints, unfinished/checkpoint-1"),
    ],
    SOUND: [
        ("sound --seconds 1", "got nothing to follow; pass a video, --prompt or one of --boxes, --depth"),
        (f"{SOUND} --keyframes", "keyframes: has no effect without --boxes; pass it, or leave it out"),
        (f"{SOUND} --apart", "apart: has no effect without --boxes; pass it, or leave it out"),
        (f"{SOUND} --audio_encoder x", "audio_encoder: has no effect without --like; pass it, or leave it out"),
        (f"{SOUND} --guidance_scale nan", "got nan, expected a finite number of at least 0; 1 turns guidance off"),
        (f"{SOUND} --guidance_scale -1", "guidance_scale: got -1.0, .*; 1 turns guidance off"),
        (f"{SOUND} --num_inference_steps 0", "num_inference_steps: got 0, expected at least 1; raise it"),
    ],
    VIEW: [
        (f"{VIEW} --field_of_view 180", "expected degrees between 1 and 179; change it"),
        (f"{VIEW} --num_inference_steps 0", "num_inference_steps: got 0, expected at least 1; raise it"),
        (f"{VIEW} --turn 120", "expected up to 90 degrees and at least 3 frames; change them"),
        (f"{VIEW} --vae x", "vae: has no effect with views, which is no folder of convert moai; leave it out"),
        (VIEW.replace("depth.npy", "wide.npy"), "expected .* of its aspect; save the depth of the whole image"),
        (VIEW.replace("depth.npy", "model"), "without a depth model .*; download a model of transformers"),
        (VIEW.replace("views", "moai"), "needed by the MoAI networks in moai; pass --vae FOLDER"),
        (
            f"{VIEW.replace('views', 'moai')} --vae x --image_encoder y",
            "adapter: got 'modules', has no effect with MoAI networks; leave it out",
        ),
    ],
    MEASURE: [
        (MEASURE.replace("1", "0"), "limit: got 0, expected at least 1; raise it"),
        (MEASURE.replace("real", "false"), "rows: got false, expected some of real, .*; correct the names"),
        (MEASURE.replace("--adapter paired", ""), "adapter: got none, .*; train one, pass --adapter"),
        ("benchmark step --size tiny", "size: has no effect with this benchmark, but with style, .*; leave it out"),
        ("benchmark step --design x", "design: has no effect with this benchmark, but with generate; leave it out"),
        ("report .", "no reports found in .; run weftwork evaluate, benchmark, train or generate first"),
    ],
    "evaluate aligned-views --model views --detached modules --rows real --limit 1 --output reports": [
        (
            "evaluate aligned-views --model views --rows real --limit 1",
            "views: got none, .*; pass one of --no_instillation, --.*, --detached, --distilled$",
        ),
    ],
    "report reports --output page.html": [
        ("report reports --output page.txt", "expected a name that ends in .html; change it"),
    ],
}


@pytest.mark.parametrize("right", COMMANDS)
def test_remedies_of_commands(right: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if right.startswith("evaluate") and "oracle" not in available():
        pytest.skip("the oracle is in a checkout only")
    if right.startswith("report"):
        Report("evaluation", "paired", [Row("a", {"x": 0.5})]).write(place / "reports")
    check_command(right, COMMANDS[right], capsys)
