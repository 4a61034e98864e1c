"""Keys and options of saved adapters: new ones may be added, none may change or disappear."""

import json
from pathlib import Path

from safetensors import safe_open
from tiny import paired_adapter, tiny_pipe, tiny_unet

from weftwork.attention_processors import PairedAdapter
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline

CONFIG = {
    *("format_version", "layers", "base", "training"),
    *("token_dim", "image_dim", "text_dim", "text_tokens", "text_states"),
    *("num_readout_tokens", "num_layers", "num_heads", "norm_groups", "masking", "fusion", "isolation", "anchored"),
    *("global_sketch", "sketch_encoder", "sketch_size", "sketch_patch", "skip_blank", "center_crop"),
}
BLOCK = {
    *(f"{place}_norm.{part}" for place in ("first", "second", "third") for part in ("weight", "bias")),
    *(f"{a}_attention.{p}.weight" for a in ("first", "second") for p in ("query", "key", "value", "output")),
    *("first_attention.output.bias", "second_attention.output.bias"),
    *(f"feed_forward.{layer}.{part}" for layer in ("expand", "contract") for part in ("weight", "bias")),
}
WHOLE = {
    *(f"{layer}.{part}" for layer in ("projection", "expand", "contract") for part in ("weight", "bias")),
    *(f"{norm}_norm.{part}" for norm in ("attention", "feed_forward") for part in ("weight", "bias")),
    *(f"attention.{p}.{part}" for p in ("query", "key", "value", "output") for part in ("weight", "bias")),
}
TENSORS = {
    *(
        f"{p}_projector.{m}.{part}"
        for p in ("image", "text")
        for m in ("projection", "norm")
        for part in ("weight", "bias")
    ),
    *("pair_former.readouts", "pair_former.norm.weight", "pair_former.norm.bias", "stroke_encoder.position"),
    *(f"pair_former.blocks.0.{name}" for name in BLOCK),
    *(f"whole.{name}" for name in WHOLE),
    *(f"stroke_encoder.stages.{i}.{part}" for i in (0, 2, 4, 6, 8) for part in ("weight", "bias")),
}


def test_an_adapter_is_one_file(tmp_path: Path) -> None:
    paired_adapter(tiny_unet()).save_pretrained(tmp_path, max_shard_size="10KB")
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert PairedAdapter.from_pretrained(tmp_path)


def test_the_names_in_an_adapter_folder_stay(tmp_path: Path) -> None:
    unet = tiny_pipe(ConditionedStableDiffusionPipeline).unet
    adapter = paired_adapter(unet, global_sketch=True)
    adapter.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert {name for name in config if not name.startswith("_")} == CONFIG
    slots = [name.replace(".", "-") for name in adapter.config["layers"]]
    projections = {f"{kind}.{slot}.weight" for kind in ("to_key", "to_value") for slot in slots}
    with safe_open(tmp_path / "diffusion_pytorch_model.safetensors", "pt") as file:
        assert set(file.keys()) == TENSORS | projections
