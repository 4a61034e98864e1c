"""The base of trainers on captioned images: folders with metadata.jsonl, and image–text datasets."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from weftwork.training.core.trainer import Groups, Trainer
from weftwork.training.tasks.options import StyleConfig

if TYPE_CHECKING:
    from weftwork.training.data.styles import StyledImages


class CaptionedTrainer(Trainer):
    """Trains on captioned images, each with a latent image and a prompt."""

    options = StyleConfig
    sources = ("train_data_dir", "dataset_name", "world")
    columns: ClassVar[Sequence[str]]
    """Options that name columns of user data."""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, groups: Groups) -> None:
        data = groups.data
        data.add_argument("--dataset_name", help="an image–text dataset of Hugging Face datasets, by name or path")
        for name in cls.columns:
            kind = name.removesuffix("_column")
            data.add_argument(f"--{name}", help=f"of own data (default: the one column that can hold {kind}s)")
        data.add_argument("--aspect_buckets", action="store_true", help="keep the aspects of own images, about")
        super().add_arguments(parser, groups)

    @property
    def data_name(self) -> str:
        return self.world or self.arguments.dataset_name or self.arguments.train_data_dir.name

    def column_options(self) -> dict[str, Any]:
        """Returns the columns of user data by option."""
        return {name: getattr(self.arguments, name) for name in self.columns}

    def captioned(self, pipe: Any, **options: Any) -> "StyledImages":
        """Returns user images with captions and latents; `options` are those of `CaptionedImages`."""
        from weftwork.datasets.readers.captioned_images import CaptionedImages
        from weftwork.training.data.image_latents import Sizes
        from weftwork.training.data.prompts import PromptTokens, check_lengths
        from weftwork.training.data.styles import StyledImages

        arguments = self.arguments
        if arguments.train_data_dir is not None:
            samples = CaptionedImages.from_folder(arguments.train_data_dir, **options)
        else:
            samples = CaptionedImages.from_name(arguments.dataset_name, **options)
        prompt = PromptTokens.of(pipe, arguments.max_sequence_length)
        check_lengths((f"row {i + 1}", one, prompt, prompt.longest) for i, one in enumerate(samples.captions))
        sizes = Sizes.of(pipe, arguments.resolution, aspects=arguments.aspect_buckets)
        return StyledImages(samples, pipe.vae, arguments.cache_dir / "latents", sizes, dry=arguments.dry_run)
