"""Methods in another package or a new folder are trained, generated with, evaluated, inspected, and in the demo."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image
from tiny import tiny_pipe

from weftwork import attention_processors
from weftwork.attention_processors.core.method import methods
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.design import condition_classes
from weftwork.scripts.cli import main

MODULES = {
    "__init__": """
from weftwork.attention_processors import Method

METHOD = Method(
    name="mood",
    summary="moods by name",
    adapters=("moods.adapter:MoodAdapter",),
    conditions=("moods.adapter:Mood",),
    trainer="moods.trainer:MoodTrainer",
    evaluation="moods.measurement:MEASUREMENT",
)
""",
    "adapter": '''
from dataclasses import dataclass, field

from weftwork.attention_processors import Condition, Style, StyleAdapter
from weftwork.attention_processors.core.records import TextKind, recorded


@dataclass(frozen=True, eq=False, kw_only=True)
class Mood(Condition):
    """A mood by its name."""

    needs = ("mood",)
    mood: str = field(default="", metadata=recorded(TextKind(), "Name of the mood."))


class MoodAdapter(StyleAdapter):
    condition_type = (Mood,)

    def collate(self, conditions):
        def style(one):
            return Style(one.mood, weight=one.weight) if isinstance(one, Mood) else one

        return super().collate([[style(one) for one in row] for row in conditions])
''',
    "trainer": '''
import argparse

from weftwork.training.core.trainer import Groups, Prepared, Trainer
from weftwork.training.trainers.captioned import StyleConfig


class MoodTrainer(Trainer):
    """Trains moods."""

    options = StyleConfig

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, groups: Groups) -> None:
        super().add_arguments(parser, groups)
        groups.model.add_argument("--moods", nargs="+", default=["calm"])

    def prepare(self, pipe):
        import torch

        from moods.adapter import MoodAdapter
        from weftwork.training.data.styles import StyledRecord
        from weftwork.training.tasks.style import StyleTask

        moods = self.arguments.moods
        adapter = MoodAdapter.for_denoiser(pipe.unet, styles=moods, token_dim=32)
        data = [StyledRecord(torch.zeros(4, 8, 8), moods[0], ("a thing",)) for _ in range(2)]
        return Prepared(StyleTask(adapter, pipe, self.read(StyleConfig)), data, {"data": self.data_name})
''',
    "measurement": """
from weftwork.evaluation.core.measurement import Measurement, Weights

MEASUREMENT = Measurement(
    "Measures moods.", "moods.evaluation:MoodEvaluation", {"mood": Weights("mood", "adapter folder")}
)
""",
    "evaluation": """
from dataclasses import dataclass

from moods.adapter import Mood
from weftwork.evaluation.core.runner import Evaluation


@dataclass(frozen=True, kw_only=True)
class MoodEvaluation(Evaluation):
    name = "mood"

    @classmethod
    def open(cls, pipe, folders):
        pipe.load_adapter(folders["mood"][0], "mood")
        return cls(pipe=pipe)

    def rows(self):
        return {"brightness": self._brightness}

    def _brightness(self):
        images = self.generated("mood", ["a thing"] * self.count, {"mood": [[Mood(mood="calm")]] * self.count})
        return images, {"mean": float(images.mean())}
""",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone, data, and a package with an entry point beside them."""
    root = tmp_path_factory.mktemp("external")
    for name, text in MODULES.items():
        (root / "site/moods").mkdir(parents=True, exist_ok=True)
        (root / f"site/moods/{name}.py").write_text(text)
    about = root / "site/moods-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: moods\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[weftwork.methods]\nmood = moods:METHOD\n")
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(root / "model")
    (root / "data").mkdir()
    condition = {"mood": "calm", "weight": 0.5}
    design = {"prompt": "a thing", "num_inference_steps": 1, "seed": 1, "conditions": {"mood": [condition]}}
    (root / "design.json").write_text(json.dumps(design))
    return root


