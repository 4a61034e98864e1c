"""Published IP-Adapters to adapter folders and back: the same tensors, layers by name, clear refusals."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from remedies import check_call, check_command
from safetensors.torch import save_file
from tiny import tiny_unet
from tiny_ip_adapter import KINDS, Groups, authors_checkpoint

from weftwork.attention_processors.core.adapter_files import WEIGHTS_NAME
from weftwork.attention_processors.core.processor import attention_layers
from weftwork.attention_processors.reference.adapter import ReferenceAdapter
from weftwork.scripts.cli import main
from weftwork.scripts.converters.command import (
    IP_ADAPTER_NAME,
    convert_from_ip_adapter,
    convert_to_ip_adapter,
    read_ip_adapter,
)
from weftwork.scripts.converters.ip_adapter import adapter_to_ip_adapter, base_denoiser, ip_adapter_to_adapter
from weftwork.scripts.converters.ip_adapter import layer_positions as positions_in

on_meta = functools.cache(base_denoiser)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def assert_same(got: Groups, wanted: Groups) -> None:
    assert {g: set(keys) for g, keys in got.items()} == {g: set(keys) for g, keys in wanted.items()}
    for group, keys in wanted.items():
        for key, tensor in keys.items():
            assert got[group][key].dtype == tensor.dtype and torch.equal(got[group][key], tensor), (group, key)


def write(groups: Groups, path: Path) -> Path:
    flat = {f"{group}.{key}": tensor for group, keys in groups.items() for key, tensor in keys.items()}
    torch.save(groups, path) if path.suffix == ".bin" else save_file(flat, path)
    return path


# -- layers by name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "ranges"),
    [
        ("sd15", {"down_blocks": (1, 11), "up_blocks": (13, 29), "mid_block": (31, 31)}),
        ("sdxl", {"down_blocks": (1, 47), "up_blocks": (49, 119), "mid_block": (121, 139)}),
    ],
)
def test_positions_are_the_published_ones(base: str, ranges: dict[str, tuple[int, int]]) -> None:
    positions = positions_in(on_meta(base))
    assert len(positions) == {"sd15": 16, "sdxl": 70}[base]
    assert all(name.endswith(".attn2") for name in positions)
    assert list(positions.values()) == list(range(1, 2 * len(positions), 2))
    for block, (first, last) in ranges.items():
        assert [i for name, i in positions.items() if name.startswith(block)] == list(range(first, last + 1, 2))


PUBLISHED = [
    ("sd15", "basic", 1024, 0, 4, 36, 3.15 + 19.17),
    ("sd15", "plus", 1280, 768, 16, 83, 29.9 + 19.17),
    ("sd15", "full", 1280, 0, 0, 38, 2.6 + 19.17),
    ("sdxl", "basic", 1280, 0, 4, 144, 10.5 + 340.8),
    ("sdxl", "plus", 1280, 1280, 16, 191, 83.0 + 340.8),
]


@pytest.mark.parametrize(("base", "kind", "image_dim", "hidden", "tokens", "count", "millions"), PUBLISHED)
def test_published_sizes(
    base: str, kind: str, image_dim: int, hidden: int, tokens: int, count: int, millions: float
) -> None:
    groups = authors_checkpoint(kind, on_meta(base), image_dim, hidden, tokens)
    every = [tensor for keys in groups.values() for tensor in keys.values()]
    config, state = ip_adapter_to_adapter(groups, on_meta(base))
    assert len(every) == count
    assert sum(t.numel() for t in state.values()) == sum(t.numel() for t in every)
    assert sum(t.numel() for t in every) / 1e6 == pytest.approx(millions, abs=0.2)
    assert (config["projection"], config["image_dim"]) == (kind, image_dim)
    assert config["token_dim"] == config["base"]["context_dim"] == {"sd15": 768, "sdxl": 2048}[base]
    big = base == "sdxl" and kind == "basic"
    assert config["image_encoder"] == f"h94/IP-Adapter/{'sdxl_models' if big else 'models'}/image_encoder"
    if kind == "plus":
        sizes = dict(num_tokens=16, hidden_dim=hidden, depth=4, num_heads=hidden // 64, head_dim=64)
        assert {**config, **sizes, "feed_forward_ratio": 4} == config
    again = adapter_to_ip_adapter(config, state, on_meta(base))
    assert {g: {k: t.shape for k, t in keys.items()} for g, keys in again.items()} == {
        g: {k: t.shape for k, t in keys.items()} for g, keys in groups.items()
    }


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_the_base_is_told_by_the_width_of_the_text(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weftwork.scripts.converters.ip_adapter.base_denoiser", on_meta)
    config, state = ip_adapter_to_adapter(authors_checkpoint("basic", on_meta(base)))
    assert list(config["layers"]) == list(positions_in(on_meta(base)))
    assert len(adapter_to_ip_adapter(config, state)["ip_adapter"]) == 2 * len(config["layers"])


def test_tensors_go_to_the_layers_of_their_position(kind: str) -> None:
    unet = tiny_unet()
    groups = authors_checkpoint(kind, unet)
    config, state = ip_adapter_to_adapter(groups, unet)
    names = list(attention_layers(unet))
    for i in range(1, len(names), 2):
        slot = names[i].replace(".", "-")
        assert torch.equal(state[f"to_key.{slot}.weight"], groups["ip_adapter"][f"{i}.to_k_ip.weight"])
        assert torch.equal(state[f"to_value.{slot}.weight"], groups["ip_adapter"][f"{i}.to_v_ip.weight"])
    assert set(config["layers"]) == {name for name in names if name.endswith("attn2")}


# -- round trips ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_files_come_back_with_the_same_tensors(kind: str, dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    unet = tiny_unet()
    groups = {g: {k: t.to(dtype) for k, t in keys.items()} for g, keys in authors_checkpoint(kind, unet).items()}
    source = write(groups, tmp_path / f"ip{suffix}")
    convert_from_ip_adapter(source, tmp_path / "adapter", unet)
    convert_to_ip_adapter(tmp_path / "adapter", tmp_path / "again", unet)
    assert_same(read_ip_adapter(tmp_path / "again" / IP_ADAPTER_NAME), groups)
    convert_from_ip_adapter(tmp_path / "again" / IP_ADAPTER_NAME, tmp_path / "adapter again", unet)
    for name in ("config.json", WEIGHTS_NAME):
        assert (tmp_path / "adapter" / name).read_bytes() == (tmp_path / "adapter again" / name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 4, "nothing but the file and the three folders"


def test_the_folder_is_what_the_adapter_itself_saves(kind: str, tmp_path: Path) -> None:
    unet = tiny_unet()
    convert_from_ip_adapter(write(authors_checkpoint(kind, unet), tmp_path / "ip.bin"), tmp_path / "adapter", unet)
    ReferenceAdapter.from_pretrained(tmp_path / "adapter").save_pretrained(tmp_path / "saved")
    for name in ("config.json", WEIGHTS_NAME):
        assert (tmp_path / "adapter" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()
    changed = ReferenceAdapter.from_pretrained(tmp_path / "adapter", merging="sum")
    assert changed.config["merging"] == "sum"


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_denoiser_that_diffusers_saved_with_an_adapter_is_read(kind: str, suffix: str, tmp_path: Path) -> None:
    unet = tiny_unet()
    groups = authors_checkpoint(kind, unet)
    expected = ip_adapter_to_adapter(groups, unet)
    unet._load_ip_adapter_weights([groups])
    unet.save_pretrained(tmp_path / "unet", safe_serialization=suffix != ".bin")
    got = ip_adapter_to_adapter(read_ip_adapter(tmp_path / "unet" / f"diffusion_pytorch_model{suffix}"), tiny_unet())
    assert got[0] == expected[0]
    assert_same({"state": got[1]}, {"state": expected[1]})


def test_groups_with_diffusers_names_are_read(kind: str) -> None:
    unet = tiny_unet()
    groups = authors_checkpoint(kind, unet)
    config, state = ip_adapter_to_adapter(groups, unet)
    prefix = "image_projection."
    theirs = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    again, same = ip_adapter_to_adapter({**groups, "image_proj": theirs}, unet)
    assert again == config
    assert_same({"state": same}, {"state": state})


# -- refusals ------------------------------------------------------------------------------------------------


def without(group: str, key: str) -> Callable[[Groups], None]:
    return lambda groups: groups[group].__delitem__(key)


def with_tensor(group: str, key: str, *shape: int) -> Callable[[Groups], None]:
    return lambda groups: groups.setdefault(group, {}).__setitem__(key, torch.zeros(shape))


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("basic", lambda g: g.__delitem__("ip_adapter"), r"groups: 1 are missing \(first: ip_adapter\)"),
        ("basic", with_tensor("controlnet", "a", 1), r"groups: 0 .* and 1 unexpected \(first: controlnet\)"),
        ("basic", without("ip_adapter", "3.to_v_ip.weight"), r"keys: 1 .*first: ip_adapter\.3\.to_v_ip\.weight"),
        ("basic", with_tensor("ip_adapter", "2.to_k_ip.weight", 2), r"1 unexpected \(first: ip_adapter\.2\.to_k_ip"),
        ("basic", without("image_proj", "norm.weight"), r"image_proj\.norm\.weight: got none, expected 1 dimension"),
        ("basic", without("image_proj", "norm.bias"), r"keys: 1 are missing \(first: image_proj\.norm\.bias\)"),
        (
            "basic",
            with_tensor("image_proj", "proj.weight", 99, 24),
            r"proj\.weight: got shape \(99, 24\), exp",
        ),
        (
            "basic",
            with_tensor("image_proj", "norm.weight", 16),
            r"base: got tokens of width 16, but the den",
        ),
        (
            "plus",
            with_tensor("ip_adapter", "1.to_k_ip.weight", 32, 48),
            r"1\.to_k_ip\.weight: got shape \(32, 48",
        ),
        ("plus", without("image_proj", "latents"), r"image_proj: got keys like 'proj_in\.weight', expected latents"),
        ("plus", without("image_proj", "layers.2.0.to_kv.weight"), r"first: image_proj\.layers\.2\.0\.to_kv\.weight"),
        ("plus", with_tensor("image_proj", "layers.0.1.1.weight", 500, 128), r"layers\.0\.1\.1\.weight: got shape"),
        ("full", with_tensor("image_proj", "proj.2.bias", 3), r"image_proj\.proj\.2\.bias: got shape \(3,\), expected"),
        ("basic", with_tensor("ip_adapter", "0.to_q_lora.down.weight", 2, 2), r"unexpected .*0\.to_q_lora\.down"),
        ("faceid", without("image_proj", "proj.0.weight"), r"image_proj\.proj\.0\.weight: got none, expected 2 dim"),
        ("faceid_plus", without("image_proj", "proj.2.weight"), r"image_proj\.proj\.2\.weight: got none, expected 2"),
    ],
)
def test_contents_that_do_not_fit_are_refused(kind: str, spoil: Callable[[Groups], None], message: str) -> None:
    unet = tiny_unet()
    spoilt, whole = (authors_checkpoint(kind, unet) for _ in range(2))
    spoil(spoilt)
    check_call(lambda groups: ip_adapter_to_adapter(groups, unet), spoilt, f"{message}.*; (pass a|name the)", whole)


def test_a_checkpoint_of_an_unknown_base_is_refused() -> None:
    groups = authors_checkpoint("basic", tiny_unet())
    unknown = r"base: got tokens of width 32, expected 768 \(sd15\), 2048 \(sdxl\); give the den"
    check_call(lambda unet: ip_adapter_to_adapter(groups, unet), None, unknown, tiny_unet())
    other = r"width 32, but the denoiser reads text of width 48; name the base"
    wide = tiny_unet(cross_attention_dim=48)
    check_call(lambda unet: ip_adapter_to_adapter(groups, unet), wide, other, tiny_unet())
    with pytest.raises(ValueError, match="base: got 'sd3', expected one of sd15, sdxl"):
        base_denoiser("sd3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merging": "sum"}, "merging: got 'sum', but an IP-Adapter checkpoint always means 'joint'"),
        ({"head_dim": 32}, "head_dim: got 32, but an IP-Adapter checkpoint always means 64"),
        ({"depth": 5}, r"keys: 12 are missing .* and 0 unexpected"),
        ({"image_dim": 25}, r"proj_in\.weight: got shape \(128, 24\), expected \(128, 25\) as in config.json"),
        ({"colour": "red"}, "config: not that of a ReferenceAdapter .*colour"),
        ({"layers": {"mid_block.attentions.0.transformer_blocks.0.attn2": 64}}, "layers: 3 are missing"),
    ],
)
def test_adapters_that_the_format_cannot_say_are_refused(change: dict[str, Any], message: str) -> None:
    unet = tiny_unet()
    config, state = ip_adapter_to_adapter(authors_checkpoint("plus", unet), unet)
    words = f"{message}.*; (convert|pass) "
    check_call(lambda given: adapter_to_ip_adapter(given, state, unet), {**config, **change}, words, config)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_and_nothing_is_written(tmp_path: Path, share: float, suffix: str) -> None:
    path = write(authors_checkpoint("basic", tiny_unet()), tmp_path / f"ip{suffix}")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"ip{suffix}: not a readable checkpoint .* download it again"):
        convert_from_ip_adapter(path, tmp_path / "adapter", tiny_unet())
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_other_things_are_refused(tmp_path: Path) -> None:
    torch.save({"image_proj": Path("x")}, tmp_path / "code.bin")
    torch.save({"image_proj": 3}, tmp_path / "number.bin")
    save_file({"lora.up": torch.zeros(2)}, tmp_path / "lora.safetensors")
    several = {f"encoder_hid_proj.image_projection_layers.{i}.norm.weight": torch.zeros(2) for i in range(2)}
    save_file(several, tmp_path / "several.safetensors")
    write(authors_checkpoint("basic", tiny_unet()), tmp_path / "whole.bin")
    for name, message in (
        ("code.bin", r"not a readable checkpoint \(Weights only load failed\); it is damaged .*: download it again"),
        ("number.bin", "got a dict with other content, expected groups of tensors: image_proj, ip_adapter"),
        ("lora.safetensors", r"keys: got 1 that are no IP-Adapter's \(first: lora.up\), .*; pass one of these"),
        ("several.safetensors", r"keys: got 1 .*first: encoder_hid_proj\.image_projection_layers\.1\.norm"),
        ("none.bin", "none.bin: got no file there, expected an IP-Adapter checkpoint"),
    ):
        check_call(read_ip_adapter, tmp_path / name, message, tmp_path / "whole.bin")


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command_converts_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weftwork.scripts.converters.ip_adapter.base_denoiser", lambda base: tiny_unet())
    monkeypatch.setattr("weftwork.scripts.converters.ip_adapter.denoiser_for", lambda width: tiny_unet())
    groups = authors_checkpoint("plus", tiny_unet())
    source, folder, again = write(groups, tmp_path / "ip.bin"), tmp_path / "adapter", tmp_path / "again"
    assert main(["convert", "ip-adapter", str(source), str(folder), "--base", "sd15"]) == 0
    assert main(["convert", "ip-adapter", str(folder), str(again), "--to", "ip-adapter"]) == 0
    assert_same(read_ip_adapter(again / IP_ADAPTER_NAME), groups)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", WEIGHTS_NAME]
    monkeypatch.chdir(tmp_path)
    convert = "convert ip-adapter adapter"
    refused = [
        (
            "convert ip-adapter ip.bin adapter",
            "adapter: got .* a folder with files, expected none; name another, or remove it",
        ),
        (f"{convert} new --to lots", "--to: got 'lots' for the format .*; change it"),
        ("convert lots adapter new --to ip-adapter", "--to: got 'ip-adapter' for the format .*; change it"),
        ("convert lots adapter new --base sdxl", "--base: got 'sdxl', has no effect .*; leave it out"),
        ("convert ip-adapter . new --to ip-adapter", "config.json is missing"),
    ]
    check_command("convert ip-adapter ip.bin other", refused, capsys)
    with pytest.raises(SystemExit):
        main(["convert", "ip-adapter", str(source), str(tmp_path / "new"), "--base", "sd3"])
    assert "invalid choice: 'sd3'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
