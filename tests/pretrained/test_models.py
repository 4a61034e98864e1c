"""The table of shipped models and the folders that are there."""

import json
from pathlib import Path

import pytest

from weftwork import pretrained
from weftwork.pretrained import (
    ALL,
    BASELINES,
    DEFAULT_MODEL,
    IMAGE_BACKBONES,
    MODELS,
    adapters_of,
    available,
    image_backbone,
    located,
    model_name,
    shipped,
    shipped_name,
)

ROOT = Path(pretrained.__file__).parent


@pytest.mark.skipif(not (ROOT / "baselines").is_dir(), reason="not in a checkout")
def test_the_table_lists_the_folders_of_a_checkout() -> None:
    assert {*MODELS, *BASELINES} == set(available())
    assert all(shipped(name) == ROOT / name for name in MODELS)
    assert all(shipped(name) == ROOT / "baselines" / name for name in BASELINES)


def test_the_table_says_which_adapters_belong_to_which_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert adapters_of(DEFAULT_MODEL)["paired"] == "paired"
    outfits = adapters_of("tiny-diffusion")
    assert (outfits["paired"], outfits["style"]) == ("outfits-paired", "outfits-style")
    assert adapters_of(ROOT / "tiny-diffusion") == adapters_of(f"{ROOT}/baselines/../tiny-diffusion") == outfits
    assert adapters_of(tmp_path) == adapters_of("owner/repository") == {}, "none belongs to a model of the user"
    pairs = [(one.backbone, one.condition) for one in ALL.values() if one.condition]
    assert len(set(pairs)) == len(pairs), "a condition means one adapter"
    assert all(one.backbone in MODELS for one in ALL.values() if one.backbone)
    monkeypatch.setattr(pretrained, "PLACES", (tmp_path,))
    assert adapters_of("tiny-diffusion") == {}, "none that is not installed"


def test_a_name_and_its_folder_stand_for_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        shipped_name("tiny-rooms") == shipped_name(ROOT / "tiny-rooms") == image_backbone("tiny-rooms") == "tiny-rooms"
    )
    assert shipped_name("tiny-audio") == "tiny-audio" and image_backbone("tiny-audio") is None
    (tmp_path / "tiny-rooms").mkdir()
    monkeypatch.chdir(tmp_path)
    assert shipped_name("tiny-rooms") == "tiny-rooms" and shipped_name(tmp_path / "tiny-rooms") is None


@pytest.mark.skipif(not set(IMAGE_BACKBONES) <= set(available()), reason="the shipped models are not installed")
def test_models_of_designs_are_stable_diffusion_folders() -> None:
    for name in IMAGE_BACKBONES:
        parts = json.loads((shipped(name) / "model_index.json").read_text())
        assert parts["_class_name"] == "StableDiffusionPipeline"
        folders = {part for part, (library, _) in ((k, v) for k, v in parts.items() if isinstance(v, list)) if library}
        assert all((shipped(name) / part).is_dir() for part in folders)


def test_a_model_that_is_not_installed_is_named_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "PLACES", (tmp_path,))
    with pytest.raises(
        ValueError, match=r"'oracle' is not installed .* pretrained/baselines/oracle is missing; a check"
    ):
        shipped("oracle")
    with pytest.raises(ValueError, match="pretrained/paired is missing"):
        shipped("paired")
    with pytest.raises(ValueError, match="got 'mine', expected one of: none is installed"):
        shipped("mine")


def test_an_unknown_shipped_model_is_named() -> None:
    with pytest.raises(ValueError, match=r"shipped: got '\.\./scripts', expected one of: "):
        shipped("../scripts")


def test_a_path_may_be_a_name_or_the_folder_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert located("paired") == shipped("paired")
    (tmp_path / "run/final").mkdir(parents=True)
    assert located(tmp_path / "run") == tmp_path / "run/final"
    (tmp_path / "paired").mkdir()
    assert located("paired") == Path("paired")  # a folder here comes first
    (tmp_path / "run/config.json").write_text("{}")
    assert located(tmp_path / "run") == tmp_path / "run"


@pytest.mark.skipif(not (ROOT / "baselines").is_dir(), reason="not in a checkout")
def test_cards_of_adapters_and_backbones_say_how_to_use_them() -> None:
    """`python -m weftwork.scripts.maintenance.write_usage` writes the snippets."""
    from weftwork.scripts.maintenance.write_usage import BACKBONES, shipped_adapters, snippet, with_snippet

    adapters = shipped_adapters()
    assert {"paired-global-sketch", "aligned-views", "spatial-audio-tokens"} <= set(adapters)
    for name in (*adapters, *BACKBONES):
        card = (shipped(name) / "README.md").read_text(encoding="utf-8")
        assert with_snippet(card, snippet(name)) == card, name
    assert with_snippet("# a\n", "x = 1\n") == "# a\n\n```python\nx = 1\n```\n"


def test_a_model_is_recorded_by_the_name_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine/final").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    assert (
        model_name(str(tmp_path / "mine/final")) == model_name("final") == model_name(str(tmp_path / "mine")) == "mine"
    )
    assert model_name("owner/repository") == "owner/repository"
