"""The published LOTS checkpoints and our `PairedAdapter`: the same tensors under other names.

A checkpoint is groups of tensors (`image_proj`, `text_proj`, `pair_former`, `cross_attn`, and `global_attn` in the
multi-level version), with the options of the pair-former in `pair_former_config.json` beside it.

Source: intelligolabs/lots@5913624, scripts/lots/convert_lots_weights.py, src/lots/{pair_former,lots_pipeline}.py;
intelligolabs/lots-extension@43c4f4f, scripts/lots/convert_lots_weights_attn.py.
Differs: their keys of the denoiser's layers are positions (`{2j+1}.to_k_lots`, down before up before mid), ours names.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.datasets.readers.errors import UserError
from weftwork.scripts.converters.published import (
    Config,
    Groups,
    Key,
    adapter_on_meta,
    check_names,
    check_options,
    check_shapes,
    own_tensors,
    published_tensors,
    shape_of,
    shapes_of,
)

GROUPS = ("image_proj", "text_proj", "pair_former", "cross_attn")
GLOBAL_GROUP = "global_attn"
BLOCK_ORDER = ("down_blocks", "up_blocks", "mid_block")
READOUTS, THEIR_READOUTS = "pair_former.readouts", ("pair_former", "cls_tokens")
SDXL_BLOCKS = (
    ("down_blocks.1", 2, 2, 640),
    ("down_blocks.2", 2, 10, 1280),
    ("up_blocks.0", 3, 10, 1280),
    ("up_blocks.1", 3, 2, 640),
    ("mid_block", 1, 10, 1280),
)
"""Block, its attentions, the transformer blocks of each, and their width."""
SKETCH_ENCODERS: Mapping[int, str] = {
    384: "facebook/dinov2-small",
    768: "facebook/dinov2-base",
    1024: "facebook/dinov2-large",
    1536: "facebook/dinov2-giant",
}
MODULES: Mapping[str, Key] = {
    "image_projector.projection.": ("image_proj", "proj."),
    "image_projector.norm.": ("image_proj", "norm."),
    "text_projector.projection.": ("text_proj", "proj."),
    "text_projector.norm.": ("text_proj", "norm."),
    "pair_former.norm.": ("pair_former", "norm."),
    "whole.projection.": (GLOBAL_GROUP, "proj_in."),
    "whole.attention_norm.": (GLOBAL_GROUP, "attn_norm."),
    "whole.attention.query.": (GLOBAL_GROUP, "cross_attn.in_proj_"),
    "whole.attention.key.": (GLOBAL_GROUP, "cross_attn.in_proj_"),
    "whole.attention.value.": (GLOBAL_GROUP, "cross_attn.in_proj_"),
    "whole.attention.output.": (GLOBAL_GROUP, "cross_attn.out_proj."),
    "whole.feed_forward_norm.": (GLOBAL_GROUP, "ffn_norm."),
    "whole.expand.": (GLOBAL_GROUP, "ffn.linear_1."),
    "whole.contract.": (GLOBAL_GROUP, "ffn.linear_2."),
}
"""Our module to theirs; several of ours in one of theirs lie there one after the other."""
BLOCK_MODULES: Mapping[str, str] = {
    "first_norm.": "norm1.",
    "second_norm.": "norm2.",
    "third_norm.": "norm3.",
    "first_attention.query.": "attn1.to_q.",
    "first_attention.key.": "attn1.to_k.",
    "first_attention.value.": "attn1.to_v.",
    "first_attention.output.": "attn1.to_out.0.",
    "second_attention.query.": "attn2.to_q.",
    "second_attention.key.": "attn2.to_k.",
    "second_attention.value.": "attn2.to_v.",
    "second_attention.output.": "attn2.to_out.0.",
    "feed_forward.expand.": "ff.net.0.proj.",
    "feed_forward.contract.": "ff.net.2.",
}
SETTINGS: Mapping[str, str] = {
    "in_channels": "token_dim",
    "fusion_strategy": "fusion",
    "num_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "inner_dim": "token_dim",
    "norm_num_groups": "norm_groups",
    "masking_strategy": "masking",
    "num_cls_tokens": "num_readout_tokens",
}
"""Keys of `pair_former_config.json` and of our config."""
PUBLISHED: Mapping[str, object] = {"num_heads": 8, "norm_groups": 32, "masking": "compression", "fusion": "deferred"}
"""Published options that tensors do not determine."""
ONLY_POSSIBLE: Mapping[str, object] = {"isolation": "shared_norm", "text_states": 0, "anchored": 0.0}
"""Options of ours that a checkpoint of theirs cannot say, and what it means."""


def sdxl_layers() -> dict[str, int]:
    """The text attention layers of SDXL's denoiser by name, with their widths."""
    return {
        f"{block}.attentions.{i}.transformer_blocks.{j}.attn2": width
        for block, attentions, depth, width in SDXL_BLOCKS
        for i in range(attentions)
        for j in range(depth)
    }


