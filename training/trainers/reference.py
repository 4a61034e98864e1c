"""Train an IP-Adapter: reference images, read through a frozen image encoder (docs/reference.md)."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weftwork.attention_processors.reference import PROJECTIONS
from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.trainer import Groups, Prepared
from weftwork.training.trainers.captioned import CaptionedTrainer

if TYPE_CHECKING:
    from PIL import Image

    from weftwork.attention_processors.encoders import ImageEncoder
    from weftwork.attention_processors.reference.adapter import ReferenceAdapter

SHOWN: Final = 4
"""References of validation images."""


class ReferenceTrainer(CaptionedTrainer):
    """Trains an IP-Adapter; every image is its own reference."""

    folder = "folder of images with metadata.jsonl: text"
    columns = ("image_column", "caption_column")
    worlds = ("creatures", "drawings")
    samples = 12_000
    own_only = ("aspect_buckets", *columns)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, groups: Groups) -> None:
        model = groups.model
        model.add_argument(
            "--image_encoder",
            help="folder or Hub id of the frozen encoder (default of --world creatures: creature-encoder)",
        )
        model.add_argument("--projection", choices=PROJECTIONS, default="basic", help="of a new adapter")
        model.add_argument("--num_tokens", type=int, default=4, help="tokens per image of a new adapter")
        model.add_argument("--layers", default="all", help="layers of a new adapter: all, decoder, … or an expression")
        super().add_arguments(parser, groups)

    def check(self) -> None:
        super().check()
        if self.world != "creatures" and not self.arguments.image_encoder:
            raise UserError(
                f"image_encoder: got none for {self.world or 'your own images'}; name a CLIP vision model, for example "
                "openai/clip-vit-large-patch14"
            )

    def prepare(self, pipe: Any, source: str) -> Prepared:
        from weftwork.attention_processors.encoders import ImageEncoder
        from weftwork.pretrained import model_name, shipped
        from weftwork.training.data.feature_cache import encoder_key, feature_cache
        from weftwork.training.data.prompts import with_prompts
        from weftwork.training.tasks.reference import ReferencedImages, ReferenceTask

        arguments = self.arguments
        name = arguments.image_encoder or str(shipped("creature-encoder"))
        encoder = ImageEncoder.from_pretrained(name)
        encoder.model.to(pipe.device)
        pipe.set_encoders(image=encoder)
        adapter = self._adapter(pipe, encoder, model_name(name))
        records, images, shown = self._data(pipe, source)
        if arguments.validation_prompt:
            shown = with_prompts(arguments.validation_prompt, shown)
        key = encoder_key(f"image {adapter.config['projection']}", encoder.model)
        cache = feature_cache(arguments.cache_dir / "features", key, dry=arguments.dry_run)
        data = ReferencedImages(records, images, adapter, encoder, cache)
        return Prepared(ReferenceTask(adapter, pipe, self.config(), shown), data, {"data": self.data_name})

    def _adapter(self, pipe: Any, encoder: "ImageEncoder", name: str) -> "ReferenceAdapter":
        from weftwork.attention_processors.core.families import base_description
        from weftwork.attention_processors.reference.adapter import ReferenceAdapter
        from weftwork.training.core.denoisers import denoiser_of

        arguments, denoiser = self.arguments, denoiser_of(pipe)
        if arguments.init_from:
            adapter = ReferenceAdapter.from_pretrained(arguments.init_from)
            adapter.check_base(denoiser)
            return adapter
        config = encoder.model.config
        return ReferenceAdapter.for_denoiser(
            denoiser,
            layers=arguments.layers,
            projection=arguments.projection,
            image_dim=config.projection_dim if arguments.projection == "basic" else config.hidden_size,
            token_dim=base_description(denoiser)["context_dim"],
            num_tokens=arguments.num_tokens,
            image_size=config.image_size,
            image_encoder=name,
        )

    def _data(self, pipe: Any, source: str) -> "tuple[Any, Iterable[Image.Image], list[tuple[str, Image.Image]]]":
        """Returns records with latents and captions, their images, and validation prompts with references."""
        from PIL import Image

        from weftwork.datasets.synthetic import creatures
        from weftwork.training.data.image_cache import CreatureImages, cached_latents
        from weftwork.training.data.styles import StyledCreatures

        if self.world == "drawings":
            return self._drawings(pipe, source)
        if self.world:
            drawn = CreatureImages(self.arguments.cache_dir, "train", self.arguments.samples)
            latents = cached_latents(self.arguments.cache_dir, pipe.vae, Path(source) / "vae", drawn)
            unseen = [creatures.sample("validation", index) for index in range(SHOWN)]
            shown = [(one.caption, Image.fromarray(drawn.images[index])) for index, one in enumerate(unseen)]
            return StyledCreatures(drawn, latents), map(Image.fromarray, drawn.images), shown
        records = self.captioned(pipe, **self.column_options(), styled=False)
        samples = records.samples
        shown = [(samples[index].caption, samples[index].image) for index in range(min(SHOWN, len(samples)))]
        return records, (samples[index].image for index in range(len(samples))), shown

    def _drawings(self, pipe: Any, source: str) -> "tuple[Any, Iterable[Image.Image], list[tuple[str, Image.Image]]]":
        from PIL import Image

        from weftwork.attention_processors.encoders import TextEncoders
        from weftwork.datasets.drawings.captions import full_caption
        from weftwork.training.data.drawings import StyledScenes, held_out_scenes, scene_latents

        drawings = self.rendered()
        images, latents = scene_latents(drawings, self.arguments, pipe, source)
        unseen = held_out_scenes(drawings, SHOWN // 2)
        shown = [
            (full_caption(one, styled=False), Image.fromarray(images.images[i])) for i, (one, _) in enumerate(unseen)
        ]
        return (
            StyledScenes(images, latents, TextEncoders.of(pipe).shortened),
            map(Image.fromarray, images.images),
            shown,
        )
