"""Published LOTS checkpoints to adapter folders and back: the same bytes, all or nothing, clear refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from remedies import check_call
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from weftwork.attention_processors.core.adapter_files import WEIGHTS_NAME
from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.scripts.cli import main
from weftwork.scripts.converters.command import (
    adapter_to_lots,
    convert_from_lots,
    convert_to_lots,
    lots_to_adapter,
    read_lots,
    sdxl_layers,
)
from weftwork.scripts.converters.published import adapter_on_meta

FIXTURE = Path(__file__).parents[2] / "data" / "lots_reference.safetensors"
Groups = dict[str, dict[str, Tensor]]
SETTINGS = json.loads(
    '{"in_channels": 64, "fusion_strategy": "deferred", "num_layers": 2, "num_attention_heads": 8, "inner_dim": 64, '
    '"dropout": 0.0, "norm_num_groups": 32, "activation_fn": "geglu", "masking_strategy": "compression", '
    '"num_cls_tokens": 6}'
)


def recorded() -> tuple[Groups, dict[str, int]]:
    """The tensors of a checkpoint of the multi-level version, and the layers of its small denoiser."""
    groups: Groups = {}
    with safe_open(FIXTURE, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            if name.startswith("ckpt/"):
                _, group, key = name.split("/", 2)
                groups.setdefault(group, {})[key] = file.get_tensor(name)
        names = json.loads(file.metadata()["attention_layers"])
    layers = [name.removesuffix(".processor") for name in names if "attn2" in name]
    return groups, {n: 64 if n.startswith(("down_blocks.1", "up_blocks.1")) else 96 for n in layers}


@pytest.fixture(params=["lots", "multi-level"])
def checkpoint(request: pytest.FixtureRequest) -> tuple[Groups, dict[str, int]]:
    groups, layers = recorded()
    if request.param == "lots":
        del groups["global_attn"]
    return groups, layers


def assert_same(got: Groups, wanted: Groups) -> None:
    assert {g: set(keys) for g, keys in got.items()} == {g: set(keys) for g, keys in wanted.items()}
    for group, keys in wanted.items():
        for key, tensor in keys.items():
            assert got[group][key].dtype == tensor.dtype and torch.equal(got[group][key], tensor), (group, key)


# -- round trips ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_files_come_back_with_the_same_tensors(
    checkpoint: tuple[Groups, dict[str, int]], tmp_path: Path, dtype: torch.dtype
) -> None:
    groups, layers = checkpoint
    groups = {group: {key: tensor.to(dtype) for key, tensor in keys.items()} for group, keys in groups.items()}
    torch.save(groups, tmp_path / "lots.bin")
    (tmp_path / "pair_former_config.json").write_text(json.dumps(SETTINGS))
    convert_from_lots(tmp_path / "lots.bin", tmp_path / "adapter", layers)
    convert_to_lots(tmp_path / "adapter", tmp_path / "again")
    assert_same(read_lots(tmp_path / "again" / "lots.bin"), groups)
    assert json.loads((tmp_path / "again" / "pair_former_config.json").read_text()) == SETTINGS
    convert_from_lots(tmp_path / "again" / "lots.bin", tmp_path / "adapter again", layers)
    for name in ("config.json", WEIGHTS_NAME):
        assert (tmp_path / "adapter" / name).read_bytes() == (tmp_path / "adapter again" / name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 5, "nothing but the two files and the three folders"


def test_the_folder_is_what_the_adapter_itself_saves(checkpoint: tuple[Groups, dict[str, int]], tmp_path: Path) -> None:
    groups, layers = checkpoint
    torch.save(groups, tmp_path / "lots.bin")
    convert_from_lots(tmp_path / "lots.bin", tmp_path / "adapter", layers)
    adapter = PairedAdapter.from_pretrained(tmp_path / "adapter")
    assert adapter.config["isolation"] == "shared_norm"
    adapter.save_pretrained(tmp_path / "saved")
    for name in ("config.json", WEIGHTS_NAME):
        assert (tmp_path / "adapter" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()


def test_safetensors_with_group_prefixes_are_read(checkpoint: tuple[Groups, dict[str, int]], tmp_path: Path) -> None:
    groups, _ = checkpoint
    flat = {f"{group}.{key}": tensor for group, keys in groups.items() for key, tensor in keys.items()}
    save_file(flat, tmp_path / "lots.safetensors")
    assert_same(read_lots(tmp_path / "lots.safetensors"), groups)


def test_layers_are_told_by_name_in_any_order() -> None:
    groups, layers = recorded()
    config, state = lots_to_adapter(groups, dict(reversed(layers.items())))
    assert list(config["layers"]) == list(layers)
    for place, block in ((1, "down_blocks-1"), (9, "down_blocks-2"), (51, "mid_block")):
        key = f"to_key.{block}-attentions-0-transformer_blocks-0-attn2.weight"
        assert torch.equal(state[key], groups["cross_attn"][f"{place}.to_k_lots.weight"])
    config["layers"] = dict(sorted(layers.items()))  # as config.json has them
    assert_same(adapter_to_lots(config, state)[0], groups)


def test_tensors_of_the_state_share_no_memory() -> None:
    state = lots_to_adapter(*recorded())[1]
    assert len({tensor.untyped_storage().data_ptr() for tensor in state.values()}) == len(state)


def test_sdxl_layers_are_those_of_the_denoiser() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),  # pyright: ignore[reportArgumentType]
            attention_head_dim=(5, 10, 20),  # pyright: ignore[reportArgumentType]
            cross_attention_dim=2048,
            use_linear_projection=True,
        )
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    layers = {name: unet.get_submodule(name).inner_dim for name in names if name.endswith("attn2")}
    assert list(sdxl_layers().items()) == list(layers.items())
    assert len(layers) == 70


@pytest.mark.parametrize(
    ("readouts", "whole", "tensors", "values"), [(32, False, 191, 526_280_704), (64, True, 205, 577_492_992)]
)
def test_published_sizes(readouts: int, whole: bool, tensors: int, values: int) -> None:
    options = dict(num_readout_tokens=readouts, global_sketch=whole, isolation="shared_norm", center_crop=True)
    config = {"layers": sdxl_layers(), **options}
    groups, _ = adapter_to_lots(config, adapter_on_meta(PairedAdapter, config).state_dict())
    every = [tensor for keys in groups.values() for tensor in keys.values()]
    assert (len(every), sum(tensor.numel() for tensor in every)) == (tensors, values)
    again, _ = lots_to_adapter(groups, sdxl_layers())
    assert {**again, **config, "sketch_encoder": "facebook/dinov2-small"} == again


# -- what the config says ------------------------------------------------------------------------------------


def test_sizes_are_read_from_the_tensors(checkpoint: tuple[Groups, dict[str, int]]) -> None:
    groups, layers = checkpoint
    config, _ = lots_to_adapter(groups, layers)
    sizes = dict(token_dim=64, image_dim=24, text_dim=40, text_tokens=4, num_readout_tokens=6, num_layers=2)
    rest = dict(num_heads=8, norm_groups=32, masking="compression", fusion="deferred", isolation="shared_norm")
    whole = {"layers": layers, "global_sketch": "global_attn" in groups}
    assert {**config, **sizes, **rest, **whole} == config


@pytest.mark.parametrize("fusion", ["fusion_strategy", "pooling_method"])
def test_settings_are_read_under_both_of_their_names(fusion: str) -> None:
    settings = {"num_attention_heads": 4, "norm_num_groups": 16, fusion: "mean"}
    config, _ = lots_to_adapter(*recorded(), settings)
    assert (config["num_heads"], config["norm_groups"], config["fusion"]) == (4, 16, "mean")


def test_a_checkpoint_without_readouts_needs_its_masking() -> None:
    groups, layers = recorded()
    del groups["pair_former"]["cls_tokens"]
    with pytest.raises(ValueError, match=r"keys: 1 are missing \(first: pair_former.cls_tokens\)"):
        lots_to_adapter(groups, layers)
    config, state = lots_to_adapter(groups, layers, {"masking_strategy": "pair"})
    assert_same(adapter_to_lots(config, state)[0], groups)


# -- refusals ------------------------------------------------------------------------------------------------


def without_group(groups: Groups, _: dict[str, int]) -> None:
    del groups["text_proj"]


def with_another_group(groups: Groups, _: dict[str, int]) -> None:
    groups["ip_adapter"] = {}


def without_key(groups: Groups, _: dict[str, int]) -> None:
    del groups["pair_former"]["transformer_blocks.1.norm3.bias"]


def without_size(groups: Groups, _: dict[str, int]) -> None:
    del groups["image_proj"]["proj.weight"]


def with_another_key(groups: Groups, _: dict[str, int]) -> None:
    groups["image_proj"]["scale"] = torch.ones(1)


def with_fewer_layers(groups: Groups, layers: dict[str, int]) -> None:
    layers.popitem()


def with_wider_layers(groups: Groups, layers: dict[str, int]) -> None:
    layers["mid_block.attentions.0.transformer_blocks.0.attn2"] = 128


def with_self_attention(groups: Groups, layers: dict[str, int]) -> None:
    name, width = layers.popitem()
    layers[name.replace("attn2", "attn1")] = width


def with_a_damaged_norm(groups: Groups, _: dict[str, int]) -> None:
    groups["pair_former"]["norm.bias"] = torch.zeros(63)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_group, r"groups: 1 are missing \(first: text_proj\) and 0 unexpected"),
        (with_another_group, r"groups: 0 are missing \(first: none\) and 1 unexpected \(first: ip_adapter\)"),
        (without_key, r"keys: 1 are missing \(first: pair_former.transformer_blocks.1.norm3.bias\)"),
        (without_size, r"image_proj.proj.weight: got none, expected 2 dimensions"),
        (with_another_key, r"0 are missing \(first: none\) and 1 unexpected \(first: image_proj.scale\)"),
        (with_fewer_layers, r"cross_attn: got 56 tensors, expected two for each of 27 layers"),
        (with_wider_layers, r"cross_attn.51.to_k_lots.weight: got shape \(96, 64\), expected \(128, 64\) for to_key"),
        (with_self_attention, r"layers: got 28 like .*, expected every text attention \(attn2\)"),
        (with_a_damaged_norm, r"pair_former.norm.bias: got shape \(63,\), expected \(64,\)"),
    ],
)
def test_contents_that_do_not_fit_are_refused(spoil: Callable[[Groups, dict[str, int]], None], message: str) -> None:
    spoilt = recorded()
    spoil(*spoilt)
    check_call(lambda given: lots_to_adapter(*given), spoilt, f"{message}.*; pass (a whole|all)", recorded())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_cls_tokens": 32}, "num_cls_tokens is 32, but the tensors say 6; put the two files of one model"),
        ({"inner_dim": 128}, "inner_dim is 128, but the tensors say 64"),
        ({"activation_fn": "gelu"}, "got activation_fn 'gelu', expected .* geglu"),
        ({"pooling": "mean"}, "got the key 'pooling', expected in_channels, fusion_strategy"),
        ({"num_attention_heads": 7}, "num_heads: got 7 for a width of 64"),
        ({"masking_strategy": "diagonal"}, "masking: got 'diagonal', expected one of"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], message: str) -> None:
    check_call(lambda given: lots_to_adapter(*recorded(), given), settings, message, SETTINGS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"isolation": "per_pair"}, "isolation: got 'per_pair', but a LOTS checkpoint always means 'shared_norm'"),
        ({"anchored": 0.2}, "anchored: got 0.2, but a LOTS checkpoint always means 0.0"),
        ({"sketch_encoder": "strokes"}, "stroke_encoder.position: a LOTS checkpoint has no place for it"),
        ({"num_layers": 3}, r"keys: 20 are missing .* and 0 unexpected"),
        ({"text_dim": 41}, r"projection.weight: got shape \(256, 40\), expected \(256, 41\) as in config.json"),
        ({"colour": "red"}, "config: not that of a PairedAdapter .*colour"),
    ],
)
def test_adapters_that_the_format_cannot_say_are_refused(options: dict[str, Any], message: str) -> None:
    config, state = lots_to_adapter(*recorded())
    words = f"{message}.*; (convert|pass) "
    check_call(lambda given: adapter_to_lots(given, state), {**config, **options}, words, config)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_and_nothing_is_written(tmp_path: Path, share: float, suffix: str) -> None:
    groups, layers = recorded()
    path = tmp_path / f"lots{suffix}"
    torch.save(groups, path)
    whole = path.read_bytes() if suffix == ".bin" else FIXTURE.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"lots{suffix}: not a readable checkpoint .* download it again"):
        convert_from_lots(path, tmp_path / "adapter", layers)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [[1, 2], {"state": 3}, {"image_proj": [torch.ones(1)]}, {"image_proj": {"a": 1}}])
def test_a_pickle_of_other_things_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.bin")
    with pytest.raises(ValueError, match=r"other.bin: got a \w+ with other content, expected groups of tensors"):
        read_lots(tmp_path / "other.bin")


def test_a_pickle_of_code_is_refused(tmp_path: Path) -> None:
    torch.save({"image_proj": Path("x")}, tmp_path / "code.bin")
    with pytest.raises(ValueError, match=r"code.bin: not a readable checkpoint"):
        read_lots(tmp_path / "code.bin")


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, layers = recorded()
    (tmp_path / "lots").mkdir()
    torch.save(groups, tmp_path / "lots" / "lots.bin")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("weftwork.scripts.converters.command.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        convert_from_lots(tmp_path / "lots" / "lots.bin", tmp_path / "adapter", layers)
    assert [path.name for path in tmp_path.iterdir()] == ["lots"]


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command_converts_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups, layers = recorded()
    torch.save(groups, tmp_path / "lots.bin")
    convert_from_lots(tmp_path / "lots.bin", tmp_path / "adapter", layers)
    (tmp_path / "again").mkdir()  # an empty folder is a fine target
    assert main(["convert", "lots", str(tmp_path / "adapter"), str(tmp_path / "again"), "--to", "lots"]) == 0
    assert_same(read_lots(tmp_path / "again" / "lots.bin"), groups)
    for source, target, message in (
        ("adapter", "again", "a folder with files, expected none; name another"),
        ("nowhere", "new", "config.json is missing"),
        ("again", "new", "config.json is missing"),
    ):
        assert main(["convert", "lots", str(tmp_path / source), str(tmp_path / target), "--to", "lots"]) == 2
        assert message in capsys.readouterr().err
    assert main(["convert", "lots", str(tmp_path / "lots.bin"), str(tmp_path / "new")]) == 2
    assert "cross_attn: got 56 tensors, expected two for each of 70 layers" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_damaged_adapter_folders_are_refused(tmp_path: Path) -> None:
    groups, layers = recorded()
    torch.save(groups, tmp_path / "lots.bin")
    convert_from_lots(tmp_path / "lots.bin", tmp_path / "adapter", layers)
    for name, content, message in (
        (WEIGHTS_NAME, b"{", f"{WEIGHTS_NAME} is damaged .*; copy or convert it again"),
        ("config.json", b"[]", "config.json: got a list, expected an object"),
        ("config.json", b'{"layers": {', "config.json: got a text that is not JSON"),
    ):
        shutil.copytree(tmp_path / "adapter", tmp_path / "damaged", dirs_exist_ok=True)
        (tmp_path / "damaged" / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            convert_to_lots(tmp_path / "damaged", tmp_path / "new")
    convert_from_lots(tmp_path / "lots.bin", tmp_path / "converted again", layers)
    convert_to_lots(tmp_path / "converted again", tmp_path / "new")
