"""The command line: help without heavy imports, the version, and options of trainers that mirror the adapters'."""

import os
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from weftwork.attention_processors.core.method import methods
from weftwork.datasets.readers.errors import NotFiniteError, UserError
from weftwork.evaluation.measurements import measured
from weftwork.scripts.cli import COMMANDS, main

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


def test_termination_leaves_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)
                (Path(folder) / "last").touch()

    monkeypatch.setattr("weftwork.scripts.inspect_folder.run", run)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "folder"])
    assert ended.value.code == 143 and not list(tmp_path.iterdir())


WAITING = """
import importlib, os, sys
importlib.import_module(sys.argv[1])
assert "torch" not in sys.modules
print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize("module", ["cli", "benchmarks"])
def test_threads_do_not_spin_unless_the_user_wants_it(module: str) -> None:
    for given, expected in ((None, "passive"), ("active", "active")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
        command = [sys.executable, "-c", WAITING, f"weftwork.scripts.{module}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == f"{expected}\n"


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
