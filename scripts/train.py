"""Train a method on your own data, or on a synthetic dataset.

weftwork train paired --train_data_dir my_pairs --output_dir outputs/mine
weftwork train paired --synthetic outfits --output_dir outputs/paired
weftwork train style --train_data_dir my_images --output_dir outputs/my-styles
weftwork train style --synthetic creatures --output_dir outputs/style
weftwork train reference --train_data_dir my_images --image_encoder my-clip --output_dir outputs/my-reference
weftwork train aligned-views --synthetic rooms --output_dir outputs/aligned-views
weftwork train spatial-audio --train_data_dir my_audio --output_dir outputs/my-audio
weftwork train spatial-audio --synthetic walks --output_dir outputs/spatial-audio
weftwork train paired --config run.toml --learning_rate 1e-4 --dry_run

A file in TOML holds options by the names of their flags; flags beside it replace its.
"""

import argparse
import functools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weftwork.attention_processors.core.method import Method, load, methods
from weftwork.datasets.readers.errors import UserError, check_counts
from weftwork.datasets.readers.json_object import read_json
from weftwork.pretrained import located, model_name, shipped
from weftwork.scripts.lazy_parser import LazyParser
from weftwork.training.core import config_file
from weftwork.training.core.checkpoints import checkpoint_to_resume
from weftwork.training.core.config import TrainingConfig, from_arguments
from weftwork.training.core.config import add_arguments as add_config_arguments
from weftwork.training.core.quantization import PACKAGES, quantization_options
from weftwork.training.core.trainer import Groups, Prepared, Trainer

if TYPE_CHECKING:
    from accelerate import PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin
    from diffusers import DiffusionPipeline, ModelMixin

    from weftwork.training.core.loop import Evaluate

