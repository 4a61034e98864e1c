"""Complete stock pipelines of tiny transformers that adapters are trained on, with text encoders and tokenizers."""

from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
from tiny import tiny_parts, tiny_tokenizer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

FLUX = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
CHAT = "{% for message in messages %}user: {{ message.content }}{% endfor %}"
WIDE: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 260,
}  # fmt: skip


def clip(kind: Any) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tiny_tokenizer()), hidden_size=32, intermediate_size=37, num_attention_heads=4,
        num_hidden_layers=2, max_position_embeddings=77, projection_dim=32, bos_token_id=0, eos_token_id=1,
        pad_token_id=1,
    )  # fmt: skip
    return kind(config).eval()


def t5(width: int) -> T5EncoderModel:
    size = {"d_model": width, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(tiny_tokenizer()), pad_token_id=1, eos_token_id=1, **size)).eval()


def language_tokenizer() -> Qwen2Tokenizer:
    letters = sorted(bytes_to_unicode().values())
    vocab = {letter: index for index, letter in enumerate([*letters, "<|endoftext|>"])}
    return Qwen2Tokenizer(vocab=vocab, merges=[], model_max_length=2048, chat_template=CHAT)


def vae(channels: int) -> Any:
    own = {name: value for name, value in tiny_parts()["vae"].config.items() if not name.startswith("_")}
    config = {**own, "latent_channels": channels, "scaling_factor": 0.4, "shift_factor": 0.1}
    return diffusers.AutoencoderKL(**config).eval()


def flux() -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16, joint_attention_dim=24, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), **FLUX
    )
    return diffusers.FluxPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae(4), clip(CLIPTextModel),
        tiny_tokenizer(), t5(24), tiny_tokenizer(), transformer,
    )  # fmt: skip


def flux_distilled() -> Any:
    pipe = flux()
    config = {name: value for name, value in pipe.transformer.config.items() if not name.startswith("_")}
    pipe.transformer = diffusers.FluxTransformer2DModel(**{**config, "guidance_embeds": True})
    return pipe


def sd3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64,
        pos_embed_max_size=96, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    texts = [*[clip(CLIPTextModelWithProjection), tiny_tokenizer()] * 2, t5(64), tiny_tokenizer()]
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.StableDiffusion3Pipeline(transformer, scheduler, vae(4), *texts)  # pyright: ignore


def qwen_image() -> Any:
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=3,
        joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default", "rope_theta": 1e6}
    seen = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    config = Qwen2_5_VLConfig(text_config={**WIDE, "rope_scaling": rope}, vision_config=seen)
    frames = diffusers.AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.1, 0.2, -0.3, 0.4],
        latents_std=[0.5, 1.5, 2.0, 1.0],
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    model = Qwen2_5_VLForConditionalGeneration(config)
    return diffusers.QwenImagePipeline(scheduler, frames, model, language_tokenizer(), transformer)


def z_image() -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=16, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[8, 4, 4], axes_lens=[1024, 32, 32],
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    model = Qwen3Model(Qwen3Config(**WIDE, head_dim=8))
    return diffusers.ZImagePipeline(scheduler, vae(16), model, language_tokenizer(), transformer)  # pyright: ignore


def flux2_klein() -> Any:
    """FLUX.2 with a text encoder of as many layers as the pipeline reads; no `DenoiserCall` trains on it."""
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16, joint_attention_dim=48, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4), **FLUX
    )
    model = Qwen3ForCausalLM(Qwen3Config(**{**WIDE, "num_hidden_layers": 28}, head_dim=8))
    frames = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8,), latent_channels=4, norm_num_groups=4, down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",), layers_per_block=1,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return diffusers.Flux2KleinPipeline(scheduler, frames, model, language_tokenizer(), transformer)  # pyright: ignore


FAMILIES: Mapping[str, Callable[[], Any]] = {
    "flux": flux, "flux-distilled": flux_distilled, "sd3": sd3, "qwen-image": qwen_image, "z-image": z_image,
}  # fmt: skip


def tiny_transformer_pipe(family: str | Callable[[], Any]) -> Any:
    """A stock pipeline whose zero-initialised layers are random too."""
    torch.manual_seed(0)
    pipe = FAMILIES[family]() if isinstance(family, str) else family()
    for parameter in pipe.transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe
