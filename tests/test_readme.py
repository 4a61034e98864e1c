"""Documentation tests: Python snippets run, commands have valid arguments, links resolve."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import paired_adapter, style_adapter, tiny_pipe
from tiny_transformers import flux

from weftwork.datasets.drawings.collection import Drawings
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pretrained import available
from weftwork.pretrained import shipped as shipped_model
from weftwork.scripts import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "finetuning" / "README.md"]
CARDS = sorted((ROOT / "pretrained").glob("**/README.md"))
MAX_README_LINES = 150


def unwrapped(page: Path) -> str:
    """Returns the text of a page with lines that end in a backslash joined."""
    return page.read_text(encoding="utf-8").replace("\\\n", "")


def blocks(page: Path, language: str) -> Iterator[tuple[str, str]]:
    """Yields name and text of a page's code blocks."""
    for index, block in enumerate(re.findall(rf"```{language}\n(.*?)```", unwrapped(page), re.DOTALL)):
        yield f"{page.stem}-{index}", block


SNIPPETS = dict(block for page in PAGES for block in blocks(page, "python"))
SNIPPETS |= {
    f"card-{card.parent.name}": block
    for card in CARDS
    if "baselines" not in card.parts
    for _, block in blocks(card, "python")
}
LINES = [line for page in PAGES for _, text in blocks(page, "sh") for line in text.splitlines()]
LINES += [line.strip() for card in CARDS for line in re.findall(r"^    .*", unwrapped(card), re.MULTILINE)]
COMMANDS = [line for line in LINES if line.startswith("weftwork ")]


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a sketch, and the options of the training guide in `run.toml`."""
    shutil.copy(ROOT / "examples/outfit/jacket.png", tmp_path / "sketch.png")
    (_, options), *_ = blocks(ROOT / "docs" / "training.md", "toml")
    (tmp_path / "run.toml").write_text(options, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copy_examples(room: Path, text: str) -> None:
    """Copies those folders of `examples` that a text names."""
    for folder in (ROOT / "examples").iterdir():
        if f"examples/{folder.name}" in text:
            shutil.copytree(folder, room / "examples" / folder.name)


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of untrained models of the same classes as the shipped ones."""
    folder = tmp_path_factory.mktemp("pretrained")
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    for name in ("tiny-drawings", "tiny-diffusion"):
        pipe.save_pretrained(folder / name)
    for name in ("paired", "outfits-paired"):
        paired_adapter(pipe.unet).save_pretrained(folder / name)
    style_adapter(pipe.unet, styles=["ink", "pastel", "neon"]).save_pretrained(folder / "outfits-style")
    style_adapter(pipe.unet, styles=["noto", "fluent", "twemoji"]).save_pretrained(folder / "style")
    return folder


def execute(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(text, "snippet", "exec"), names)
    return names


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_run(name: str, room: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shipped(model: str) -> Path:
        """Returns the untrained model if there is one; the shipped audio models are small enough."""
        return tiny_models / model if (tiny_models / model).is_dir() else shipped_model(model)

    for module in ("weftwork.pipelines", "weftwork.pretrained"):
        monkeypatch.setattr(f"{module}.shipped", shipped)
    copy_examples(room, SNIPPETS[name])
    if "examples/drawings" in SNIPPETS[name]:  # a fourth of them, since they are rendered
        drawings = Drawings.read(room / "examples/drawings")
        shutil.rmtree(room / "examples/drawings")
        drawings.only(list(drawings.vectors), list(drawings.subjects)[::4]).save(room / "examples/drawings")
    if "my-flux" in SNIPPETS[name]:
        pipe = flux()
        pipe.save_pretrained(room / "my-flux")
        style_adapter(pipe.transformer, styles=["ink", "pastel"]).save_pretrained(room / "my-style")
    smaller = re.sub(r"num_inference_steps=\d+", "num_inference_steps=1", SNIPPETS[name])
    execute(smaller.replace("height=512, width=512", "height=32, width=32"))


@pytest.mark.slow
@pytest.mark.skipif("paired" not in available(), reason="the shipped models are not installed")
def test_the_first_snippet_runs_on_the_shipped_models(room: Path) -> None:
    copy_examples(room, SNIPPETS["README-0"])
    torch.set_num_threads(2)
    image = execute(SNIPPETS["README-0"])["image"]
    assert image.size[0] >= 128
    assert (room / "scene.png").is_file()


def test_commands_have_these_arguments(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_examples(room, " ".join(COMMANDS))
    for line in COMMANDS:
        arguments = shlex.split(line, comments=True)[1:]
        if arguments[0] not in cli.commands():  # of a checkout alone
            continue
        try:
            assert cli._parser().parse_args(arguments).command == arguments[0]
        except SystemExit:
            pytest.fail(f"{line}: {capsys.readouterr().err}")


@pytest.mark.skipif(not (ROOT / "datasets").is_dir(), reason="not in a checkout")
def test_links_lead_somewhere() -> None:
    for page in [*PAGES, *CARDS, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


def test_documented_commands_are_found() -> None:
    assert {shlex.split(line)[1] for line in COMMANDS} >= {"generate", "train", "evaluate", "benchmark", "convert"}


def test_readme_names_the_scripts_and_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_README_LINES
    assert text.index("scripts/quickstart.sh") < text.index("scripts/test.sh") < text.index("docs/quickstart.png")