STEPS: Final = 2000
DTYPES: Final = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork train`."""
    several = parser.add_subparsers(dest="method", required=True, metavar="method", parser_class=LazyParser)
    for method in methods().values():
        if method.trainer is not None:
            several.add_parser(method.name, help=method.summary, fill=functools.partial(_fill, method))


def _fill(method: Method, parser: argparse.ArgumentParser, given: Sequence[str]) -> None:
    trainer = _trainer(method)
    parser.description = sys.modules[trainer.__module__].__doc__
    parser.add_argument("--config", type=Path, help="a TOML file of options")
    parser.add_argument("--dry_run", action="store_true", help="load one batch, print a preview, and stop")
    parser.add_argument("--license", default="unknown", help="for the card of the result, for example apache-2.0")
    parser.add_argument("--push_to_hub", metavar="REPO", help="upload the result to this repository of the Hub")
    model, data = _model_arguments(parser, method), _data_arguments(parser)
    trainer.add_arguments(parser, Groups(model, data))
    training = parser.add_argument_group("training")
    defaults = {"train_batch_size": 16, "learning_rate": 1e-3, "validation_steps": 250}
    add_config_arguments(training, TrainingConfig, max_train_steps=None, **defaults)
    training.add_argument("--num_train_epochs", type=int, help="passes over the data, instead of --max_train_steps")
    config_file.set_defaults(parser, given)


def _model_arguments(parser: argparse.ArgumentParser, method: Method) -> "argparse._ArgumentGroup":
    model = parser.add_argument_group("model")
    model.add_argument(
        "--pretrained_model_name_or_path",
        help=f"the backbone's folder or Hub id (default: the shipped {method.backbone})",
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


def _data_arguments(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
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
        "--validation_cases",
        type=int,
        default=0,
        help="unseen cases of the synthetic dataset that every validation scores",
    )
    return data


def _trainer(method: Method) -> type[Trainer]:
    assert method.trainer is not None
    return load(method.trainer)


def run(arguments: argparse.Namespace) -> None:
    """Trains; the loadable folder is `output_dir/final`."""
    _set_steps(arguments)
    config, method = from_arguments(TrainingConfig, arguments), methods()[arguments.method]
    trainer = _trainer(method)(arguments)
    trainer.check()
    config = _checked(config, arguments, method, trainer)
    import torch

    from weftwork.attention_processors.core.adapter_files import state_sha256
    from weftwork.training.core.denoisers import denoiser_of
    from weftwork.training.core.loop import train
    from weftwork.training.core.sharding import shard

    if arguments.init_from:
        arguments.init_from = located(arguments.init_from)
    torch.manual_seed(config.seed)
    state, plugin = _processes(arguments, trainer)
    source = arguments.pretrained_model_name_or_path or str(shipped(method.backbone))
    options = quantization_options(arguments.quantization, arguments.frozen_dtype)
    pipe = load(method.pipeline)(source, use_safetensors=True, **options)
    denoiser = denoiser_of(pipe)
    original = state_sha256(denoiser)
    _place(pipe, denoiser, arguments, state.device, split=plugin is not None)
    _check_prompts(arguments, pipe)
    prepared = trainer.prepare(pipe)
    task: Any = prepared.task
    if arguments.num_train_epochs is not None:
        config = replace(config, max_train_steps=_steps(arguments.num_train_epochs, prepared, config))
    if arguments.cache_features and not arguments.dry_run and hasattr(task, "cache_features"):
        task.cache_features(arguments.cache_dir / "features")
    if plugin is not None:
        state.print(shard(denoiser, plugin, pipe.device))
    if arguments.dry_run:
        _preview(prepared, config, pipe)
        return
    before, provenance = state_sha256(denoiser), _provenance(config, prepared, original)
    if arguments.init_from:
        provenance["after"] = task.module.config["training"]
    task.module.register_to_config(training=provenance)
    folder = train(task, prepared.data, config, _evaluate(arguments, method, task.module, pipe))
    if (after := state_sha256(denoiser)) != before:
        raise RuntimeError(
            f"backbone: its weights changed in training ({before[:12]} to {after[:12]}); remove {folder.parent}"
        )
    if state.is_main_process:
        _finish(arguments, method, task, folder, provenance)


def _set_steps(arguments: argparse.Namespace) -> None:
    """Checks epochs and steps, and sets the default of the latter."""
    epochs, steps = arguments.num_train_epochs, arguments.max_train_steps
    if epochs is not None:
        check_counts(num_train_epochs=epochs)
    if epochs is not None and steps is not None:
        raise UserError(f"num_train_epochs: got {epochs} beside max_train_steps {steps}; leave one of them out")
    arguments.max_train_steps = STEPS if steps is None else steps


def _checked(config: TrainingConfig, arguments: argparse.Namespace, method: Method, trainer: Trainer) -> TrainingConfig:
    """Returns the options with an installed tracker; `ValueError` if it, the folder or validation cases do not fit."""
    if not arguments.dry_run:
        checkpoint_to_resume(arguments.resume_from_checkpoint, Path(arguments.output_dir))
    cases = arguments.validation_cases
    if cases and (trainer.synthetic is None or method.validation is None):
        raise UserError(
            f"validation_cases: got {cases}, but only a synthetic dataset of a method with an evaluation has cases to "
            "score; leave it out, and look at the validation images"
        )
    from weftwork.training.core.trackers import tracker

    return replace(config, report_to=tracker(config.report_to))


def _processes(
    arguments: argparse.Namespace, trainer: Trainer
) -> "tuple[PartialState, FullyShardedDataParallelPlugin | None]":
    """All processes, and the sharding plugin of accelerate if there are several."""
    from accelerate import PartialState

    from weftwork.training.core.sharding import sharding

    plugin = sharding()
    if plugin is not None and not trainer.shards:
        raise UserError(f"fsdp: got it for {arguments.method}, which does not split; launch with --multi_gpu")
    if plugin is not None and arguments.quantization:
        raise UserError("fsdp: got it with --quantization, which does not split; leave one of them out")
    state = PartialState(cpu=arguments.use_cpu)
    return state, plugin if state.num_processes > 1 else None


def _place(
    pipe: "DiffusionPipeline",
    denoiser: "ModelMixin",
    arguments: argparse.Namespace,
    device: Any,
    *,
    split: bool,
) -> None:
    """Moves the frozen parts to their device and dtype; a denoiser that is to be split is moved later."""
    import torch

    from weftwork.training.core.sharding import move_except

    if split:
        move_except(denoiser, pipe, device)
    else:
        pipe.to(device)
    if arguments.frozen_dtype != "float32" and not arguments.quantization:
        pipe.to(getattr(torch, arguments.frozen_dtype))
    if arguments.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()


def _check_prompts(arguments: argparse.Namespace, pipe: "DiffusionPipeline") -> None:
    """Raises for validation prompts that are longer than the backbone reads."""
    from weftwork.training.data.prompts import PromptTokens, check_lengths

    if arguments.validation_prompt:
        tokens = PromptTokens.of(pipe, getattr(arguments, "max_sequence_length", None))
        check_lengths(("validation_prompt", one, tokens, tokens.longest) for one in arguments.validation_prompt)


def _steps(epochs: int, prepared: Prepared, config: TrainingConfig) -> int:
    """Optimizer steps of so many passes over the data; `ValueError` for a stream, whose length is not known."""
    from accelerate import PartialState

    from weftwork.training.core.batches import Batches

    size, processes = config.train_batch_size, PartialState().num_processes
    batches = Batches(prepared.data, prepared.task.collate, batch_size=size, processes=processes).per_epoch
    if batches is None:
        raise UserError(
            f"num_train_epochs: got {epochs} of a stream, whose length is not known; give --max_train_steps"
        )
    return math.ceil(epochs * batches / config.gradient_accumulation_steps)


def _preview(prepared: Prepared, config: TrainingConfig, pipe: "DiffusionPipeline") -> None:
    import torch

    from weftwork.training.core.preview import preview

    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    parts.pop("adapters", None)
    print(preview(prepared.task, prepared.data, config, parts))


def _evaluate(
    arguments: argparse.Namespace, method: Method, module: "ModelMixin", pipe: "DiffusionPipeline"
) -> "Evaluate | None":
    """Scores cases at every validation, and shows the first ones below the truth."""
    if not arguments.validation_cases or method.validation is None:
        return None
    from weftwork.evaluation.core.images import SHEET_COLUMNS, contact_sheet

    evaluation, name = load(method.validation)(pipe, module, arguments.validation_cases)
    truth, drawn = next(iter(evaluation.rows())), functools.cache(lambda: evaluation.rows()[truth]()[0])

    def evaluate(sheet: Path) -> Mapping[str, float]:
        images, scores = evaluation.rows()[name]()
        rows = [(truth, drawn()), (name, images)]
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet([(row, shown[:SHEET_COLUMNS]) for row, shown in rows]).save(sheet)
        return scores

    return evaluate


def _provenance(config: TrainingConfig, prepared: Prepared, base_sha256: str) -> dict[str, object]:
    """The training in the config of the result."""
    from accelerate import PartialState
    from torch.utils.data import IterableDataset

    data: Any = prepared.data
    micro_batches = config.gradient_accumulation_steps * PartialState().num_processes
    return {
        "samples": "a stream" if isinstance(data, IterableDataset) else len(data),
        "steps": config.max_train_steps,
        "batch": config.train_batch_size * micro_batches,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "base_sha256": base_sha256,
        **prepared.provenance,
    }


def _finish(
    arguments: argparse.Namespace, method: Method, task: Any, folder: Path, provenance: Mapping[str, object]
) -> None:
    """Writes the card, and uploads the result if --push_to_hub is given."""
    from weftwork.training.core.model_card import push, write_card

    written = folder / "config.json"
    about = {
        "method": method.name,
        "base": model_name(arguments.pretrained_model_name_or_path or method.backbone),
        "license": arguments.license,
        "parameters": sum(p.numel() for p in task.module.parameters() if p.requires_grad),
        "training": read_json(written)["training"] if written.is_file() else provenance,
        "usage": _usage(arguments, method),
    }
    write_card(folder, folder.parent, about)
    print(f"adapter: {folder}")
    if arguments.push_to_hub:
        print(f"uploaded: {push(folder, arguments.push_to_hub)}")


def _usage(arguments: argparse.Namespace, method: Method) -> str:
    """Returns the Python text of the card, without paths of this machine."""
    if not method.usage:
        return ""
    own = arguments.pretrained_model_name_or_path
    base = f'shipped("{method.backbone}")' if own is None else json.dumps(model_name(own))
    return method.snippet(base, '"path/to/this/folder"')
