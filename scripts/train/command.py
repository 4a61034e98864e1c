"""Train an adapter on pictures of your own, or on the procedural world it ships with.

weftwork train paired --train_data_dir my_pairs --output_dir outputs/mine
weftwork train paired --world outfits --output_dir outputs/paired
weftwork train style --train_data_dir my_pictures --output_dir outputs/my-styles
weftwork train style --world creatures --output_dir outputs/style
weftwork train reference --train_data_dir my_pictures --image_encoder my-clip --output_dir outputs/my-reference
weftwork train aligned-views --world rooms --output_dir outputs/aligned-views
weftwork train spatial-audio --train_data_dir my_sounds --output_dir outputs/my-sounds
weftwork train spatial-audio --world walks --output_dir outputs/spatial-audio
weftwork train paired --config run.toml --learning_rate 1e-4 --dry_run

A file in TOML holds options by the names of their flags; flags beside it replace its.
"""

import argparse
import functools
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from weftwork.pretrained import backbone, model_name, shipped
from weftwork.training.core.config import TrainingConfig, from_arguments
from weftwork.training.core.config import add_arguments as add_config_arguments

if TYPE_CHECKING:
    from weftwork.training.core.loop import Evaluate

METHODS: Final[Mapping[str, str]] = {
    "paired": "localized pairs of sketch and text",
    "style": "styles by name",
    "reference": "pictures to take after",
    "aligned-views": "picture and geometry of a new view",
    "spatial-audio": "stereo sound that follows what is seen",
}
WORLD_IDLE: Final = (
    "aspect_buckets",
    "pair_buckets",
    "image_column",
    "caption_column",
    "style_column",
    "seconds",
    "audio_encoder",
)
OWN_IDLE: Final = ("merged", "unnamed_share")
METHOD_IDLE: Final[Mapping[str, Sequence[str]]] = {
    "aligned-views": ("cache_features", "validation_prompt"),
    "spatial-audio": ("cache_features", "resolution", "validation_prompt"),
}
"""Options that change nothing: on a world, on own data, for a method."""
STEPS: Final = 2000
WHOLE: Final = ("aligned-views", "spatial-audio")
"""Methods that call other things than a U-Net's blocks, which alone are split."""
DTYPES: Final = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    several = parser.add_subparsers(dest="method", required=True, metavar="method")
    for name, text in METHODS.items():
        one = several.add_parser(name, help=text, description=_module(name).__doc__)
        one.add_argument("--config", type=Path, help="a TOML file of options")
        one.add_argument("--dry_run", action="store_true", help="load one batch, say what would be done, and stop")
        one.add_argument("--license", default="unknown", help="for the card of the result, for example apache-2.0")
        one.add_argument("--push_to_hub", metavar="REPO", help="upload the result to this repository of the Hub")
        model, data = _model_arguments(one, name), _data_arguments(one)
        _module(name).add_arguments(one, model, data)
        add_config_arguments(
            one.add_argument_group("training"),
            TrainingConfig,
            max_train_steps=STEPS,
            train_batch_size=16,
            learning_rate=1e-3,
            validation_steps=250,
        )
        one.add_argument("--num_train_epochs", type=int, help="passes over the data, instead of --max_train_steps")


def _model_arguments(one: argparse.ArgumentParser, method: str) -> Any:
    model = one.add_argument_group("model")
    model.add_argument(
        "--pretrained_model_name_or_path",
        help=f"the backbone's folder or Hub id (default: the shipped {backbone(method)})",
    )
    model.add_argument(
        "--frozen_dtype", choices=DTYPES, default="float32", help="of the backbone; what is trained stays float32"
    )
    model.add_argument(
        "--gradient_checkpointing",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="compute activations again in the backward pass instead of holding them",
    )
    model.add_argument("--init_from", type=Path, help="start from this adapter instead of a new one")
    return model


def _data_arguments(one: argparse.ArgumentParser) -> Any:
    data = one.add_argument_group("data")
    data.add_argument("--resolution", type=int, help="side of training pictures in pixels (default: the model's)")
    data.add_argument(
        "--cache_features",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="keep what frozen encoders say of texts and pictures in --cache_dir",
    )
    data.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="drawn pictures and latents")
    data.add_argument(
        "--validation_prompt", nargs="+", metavar="PROMPT", help="what validation draws (default: captions of the data)"
    )
    data.add_argument(
        "--validation_cases", type=int, default=0, help="unseen cases of the --world that every validation scores"
    )
    return data


