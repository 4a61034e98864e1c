"""The shipped text-to-image backbone: its parts, and the task that trains denoiser and text encoder together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ConfigMixin,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import make_image_grid
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic import rooms
from weftwork.datasets.synthetic.outfits import Garment, caption, describe
from weftwork.datasets.synthetic.rooms import Scene
from weftwork.pipelines.core.guidance import guidance_arguments
from weftwork.pipelines.core.text_length import text_length
from weftwork.training.core.building import built
from weftwork.training.core.checkpoints import checkpoint_to_resume
from weftwork.training.core.config import TrainingConfig
from weftwork.training.core.denoisers import denoiser_of
from weftwork.training.core.objectives import diffusion_loss
from weftwork.training.core.task import Task
from weftwork.training.data.image_cache import CachedLatents, Latents

Shown = tuple[Garment, ...] | Scene
"""The content of an image of a synthetic dataset."""

Sample = tuple[Tensor, Any]
"""Latents, and what their image shows."""
Batch = tuple[Tensor, list[Any]]

TEXT_LENGTH = 48
TEXT_WIDTH = 128
CHANNELS = (96, 160)
HEAD_WIDTH = 32
CAPTION_SHARES: Mapping[str, float] = {
    "full": 0.42,
    "free": 0.15,
    "partial": 0.15,
    "kinds": 0.06,
    "generic": 0.14,
    "": 0.08,
}
"""Shares of training captions by detail. "free" lists the garments in varied words; the empty caption is the
null condition of guidance."""

TIMESTEPS = (-0.5, 1.4)
"""Timestep distribution that favours those where shapes form: small latents lose their content early in noise."""


def build_tokenizer(texts: Iterable[str], vocabulary: int = 900) -> CLIPTokenizer:
    """Builds a byte-pair tokenizer in CLIP's format: frequent words are one token, others are spelled.

    Deterministic: the trainer numbers characters at the end of words in random order unless they are known to it.
    """
    start, end = "<|startoftext|>", "<|endoftext|>"
    model = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=end))
    parts = {
        "normalizer": normalizers.Lowercase(),
        "pre_tokenizer": pre_tokenizers.Whitespace(),
        "decoder": decoders.BPEDecoder("</w>"),
    }
    for name, part in parts.items():  # their stubs have no setters
        setattr(model, name, part)
    texts = list(texts)
    characters = sorted({*"abcdefghijklmnopqrstuvwxyz0123456789.,-'!?", *"".join(texts).lower().replace(" ", "")})
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[start, end, *(f"{c}</w>" for c in characters)],
        initial_alphabet=characters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    learned = model.get_vocab()
    merges = [tuple(pair) for pair in _merges(model)]
    return built(CLIPTokenizer, vocab=learned, merges=merges, model_max_length=TEXT_LENGTH)


def _merges(model: Tokenizer) -> list[list[str]]:
    return [m.split(" ") if isinstance(m, str) else m for m in json.loads(model.to_str())["model"]["merges"]]


def build_text_encoder(tokenizer: CLIPTokenizer, num_layers: int = 3) -> CLIPTextModel:
    return CLIPTextModel(
        built(
            CLIPTextConfig,
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=num_layers,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def grown_text_encoder(known: CLIPTextModel, known_tokenizer: CLIPTokenizer, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Extends a trained text encoder to a larger tokenizer; tokens of both keep their vectors."""
    grown = build_text_encoder(tokenizer)
    state = known.state_dict()
    table = next(name for name in state if "token_embedding" in name)
    vectors = grown.state_dict()[table]
    places, known_places = tokenizer.get_vocab(), known_tokenizer.get_vocab()
    shared = sorted(set(places) & set(known_places))
    vectors[[places[token] for token in shared]] = state[table][[known_places[token] for token in shared]]
    grown.load_state_dict({**state, table: vectors})
    return grown


