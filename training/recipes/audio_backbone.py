"""The shipped audio backbone: its parts, and the task that trains transformer and text encoder together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableAudioDiTModel
from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from weftwork.attention_processors.audio.stable_audio import rotary_embedding_for
from weftwork.datasets.synthetic.walks.prompts import caption
from weftwork.pipelines.audio.cosine_scheduler import at_time
from weftwork.training.core.objectives import sigmoid_normal_timesteps
from weftwork.training.core.task import Task
from weftwork.training.recipes.audio_autoencoder import LATENT_CHANNELS

WIDTH, HEADS, BLOCKS = 192, 6, 6
TEXT_WIDTH, TEXT_LENGTH = 96, 16
LONGEST = 10.0
"""Longest duration of the length conditioner, in seconds."""


def build_transformer(latents: int = 128) -> StableAudioDiTModel:
    """Builds the transformer for clips of at most so many latents."""
    return StableAudioDiTModel(
        sample_size=latents,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=BLOCKS,
        attention_head_dim=WIDTH // HEADS,
        num_attention_heads=HEADS,
        num_key_value_attention_heads=HEADS // 2,
        cross_attention_dim=TEXT_WIDTH,
        cross_attention_input_dim=TEXT_WIDTH,
        time_proj_dim=128,
        global_states_input_dim=2 * TEXT_WIDTH,
    )


def build_text_tokenizer(words: Sequence[str]) -> T5Tokenizer:
    """Builds a unigram tokenizer of whole words; other words are spelled."""
    pieces = [f"▁{word}" for word in words] + ["▁", *"abcdefghijklmnopqrstuvwxyz,.-'"]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), *((p, -2.0 - 0.01 * i) for i, p in enumerate(pieces))]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=TEXT_LENGTH)


def build_text_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer), d_model=TEXT_WIDTH, d_kv=24, d_ff=2 * TEXT_WIDTH, num_layers=2, num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )  # fmt: skip


class TextToAudio(nn.Module):
    """Transformer, text encoder and the projections of text and length, trained and saved together."""

    def __init__(
        self, transformer: StableAudioDiTModel, text_encoder: T5EncoderModel, projection: StableAudioProjectionModel
    ) -> None:
        super().__init__()
        self.transformer, self.text_encoder, self.projection_model = transformer, text_encoder, projection

    def states(
        self, token_ids: Tensor, mask: Bool[Tensor, "row token"], seconds: float
    ) -> tuple[Float[Tensor, "row token dim"], Float[Tensor, "row 1 dim"]]:
        """Returns context and global state, as the stock pipeline makes them."""
        text = self.text_encoder(token_ids, attention_mask=mask).last_hidden_state
        ends = torch.tensor([0.0, seconds]).repeat(len(text), 1)
        made = self.projection_model(text, ends[:, 0], ends[:, 1])
        spans = [made.seconds_start_hidden_states, made.seconds_end_hidden_states]
        return torch.cat([made.text_hidden_states * mask[..., None], *spans], 1), torch.cat(spans, 2)

    def forward(self, noisy: Tensor, times: Tensor, context: Tensor, whole: Tensor) -> Tensor:
        turns = rotary_embedding_for(self.transformer, noisy.shape[-1])
        return self.transformer(noisy, times, context, whole, turns).sample

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        for name in ("transformer", "text_encoder", "projection_model"):
            getattr(self, name).save_pretrained(folder / name)


Sample = tuple[Tensor, str]
Batch = tuple[Tensor, list[str]]


class TextToAudioTask(Task[TextToAudio, Sample, Batch]):
    """Trains text to latents of clips of `seconds`, a share (`drop`) of them without context."""

    def __init__(self, module: TextToAudio, tokenizer: T5Tokenizer, seconds: float, *, drop: float = 0.1) -> None:
        self.module, self.tokenizer, self.seconds, self.drop = module, tokenizer, seconds, drop

    def collate(self, samples: list[Sample]) -> Batch:
        return torch.stack([latents for latents, _ in samples]), [surface for _, surface in samples]

    def loss(self, batch: Batch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        latents, surfaces = batch
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        words = self.tokenizer(
            [caption(one, rng) for one in surfaces], padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt"
        ).to(latents.device)
        context, whole = self.module.states(words.input_ids, words.attention_mask.bool(), self.seconds)
        kept = (torch.rand(len(latents), 1, 1, generator=generator) >= self.drop).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        times = sigmoid_normal_timesteps(len(latents), generator).to(latents)
        seen, target = at_time(latents, noise, times)
        return F.mse_loss(self.module(seen, times, context * kept, whole), target)