def expanded(arguments: Sequence[str]) -> list[str]:
    """The arguments of this command with those of a file, `--config`, put in.

    Raises:
        ValueError: a file that cannot be read, or an option that there is not.
    """
    from weftwork.training.core import config_file

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    several: Any = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    place = next((i for i, word in enumerate(arguments) if word in METHODS), None)
    if place is None:
        return list(arguments)
    before, after = list(arguments[: place + 1]), arguments[place + 1 :]
    return before + config_file.expanded(after, several.choices[arguments[place]])


def run(arguments: argparse.Namespace) -> None:
    """Train and leave the loadable folder at `output_dir/final`."""
    import torch

    from weftwork.attention_processors.core.adapter import state_sha256
    from weftwork.training.core.loop import train
    from weftwork.training.core.sharding import shard

    config = from_arguments(TrainingConfig, arguments)
    method = _module(arguments.method)
    method.check(arguments)
    _check_idle(arguments)
    _check_epochs(arguments)
    _check_validation(arguments)
    torch.manual_seed(config.seed)
    state, plugin = _processes(arguments)
    source = arguments.pretrained_model_name_or_path or str(shipped(backbone(arguments.method)))
    pipe = getattr(method, "pipeline", _pipeline)(source)
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    original = state_sha256(denoiser)
    _place(pipe, denoiser, arguments, state.device, split=plugin is not None)
    _check_prompts(arguments, pipe)
    task, data, about = method.prepare(arguments, pipe, source)
    if arguments.num_train_epochs is not None:
        config = replace(config, max_train_steps=_steps(arguments.num_train_epochs, data, task, config))
    if arguments.cache_features and not arguments.dry_run and hasattr(task, "cache_features"):
        task.cache_features(arguments.cache_dir / "features")
    if plugin is not None:
        state.print(shard(denoiser, plugin, pipe.device))
    if arguments.dry_run:
        _preview(task, data, config, pipe)
        return
    before = state_sha256(denoiser)
    provenance = _provenance(config, data, {"base_sha256": original, **about})
    if arguments.init_from:
        provenance["after"] = task.module.config["training"]
    task.module.register_to_config(training=provenance)
    folder = train(task, data, config, _evaluate(arguments, method, task))
    after = state_sha256(denoiser)
    if after != before:
        raise RuntimeError(
            f"backbone: its weights changed in training ({before[:12]} to {after[:12]}); discard {folder}"
        )
    if state.is_main_process:
        _finish(arguments, task, folder, provenance)


