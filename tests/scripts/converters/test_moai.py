"""Published MoAI files become diffusers' models that compute the same, or are refused by name."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny import tiny_unet

from weftwork.attention_processors.views.correspondence import CorrespondenceEncoder
from weftwork.scripts.cli import main
from weftwork.scripts.converters.command import convert_from_moai
from weftwork.scripts.converters.moai import FILES, OUTPUT, to_denoiser

SIZES = {"head_dim": 8, "groups": 8}
CHANNELS = {"image": 4, "geometry": 8, "image_reference": 4, "geometry_reference": 8}
LAYOUT: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "layers_per_block": 2,
    "cross_attention_dim": 24,
}


def network(channels: int) -> UNet2DConditionModel:
    return tiny_unet(in_channels=channels, **LAYOUT)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as the authors write them, of tiny networks of the same classes."""
    folder = tmp_path_factory.mktemp("main")
    for role, channels in CHANNELS.items():
        state = network(channels).state_dict()
        torch.save({n: v for n, v in state.items() if "reference" not in role or n not in OUTPUT}, folder / FILES[role])
    torch.manual_seed(0)
    torch.save(CorrespondenceEncoder(20, 16).state_dict(), folder / FILES["correspondence"])
    return folder


@pytest.fixture
def source(written: Path, tmp_path: Path) -> Path:
    """Files of one test, which may change them."""
    return shutil.copytree(written, tmp_path / "main")


@torch.no_grad()
def test_models_compute_what_they_did(source: Path, tmp_path: Path) -> None:
    convert_from_moai(source, tmp_path / "out", **SIZES)
    for role, channels in CHANNELS.items():
        model: Any = UNet2DConditionModel.from_pretrained(tmp_path / "out" / role, use_safetensors=True)
        x, context = torch.randn(1, channels, 8, 8), torch.randn(1, 1, 24)
        if "reference" in role:
            assert bool((model(x, 0, context).sample == 0).all())
        else:
            assert torch.equal(model(x, 500, context).sample, network(channels)(x, 500, context).sample)
        theirs, ours = network(channels).state_dict(), model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name not in OUTPUT)
    encoder: Any = CorrespondenceEncoder.from_pretrained(tmp_path / "out" / "correspondence")
    torch.manual_seed(0)
    assert all(torch.equal(v, encoder.state_dict()[n]) for n, v in CorrespondenceEncoder(20, 16).state_dict().items())


def test_the_published_size_is_read_off_the_shapes() -> None:
    sizes: dict[str, Any] = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20)}
    with torch.device("meta"):
        published = UNet2DConditionModel(**sizes, use_linear_projection=True)
        state = published.state_dict()
    state = {name: torch.empty(value.shape, device="meta") for name, value in state.items()}
    config = to_denoiser(state).config
    for name in ("block_out_channels", "attention_head_dim", "down_block_types", "up_block_types", "layers_per_block"):
        assert tuple_of(config[name]) == tuple_of(published.config[name]), name
    assert len(state) == 686


def tuple_of(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("role", "change", "message"),
    [
        ("image", lambda state: state.pop("conv_in.weight"), r"denoising_unet\.pth: conv_in\.weight: got none"),
        (
            "geometry",
            lambda state: state.pop("mid_block.resnets.0.conv1.bias"),
            r"geometry_unet\.pth: keys: 1 are missing",
        ),
        ("image", lambda state: state.update(extra=torch.zeros(1)), r"1 unexpected \(first: extra\)"),
        (
            "image",
            lambda state: state.update({"time_embedding.linear_1.bias": torch.zeros(3)}),
            "got shape .*; pass a whole",
        ),
        ("correspondence", lambda state: state.pop("conv_out.weight"), r"pose_guider\.pth: conv_out\.weight: got none"),
        (
            "correspondence",
            lambda state: state.update({"conv_in.weight": torch.zeros(16, 9, 3, 3)}),
            "in_channels: got 9",
        ),
    ],
    ids=["first", "one", "more", "shape", "encoder", "channels"],
)
def test_files_that_do_not_fit_are_refused(source: Path, tmp_path: Path, role: str, change: Any, message: str) -> None:
    whole = (source / FILES[role]).read_bytes()
    state = torch.load(source / FILES[role], weights_only=True)
    change(state)
    torch.save(state, source / FILES[role])
    with pytest.raises(ValueError, match=message):
        convert_from_moai(source, tmp_path / "out", **SIZES)
    assert not (tmp_path / "out").exists()
    (source / FILES[role]).write_bytes(whole)
    convert_from_moai(source, tmp_path / "out", **SIZES)


def test_missing_files_code_and_directions_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "run",))

    torch.save({"conv_in.weight": Code()}, source / FILES["image"])
    with pytest.raises(ValueError, match=r"denoising_unet\.pth: not a readable checkpoint"):
        convert_from_moai(source, tmp_path / "out", **SIZES)
    assert not (tmp_path / "run").exists()
    (source / FILES["image"]).unlink()
    with pytest.raises(ValueError, match=r"denoising_unet\.pth: got no file there"):
        convert_from_moai(source, tmp_path / "out", **SIZES)
    command = ["convert", "moai", str(source), str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main([*command, "--to", "moai"])
    assert "invalid choice" in capsys.readouterr().err
    assert main([*command, "--base", "sd15"]) == 2
    assert "has no effect with the format" in capsys.readouterr().err
