"""Options of `weftwork train` that all methods share."""

import argparse
from pathlib import Path
from typing import Final

from weftwork.datasets.readers.errors import UserError, check_counts
from weftwork.training.core.quantization import PACKAGES
from weftwork.training.core.trainer import BACKBONES, Trainer

DTYPES: Final = ("float32", "bfloat16", "float16")


def model_arguments(parser: argparse.ArgumentParser, trainer: type[Trainer]) -> "argparse._ArgumentGroup":
    """Adds the options of the backbone and the adapter to start from."""
    of_data = {name: BACKBONES.get(name, trainer.backbone) for name in trainer.synthetic_datasets}
    others = [f"{one} for --synthetic {name}" for name, one in of_data.items() if one != trainer.backbone]
    backbones = ", ".join([trainer.backbone, *others, "that of a shipped --init_from"])
    model = parser.add_argument_group("model")
    model.add_argument(
        "--pretrained_model_name_or_path",
        help=f"the backbone's folder or Hub id, or a shipped one (default: {backbones})",
    )
    model.add_argument(
        "--frozen_dtype", choices=DTYPES, default="float32", help="of the backbone; trained weights stay float32"
    )
    model.add_argument("--quantization", choices=tuple(PACKAGES), help="of the backbone's weights, as they are loaded")
    model.add_argument(
        "--gradient_checkpointing",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="compute activations again in the backward pass instead of holding them",
    )
    model.add_argument("--init_from", type=Path, help="start from this adapter instead of a new one")
    return model


def set_class_images(arguments: argparse.Namespace) -> None:
    """Sets defaults of prior preservation; `ValueError` for options of it without designs, or out of their range."""
    for name, default in {"num_class_images": 100, "prior_loss_weight": 1.0}.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
        elif not arguments.class_designs:
            raise UserError(f"{name}: has no effect without --class_designs; pass them, or leave it out")
    check_counts(num_class_images=arguments.num_class_images)
    if not 0 <= arguments.prior_loss_weight < float("inf"):
        raise UserError(
            f"prior_loss_weight: got {arguments.prior_loss_weight}, expected a number of at least 0; raise it"
        )


def data_arguments(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Adds the options of data and validation."""
    data = parser.add_argument_group("data")
    data.add_argument("--resolution", type=int, help="side of training images in pixels (default: the model's)")
    data.add_argument(
        "--cache_features",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="cache the outputs of frozen encoders in --cache_dir",
    )
    data.add_argument(
        "--cache_dir", type=Path, default=Path(".cache/pictures"), help="synthetic images, latents and features"
    )
    data.add_argument(
        "--validation_prompt", nargs="+", metavar="PROMPT", help="of validation images (default: captions of the data)"
    )
    data.add_argument(
        "--class_designs",
        type=Path,
        metavar="FILE",
        help="prior preservation: designs (JSON or JSONL) of what the adapter should go on making as it does now",
    )
    data.add_argument("--num_class_images", type=int, help="images made of --class_designs at first (default: 100)")
    data.add_argument("--prior_loss_weight", type=float, help="factor of their loss (default: 1)")
    data.add_argument(
        "--validation_split",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="hold out this share of the samples; their loss is computed at every validation (default: 0)",
    )
    data.add_argument(
        "--validation_cases",
        type=int,
        default=0,
        help="unseen cases of the synthetic dataset that every validation scores",
    )
    return data