def run(root: Path, text: str, site: str = "site") -> str:
    """Output of a program that sees the packages of a folder."""
    environment = {**os.environ, "PYTHONPATH": str(root / site), "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def installed(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder as working directory of this process, which sees the package."""

    def forget() -> None:
        for table in (methods, condition_classes):
            table.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "moods"]:
            del sys.modules[name]

    monkeypatch.syspath_prepend(root / "site")
    monkeypatch.chdir(root)
    forget()
    yield root
    forget()


COMMANDS = (
    """
train mood --train_data_dir data --output_dir out --pretrained_model_name_or_path model --max_train_steps 2
    --train_batch_size 2 --validation_steps 0 --checkpointing_steps 0 --moods calm wild
generate design.json --model model --adapter mood=out/final --output image.png
evaluate mood --model model --mood out/final --limit 1 --num_inference_steps 1 --output reports
inspect out/final
""".replace("\n    ", " ")
    .strip()
    .splitlines()
)


def test_all_commands_know_it(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert main(command.split()) == 0, command
    config = json.loads((installed / "out/final/config.json").read_text())
    assert config["_class_name"] == "MoodAdapter" and config["styles"] == ["calm", "wild"]
    assert config["training"]["steps"] == 2 and config["training"]["data"] == "data"
    assert "tags: [weftwork, mood]" in (installed / "out/final/README.md").read_text()
    with Image.open(installed / "image.png") as image:
        assert image.size == (64, 64) and "calm" in image.info["weftwork"]
    report = json.loads((installed / "reports/mood.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["brightness"] and report["count"] == 1
    assert "MoodAdapter" in capsys.readouterr().out and "moods" not in report["settings"]
    labels = page_labels({"mood": installed / "out/final"}, "Mood")
    assert {"Prompt", "Mood", "Weight"} <= labels


def page_labels(adapters: Mapping[str, Path], title: str) -> set[str | None]:
    """Labels on a page of the demo."""
    from weftwork.scripts.demo.command import demo, open_studio
    from weftwork.scripts.demo.pages import Context, open_pages

    studio = open_studio("model", adapters, "cpu")
    (page,) = [page for page in open_pages(Context(studio)) if page.title == title]
    return {getattr(block, "label", None) for block in demo(studio, [page]).blocks.values()}


@pytest.mark.slow
def test_a_new_folder_needs_no_table(root: Path) -> None:
    """All commands know a method by its folder beside the others."""
    package = root / "with_folder/weftwork/attention_processors"
    (package / "mood").mkdir(parents=True)
    for path in Path(attention_processors.__path__[0]).iterdir():
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)
    for name, text in MODULES.items():
        (package / f"mood/{name}.py").write_text(text.replace("moods.", "weftwork.attention_processors.mood."))
    commands = [command.replace("out/", "own/").replace(" out ", " own ") for command in COMMANDS]
    program = f"""
from weftwork import attention_processors
from weftwork.scripts.cli import main
assert attention_processors.Mood(mood="calm").weight == 1 and "MoodAdapter" in attention_processors.__all__
assert not any(main(command.split()) for command in {commands})
from pathlib import Path
from weftwork.scripts.demo.command import open_studio
from weftwork.scripts.demo.pages import Context, open_pages
print(*(page.title for page in open_pages(Context(open_studio("model", {{"mood": Path("own/final")}}, "cpu")))))
"""
    said = run(root, program, "with_folder")
    assert "Mood" in said.splitlines()[-1] and "brightness" in said


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_it_is_listed(root: Path, command: str) -> None:
    said = run(root, f"from weftwork.scripts.cli import main; main(['{command}', '--help'])")
    assert "moods by name" in said


def test_a_package_that_cannot_be_loaded_leaves_the_others(root: Path) -> None:
    program = """
import importlib.metadata, logging
logging.basicConfig(format="%(message)s")
entries = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **options: [
    *entries(**options), importlib.metadata.EntryPoint("broken", "nowhere:METHOD", "weftwork.methods")
]
from weftwork.attention_processors import methods
assert {"paired", "mood"} <= set(methods()) and "broken" not in methods()
"""
    run(root, program)
