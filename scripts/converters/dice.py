"""Published DICE-Talk checkpoints: the emotion module, and the keys and values of its branch in the U-Net's file.

Of the two branches in each layer, the second is that of emotions. The first, of audio, and all else of the U-Net are
left out, as is the classifier of emotions, which generation does not use.

Source: toto222/DICE-Talk@a8a92b1 (src/models/emotion_adapter/emo.py,
src/models/base/unet_spatio_temporal_condition.py).
"""

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from weftwork.attention_processors.expressions.adapter import ExpressionAdapter
from weftwork.scripts.converters.moai import FITTING
from weftwork.scripts.converters.published import adapter_on_meta, check_options, check_shapes, shape_of, shapes_of

MODULE_NAME: Final = "emo_model.pth"
UNET_NAME: Final = "unet.pth"
EMOTION: Final = 1
"""Index of the branch of emotions."""
HEADS: Final = 8
"""Of the module's attention; no tensor's shape determines it."""
CLASSIFIER: Final = "classifier."
NAMES: Final[Mapping[str, str]] = {
    "emo_linear": "query_tokens",
    "kv_tokens_linear": "code_tokens",
    "codebook.fc": "to_code",
    "codebook.codebook.weight": "codes",
    "attention.fc_q": "query",
    "attention.fc_k": "key",
    "attention.fc_v": "value",
}
"""Ours by the authors' names, of modules or tensors."""
THEIRS: Final = {ours: theirs for theirs, ours in NAMES.items()}
BRANCH: Final = re.compile(rf"(.+)\.processor\.to_([kv])_ip\.{EMOTION}\.weight")
ONLY: Final[Mapping[str, object]] = {"num_heads": HEADS, "embedder_size": 0}


def dice_to_adapter(
    module: Mapping[str, Tensor], unet: Mapping[str, Tensor], num_heads: int = HEADS
) -> tuple[ExpressionAdapter, dict[str, Tensor]]:
    """Returns the adapter, without memory for its tensors, and these.

    Args:
        module: of `emo_model.pth`.
        unet: of `unet.pth`.

    Raises:
        ValueError: keys or shapes that are not those of the emotion module and its branches.
    """
    state = {f"tokens.{_renamed(name, NAMES)}": one for name, one in module.items() if not name.startswith(CLASSIFIER)}
    for name, tensor in unet.items():
        if found := BRANCH.fullmatch(name):
            kind = "to_key" if found[2] == "k" else "to_value"
            state[f"{kind}.{found[1].replace('.', '-')}.weight"] = tensor
    layers = {
        found[1]: shape_of(unet, 2, name)[0] for name in unet if (found := BRANCH.fullmatch(name)) and found[2] == "k"
    }
    hidden, prior = shape_of(module, 2, "emo_linear.proj1.weight")
    codes, width = shape_of(module, 2, "codebook.codebook.weight")
    config = {
        "layers": layers,
        "base": {"family": "UNetSpatioTemporalConditionModel", "context_dim": width},
        "token_dim": width,
        "prior_dim": prior,
        "hidden_dim": hidden,
        "num_codes": codes,
        "num_tokens": shape_of(module, 1, "emo_linear.proj3.bias")[0] // width,
        "num_heads": num_heads,
        "bank": "all",
    }
    adapter = adapter_on_meta(ExpressionAdapter, config)
    check_shapes(state, shapes_of(adapter), FITTING)
    return adapter, {name: tensor.contiguous() for name, tensor in state.items()}


def adapter_to_dice(
    config: Mapping[str, object], state: Mapping[str, Tensor], num_heads: int = HEADS
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inverse of `dice_to_adapter`: tensors of `emo_model.pth` and of `unet.pth`, which the authors' code loads.

    Raises:
        ValueError: an adapter with named expressions, an embedder or another number of heads, which the format lacks.
    """
    check_options(config, {**ONLY, "num_heads": num_heads, "expressions": []}, "a DICE-Talk")
    adapter = adapter_on_meta(ExpressionAdapter, config)
    check_shapes(state, shapes_of(adapter))
    module: dict[str, Tensor] = {}
    unet: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part == "tokens":
            module[_renamed(rest, THEIRS)] = tensor
        else:
            layer = rest.removesuffix(".weight").replace("-", ".")
            unet[f"{layer}.processor.to_{part[3]}_ip.{EMOTION}.weight"] = tensor
    return module, unet


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """Returns a tensor's name with that of its module replaced; unknown names as they are."""
    start = next((one for one in table if name == one or name.startswith(f"{one}.")), None)
    return name if start is None else table[start] + name[len(start) :]
