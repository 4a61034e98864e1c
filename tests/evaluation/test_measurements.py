"""Weights of measurements: given, shipped, or missing from an installation."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from weftwork.evaluation.measurements import measured
from weftwork.evaluation.measurements.drawings import MEASUREMENT as DRAWINGS
from weftwork.evaluation.measurements.expressions import MEASUREMENT as EXPRESSIONS
from weftwork.evaluation.measurements.paired import MEASUREMENT as PAIRED
from weftwork.pretrained import available
from weftwork.scripts.cli import main


def options(**given: Any) -> Namespace:
    return Namespace(**{"model": None, "adapter": None, "baseline": None, "limit": 1, "rows": (), **given})


def test_rows_without_their_weights_are_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("weftwork.evaluation.core.measurement.available", lambda: ["outfits-paired"])
    with caplog.at_level("INFO", "weftwork"):
        folders = PAIRED.folders(options())
    assert list(folders) == ["adapter"] and folders["adapter"][0].name == "outfits-paired"
    (message,) = caplog.messages
    assert message.startswith("rows left out: global_sketch, global_sketch_unnamed; paired-global-sketch is not in")
    assert "--baseline" in message and "pretrained/baselines" in message
    caplog.clear()
    for rows, named in ((["pairs"], []), (["pairs", "global_sketch"], ["rows left out: global_sketch"])):
        with caplog.at_level("INFO", "weftwork"):
            PAIRED.folders(options(rows=rows))
        assert [message.partition(";")[0] for message in caplog.messages] == named


def test_a_baseline_is_left_out_beside_own_weights_unless_given() -> None:
    assert list(PAIRED.folders(options(adapter=Path("mine")))) == ["adapter"]
    given = PAIRED.folders(options(adapter=Path("mine"), baseline=Path("other")))
    assert given == {"adapter": [Path("mine")], "baseline": [Path("other")]}


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ValueError, match="adapter: got none, and none is shipped for this backbone"):
        PAIRED.folders(options(model="mine"))
    given = PAIRED.folders(options(model="mine", adapter=Path("mine")))
    assert given == {"adapter": [Path("mine")]}


@pytest.mark.skipif("designer-oracle" not in available(), reason="baselines are in a checkout only")
def test_an_oracle_is_for_all_backbones() -> None:
    given = options(model="mine", drawings=None, cache_dir=None, **dict.fromkeys(DRAWINGS.weights))
    assert [path.name for path in DRAWINGS.folders(given)["oracle"]] == ["designer-oracle"]
    assert "paired" not in DRAWINGS.folders(given)


def test_a_limit_is_at_least_one(capsys: pytest.CaptureFixture[str]) -> None:
    for name in measured():
        assert main(["evaluate", name, "--limit", "0"]) == 2
        assert "limit: got 0, expected at least 1" in capsys.readouterr().err
    for options, message in (
        (("--num_inference_steps", "0"), "num_inference_steps: got 0, expected at least 1"),
        (("--seed", "-1"), "seed: got -1, expected different whole numbers of at least 0; change them"),
        (("--seed", "1", "2", "1"), "seed: got 1, 2, 1, expected different whole numbers"),
        (("--guidance_scale", "nan"), "guidance_scale: got nan, expected a finite number of at least 0"),
        (("--guidance_scale", "inf"), "guidance_scale: got inf, expected a finite number of at least 0"),
        (("--guidance_scale", "-1"), "guidance_scale: got -1.0, expected a finite number of at least 0"),
        (("--rows", "pairs", "real", "pairs"), "rows: got pairs, real, pairs, expected different names"),
    ):
        assert main(["evaluate", "paired", *options]) == 2
        assert message in capsys.readouterr().err


def test_weights_that_are_not_shipped_are_named_by_their_content(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("weftwork.evaluation.core.measurement.available", lambda: ["expressions"])
    given = options(oracle=Path("mine"), expressions=None, no_bank=None, people=Path("parts"))
    with caplog.at_level("INFO", "weftwork"):
        assert list(EXPRESSIONS.folders(given)) == ["people", "oracle"]
    assert [message.partition("; ")[0] for message in caplog.messages] == [
        "rows left out: names, guided, images, mixed",
        "rows left out: no_bank_names, no_bank_images",
    ]
    assert all(message.endswith(", none is shipped") for message in caplog.messages)
    given.oracle = None
    with pytest.raises(ValueError, match="oracle: got none, and none is shipped for this backbone"):
        EXPRESSIONS.folders(given)
