"""The small FLUX backbone of drawings: transformer, text encoders, and the task that trains them together."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel, ModelMixin
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel

from weftwork.training.core.building import built
from weftwork.training.core.denoisers import CALLS
from weftwork.training.core.objectives import flow_matching_loss
from weftwork.training.recipes.backbone import (
    TEXT_LENGTH,
    TEXT_WIDTH,
    build_text_encoder,
    save_pipeline,
    saved_tokenizer,
)
from weftwork.training.recipes.drawings import DrawingTask

TIMESTEPS: Final = (0.0, 1.2)
"""Mean and standard deviation of the logit of sigma."""
PADDED: Final = ((0.86, 0), (0.08, 64), (0.04, 160), (0.02, 512))
"""Shares of batches by the number of tokens that captions are padded to; 0 is as few as possible.

FLUX has no mask of padding. With several lengths in training, padding means nothing, and the 512 tokens that pipelines
pad to by default are read as well as fewer. Longer batches have fewer images: none takes much longer than others.
"""


def build_transformer(latent_channels: int) -> FluxTransformer2DModel:
    """Builds a FLUX transformer of 10.1 M parameters: 2 double and 5 single blocks of width 256.

    Each block is the identity at first (adaLN-Zero, arXiv 2212.09748), and the output is 0.
    """
    transformer = FluxTransformer2DModel(
        in_channels=4 * latent_channels,
        num_layers=2,
        num_single_layers=5,
        attention_head_dim=32,
        num_attention_heads=8,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        axes_dims_rope=(8, 12, 12),
    )
    for name, parameter in transformer.named_parameters():
        if re.search(r"norm\w*\.linear\.|^proj_out\.", name):
            nn.init.zeros_(parameter)
    return transformer


def build_t5(tokenizer: CLIPTokenizer) -> T5EncoderModel:
    """Builds a T5 encoder for the tokens of a CLIP tokenizer."""
    return T5EncoderModel(
        built(
            T5Config,
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=4 * TEXT_WIDTH,
            num_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Flow matching without a shift: images are small."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


class FluxDenoiser(nn.Module):
    """FLUX transformer, CLIP and T5 encoder, trained together and saved with the tokenizer of both encoders."""

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        text_encoder: CLIPTextModel,
        text_encoder_2: T5EncoderModel,
        tokenizer: CLIPTokenizer,
    ) -> None:
        super().__init__()
        self.transformer, self.tokenizer = transformer, tokenizer
        self.text_encoder, self.text_encoder_2 = text_encoder, text_encoder_2

    @classmethod
    def build(cls, tokenizer: CLIPTokenizer, latent_channels: int) -> "FluxDenoiser":
        """Builds all parts anew."""
        text = build_text_encoder(tokenizer, num_layers=2)
        return cls(build_transformer(latent_channels), text, build_t5(tokenizer), tokenizer)

    @classmethod
    def from_words(cls, folder: Path, latent_channels: int) -> "FluxDenoiser":
        """Takes tokenizer, CLIP encoder and vectors of tokens from a Stable Diffusion folder; the rest is new."""
        tokenizer = saved_tokenizer(folder)
        text, t5 = CLIPTextModel.from_pretrained(folder / "text_encoder").float(), build_t5(tokenizer)
        vectors = next(vectors for name, vectors in text.state_dict().items() if "token_embedding" in name)
        with torch.no_grad():  # T5 adds to vectors of unit variance
            t5.get_input_embeddings().weight.copy_(vectors / vectors.std())
        return cls(build_transformer(latent_channels), text, t5, tokenizer)

    @classmethod
    def from_pretrained(cls, folder: Path) -> "FluxDenoiser":
        """Opens a checkpoint, or the parts of a FLUX folder, in float32; `ValueError` without a tokenizer."""
        return cls(
            FluxTransformer2DModel.from_pretrained(folder / "transformer", use_safetensors=True).float(),
            CLIPTextModel.from_pretrained(folder / "text_encoder").float(),
            T5EncoderModel.from_pretrained(folder / "text_encoder_2").float(),
            saved_tokenizer(folder),
        )

    def forward(self, latents: Tensor, times: Tensor, token_ids: Tensor) -> Tensor:
        embeds = {
            "pooled_projections": self.text_encoder(token_ids[:, :TEXT_LENGTH]).pooler_output,
            "encoder_hidden_states": self.text_encoder_2(token_ids)[0],
        }
        return CALLS["FluxTransformer2DModel"](self.transformer, latents, times, embeds)

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        self.transformer.save_pretrained(folder / "transformer", safe_serialization=safe_serialization)
        self.text_encoder.save_pretrained(folder / "text_encoder")
        self.text_encoder_2.save_pretrained(folder / "text_encoder_2")
        self.tokenizer.save_pretrained(folder / "tokenizer")


class FluxTask(DrawingTask):
    """Latents from captions by flow matching; guidance is that of two calls (`true_cfg_scale`)."""

    sampling: Mapping[str, object] = {"height": 128, "width": 128}

    def __init__(self, module: FluxDenoiser, vae: AutoencoderKL) -> None:
        super().__init__(module, build_scheduler(), vae)

    def denoising_loss(self, captions: list[str], latents: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.multinomial(torch.tensor([share for share, _ in PADDED]), 1, generator=generator)
        length = PADDED[int(drawn)][1]
        kept = len(latents) if length <= TEXT_LENGTH else max(1, len(latents) * TEXT_LENGTH // length)
        token_ids, latents = self.tokens(captions[:kept], length).to(latents.device), latents[:kept]
        return flow_matching_loss(
            lambda x, t: self.module(x, t, token_ids), self.scheduler, latents, generator, logit_normal=TIMESTEPS
        )

    def pipeline(self) -> FluxPipeline:
        return flux_pipeline(self.module, self.vae)


def flux_pipeline(module: FluxDenoiser, vae: ModelMixin) -> FluxPipeline:
    """Returns the stock pipeline with the parts in training."""
    if vae.config["shift_factor"] is None:  # which the pipeline adds
        vae.register_to_config(shift_factor=0.0)
    return built(
        FluxPipeline,
        scheduler=build_scheduler(),
        vae=vae,
        text_encoder=module.text_encoder,
        tokenizer=module.tokenizer,
        text_encoder_2=module.text_encoder_2,
        tokenizer_2=module.tokenizer,
        transformer=module.transformer,
    )


def export_flux(checkpoint: Path, vae: AutoencoderKL, result: Path) -> None:
    """Writes a checkpoint of a `FluxDenoiser` as a FLUX folder."""
    save_pipeline(flux_pipeline(FluxDenoiser.from_pretrained(checkpoint), vae), result)