def for_latents(unet: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """Copies a U-Net for latents of `channels` channels: its first and last convolution start anew."""
    made: Any = UNet2DConditionModel.from_config(unet.config, in_channels=channels, out_channels=channels)
    shapes = {name: value.shape for name, value in made.state_dict().items()}
    made.load_state_dict({k: v for k, v in unet.state_dict().items() if v.shape == shapes[k]}, strict=False)
    return made


def build_denoiser(latent_channels: int, block_out_channels: Sequence[int] = CHANNELS) -> UNet2DConditionModel:
    """Builds a U-Net of 16x16 latents with heads of width 32; of 12 channels and default widths, 7.3 M parameters.

    `attention_head_dim` is the number of heads in this class.

    Raises:
        ValueError: a channel width that is not a multiple of the head width.
    """
    if not block_out_channels or any(width < HEAD_WIDTH or width % HEAD_WIDTH for width in block_out_channels):
        raise UserError(
            f"block_out_channels: got {list(block_out_channels)}, expected multiples of {HEAD_WIDTH}, such as 64 128"
        )
    blocks = len(block_out_channels)
    return built(
        UNet2DConditionModel,
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * blocks,
        up_block_types=("CrossAttnUpBlock2D",) * blocks,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=tuple(width // HEAD_WIDTH for width in block_out_channels),
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal SNR (arXiv 2305.08891): otherwise small latents would leak their mean."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


class TextDenoiser(nn.Module):
    """Denoiser and text encoder, trained together and saved with their tokenizer."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet, self.text_encoder, self.tokenizer = unet, text_encoder, tokenizer

    @classmethod
    def from_pretrained(cls, folder: Path) -> "TextDenoiser":
        """Opens a checkpoint, or parts of a Stable Diffusion folder, in float32; `ValueError` without a tokenizer."""
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True).float()
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").float()
        return cls(unet, text_encoder, saved_tokenizer(folder))

    def grow(self, tokenizer: CLIPTokenizer) -> None:
        """Replaces the tokenizer by a larger one."""
        self.text_encoder = grown_text_encoder(self.text_encoder, self.tokenizer, tokenizer)
        self.tokenizer = tokenizer

    def forward(self, latents: Tensor, times: Tensor, token_ids: Tensor) -> Tensor:
        return self.unet(latents, times, self.text_encoder(token_ids).last_hidden_state).sample

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        self.unet.save_pretrained(folder / "unet", safe_serialization=safe_serialization)
        self.text_encoder.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")


def saved_tokenizer(folder: Path) -> CLIPTokenizer:
    """Opens the tokenizer of a checkpoint or a Stable Diffusion folder; `ValueError` if there is none."""
    if not (folder / "tokenizer").is_dir():
        raise UserError(f"checkpoint: got {folder} without a tokenizer, so its words are unknown; start a new run")
    return CLIPTokenizer.from_pretrained(folder / "tokenizer")


def tokenizer_to_resume(config: TrainingConfig) -> CLIPTokenizer | None:
    """Opens the tokenizer of the checkpoint that a run resumes from, if any."""
    if not config.resume_from_checkpoint:
        return None
    found = checkpoint_to_resume(config.resume_from_checkpoint, Path(config.output_dir))
    return None if found is None else saved_tokenizer(found)


def export_pipeline(checkpoint: Path, vae: AutoencoderKL, result: Path) -> None:
    """Writes a checkpoint of a `TextDenoiser` as a Stable Diffusion folder."""
    save_pipeline(TextToImageTask(TextDenoiser.from_pretrained(checkpoint), build_scheduler(), vae).pipeline(), result)


def save_pipeline(pipe: DiffusionPipeline, folder: Path) -> None:
    """Saves a pipeline, with denoiser and autoencoder in half precision.

    Opened without a dtype they are float32, as the text encoders.
    """
    for part in (pipe.vae, denoiser_of(pipe)):
        part.half()
    pipe.save_pretrained(folder, safe_serialization=True)
    strip_paths(folder)


def strip_paths(folder: Path) -> None:
    """Removes local paths from saved JSON files, so that runs produce identical files."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n")


class LatentDataset(CachedLatents[Sample]):
    """Cached latents, each with the content from which captions are drawn."""

    def __init__(self, latents: Latents, shown: Sequence[Any]) -> None:
        super().__init__(latents)
        self.shown = shown

    def __getitem__(self, index: int) -> Sample:
        return self.latent(index), self.shown[index]


class TextToImageTask(Task[Any, Sample, Batch]):
    """Trains text to image latents, with captions of all, some or none of the content."""

    prompts: Sequence[str] = (
        "a person wearing a red striped jacket, a black dotted skirt and plain brown boots",
        "a person wearing a blue plain t-shirt and yellow checked trousers",
        "a person wearing a green diagonal striped sweater and pink plain shorts",
        "a person wearing a white dotted vest, an orange plain long skirt and a purple plain hat",
        "a person wearing a black plain jacket, white striped trousers and red plain sneakers",
        "a person wearing a pink checked t-shirt, a blue dotted skirt and a yellow plain bag",
        "a person wearing an outfit",
        "a person wearing a brown pinstriped sweater, green plain trousers and a red plain scarf",
    )
    """Eight, for validation images."""
    sampling: Mapping[str, Any] = {}
    """Further arguments of the pipeline for validation images."""

    def __init__(self, module: nn.Module, scheduler: ConfigMixin, vae: AutoencoderKL) -> None:
        self.module, self.scheduler, self.vae = module, scheduler, vae

    def collate(self, samples: list[Sample]) -> Batch:
        return torch.stack([latents for latents, _ in samples]), [shown for _, shown in samples]

    def loss(self, batch: Batch, generator: torch.Generator, micro: int) -> Tensor:
        latents, shown = batch
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        return self.denoising_loss([self.caption(one, rng) for one in shown], latents, generator)

    def denoising_loss(self, captions: list[str], latents: Tensor, generator: torch.Generator) -> Tensor:
        """Computes the objective on latents at random timesteps."""
        token_ids = self.tokens(captions).to(latents.device)
        return diffusion_loss(
            lambda x, t: self.module(x, t, token_ids), self.scheduler, latents, generator, logit_normal=TIMESTEPS
        )

    def caption(self, shown: Any, rng: np.random.Generator) -> str:
        """A caption of what an image shows."""
        return training_caption(shown, rng)

    def tokens(self, captions: list[str], length: int = TEXT_LENGTH) -> Tensor:
        """Returns token ids, padded to a length, or as little as possible for 0."""
        cut = self.module.tokenizer(captions, truncation=True, max_length=TEXT_LENGTH)
        return self.module.tokenizer.pad(
            cut, padding="max_length" if length else "longest", max_length=length or None, return_tensors="pt"
        ).input_ids

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Writes eight images of fixed prompts as one PNG."""
        pipe = self.pipeline().to(next(self.module.parameters()).device)
        pipe.set_progress_bar_config(disable=True)
        images = pipe(
            list(self.prompts),
            num_inference_steps=20,
            generator=[torch.Generator().manual_seed(i) for i in range(len(self.prompts))],
            **guidance_arguments(pipe, 3.0, batch=len(self.prompts)),
            **text_length(pipe),
            **self.sampling,
        ).images
        folder.mkdir(parents=True, exist_ok=True)
        make_image_grid(images, rows=2, cols=4).save(folder / f"{step:06d}.png")
        return {}

    def pipeline(self) -> Any:
        """Returns the stock pipeline with the parts in training."""
        module = self.module
        return built(
            StableDiffusionPipeline,
            vae=self.vae,
            text_encoder=module.text_encoder,
            tokenizer=module.tokenizer,
            unet=module.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def training_caption(shown: Shown, rng: np.random.Generator) -> str:
    """Draws a caption, with the details of `CAPTION_SHARES`."""
    detail = str(rng.choice(list(CAPTION_SHARES), p=list(CAPTION_SHARES.values())))
    if not detail:
        return ""
    if isinstance(shown, Scene):
        return rooms.caption(shown, rng, "full" if detail == "free" else detail)  # full captions vary as they are
    if detail == "free":
        return ", ".join(describe(garment, rng) for garment in shown)
    return caption(shown, rng, detail)
