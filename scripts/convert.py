"""Convert checkpoints of other projects to adapter folders, and back, tensor by tensor.

weftwork convert lots lots/lots.bin adapters/lots           a published checkpoint (either version) to a folder
weftwork convert lots adapters/lots lots-again --to lots    the folder to lots.bin and pair_former_config.json

weftwork convert ip-adapter ip-adapter-plus_sd15.bin adapters/plus    an IP-Adapter for SD 1.5 or SDXL
weftwork convert ip-adapter adapters/plus plus-again --to ip-adapter  the folder to ip-adapter.safetensors

weftwork convert xlabs-flux ip_adapter.safetensors adapters/xlabs     also instantx-flux, instantx-sd3; and back

weftwork convert fastcomposer pytorch_model.bin adapters/subjects     with its image encoder and U-Net in the folder

weftwork convert dice checkpoints/DICE-Talk adapters/dice             emo_model.pth and the U-Net's branch of emotions
weftwork convert dice adapters/dice dice-again --to dice              the folder to emo_model.pth and unet.pth

weftwork convert attentionhand attentionhand.ckpt models/hands        its ControlNet to diffusers' ControlNetModel
weftwork convert attentionhand models/hands hands-again --to attentionhand    the folder to attentionhand.ckpt

weftwork convert moai checkpoints/main models/moai            four U-Nets and their encoder to diffusers' folders
"""

import argparse
import logging
from pathlib import Path

from weftwork.datasets.readers.errors import UserError

logger = logging.getLogger(__name__)

TRANSFORMERS = ("xlabs-flux", "instantx-flux", "instantx-sd3")
"""Formats of IP-Adapters of transformers, see `weftwork.scripts.converters.transformers`."""
BOTH_WAYS = ("lots", "ip-adapter", "dice", "attentionhand", *TRANSFORMERS)
ONE_WAY = ("fastcomposer", "moai")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork convert`."""
    parser.add_argument("format", choices=[*BOTH_WAYS, *ONE_WAY], help="format of the other project")
    parser.add_argument("source", type=Path, help="checkpoint, or folder of several; with --to an adapter folder")
    parser.add_argument("target", type=Path, help="folder to write; must be empty or not exist")
    parser.add_argument(
        "--to", choices=["weftwork", *BOTH_WAYS], default="weftwork", help="direction (default: %(default)s)"
    )
    parser.add_argument("--base", choices=["sd15", "sdxl"], help="denoiser of an IP-Adapter (default: by text width)")


def run(arguments: argparse.Namespace) -> None:
    """Runs `weftwork convert`; `ValueError` for incompatible options, and as the conversion functions."""
    kind, to, base = arguments.format, arguments.to, arguments.base
    if to not in ("weftwork", kind):
        raise UserError(f"--to: got {to!r} for the format {kind!r}, expected 'weftwork' or {kind!r}; change it")
    if kind != "ip-adapter" and base is not None:
        raise UserError(f"--base: got {base!r}, has no effect with the format {kind!r}; leave it out")
    from weftwork.scripts.converters import command
    from weftwork.scripts.converters.ip_adapter import base_denoiser

    if kind in TRANSFORMERS:
        convert = command.restore_published if to == kind else command.convert_published
        convert(kind, arguments.source, arguments.target)
    elif kind in ONE_WAY:
        convert = command.convert_from_moai if kind == "moai" else command.convert_from_fastcomposer
        convert(arguments.source, arguments.target)
    elif kind in ("lots", "dice", "attentionhand"):
        direction = f"convert_{'to' if to == kind else 'from'}_{kind}"
        getattr(command, direction)(arguments.source, arguments.target)
    else:
        convert = command.convert_to_ip_adapter if to == "ip-adapter" else command.convert_from_ip_adapter
        convert(arguments.source, arguments.target, None if base is None else base_denoiser(base))
    logger.info("wrote %s", arguments.target)
