"""Models that designs are drawn by, and the shipped adapters that belong to them, on tiny models in place of those."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from remedies import check_call
from tiny import paired_adapter, style_adapter, tiny_pipe, tiny_studio
from tiny_designs import DESIGN, read, write

from weftwork import pretrained
from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.run import open_pipeline
from weftwork.scripts.cli import main
from weftwork.training.core.trainer import Trainer
from weftwork.training.trainers.paired import PairedTrainer
from weftwork.training.trainers.views import ViewsTrainer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in place of `pretrained`, and beside it a model of a user."""
    folder = tmp_path_factory.mktemp("models") / "pretrained"
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    for number, name in enumerate(("tiny-drawings", "tiny-diffusion", "../mine")):
        with torch.no_grad():
            pipe.unet.conv_in.bias.fill_(number)
        pipe.save_pretrained(folder / name)
    for number, name in enumerate(("paired", "outfits-paired")):
        adapter = paired_adapter(pipe.unet)
        with torch.no_grad():
            next(adapter.parameters()).fill_(number)
        adapter.save_pretrained(folder / name)
    style_adapter(pipe.unet, styles=["ink"]).save_pretrained(folder / "outfits-style")
    return folder


@pytest.fixture
def shipped(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pretrained, "PLACES", (models,))
    return models


def generated(folder: Path, record: object, *options: str) -> str:
    """Returns the model in the image of a design."""
    write(folder, record)
    assert main(["generate", str(folder / "design.json"), "--output", str(folder / "out.png"), *options]) == 0
    return read(folder / "out.png")[1]["design"].get("model")


def test_an_option_comes_before_the_design_and_the_design_before_the_default(folder: Path, shipped: Path) -> None:
    of_outfits = {**DESIGN, "model": "tiny-diffusion"}
    assert generated(folder, DESIGN) == "tiny-drawings"
    drawn = read(folder / "out.png")[0]
    assert generated(folder, of_outfits) == "tiny-diffusion"
    assert (read(folder / "out.png")[0] != drawn).any()
    assert generated(folder, of_outfits, "--model", "tiny-drawings") == "tiny-drawings"
    assert (read(folder / "out.png")[0] == drawn).all()
    assert generated(folder, DESIGN, "--model", str(shipped / "tiny-diffusion")) == "tiny-diffusion"
    own = ("--model", str(shipped.parent / "mine"), "--adapter", f"paired={shipped / 'paired'}")
    assert generated(folder, of_outfits, *own) is None


def test_conditions_mean_the_adapter_of_the_open_model(shipped: Path) -> None:
    for model, adapter in (("tiny-drawings", "paired"), ("tiny-diffusion", "outfits-paired")):
        pipe = open_pipeline(model, {}, Design("", conditions={"paired": ()}))
        expected = pipe.adapters["paired"].from_pretrained(shipped / adapter)
        assert state_sha256(pipe.adapters["paired"]) == state_sha256(expected)


@pytest.mark.usefixtures("shipped")
def test_a_model_without_such_an_adapter_names_one_with_it() -> None:
    def opened(model: str) -> object:
        return open_pipeline(model, {}, Design("", conditions={"style": ()}))

    words = r"got 'style', .*paired \(shipped for tiny-drawings\).*--adapter style=PATH, or --model tiny-diffusion"
    check_call(opened, "tiny-drawings", words, "tiny-diffusion")


def test_a_shipped_adapter_of_another_shipped_model_is_refused(shipped: Path) -> None:
    def opened(model: str | Path) -> object:
        return open_pipeline(model, {"paired": shipped / "outfits-paired"}, Design(""))

    words = (
        "paired=.*outfits-paired, which belongs to tiny-diffusion, expected one of tiny-drawings; pass --model tiny-d"
    )
    check_call(opened, "tiny-drawings", words, "tiny-diffusion")
    assert opened(shipped.parent / "mine"), "it may be a copy of its backbone"


def test_no_shipped_adapter_belongs_to_a_model_of_a_user(shipped: Path) -> None:
    own = shipped.parent / "mine"
    with pytest.raises(ValueError, match=r"got 'paired', .* none \(shipped for mine\)"):
        open_pipeline(own, {}, Design("", conditions={"paired": ()}))
    assert open_pipeline(own, {"paired": shipped / "paired"}, Design("", conditions={"paired": ()})).adapters


@pytest.mark.usefixtures("shipped")
def test_many_designs_may_have_several_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": name, **DESIGN, "model": f"tiny-{name}"} for name in ("drawings", "diffusion")]
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["generate", "--input", str(folder / "all.jsonl"), "--output", str(folder / "all")]
    assert main(command) == 0
    images = [read(folder / f"all/{row['name']}.png") for row in rows]
    assert [stored["design"]["model"] for _, stored in images] == ["tiny-drawings", "tiny-diffusion"]
    assert (images[0][0] != images[1][0]).any()
    assert main(command) == 0 and "2 of 2 designs were there" in capsys.readouterr().out


def test_only_shipped_models_of_images_can_be_named() -> None:
    check_call(
        lambda model: Design("", model=model),
        "tiny-audio",
        "model: got 'tiny-audio', expected one of tiny-drawings, tiny-diffusion, tiny-rooms; change it",
        "tiny-rooms",
    )


@pytest.mark.usefixtures("shipped")
def test_a_demo_refuses_designs_of_another_model_and_saves_its_own() -> None:
    studio = tiny_studio()
    studio.model = "tiny-drawings"
    record = {"prompt": "", "conditions": {"paired": [{"text": "a red jacket"}]}}
    assert studio.design(record).model == "tiny-drawings"

    def opened(model: str) -> Design:
        studio.model = model
        return studio.design({**record, "model": "tiny-diffusion"})

    words = (
        "model: got a design for tiny-diffusion, but tiny-drawings is open; run weftwork demo --model tiny-diffusion"
    )
    check_call(opened, "tiny-drawings", words, "tiny-diffusion")


@pytest.mark.parametrize(
    ("kind", "synthetic", "init_from", "expected"),
    [
        (PairedTrainer, None, None, "tiny-drawings"),
        (PairedTrainer, "drawings", None, "tiny-drawings"),
        (PairedTrainer, "outfits", None, "tiny-diffusion"),
        (PairedTrainer, None, "outfits-paired", "tiny-diffusion"),
        (PairedTrainer, "outfits", "paired", "tiny-drawings"),
        (PairedTrainer, "outfits", "../mine", "tiny-diffusion"),
        (ViewsTrainer, None, None, "tiny-rooms"),
    ],
)
def test_the_backbone_of_training_is_that_of_the_start_or_of_the_data(
    kind: type[Trainer], synthetic: str | None, init_from: str | None, expected: str, shipped: Path
) -> None:
    start = None if init_from is None else shipped / init_from
    assert kind(argparse.Namespace(synthetic=synthetic, init_from=start)).default_backbone == expected
