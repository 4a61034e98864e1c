"""Messages of commands beside their results: files that they replace, and no warnings of libraries."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
from tiny_designs import DESIGN, generate, write

from weftwork.scripts import report
from weftwork.scripts.cli import ROUTINE, main
from weftwork.scripts.outputs import naming_replaced


def test_replaced_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, same, new = (tmp_path / name for name in ("old", "same", "new"))
    old.write_text("1")
    same.write_text("1")
    with pytest.raises(OSError), naming_replaced([old, same, new, tmp_path]):
        new.write_text("2")
        old.unlink()
        old.write_text("22")
        raise OSError
    assert capsys.readouterr().out == f"replaced: {old}\n"


def test_generate_names_the_image_that_it_replaces(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, DESIGN)
    assert generate(folder, models, "--maps") == 0
    assert "replaced" not in capsys.readouterr().out
    assert generate(folder, models) == 0
    assert f"replaced: {folder / 'out/picture.png'}\n" in capsys.readouterr().out


def test_report_names_the_page_that_it_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"kind": "evaluation", "name": "a", "rows": []}))
    command = ["report", str(tmp_path), "--output", str(tmp_path / "page.html")]
    assert main(command) == 0 and "replaced" not in capsys.readouterr().out
    assert main(command) == 0 and f"replaced: {tmp_path / 'page.html'}" in capsys.readouterr().out


def test_warnings_for_developers_stay_out_of_the_output(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(_: Any) -> None:
        warnings.warn("torch.nn.utils.weight_norm is deprecated", FutureWarning, stacklevel=1)
        for name, part in ROUTINE.items():
            logging.getLogger(name).warning("Something %s, in a sentence", part)
            logging.getLogger(name).warning("some weights are missing")

    monkeypatch.setattr(report, "run", run)
    for name in ROUTINE:
        caplog.set_level(logging.WARNING, logger=name)  # whatever was set for the whole library
    assert main(["report", "x"]) == 0
    assert [record.getMessage() for record in caplog.records] == ["some weights are missing"] * len(ROUTINE)
    with pytest.warns(FutureWarning):
        run(None)
