"""Train picture and geometry of new views: places seen by several cameras, with depth (docs/instillation.md)."""

import argparse
from pathlib import Path
from typing import Any

from weftwork.training.core.config import add_arguments as add_config_arguments
from weftwork.training.core.config import from_arguments

SHOWN = 2
"""Views that validation draws."""


def add_arguments(parser: argparse.ArgumentParser, model: Any, data: Any) -> None:
    """Arguments of this method; `model` and `data` are groups that all methods share."""
    from weftwork.attention_processors.views.adapter import SHARINGS
    from weftwork.training.tasks.views import ViewsConfig

    model.add_argument("--rank", type=int, default=16, help="of the LoRAs of new modules")
    model.add_argument(
        "--sharing", choices=SHARINGS, default="instillation", help="what the geometry gets of the image"
    )
    model.add_argument("--layers", default="self", help="layers that share: self, … or a regular expression")
    model.add_argument("--gradient", choices=("live", "detach"), default="live", help="of the geometry into the image")
    data.add_argument("--train_data_dir", type=Path, help="folder of clips with cameras and depth")
    data.add_argument("--margin", type=int, default=30, help="frames from one reference to the other")
    data.add_argument("--world", choices=("rooms",), help="train on a procedural world instead")
    data.add_argument("--samples", type=int, default=2_000, help="samples of the world")
    add_config_arguments(parser.add_argument_group("objective"), ViewsConfig)


def check(arguments: argparse.Namespace) -> None:
    """Raise before anything is loaded unless there is one source of data, and a valid objective."""
    from weftwork.training.tasks.views import ViewsConfig

    from_arguments(ViewsConfig, arguments)
    if (arguments.train_data_dir is None) == (arguments.world is None):
        raise ValueError("data: got neither or both of --train_data_dir and --world; pass exactly one of them")


def pipeline(source: str) -> Any:
    """The backbone that is trained on."""
    from weftwork.pipelines.views.pipeline import AlignedViewsPipeline

    return AlignedViewsPipeline.from_pretrained(source, use_safetensors=True)


def prepare(arguments: argparse.Namespace, pipe: Any, source: str) -> tuple[Any, Any, dict[str, Any]]:
    """The task, its data, and what the modules' config says of them."""
    from weftwork.attention_processors.views.adapter import AlignedViews
    from weftwork.training.tasks.views import AlignedViewsTask, ViewsConfig

    if arguments.init_from:
        module = AlignedViews.from_pretrained(arguments.init_from, pipe.unet)
    else:
        options = {name: getattr(arguments, name) for name in ("rank", "sharing", "layers", "gradient")}
        module = AlignedViews(pipe.unet, **options)
    data, shown = _data(arguments, pipe, source)
    task = AlignedViewsTask(module, pipe, from_arguments(ViewsConfig, arguments), shown)
    about = {"data": arguments.world or arguments.train_data_dir.name, "parameters": module.counts()}
    return task, data, about


def evaluation(task: Any, count: int) -> tuple[Any, str]:
    """What scores the task's modules as they stand, and the row that does."""
    from weftwork.evaluation.methods.views import AlignedViewsEvaluation

    size = task.pipe.unet.config.sample_size * task.pipe.vae_scale_factor
    views = {"views": [task.module]}
    return AlignedViewsEvaluation(pipe=task.pipe, views=views, size=size, split="validation", count=count), "views"


def _data(arguments: argparse.Namespace, pipe: Any, source: str) -> tuple[Any, list[Any]]:
    """The training data, and what validation draws: unseen rooms, or the first places of own clips."""
    from weftwork.training.data.views import (
        ClipPictures,
        PreparedViews,
        RoomPictures,
        cached_room_latents,
        room_views,
        view_latents,
    )

    shown = SHOWN if arguments.validation_steps else 0
    resolution = arguments.resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
    if arguments.world:
        pictures = RoomPictures(arguments.cache_dir, "train", arguments.samples, resolution)
        latents = cached_room_latents(arguments.cache_dir, pipe.vae, Path(source) / "vae", pictures)
        return PreparedViews(pictures, latents), [room_views("validation", i, resolution) for i in range(shown)]
    from weftwork.datasets.readers.posed_views import PosedViews

    clips = ClipPictures(PosedViews(arguments.train_data_dir, margin=arguments.margin), resolution)
    return PreparedViews(clips, view_latents(clips, pipe.vae)), [clips.views(i) for i in range(min(shown, len(clips)))]
