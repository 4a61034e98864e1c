"""Train a method on your own data, or on a synthetic dataset.

weftwork train paired --train_data_dir my_pairs --output_dir outputs/mine
weftwork train paired --synthetic outfits --output_dir outputs/paired
weftwork train style --train_data_dir my_images --output_dir outputs/my-styles
weftwork train style --synthetic drawings --output_dir outputs/style
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
from weftwork.pretrained import image_backbone, located, model_folder, model_name, shipped_name
from weftwork.scripts.lazy_parser import LazyParser
from weftwork.scripts.train_options import data_arguments, model_arguments, set_class_images
from weftwork.training.core import config_file
from weftwork.training.core.checkpoints import checkpoint_to_resume
from weftwork.training.core.config import TrainingConfig, from_arguments
from weftwork.training.core.config import add_arguments as add_config_arguments
from weftwork.training.core.early_stopping import check_early_stopping
from weftwork.training.core.quantization import quantization_options
from weftwork.training.core.trainer import Groups, Prepared, Trainer

if TYPE_CHECKING:
    from accelerate import PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin
    from diffusers import DiffusionPipeline, ModelMixin

    from weftwork.training.core.validation import Evaluate
    from weftwork.training.tasks.prior import Prior

STEPS: Final = 2000


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
    model, data = model_arguments(parser, trainer), data_arguments(parser)
    trainer.add_arguments(parser, Groups(model, data))
    training = parser.add_argument_group("training")
    defaults = {"train_batch_size": 16, "learning_rate": 1e-3, "validation_steps": 250}
    add_config_arguments(training, TrainingConfig, max_train_steps=None, **defaults)
    training.add_argument("--num_train_epochs", type=int, help="passes over the data, instead of --max_train_steps")
    config_file.set_defaults(parser, given)


def _trainer(method: Method) -> type[Trainer]:
    assert method.trainer is not None
    return load(method.trainer)


def run(arguments: argparse.Namespace) -> None:
    """Trains; the loadable folder is `output_dir/final`."""
    _set_steps(arguments)
    set_class_images(arguments)
    config, method = from_arguments(TrainingConfig, arguments), methods()[arguments.method]
    trainer = _trainer(method)(arguments)
    trainer.check()
    config = _checked(config, arguments, method, trainer)
    import torch

    from weftwork.attention_processors.core.adapter_files import state_sha256
    from weftwork.training.core.denoisers import denoiser_of
    from weftwork.training.core.loop import train
    from weftwork.training.core.sharding import shard

    arguments.pretrained_model_name_or_path = arguments.pretrained_model_name_or_path or trainer.default_backbone
    if arguments.init_from:
        arguments.init_from = located(arguments.init_from)
    torch.manual_seed(config.seed)
    state, plugin = _processes(arguments, trainer)
    pipe, original = _opened(arguments, method, state.device, split=plugin is not None)
    denoiser = denoiser_of(pipe)
    _check_prompts(arguments, pipe)
    prepared = trainer.prepare(pipe)
    task: Any = prepared.task
    if arguments.num_train_epochs is not None:
        config = replace(config, max_train_steps=_steps(arguments.num_train_epochs, prepared, config))
    if arguments.class_designs:
        with state.main_process_first():
            task.prior = _prior(arguments, task, reuse=not state.is_main_process)
    if arguments.cache_features and not arguments.dry_run:
        task.cache_features(arguments.cache_dir / "features")
    if plugin is not None:
        state.print(shard(denoiser, plugin, pipe.device))
    if arguments.dry_run:
        _preview(prepared, config, pipe)
        return
    before, provenance = state_sha256(denoiser), _provenance(arguments, config, prepared, original)
    task.module.register_to_config(training=provenance)
    evaluate = _evaluate(trainer, method, task.module, pipe)
    folder = train(task, prepared.data, config, evaluate, prepared.held_out)
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
    check_early_stopping(config, held_out=bool(arguments.validation_split))
    cases = arguments.validation_cases
    if cases and trainer.synthetic not in method.validation:
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
    if plugin is not None and arguments.class_designs:
        raise UserError("fsdp: got it with --class_designs, whose images need a whole model; leave one of them out")
    state = PartialState(cpu=arguments.use_cpu)
    return state, plugin if state.num_processes > 1 else None


def _opened(
    arguments: argparse.Namespace, method: Method, device: Any, *, split: bool
) -> "tuple[DiffusionPipeline, str]":
    """Returns the pipeline on its device in its dtype, and the hash of its weights as they were loaded.

    Args:
        split: whether the denoiser is to be sharded; it is moved later.
    """
    import torch

    from weftwork.attention_processors.core.adapter_files import state_sha256
    from weftwork.training.core.denoisers import denoiser_of
    from weftwork.training.core.sharding import move_except

    options = quantization_options(arguments.quantization, arguments.frozen_dtype)
    pipe = load(method.pipeline)(
        str(model_folder(arguments.pretrained_model_name_or_path)), use_safetensors=True, **options
    )
    denoiser = denoiser_of(pipe)
    original = state_sha256(denoiser)
    if split:
        move_except(denoiser, pipe, device)
    else:
        pipe.to(device)
    if arguments.frozen_dtype != "float32" and not arguments.quantization:
        pipe.to(getattr(torch, arguments.frozen_dtype))
    if arguments.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    return pipe, original


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


def _prior(arguments: argparse.Namespace, task: Any, *, reuse: bool) -> "Prior | None":
    """Returns the class images of prior preservation, made now; those of a resumed run are read again.

    Of a dry run, the designs are only checked.

    Raises:
        ValueError: designs that are wrong, or not for the method or its backbone.
    """
    import torch

    from weftwork.pipelines.designs.reader import read_design, read_designs
    from weftwork.training.core.state import averaged
    from weftwork.training.data.image_latents import Sizes, encoded_once
    from weftwork.training.tasks.prior import Prior, class_images, repeated

    path, folder = arguments.class_designs, Path(arguments.output_dir)
    given = list(read_designs(path).values()) if path.suffix == ".jsonl" else [read_design(path)]
    backbone = image_backbone(arguments.pretrained_model_name_or_path)
    designs = repeated(given, task.name, arguments.num_class_images, backbone)
    if arguments.dry_run:
        return None
    reuse |= checkpoint_to_resume(arguments.resume_from_checkpoint, folder) is not None
    with averaged(task.module, None):
        images = class_images(task.pipe, designs, folder / "class_images", reuse=reuse)
    sizes = Sizes.of(task.pipe, arguments.resolution)
    latents = encoded_once(images, len(images), task.pipe.vae, arguments.cache_dir / "latents", sizes)
    conditions = [design.conditions[task.name] for design in designs]
    prompts = [design.prompt for design in designs]
    return Prior(torch.stack(latents), prompts, conditions, arguments.train_batch_size, arguments.prior_loss_weight)


def _preview(prepared: Prepared, config: TrainingConfig, pipe: "DiffusionPipeline") -> None:
    import torch

    from weftwork.training.core.preview import preview

    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    parts.pop("adapters", None)
    print(preview(prepared.task, prepared.data, config, parts))


def _evaluate(trainer: Trainer, method: Method, module: "ModelMixin", pipe: "DiffusionPipeline") -> "Evaluate | None":
    """Scores cases at every validation, and shows the first ones below the truth."""
    if not trainer.arguments.validation_cases:
        return None
    from weftwork.evaluation.core.images import SHEET_COLUMNS, contact_sheet

    arguments = trainer.arguments
    path, name, *options = method.validation[arguments.synthetic]
    evaluation = load(path)(pipe, module, *(getattr(arguments, one) for one in options))
    evaluation = replace(evaluation, count=arguments.validation_cases)
    truth, drawn = next(iter(evaluation.rows())), functools.cache(lambda: evaluation.rows()[truth]()[0])

    def evaluate(sheet: Path) -> Mapping[str, float]:
        images, scores = evaluation.rows()[name]()
        rows = [(truth, drawn()), (name, images)]
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet([(row, shown[:SHEET_COLUMNS]) for row, shown in rows]).save(sheet)
        return scores

    return evaluate


def _provenance(
    arguments: argparse.Namespace, config: TrainingConfig, prepared: Prepared, base_sha256: str
) -> dict[str, object]:
    """The training in the config of the result."""
    from accelerate import PartialState
    from torch.utils.data import IterableDataset

    data: Any = prepared.data
    prior: Prior | None = getattr(prepared.task, "prior", None)
    micro_batches = config.gradient_accumulation_steps * PartialState().num_processes
    return {
        "samples": "a stream" if isinstance(data, IterableDataset) else len(data),
        "steps": config.max_train_steps,
        "batch": config.train_batch_size * micro_batches,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "base_sha256": base_sha256,
        **({} if prior is None else {"class_images": len(prior.prompts)}),
        **prepared.provenance,
        **({"after": prepared.task.module.config.get("training")} if arguments.init_from else {}),
    }


def _finish(
    arguments: argparse.Namespace, method: Method, task: Any, folder: Path, provenance: Mapping[str, object]
) -> None:
    """Writes the card, and uploads the result if --push_to_hub is given."""
    from weftwork.training.core.model_card import push, write_card

    written = folder / "config.json"
    about = {
        "method": method.name,
        "base": model_name(arguments.pretrained_model_name_or_path),
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
    name = shipped_name(own)
    base = json.dumps(model_name(own)) if name is None else f'shipped("{name}")'
    return method.snippet(base, '"path/to/this/folder"')
