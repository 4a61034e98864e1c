"""Tiny real components, seeded, and the table of methods that every behaviour test runs over."""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from tiny_copies import made_once, seed
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from weftwork.attention_processors.attention_control.adapter import Attend, AttentionControlAdapter
from weftwork.attention_processors.core.adapter import KeyValueAdapter
from weftwork.attention_processors.core.batch import Batch, padded
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.conditioning import EncodedTokens
from weftwork.attention_processors.expressions.adapter import Expression, ExpressionAdapter
from weftwork.attention_processors.paired.adapter import PairedAdapter, SketchTextPair
from weftwork.attention_processors.reference.adapter import Reference, ReferenceAdapter
from weftwork.attention_processors.regional.adapter import RegionalAdapter, RegionalPrompt
from weftwork.attention_processors.style.adapter import Style, StyleAdapter
from weftwork.attention_processors.subjects.adapter import Subject, SubjectAdapter
from weftwork.attention_processors.views.adapter import AlignedViews


def tiny_tokenizer() -> CLIPTokenizer:
    letters = list(string.ascii_lowercase + string.digits + ".,-")
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=77)


ALL_LEVELS: dict[str, Any] = dict(
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
)
"""Changes of `tiny_unet` that give both of its levels attention, not the first and the middle alone."""


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    config: dict[str, Any] = dict(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    config |= changes

    def make() -> UNet2DConditionModel:
        seed(1)
        return UNet2DConditionModel(**config).eval().requires_grad_(False)

    return made_once(config, make)


def tiny_vae() -> AutoencoderKL:
    seed(2)
    return AutoencoderKL(
        block_out_channels=[8, 8, 16, 16],  # pyright: ignore[reportArgumentType]
        down_block_types=["DownEncoderBlock2D"] * 4,  # pyright: ignore[reportArgumentType]
        up_block_types=["UpDecoderBlock2D"] * 4,  # pyright: ignore[reportArgumentType]
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    ).eval()


def tiny_parts() -> dict[str, Any]:
    """The components of a Stable Diffusion pipeline, 64x64 pixels to 8x8 latents."""
    tokenizer = tiny_tokenizer()
    unet = tiny_unet()
    vae = made_once("vae", tiny_vae)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=37,
            num_attention_heads=4,
            num_hidden_layers=2,
            max_position_embeddings=77,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    scheduler = DDIMScheduler(
        clip_sample=False,
        set_alpha_to_one=False,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
    )
    return dict(unet=unet, vae=vae, text_encoder=text_encoder.eval(), tokenizer=tokenizer, scheduler=scheduler)


def tiny_pipe(cls: type, **more: Any) -> Any:
    parts = {**tiny_parts(), "safety_checker": None, "feature_extractor": None, **more}
    pipe = cls(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@dataclass(frozen=True, eq=False)
class RawTokens(Condition):
    """The simplest condition: tokens as they are."""

    tokens: torch.Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class RawBatch(Batch):
    tokens: torch.Tensor


class RawTokensAdapter(KeyValueAdapter[RawBatch, RawBatch]):
    """The simplest adapter: keys and values of given tokens; the unconditional half is the frozen model."""

    condition_type = (RawTokens,)

    @register_to_config
    def __init__(self, layers: dict[str, int], base: dict[str, Any] | None = None, token_dim: int = 24) -> None:
        super().__init__()
        self.make_projections(layers, token_dim)

    def collate(self, conditions: Sequence[Sequence[RawTokens]]) -> RawBatch:
        rows = padded(conditions, RawTokens(torch.zeros(3, self.config["token_dim"]), weight=0.0))
        tokens = torch.stack([torch.stack([one.tokens for one in row]) for row in rows])
        return RawBatch.of(rows, self.config, tokens=tokens)

    def features(self, batch: RawBatch, encoders: Mapping[str, Any]) -> RawBatch:
        return batch

    def forward(self, features: RawBatch) -> EncodedTokens:
        tokens = features.tokens.to(next(self.parameters()).dtype)
        designs, parts, count, _ = tokens.shape
        return EncodedTokens(
            self.project(tokens),
            None,
            torch.ones(designs, parts * count, dtype=torch.bool, device=tokens.device),
            torch.arange(parts, device=tokens.device).repeat_interleave(count),
            **features.strengths(list(self.config["layers"]), tokens.device),
        )


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention as branches get it: heads are the third axis, and those of keys may be fewer."""
    groups = query.shape[2] // key.shape[2]
    heads = (x.transpose(1, 2) for x in (query, key.repeat_interleave(groups, 2), value.repeat_interleave(groups, 2)))
    return F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)


def raw_adapter(unet: Any) -> RawTokensAdapter:
    seed(3)
    return RawTokensAdapter.for_denoiser(unet)


def raw_conditions(seed: int = 0, **options: Any) -> list[RawTokens]:
    generator = torch.Generator().manual_seed(seed)
    return [RawTokens(torch.randn(3, 24, generator=generator), **options) for _ in range(2)]


def paired_adapter(unet: Any, **options: Any) -> PairedAdapter:
    seed(3)
    config = dict(
        token_dim=32,
        image_dim=16,
        text_dim=32,
        text_tokens=2,
        num_readout_tokens=4,
        num_layers=1,
        num_heads=4,
        norm_groups=8,
        sketch_encoder="strokes",
        sketch_size=32,
    )
    return PairedAdapter.for_denoiser(unet, **{**config, **options})


def drawn_sketch(seed: int = 0, size: int = 64) -> Any:
    """Dark strokes on white: a box somewhere."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (size, size), 255)
    offset = 4 + 7 * (seed % 4)
    ImageDraw.Draw(image).rectangle((offset, offset, offset + size // 2, offset + size // 2), outline=0, width=2)
    return image


def paired_conditions(seed: int = 0, **options: Any) -> list[SketchTextPair]:
    return [
        SketchTextPair(drawn_sketch(seed), "a red jacket", **options),
        SketchTextPair(drawn_sketch(seed + 1), "a blue skirt", **options),
    ]


def regional_conditions(seed: int = 0, **options: Any) -> list[RegionalPrompt]:
    texts = ("a red jacket", "a blue skirt", "a hat", "an umbrella")
    return [RegionalPrompt(texts[(seed + one) % 4], **options) for one in range(2)]


def attend_adapter(unet: Any) -> AttentionControlAdapter:
    """With small and few updates, which do not amplify rounding."""
    return AttentionControlAdapter.for_denoiser(unet, step_size=2.0, max_refinements=2)


def attend_conditions(seed: int = 0, **options: Any) -> list[Attend]:
    return [Attend(tokens=(at, at + 1), **{"end": 1.0, **options}) for at in (1 + seed % 4, 6)]


STYLES = ("ink", "pastel", "neon", "woodcut")


def style_adapter(unet: Any, **options: Any) -> StyleAdapter:
    seed(3)
    config = dict(layers="decoder", styles=STYLES, style_dim=16, token_dim=32, num_tokens=2)
    return StyleAdapter.for_denoiser(unet, **{**config, **options})


def open_style_adapter(unet: Any, **options: Any) -> StyleAdapter:
    """Whose gates, if there are some, are not 0."""
    adapter = style_adapter(unet, **options)
    with torch.no_grad():
        for name, one in adapter.named_parameters():
            if name.startswith(("gates", "affine")):
                one.fill_(0.7)
    return adapter


def style_conditions(seed: int = 0, **options: Any) -> list[Style]:
    first, second = STYLES[seed % 4], STYLES[(seed + 1) % 4]
    return [Style(first, **options), Style({first: 1, second: 3}, **options)]


def reference_adapter(unet: Any, **options: Any) -> ReferenceAdapter:
    seed(3)
    config = dict(image_dim=16, token_dim=32, num_tokens=2, hidden_dim=64, num_heads=1, image_size=32)
    return ReferenceAdapter.for_denoiser(unet, **{**config, **options})


def reference_conditions(seed: int = 0, **options: Any) -> list[Reference]:
    generator = torch.Generator().manual_seed(seed)
    return [Reference(embeds=torch.randn(16, generator=generator), **options) for _ in range(2)]


def subject_adapter(unet: Any, **options: Any) -> SubjectAdapter:
    seed(3)
    return SubjectAdapter.for_denoiser(unet, **{"image_dim": 16, "image_size": 32, **options})


def subject_conditions(seed: int = 0, **options: Any) -> list[Subject]:
    generator = torch.Generator().manual_seed(seed)
    return [Subject(embeds=torch.randn(16, generator=generator), token=i, **options) for i in (2, 3)]


EXPRESSIONS = ("smile", "fear", "rage")


def expression_adapter(unet: Any, **options: Any) -> ExpressionAdapter:
    seed(3)
    sizes = dict(token_dim=32, prior_dim=8, hidden_dim=16, num_tokens=4, num_codes=5, num_heads=4)
    return ExpressionAdapter.for_denoiser(unet, **{**sizes, "expressions": EXPRESSIONS, **options})


def expression_conditions(seed: int = 0, **options: Any) -> list[Expression]:
    first, second = EXPRESSIONS[seed % 3], EXPRESSIONS[(seed + 1) % 3]
    return [Expression(first, **options), Expression({first: 1, second: 3}, **options)]


def loaded_views(folder: Path, unet: Any) -> AlignedViews:
    """Views from a folder, on a denoiser."""
    views = AlignedViews.from_pretrained(folder)
    views.bind(unet)
    return views


@dataclass(frozen=True)
class Method:
    """A row of the behaviour table: how to make the adapter, and conditions that differ by seed."""

    name: str
    adapter: Callable[..., Any]
    conditions: Callable[..., Any]
    trained: bool = True


METHODS = (
    Method("raw", raw_adapter, raw_conditions),
    Method("paired", paired_adapter, paired_conditions),
    Method("paired_anchored", lambda u: paired_adapter(u, masking="pair", anchored=0.2), paired_conditions),
    Method("paired_shared_norm", lambda u: paired_adapter(u, isolation="shared_norm"), paired_conditions),
    Method("style", style_adapter, style_conditions),
    Method("style_concat", lambda u: style_adapter(u, fusion="concat", rank=3), style_conditions),
    Method("style_affine", lambda u: open_style_adapter(u, fusion="affine"), style_conditions),
    Method("reference", reference_adapter, reference_conditions),
    Method("subjects", subject_adapter, subject_conditions),
    Method("expressions", lambda u: expression_adapter(u, bank="none"), expression_conditions),
    Method("expressions_bank", expression_adapter, expression_conditions, trained=False),  # codes learn by a loss
    Method("regional", RegionalAdapter.for_denoiser, regional_conditions, trained=False),
    Method("attention_control", attend_adapter, attend_conditions, trained=False),
)


def tiny_studio() -> Any:
    """A demo's pipeline with pairs and styles."""
    from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
    from weftwork.scripts.demo.studio import ImageStudio

    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(paired=paired_adapter(pipe.unet), style=style_adapter(pipe.unet, layers="all"))
    return ImageStudio(pipe, "tiny")
