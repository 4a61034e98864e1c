"""Train styles by name: images of each, with captions of what they show (docs/style.md)."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.trainer import Groups, Prepared
from weftwork.training.trainers.captioned import CaptionedTrainer

if TYPE_CHECKING:
    from weftwork.attention_processors.style.adapter import StyleAdapter


class StyleTrainer(CaptionedTrainer):
    """Trains styles by name."""

    folder = "folder of images with metadata.jsonl: text and style"
    columns = ("image_column", "caption_column", "style_column")
    worlds = ("creatures", "all", "drawings")
    samples = 12_000
    own_only = ("aspect_buckets", *columns)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, groups: Groups) -> None:
        model, data = groups.model, groups.data
        model.add_argument(
            "--layers", default="decoder", help="layers of a new adapter: all, decoder, … or a regular expression"
        )
        model.add_argument("--fusion", default="additive", help="additive, gated or concat")
        model.add_argument("--num_tokens", type=int, default=4, help="tokens per style of a new adapter")
        model.add_argument("--style_dim", type=int, default=128, help="width of a style's row of a new adapter")
        model.add_argument("--rank", type=int, default=0, help="rank of keys and values of a new adapter; 0 = full")
        super().add_arguments(parser, groups)
        data.add_argument("--style", help="the name of the one style, where the data have no style column")
        data.add_argument("--streaming", action="store_true", help="read --dataset_name row by row; nothing is kept")
        data.add_argument("--styles", nargs="*", default=(), help="with --streaming, the names in the style column")

    def check(self) -> None:
        super().check()
        arguments = self.arguments
        if self.world and arguments.style:
            raise UserError(f"style: got {arguments.style!r} beside --world, which has its own styles; leave it out")
        if arguments.streaming and (arguments.dataset_name is None or arguments.aspect_buckets):
            raise UserError(
                "streaming: got it without --dataset_name or with --aspect_buckets; stream a dataset, in squares"
            )

    def prepare(self, pipe: Any, source: str) -> Prepared:
        from weftwork.datasets.synthetic.creatures import STYLES
        from weftwork.training.tasks.style import StyleTask

        data, prompts = self._data(pipe, source)
        prompts = self.arguments.validation_prompt or prompts
        adapter = self._adapter(pipe, STYLES if self.world in ("creatures", "all") else data.styles)
        provenance = {"data": "creatures and outfits" if self.world == "all" else self.data_name}
        return Prepared(StyleTask(adapter, pipe, self.config(), prompts), data, provenance)

    def _adapter(self, pipe: Any, styles: tuple[str, ...]) -> "StyleAdapter":
        from weftwork.attention_processors.core.families import base_description
        from weftwork.attention_processors.style.adapter import StyleAdapter
        from weftwork.training.core.denoisers import denoiser_of

        arguments, denoiser = self.arguments, denoiser_of(pipe)
        if arguments.init_from:
            adapter = StyleAdapter.from_pretrained(arguments.init_from)
            adapter.check_base(denoiser)
            unknown = [style for style in styles if style not in adapter.config["styles"]]
            return adapter.extended(unknown) if unknown else adapter
        return StyleAdapter.for_denoiser(
            denoiser,
            layers=arguments.layers,
            styles=list(styles),
            style_dim=arguments.style_dim,
            token_dim=base_description(denoiser)["context_dim"],
            num_tokens=arguments.num_tokens,
            rank=arguments.rank,
            fusion=arguments.fusion,
        )

    def _data(self, pipe: Any, source: str) -> tuple[Any, list[str]]:
        """Returns the training data and the validation prompts."""
        if self.world:
            return (self._drawings if self.world == "drawings" else self._world)(pipe, source)
        arguments, options = self.arguments, {**self.column_options(), "style": self.arguments.style}
        if arguments.streaming:
            from weftwork.datasets.readers.captioned_stream import CaptionedStream
            from weftwork.training.data.image_latents import Sizes
            from weftwork.training.data.styles import StyledStream

            stream = CaptionedStream.from_name(
                arguments.dataset_name, styles=arguments.styles, seed=arguments.seed, **options
            )
            return StyledStream(stream, pipe.vae, Sizes.of(pipe, arguments.resolution)), []
        data = self.captioned(pipe, **options)
        return data, [data.samples[index].caption for index in range(min(4, len(data)))]

    def _world(self, pipe: Any, source: str) -> tuple[Any, list[str]]:
        from torch.utils.data import ConcatDataset

        from weftwork.datasets.synthetic import creatures, outfits
        from weftwork.training.data.image_cache import CreatureImages, OutfitImages, cached_latents
        from weftwork.training.data.styles import StyledCreatures, StyledOutfits

        cache, count = self.arguments.cache_dir, self.arguments.samples

        def latents(images: Any) -> Any:
            return cached_latents(cache, pipe.vae, Path(source) / "vae", images)

        shown = CreatureImages(cache, "train", count)
        data: Any = StyledCreatures(shown, latents(shown))
        prompts = [creatures.sample("validation", index).caption for index in range(4)]
        if self.world == "all":
            worn = OutfitImages(cache, "train", count, styled=True)
            data = ConcatDataset([data, StyledOutfits(worn, latents(worn))])
            prompts[2:] = [outfits.sample("validation", index).caption for index in range(2)]
        return data, prompts

    def _drawings(self, pipe: Any, source: str) -> tuple[Any, list[str]]:
        from weftwork.attention_processors.encoders import TextEncoders
        from weftwork.datasets.drawings.captions import full_caption
        from weftwork.training.data.drawings import StyledScenes, held_out_scenes, scene_latents

        drawings = self.rendered()
        images, latents = scene_latents(drawings, self.arguments, pipe, source)
        prompts = [full_caption(shown, styled=False) for shown, _ in held_out_scenes(drawings, 2)]
        return StyledScenes(images, latents, TextEncoders.of(pipe).shortened), prompts
