"""Train pairs of sketch and text, each with its region of the image (docs/paired.md)."""

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.trainer import Groups, Prepared, Trainer
from weftwork.training.tasks.options import PairedConfig

if TYPE_CHECKING:
    from weftwork.attention_processors.paired.adapter import PairedAdapter
    from weftwork.attention_processors.paired.conditions import SketchTextPair
    from weftwork.training.data.drawings import ScenePairs
    from weftwork.training.data.pairs import OutfitPairs, SamplePairs


class PairedTrainer(Trainer):
    """Trains localized pairs of sketch and text."""

    options = PairedConfig
    folder = "folder with metadata.jsonl, or the Sketchy dataset"
    worlds = ("outfits", "drawings")
    samples = 6_000
    own_only = ("aspect_buckets", "pair_buckets", "ink")
    world_only = ("merged", "unnamed_share")

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, groups: Groups) -> None:
        model, data = groups.model, groups.data
        model.add_argument(
            "--layers", default="all", help="layers of a new adapter: all, decoder, … or a regular expression"
        )
        model.add_argument(
            "--sketch_encoder", default="strokes", help="strokes (small, trained) or a frozen vision model's id"
        )
        model.add_argument("--text_states", type=int, default=40, help="token states read per description; 0 = pooled")
        model.add_argument("--token_dim", type=int, default=128, help="width of pair tokens of a new adapter")
        model.add_argument("--global_sketch", action="store_true", help="add the module for a sketch of the whole")
        super().add_arguments(parser, groups)
        data.add_argument("--aspect_buckets", action="store_true", help="keep the aspects of own images, about")
        data.add_argument("--pair_buckets", action="store_true", help="batches of own designs with equally many pairs")
        data.add_argument("--ink", choices=("auto", "dark", "light"), help="strokes of own sketches (default: auto)")
        data.add_argument("--merged", action="store_true", help="one global sketch with all words: the baseline")
        data.add_argument(
            "--unnamed_share", type=float, default=0.0, help="share of synthetic images whose words name no object"
        )

    def check(self) -> None:
        super().check()
        if self.arguments.merged and self.arguments.validation_cases:
            raise UserError(
                "validation_cases: has no effect with --merged, since cases are scored pair by pair; leave it out, and "
                "look at the validation images"
            )

    def prepare(self, pipe: Any, source: str) -> Prepared:
        from weftwork.training.data.prompts import with_prompts
        from weftwork.training.tasks.paired import PairedTask

        arguments = self.arguments
        adapter = self._adapter(pipe)
        if self.world is None:
            data, validation = self._own(adapter, pipe)
        elif self.world == "drawings":
            data, validation = self._drawings(adapter, pipe, source)
        else:
            data, validation = self._outfits(pipe, source)
        if arguments.validation_prompt:
            validation = with_prompts(arguments.validation_prompt, validation)
        provenance = {"data": self.data_name, "merged": arguments.merged, "unnamed_share": arguments.unnamed_share}
        return Prepared(PairedTask(adapter, pipe, self.config(), validation), data, provenance)

    def _adapter(self, pipe: Any) -> "PairedAdapter":
        from weftwork.attention_processors.encoders import SketchEncoder, TextEncoders
        from weftwork.attention_processors.paired.adapter import PairedAdapter
        from weftwork.training.core.denoisers import denoiser_of

        arguments = self.arguments
        if arguments.init_from:
            return PairedAdapter.from_pretrained(arguments.init_from)
        small = arguments.sketch_encoder == "strokes"
        options: dict[str, Any] = {"image_dim": 128, "sketch_size": 128, "masking": "pair", "anchored": 0.09}
        if not small:
            encoder = SketchEncoder.from_pretrained(arguments.sketch_encoder)
            pipe.set_encoders(sketch=encoder)
            options = {"image_dim": encoder.model.config.hidden_size}
        return PairedAdapter.for_denoiser(
            denoiser_of(pipe),
            layers=arguments.layers,
            token_dim=arguments.token_dim,
            text_dim=TextEncoders.of(pipe).width(arguments.text_states),
            text_states=arguments.text_states,
            num_heads=4 if small else 8,
            sketch_encoder=arguments.sketch_encoder,
            global_sketch=arguments.global_sketch,
            **options,
        )

    def _outfits(self, pipe: Any, source: str) -> "tuple[OutfitPairs, list[tuple[str, list[SketchTextPair]]]]":
        from weftwork.attention_processors.paired.samples import merged, pairs
        from weftwork.datasets.synthetic.outfits import PROMPT, sample
        from weftwork.training.data.image_cache import OutfitImages, cached_latents
        from weftwork.training.data.pairs import OutfitPairs

        arguments = self.arguments
        images = OutfitImages(arguments.cache_dir, "train", arguments.samples)
        latents = cached_latents(arguments.cache_dir, pipe.vae, Path(source) / "vae", images)
        data = OutfitPairs(arguments.cache_dir, images, latents, **self._options())
        drawn = [sample("validation", index, count=3 + index % 2) for index in range(8)]
        return data, [(PROMPT, merged(one) if arguments.merged else pairs(one)) for one in drawn]

    def _drawings(
        self, adapter: "PairedAdapter", pipe: Any, source: str
    ) -> "tuple[ScenePairs, list[tuple[str, list[SketchTextPair]]]]":
        from weftwork.attention_processors.encoders import TextEncoders
        from weftwork.attention_processors.paired.samples import merged, pairs
        from weftwork.datasets.drawings.captions import setting
        from weftwork.training.data.drawings import ScenePairs, held_out_scenes, scene_latents

        arguments, drawings = self.arguments, self.rendered()
        images, latents = scene_latents(drawings, arguments, pipe, source)
        text = TextEncoders.of(pipe)
        shorten = functools.partial(text.shortened, length=min(adapter.config["text_states"] or 999, text.longest))
        data = ScenePairs(arguments.cache_dir, images, latents, shorten, **self._options())
        make = merged if arguments.merged else pairs
        return data, [(setting(shown), make(drawn)) for shown, drawn in held_out_scenes(drawings, 4)]

    def _options(self) -> dict[str, Any]:
        return {"merged": self.arguments.merged, "unnamed_share": self.arguments.unnamed_share}

    def _own(self, adapter: "PairedAdapter", pipe: Any) -> "tuple[SamplePairs, list[Any]]":
        from weftwork.attention_processors.encoders import TextEncoders
        from weftwork.datasets.readers.pair_folder import PairFolder, report, validate
        from weftwork.datasets.readers.sketchy import Sketchy
        from weftwork.training.data.image_latents import Sizes
        from weftwork.training.data.pairs import SamplePairs
        from weftwork.training.data.prompts import PromptTokens

        arguments, folder = self.arguments, self.arguments.train_data_dir
        ink = arguments.ink or "auto"
        if (folder / "train_sketchy.json").is_file():
            if arguments.ink:
                raise UserError("ink: has no effect with Sketchy, whose strokes are dark; leave it out")
            samples: Any = Sketchy(folder, "train")
        else:
            if problems := validate(folder, ink=ink):
                raise UserError(f"{folder}:\n{report(problems)}")
            samples = PairFolder(folder, ink=ink)
        sizes = Sizes.of(pipe, arguments.resolution, aspects=arguments.aspect_buckets)
        tokens = TextEncoders.of(pipe), PromptTokens.of(pipe, arguments.max_sequence_length)
        options = {"by_count": arguments.pair_buckets, "tokens": tokens, "dry": arguments.dry_run}
        data = SamplePairs(samples, adapter, pipe.vae, arguments.cache_dir / "latents", sizes, **options)
        return data, [data.design(index) for index in range(min(4, len(data)))]