def lots_to_adapter(
    groups: Groups, layers: Mapping[str, int], settings: Mapping[str, object] | None = None
) -> tuple[Config, dict[str, Tensor]]:
    """Config and state dict of a `PairedAdapter` with the very tensors of a published checkpoint.

    Args:
        layers: all text attention layers of the denoiser with their widths, in any order; see `sdxl_layers`.
        settings: the content of `pair_former_config.json`; as published without it.

    Raises:
        ValueError: groups, keys or shapes that are missing, unexpected or contradict `layers` or `settings`.
    """
    check_names("groups", groups, [*GROUPS, *[g for g in groups if g == GLOBAL_GROUP]])
    config = _config(groups, layers, _checked_settings(settings or {}))
    table, shapes = _table(adapter_on_meta(PairedAdapter, config))
    state = own_tensors(groups, table, _their_shapes(shapes))
    return config, {name: tensor.reshape(shapes[name]) for name, tensor in state.items()}


def adapter_to_lots(config: Mapping[str, object], state: Mapping[str, Tensor]) -> tuple[Groups, Config]:
    """The inverse of `lots_to_adapter`: groups, and the content of `pair_former_config.json`.

    `ValueError` for what the published format cannot say, or keys and shapes beside the config.
    """
    check_options(config, ONLY_POSSIBLE, "a LOTS")
    adapter = adapter_on_meta(PairedAdapter, config)
    table, shapes = _table(adapter)
    check_shapes(state, shapes)
    theirs = _their_shapes(shapes)
    groups = published_tensors({name: tensor.reshape(theirs[name]) for name, tensor in state.items()}, table)
    settings = {key: adapter.config[ours] for key, ours in SETTINGS.items()}
    return groups, {**settings, "dropout": 0.0, "activation_fn": "geglu"}


def _ordered(layers: Iterable[str]) -> list[str]:
    """Layer names in the order of `attn_processors`: down, up, mid, and by number within."""
    layers = list(layers)
    if {n.split(".")[0] for n in layers} != set(BLOCK_ORDER) or not all(n.endswith(".attn2") for n in layers):
        raise UserError(
            f"layers: got {len(layers)} like {next(iter(layers), None)!r}, expected every text attention (attn2) of "
            "down, up and mid blocks, which the published format counts; pass all"
        )

    def place(name: str) -> tuple[int, list[int]]:
        block, *path = name.split(".")
        return BLOCK_ORDER.index(block), [int(part) for part in path if part.isdigit()]

    return sorted(layers, key=place)


