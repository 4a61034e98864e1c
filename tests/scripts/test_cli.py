"""The command line: help without heavy imports, the version, and options of trainers that mirror the adapters'."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from weftwork.attention_processors.audio import adapter as audio
from weftwork.attention_processors.core.method import methods
from weftwork.attention_processors.reference import projections
from weftwork.attention_processors.views import adapter as views
from weftwork.datasets.readers.errors import NotFiniteError, UserError
from weftwork.evaluation.measurements import measured
from weftwork.scripts.cli import COMMANDS, main
from weftwork.training.trainers import audio as audio_trainer
from weftwork.training.trainers import reference as reference_trainer
from weftwork.training.trainers import views as views_trainer

PROGRAM = """
import sys
from weftwork.scripts.cli import main

for words in {commands!r}:
    try:
        main(words.split())
    except SystemExit as end:
        assert end.code == 0, words
    heavy = {{"torch", "diffusers", "transformers"}} & set(sys.modules)
    assert not heavy, (words, heavy)
"""


def test_help_imports_no_heavy_library() -> None:
    commands = ["--help", "--version", "inspect paired", *(f"{name} --help" for name in COMMANDS)]
    commands += [f"train {method.name} --help" for method in methods().values() if method.trainer]
    commands += [f"evaluate {name} --help" for name in measured()]
    program = PROGRAM.format(commands=commands)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"weftwork {version('weftwork')}\n"


def test_errors_of_users_are_one_class() -> None:
    """Other errors are bugs and show their traceback."""
    root = Path(__file__).resolve().parents[2]
    folders = ("attention_processors", "pipelines", "datasets", "training", "evaluation", "pretrained", "scripts")
    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    assert not [str(path) for path in files if "raise ValueError(" in path.read_text(encoding="utf-8")]
    assert issubclass(UserError, ValueError) and issubclass(NotFiniteError, UserError | FloatingPointError)


def test_a_device_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "paired", "--device", "tpu"]) == 2
    assert "device: got 'tpu', expected cpu or a device of this machine" in capsys.readouterr().err


def test_choices_of_trainers_are_those_of_adapters() -> None:
    assert tuple(projections.PROJECTIONS) == reference_trainer.PROJECTIONS
    assert views_trainer.SHARINGS == views.SHARINGS
    assert (audio_trainer.TIME_CODES, audio_trainer.PROJECTIONS) == (audio.TIME_CODES, audio.PROJECTIONS)
