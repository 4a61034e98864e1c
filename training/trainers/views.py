"""Train image and geometry of new views: places seen by several cameras, with depth (docs/instillation.md)."""

import argparse
from pathlib import Path
from typing import Any, Final

from weftwork.attention_processors.views import SHARINGS
from weftwork.training.core.trainer import Groups, Prepared, Trainer
from weftwork.training.tasks.options import ViewsConfig

SHOWN: Final = 2
"""Validation views."""


class ViewsTrainer(Trainer):
    """Trains image and geometry of a new view."""

    options = ViewsConfig
    options_title = "objective"
    folder = "folder of clips with cameras and depth"
    worlds = ("rooms",)
    samples = 2_000
    without_effect = ("cache_features", "validation_prompt")
    shards = False

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, groups: Groups) -> None:
        model = groups.model
        model.add_argument("--rank", type=int, default=16, help="of the LoRAs of new modules")
        model.add_argument(
            "--sharing", choices=SHARINGS, default="instillation", help="attention of the image that the geometry gets"
        )
        model.add_argument("--layers", default="self", help="layers that share: self, … or a regular expression")
        model.add_argument(
            "--gradient", choices=("live", "detach"), default="live", help="of the geometry into the image"
        )
        super().add_arguments(parser, groups)
        groups.data.add_argument("--margin", type=int, default=30, help="frames from one reference to the other")

    def prepare(self, pipe: Any, source: str) -> Prepared:
        from weftwork.attention_processors.views.adapter import AlignedViews
        from weftwork.training.tasks.views import AlignedViewsTask

        arguments = self.arguments
        if arguments.init_from:
            module = AlignedViews.from_pretrained(arguments.init_from, pipe.unet)
        else:
            options = {name: getattr(arguments, name) for name in ("rank", "sharing", "layers", "gradient")}
            module = AlignedViews(pipe.unet, **options)
        data, validation = self._data(pipe, source)
        task = AlignedViewsTask(module, pipe, self.config(), validation)
        return Prepared(task, data, {"data": self.data_name, "parameters": module.counts()})

    def _data(self, pipe: Any, source: str) -> tuple[Any, list[Any]]:
        """Returns the training data and the validation views: unseen rooms, or the first samples of user clips."""
        from weftwork.training.data.views import (
            ClipImages,
            PreparedViews,
            RoomImages,
            cached_room_latents,
            room_views,
            view_latents,
        )

        arguments = self.arguments
        shown = SHOWN if arguments.validation_steps else 0
        resolution = arguments.resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
        if self.world:
            images = RoomImages(arguments.cache_dir, "train", arguments.samples, resolution)
            latents = cached_room_latents(arguments.cache_dir, pipe.vae, Path(source) / "vae", images)
            return PreparedViews(images, latents), [room_views("validation", i, resolution) for i in range(shown)]
        from weftwork.datasets.readers.posed_views import PosedViews

        clips = ClipImages(PosedViews(arguments.train_data_dir, margin=arguments.margin), resolution)
        views = [clips.views(i) for i in range(min(shown, len(clips)))]
        return PreparedViews(clips, view_latents(clips, pipe.vae)), views
