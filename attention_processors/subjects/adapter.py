"""Subjects shown as images: the prompt embedding of a word is fused with the features of an image (FastComposer).

For subject j with image features e_j and the prompt embedding t_j of the last token of its words, in the conditional
half of guidance:

    c_j = t_j + a_j (PostFuse(t_j, e_j) - t_j)

in place of t_j, with a_j = weight * schedule. The text encoder reads the prompt as it is; the denoiser reads the
changed embeddings, and nothing else of it changes. The module runs once per generation.

Source: mit-han-lab/fastcomposer@b9304a2 (fastcomposer/model.py), arXiv 2305.10431.
Differs: the denoiser is frozen, where the authors train all of their U-Net with the module, and the image encoder is
frozen, where they train its last two layers; words are found by the tokenizer's offsets instead of a placeholder token;
prompts of a batch may have different subjects; weights between 0 and 1; transformers, whose text width may differ from
the image's. Delayed conditioning is `start` (see `delayed`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.func import functional_call

from weftwork.attention_processors.core.adapter import Adapter, Encoders
from weftwork.attention_processors.core.adapter_files import FORMAT_VERSION
from weftwork.attention_processors.core.batch import Batch, padded
from weftwork.attention_processors.core.processor import unwrapped
from weftwork.attention_processors.encoders.image import unit_tensor
from weftwork.attention_processors.encoders.words import NO_WORDS, PromptWords
from weftwork.attention_processors.reference.projections import filled_in
from weftwork.attention_processors.subjects.conditions import Subject
from weftwork.attention_processors.subjects.fused_tokens import EncodedSubjects
from weftwork.attention_processors.subjects.post_fuse import PostFuse
from weftwork.datasets.readers.errors import UserError

ABSENT = Subject(token=0, weight=0.0)
PROMPT_WIDTHS = (
    "joint_attention_dim", "cap_feat_dim", "text_dim", "text_embed_dim", "in_text_dim", "caption_channels",
    "cross_attention_dim", "text_hidden_dim",
)  # fmt: skip
"""Names of the width of prompt embeddings in configs; where a config has several, the first one is it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SubjectBatch(Batch):
    """Subjects, before and behind the image encoder.

    Args:
        embeds: features of images; zeros before the encoder for those in `pixels`.
        pixels: None if no subject has an image.
        subjects: words or tokens by design and part.
        prompt: tokens of the pipeline's prompts.
    """

    embeds: Float[Tensor, "design part dim"]
    pixels: Float[Tensor, "design part 3 size size"] | None
    has_image: Bool[Tensor, "design part"]
    subjects: tuple[tuple[Subject, ...], ...]
    prompt: PromptWords = NO_WORDS