def _table(adapter: PairedAdapter) -> tuple[dict[Key, list[str]], dict[str, torch.Size]]:
    """Their keys, each with ours that lie in it, in order; and the shapes of ours."""
    modules = dict(MODULES)
    for i in range(adapter.config["num_layers"]):
        for ours, theirs in BLOCK_MODULES.items():
            modules[f"pair_former.blocks.{i}.{ours}"] = ("pair_former", f"transformer_blocks.{i}.{theirs}")
    for j, layer in enumerate(_ordered(adapter.config["layers"])):
        for ours, theirs in (("to_key", "to_k_lots"), ("to_value", "to_v_lots")):
            modules[f"{ours}.{layer.replace('.', '-')}."] = ("cross_attn", f"{2 * j + 1}.{theirs}.")
    shapes = shapes_of(adapter)
    table: dict[Key, list[str]] = {}
    for name in shapes:
        key = THEIR_READOUTS
        if name != READOUTS:
            module, dot, kind = name.rpartition(".")
            if module + dot not in modules:
                raise UserError(f"{name}: a LOTS checkpoint has no place for it; convert an adapter without it")
            group, prefix = modules[module + dot]
            key = (group, prefix + kind)
        table.setdefault(key, []).append(name)
    return table, shapes


def _their_shapes(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    return {name: torch.Size([1, 1, *shape]) if name == READOUTS else shape for name, shape in shapes.items()}


def _config(groups: Groups, layers: Mapping[str, int], settings: Mapping[str, object]) -> Config:
    """The config from sizes of tensors, and from settings where sizes do not determine it; the two must agree."""
    if len(groups["cross_attn"]) != 2 * len(layers):
        raise UserError(
            f"cross_attn: got {len(groups['cross_attn'])} tensors, expected two for each of {len(layers)} layers; "
            "pass a whole file for this denoiser"
        )
    sizes = _sizes(groups)
    for name, value in settings.items():
        if sizes.get(SETTINGS[name], value) != value:
            raise UserError(
                f"pair_former_config.json: {name} is {value}, but the tensors say {sizes[SETTINGS[name]]}; "
                "put the two files of one model side by side"
            )
    config = {
        "layers": {name: layers[name] for name in _ordered(layers)},
        "base": {"family": "UNet2DConditionModel", "context_dim": sizes["token_dim"]},
        **PUBLISHED,
        **{SETTINGS[name]: value for name, value in settings.items()},
        **sizes,
        "isolation": "shared_norm",
        "global_sketch": GLOBAL_GROUP in groups,
        "sketch_size": 224,
        "center_crop": True,
    }
    encoder = SKETCH_ENCODERS.get(sizes["image_dim"])
    return config if encoder is None else {**config, "sketch_encoder": encoder}


def _sizes(groups: Groups) -> dict[str, int]:
    def shape(group: str, key: str, dims: int) -> torch.Size:
        return shape_of(groups[group], dims, key, prefix=f"{group}.")

    token_dim, image_dim = shape("image_proj", "proj.weight", 2)
    text_out, text_dim = shape("text_proj", "proj.weight", 2)
    blocks = {key.split(".")[1] for key in groups["pair_former"] if key.startswith("transformer_blocks.")}
    sizes = {"token_dim": token_dim, "image_dim": image_dim, "text_dim": text_dim}
    sizes |= {"text_tokens": text_out // token_dim, "num_layers": len(blocks)}
    if THEIR_READOUTS[1] in groups["pair_former"]:
        sizes["num_readout_tokens"] = shape(*THEIR_READOUTS, 4)[2]
    return sizes


def _checked_settings(settings: Mapping[str, object]) -> Config:
    """`pair_former_config.json` with one word for `fusion_strategy`, which their code writes as `pooling_method`."""
    given = {"fusion_strategy" if name == "pooling_method" else name: value for name, value in settings.items()}
    activation = given.pop("activation_fn", "geglu")
    given.pop("dropout", None)  # acts in training only
    unknown = sorted(set(given) - set(SETTINGS))
    if unknown or activation != "geglu":
        what = f"the key {unknown[0]!r}" if unknown else f"activation_fn {activation!r}"
        raise UserError(f"pair_former_config.json: got {what}, expected {', '.join(SETTINGS)}, and geglu")
    return given
