"""The training task of the paired method: the frozen denoiser predicts better with the pairs than without."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from weft.attention_processors.conditioning import Conditioning
from weft.attention_processors.encoders import TextEncoders
from weft.attention_processors.paired import PairedAdapter
from weft.attention_processors.paired_conditions import SketchTextPair, stack_pairs
from weft.attention_processors.processor import layer_levels
from weft.attention_processors.strength import Layout
from weft.datasets.images import compose_sketches
from weft.pipelines.conditioned import ConditionedPipelineMixin
from weft.training.config import option
from weft.training.objectives import diffusion_loss
from weft.training.pair_data import PairRecord


@dataclass(frozen=True)
class PairedConfig:
    """What the paired task draws and drops.

    Raises:
        ValueError: a share outside [0, 1], or a number that is out of its range.
    """

    pair_dropout: float = option(0.1, "share of pairs left out")
    sketch_dropout: float = option(0.1, "share of pairs without their sketch")
    text_dropout: float = option(0.1, "share of pairs without their text")
    null_dropout: float = option(0.1, "share of designs as the null condition")
    caption_dropout: float = option(0.15, "share of empty prompts")
    region_share: float = option(0.7, "share of batches that act in regions only")
    snr_gamma: float | None = option(None, "min-SNR weighting, for example 5")
    logit_mean: float | None = option(None, "draw times with this mean logit, below 0 = less noise; None = evenly")
    logit_std: float = option(1.4, "standard deviation of that logit")

    def __post_init__(self) -> None:
        for name in (
            "pair_dropout",
            "sketch_dropout",
            "text_dropout",
            "null_dropout",
            "caption_dropout",
            "region_share",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a share in [0, 1]")
        if self.logit_std <= 0:
            raise ValueError(f"logit_std: got {self.logit_std}, expected a number above 0")


class PairedTask:
    """Pairs of one design and their picture's latents; everything of the pipeline stays frozen.

    Args:
        pipe: a conditioned pipeline with nothing attached; it generates the validation pictures too.
        validation: designs whose pictures are drawn at every validation.
    """

    def __init__(
        self,
        module: PairedAdapter,
        pipe: Any,
        config: PairedConfig,
        validation: Sequence[Sequence[SketchTextPair]] = (),
        prompt: str = "",
    ) -> None:
        assert isinstance(pipe, ConditionedPipelineMixin)
        self.module, self.config = module, config
        self.pipe: Any = pipe
        self.validation, self.prompt = validation, prompt
        for name in ("unet", "text_encoder", "text_encoder_2", "vae"):
            part = getattr(pipe, name, None)
            if part is not None:
                part.requires_grad_(False).eval()
        module.check_base(pipe.unet)
        self.text_encoders = TextEncoders.of(pipe)
        self.levels = layer_levels(pipe.unet)
        pipe.attach(paired=module)
        module.train()

    def collate(self, samples: list[PairRecord]) -> dict[str, Any]:
        blank = self.module.pixels(None)
        batch = stack_pairs([record.pairs for record in samples], blank)
        latents = torch.stack([record.latents for record in samples])
        return {**batch, "latents": latents, "captions": [record.captions for record in samples]}

    def loss(
        self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator, micro: int
    ) -> Float[Tensor, ""]:
        latents = batch["latents"]
        with torch.no_grad():
            context = self._context(batch["captions"], generator).to(latents.device)
            batch = self._dropped(batch, generator)
            features = self.module.features(batch, {"text": self.text_encoders, **getattr(self.pipe, "_encoders", {})})
        conditioning = Conditioning.of({"paired": module(features)}, Layout(self.levels, tuple(latents.shape[-2:])))
        kwargs = {"conditioning": conditioning}

        def denoise(noisy: Tensor, times: Tensor) -> Tensor:
            return self.pipe.unet(noisy, times, context, cross_attention_kwargs=kwargs).sample

        config = self.config
        times = None if config.logit_mean is None else (config.logit_mean, config.logit_std)
        gamma = config.snr_gamma
        return diffusion_loss(denoise, self.pipe.scheduler, latents, generator, snr_gamma=gamma, logit_normal=times)

    def _context(self, captions: Sequence[Sequence[str]], generator: torch.Generator) -> Tensor:
        """One of the captions of each design, or the empty prompt."""
        picks = torch.rand(len(captions), 2, generator=generator).tolist()
        chosen = [
            "" if empty < self.config.caption_dropout else options[int(which * len(options))]
            for options, (empty, which) in zip(captions, picks, strict=True)
        ]
        length = self.text_encoders.tokenizers[0].model_max_length
        return self.text_encoders.tokens(chosen, length)[0]

    def _dropped(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """Independent dropout of pairs, sketches, texts, whole designs (to the null condition) and regions."""
        config, shape = self.config, batch["pair_mask"].shape

        def kept(share: float, *size: int) -> Tensor:
            return (torch.rand(size, generator=generator) >= share).to(batch["pair_mask"].device)

        null = kept(config.null_dropout, shape[0], 1)
        here = kept(config.pair_dropout, *shape)
        with_region = bool(kept(1 - config.region_share, 1))
        return {
            **batch,
            "pair_mask": batch["pair_mask"] & here,
            "weight": batch["weight"] * here,
            "has_sketch": batch["has_sketch"] & kept(config.sketch_dropout, *shape) & null,
            "has_text": batch["has_text"] & kept(config.text_dropout, *shape) & null,
            "region": batch["region"] if with_region else None,
        }

    @torch.no_grad()
    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        """Pictures of the validation designs, each under its composed sketch, as one PNG."""
        if not self.validation:
            return {}
        self.pipe.set_progress_bar_config(disable=True)
        images = self.pipe(
            [self.prompt] * len(self.validation),
            conditions={"paired": [list(design) for design in self.validation]},
            num_inference_steps=20,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(i) for i in range(len(self.validation))],
        ).images
        folder.mkdir(parents=True, exist_ok=True)
        top = [_composed(design, images[0].size) for design in self.validation]
        sheet = np.concatenate(
            [np.concatenate([np.asarray(i.convert("RGB")) for i in row], 1) for row in (top, images)]
        )
        Image.fromarray(sheet).save(folder / f"{step:06d}.png")
        return {}


def _composed(design: Sequence[SketchTextPair], size: tuple[int, int]) -> Image.Image:
    sketches = [pair.sketch.resize(size) for pair in design if isinstance(pair.sketch, Image.Image)]
    return compose_sketches(sketches) if sketches else Image.new("L", size, 255)