class SubjectAdapter(Adapter[SubjectBatch, SubjectBatch]):
    """FastComposer's trained module, for subjects shown as images.

    Args:
        layers: inner width by name of the layers that read the prompt; `SubjectAdapter.for_denoiser` fills it in.
        base: description of the base model.
        text_dim: width of the prompt embeddings; `for_denoiser` takes that of the layers' context.
        image_dim: width of the image encoder's features, projected by CLIP.
        image_encoder: the frozen encoder that `set_encoders(image=ImageEncoder.from_pretrained(id))` brings.
        image_size: side in pixels that images are resized to.
        training: origin of the weights, recorded in `config.json`.
    """

    condition_type = (Subject,)

    @register_to_config
    def __init__(
        self,
        layers: dict[str, int],
        base: dict[str, object] | None = None,
        text_dim: int = 768,
        image_dim: int = 768,
        image_encoder: str = "openai/clip-vit-large-patch14",
        image_size: int = 224,
        training: dict[str, object] | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        self.fuser = PostFuse(text_dim, image_dim)

    @classmethod
    def for_denoiser(cls, denoiser: nn.Module, *, layers: str | Sequence[str] = "all", **config: object) -> Self:
        """Makes a new adapter for a denoiser; `ValueError` as `Adapter`, or if its prompt embeddings are not known."""
        return super().for_denoiser(denoiser, layers=layers, **{"text_dim": prompt_width(denoiser), **config})

    def check_base(self, denoiser: nn.Module) -> None:
        super().check_base(denoiser)
        if (width := prompt_width(denoiser)) != self.config["text_dim"]:
            raise UserError(
                f"base: got prompt embeddings of width {width}, but the adapter has a text_dim of "
                f"{self.config['text_dim']}; load an adapter that was trained for this backbone"
            )

    # -- from conditions to features -----------------------------------------------------------------------

    def collate(self, conditions: Sequence[Sequence[Subject]]) -> SubjectBatch:
        """Returns padded tensors, one row per design; designs may differ in their number of subjects, also 0.

        Raises:
            ValueError: embeds of another width than `image_dim`.
        """
        rows, width = padded(conditions, ABSENT), (self.config["image_dim"],)
        every = [one for row in rows for one in row]
        for one in every:
            if one.embeds is not None:
                self._check_width("embeds", tuple(one.embeds.shape))
        shape, blank = (len(rows), len(rows[0])), torch.zeros(width)
        embeds = [blank if one.embeds is None else one.embeds.detach().cpu().float() for one in every]
        has_image = torch.tensor([one.image is not None for one in every])
        pixels = torch.stack([self.pixels(one.image) for one in every]).unflatten(0, shape) if has_image.any() else None
        return SubjectBatch.of(
            rows,
            self.config,
            embeds=torch.stack(embeds).unflatten(0, shape),
            pixels=pixels,
            has_image=has_image.unflatten(0, shape),
            subjects=tuple(map(tuple, rows)),
        )

    def pixels(self, image: Any) -> Float[Tensor, "3 size size"]:
        """Returns the encoder's input: padded to a square with black, resized, RGB in [0, 1]; zeros for None."""
        size = (self.config["image_size"],) * 2
        if image is None:
            return torch.zeros(3, *size)
        return unit_tensor(ImageOps.pad(image.convert("RGB"), size, Image.Resampling.BILINEAR))

    @torch.no_grad()
    def features(self, batch: SubjectBatch, encoders: Encoders) -> SubjectBatch:
        """Returns a batch with images of a weight above 0 encoded by the frozen image encoder.

        Args:
            encoders: `image`, and `words`, the tokens of the pipeline's prompts.

        Raises:
            ValueError: the image encoder is needed and missing, with the call that adds it, or is of another width.
        """
        embeds, seen = batch.embeds, (batch.weight > 0) & batch.has_image
        if batch.pixels is not None and seen.any():
            if "image" not in encoders:
                name = self.config["image_encoder"]
                raise UserError(
                    f"image encoder: this adapter reads images through {name!r}; call "
                    f"pipe.set_encoders(image=ImageEncoder.from_pretrained({name!r})) first, or give embeds"
                )
            found = encoders["image"].pooled(batch.pixels[seen])
            self._check_width("image encoder", tuple(found.shape[1:]))
            embeds = filled_in(embeds, seen, found)
        return replace(batch, embeds=embeds, pixels=None, prompt=encoders.get("words", NO_WORDS))

    def _check_width(self, name: str, shape: tuple[int, ...]) -> None:
        if shape != (self.config["image_dim"],):
            raise UserError(
                f"{name}: got features of shape {shape}, expected ({self.config['image_dim']},); use "
                f"{self.config['image_encoder']!r}"
            )

    # -- the trained part ----------------------------------------------------------------------------------

    def forward(self, features: SubjectBatch) -> EncodedSubjects:
        """Returns the subjects with the module's weights as they are now, since pipelines may move it away later."""
        weights = {name: parameter.clone() for name, parameter in self.fuser.named_parameters()}
        away = any(one.is_meta for one in weights.values())  # its layers load their own when they run
        fuse = partial(_fuse, self.fuser, None if away else weights)
        own = features.weight, features.schedules, features.subjects, features.prompt
        return EncodedSubjects(fuse, features.embeds, *own)


def _fuse(module: PostFuse, weights: Mapping[str, Tensor] | None, text: Tensor, image: Tensor) -> Tensor:
    some = next(iter(weights.values())) if weights else text
    inputs = text.to(some), image.to(some)
    return module(*inputs) if weights is None else functional_call(module, dict(weights), inputs)


def prompt_width(denoiser: nn.Module) -> int:
    """Returns the width of the prompt embeddings that a denoiser gets; `ValueError` if its config has none."""
    config: Any = unwrapped(denoiser).config
    found = next((config[name] for name in PROMPT_WIDTHS if isinstance(config.get(name), int)), None)
    if found is None:
        raise UserError(
            f"denoiser: got {type(unwrapped(denoiser)).__name__}, whose config has no width of prompt embeddings "
            f"({', '.join(PROMPT_WIDTHS)}); use another denoiser, or pass text_dim="
        )
    return found