def _processes(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """All processes, and how accelerate wants weights to be split among them, if it does."""
    from accelerate import PartialState

    from weftwork.training.core.sharding import sharding

    plugin = sharding()
    if plugin is not None and arguments.method in WHOLE:
        raise ValueError(f"fsdp: got it for {arguments.method}, which does not split; launch with --multi_gpu")
    state = PartialState(cpu=arguments.use_cpu)
    return state, plugin if state.num_processes > 1 else None


def _place(pipe: Any, denoiser: Any, arguments: argparse.Namespace, device: Any, *, split: bool) -> None:
    """Where the frozen parts compute, and how; a denoiser that is to be split goes there later."""
    import torch

    from weftwork.training.core.sharding import move_but

    if split:
        move_but(denoiser, pipe, device)
    else:
        pipe.to(device)
    if arguments.frozen_dtype != "float32":
        pipe.to(getattr(torch, arguments.frozen_dtype))
    if arguments.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()


def _steps(epochs: int, data: Any, task: Any, config: TrainingConfig) -> int:
    """Optimizer steps of so many passes over the data.

    Raises:
        ValueError: nobody knows how long a pass is.
    """
    from accelerate import PartialState

    from weftwork.training.core.batches import Batches

    size, processes = config.train_batch_size, PartialState().num_processes
    batches = Batches(data, task.collate, batch_size=size, processes=processes).per_epoch
    if batches is None:
        raise ValueError(
            f"num_train_epochs: got {epochs} of a stream, whose length is not known; give --max_train_steps"
        )
    return math.ceil(epochs * batches / config.gradient_accumulation_steps)


def _preview(task: Any, data: Any, config: TrainingConfig, pipe: Any) -> None:
    import torch

    from weftwork.training.core.preview import preview

    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    parts.pop("adapters", None)
    print(preview(task, data, config, parts))


def _check_idle(arguments: argparse.Namespace) -> None:
    """Raise for options that would be read by nobody."""
    own, world = f"own data of {arguments.method}", f"a --world of {arguments.method}"
    where, idle = (own, OWN_IDLE) if arguments.world is None else (world, WORLD_IDLE)
    for name in (*idle, *METHOD_IDLE.get(arguments.method, ())):
        if getattr(arguments, name, None):
            raise ValueError(f"{name}: got it, but it changes nothing for {where}; leave it out")


def _check_epochs(arguments: argparse.Namespace) -> None:
    epochs, steps = arguments.num_train_epochs, arguments.max_train_steps
    if epochs is not None and epochs < 1:
        raise ValueError(f"num_train_epochs: got {epochs}, expected at least 1; pass more")
    if epochs is not None and steps != STEPS:
        raise ValueError(f"num_train_epochs: got {epochs} beside max_train_steps {steps}; leave one of them out")


def _check_validation(arguments: argparse.Namespace) -> None:
    cases = arguments.validation_cases
    if cases and (arguments.world is None or getattr(arguments, "merged", False)):
        raise ValueError(
            f"validation_cases: got {cases}, but only what is trained on a --world, pair by pair, is read back; leave "
            "it out, and look at the validation pictures"
        )


def _check_prompts(arguments: argparse.Namespace, pipe: Any) -> None:
    """Raise for prompts of validation that the backbone does not read to their end."""
    from weftwork.attention_processors.encoders import TextEncoders
    from weftwork.training.data.prompts import check_lengths

    if arguments.validation_prompt:
        text = TextEncoders.of(pipe)
        check_lengths((("validation_prompt", one, text.longest) for one in arguments.validation_prompt), text)


def _evaluate(arguments: argparse.Namespace, method: ModuleType, task: Any) -> "Evaluate | None":
    """What scores every validation, and shows its first cases below the truth."""
    if not arguments.validation_cases:
        return None
    from weftwork.evaluation.core.images import SHEET_COLUMNS, contact_sheet

    evaluation, name = method.evaluation(task, arguments.validation_cases)
    truth, drawn = next(iter(evaluation.rows())), functools.cache(lambda: evaluation.rows()[truth]()[0])

    def evaluate(sheet: Path) -> Mapping[str, float]:
        pictures, scores = evaluation.rows()[name]()
        rows = [(truth, drawn()), (name, pictures)]
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet([(row, shown[:SHEET_COLUMNS]) for row, shown in rows]).save(sheet)
        return scores

    return evaluate


def _provenance(config: TrainingConfig, data: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the result says of its training."""
    from accelerate import PartialState
    from torch.utils.data import IterableDataset

    micro_batches = config.gradient_accumulation_steps * PartialState().num_processes
    return {
        "samples": "a stream" if isinstance(data, IterableDataset) else len(data),
        "steps": config.max_train_steps,
        "batch": config.train_batch_size * micro_batches,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        **about,
    }


def _finish(arguments: argparse.Namespace, task: Any, folder: Path, provenance: Mapping[str, Any]) -> None:
    """The card, and the upload where one is asked for."""
    from weftwork.training.core.model_card import push, write_card

    source = arguments.pretrained_model_name_or_path or backbone(arguments.method)
    about = {
        "method": arguments.method,
        "base": model_name(source),
        "license": arguments.license,
        "parameters": sum(p.numel() for p in task.module.parameters() if p.requires_grad),
        "training": provenance,
    }
    write_card(folder, folder.parent, about)
    print(f"adapter: {folder}")
    if arguments.push_to_hub:
        print(f"uploaded: {push(folder, arguments.push_to_hub)}")


def _module(method: str) -> ModuleType:
    """What is particular to a method: `add_arguments`, `check`, `prepare`, and `pipeline` where it is no picture's."""
    return importlib.import_module(f"weftwork.scripts.train.{method.replace('-', '_')}")


def _pipeline(source: str) -> Any:
    from weftwork.pipelines.core.mixin import open_conditioned

    return open_conditioned(source, use_safetensors=True)
