"""Tiny transformers of the families of diffusers, with random weights in all layers, and inputs for one call."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch import Tensor

Made = tuple[Any, dict[str, Any]]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape)


HALF = torch.tensor([0.5, 0.5])
FIVE = torch.tensor([500, 500])
FLUX = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}


def sd3() -> Made:
    model = diffusers.SD3Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=64,
        pos_embed_max_size=96, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 16, 16), "encoder_hidden_states": noise(2, 7, 32),
                   "pooled_projections": noise(2, 64), "timestep": FIVE.float()}  # fmt: skip


def flux() -> Made:
    model = diffusers.FluxTransformer2DModel(
        in_channels=4, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), **FLUX
    )
    return model, {"hidden_states": noise(2, 16, 4), "encoder_hidden_states": noise(2, 7, 32),
                   "pooled_projections": noise(2, 32), "timestep": HALF, "img_ids": noise(16, 3),
                   "txt_ids": torch.zeros(7, 3)}  # fmt: skip


def chroma() -> Made:
    model = diffusers.ChromaTransformer2DModel(
        in_channels=4, joint_attention_dim=32, axes_dims_rope=(4, 4, 8), approximator_num_channels=8,
        approximator_hidden_dim=16, approximator_layers=1, **FLUX,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 16, 4), "encoder_hidden_states": noise(2, 7, 32), "timestep": HALF,
                   "img_ids": noise(16, 3), "txt_ids": torch.zeros(7, 3),
                   "attention_mask": torch.ones(2, 23, dtype=torch.bool)}  # fmt: skip


def flux2() -> Made:
    model = diffusers.Flux2Transformer2DModel(
        in_channels=4, joint_attention_dim=32, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4), **FLUX
    )
    return model, {"hidden_states": noise(2, 16, 4), "encoder_hidden_states": noise(2, 7, 32), "timestep": HALF,
                   "img_ids": noise(16, 4), "txt_ids": torch.zeros(7, 4), "guidance": torch.ones(2)}  # fmt: skip


def qwen_image() -> Made:
    model = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=3,
        joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 16, 16), "encoder_hidden_states": noise(2, 7, 16),
                   "encoder_hidden_states_mask": torch.ones(2, 7).long(), "timestep": HALF,
                   "img_shapes": [[(1, 4, 4)]] * 2}  # fmt: skip


def z_image() -> Made:
    model = diffusers.ZImageTransformer2DModel(
        in_channels=16, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[8, 4, 4], axes_lens=[256, 32, 32],
    )  # fmt: skip
    return model, {"x": [noise(16, 1, 8, 8) for _ in range(2)], "t": HALF,
                   "cap_feats": [noise(9, 16) for _ in range(2)]}  # fmt: skip


def wan() -> Made:
    model = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=32, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 2, 8, 8), "timestep": FIVE, "encoder_hidden_states": noise(2, 7, 16)}


def wan_image_to_video() -> Made:
    model = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=32, ffn_dim=32, num_layers=2, rope_max_seq_len=32, image_dim=8, added_kv_proj_dim=24,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 2, 8, 8), "timestep": FIVE, "encoder_hidden_states": noise(2, 512, 16),
                   "encoder_hidden_states_image": noise(2, 5, 8)}  # fmt: skip


def ltx() -> Made:
    model = diffusers.LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        num_layers=2, caption_channels=16,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 32, 4), "encoder_hidden_states": noise(2, 7, 16), "timestep": FIVE,
                   "encoder_attention_mask": torch.ones(2, 7), "num_frames": 2, "height": 4, "width": 4}  # fmt: skip


def cogvideox() -> Made:
    model = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2, text_embed_dim=8,
        num_layers=2, sample_width=8, sample_height=8, sample_frames=8, max_text_seq_length=8,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 1, 4, 8, 8), "encoder_hidden_states": noise(2, 8, 8), "timestep": FIVE}


def cogview4() -> Made:
    model = diffusers.CogView4Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, text_embed_dim=8,
        time_embed_dim=8, condition_dim=4, rope_axes_dim=(8, 8),
    )  # fmt: skip
    size = torch.tensor([[64, 64]] * 2)
    return model, {"hidden_states": noise(2, 4, 8, 8), "encoder_hidden_states": noise(2, 7, 8), "timestep": FIVE,
                   "original_size": size, "target_size": size, "crop_coords": size * 0}  # fmt: skip


def hunyuan_video() -> Made:
    model = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=2, num_single_layers=1,
        num_refiner_layers=1, patch_size=1, text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    text = {"encoder_hidden_states": noise(1, 7, 16), "encoder_attention_mask": torch.ones(1, 7)}
    return model, {"hidden_states": noise(1, 4, 2, 4, 4), "timestep": FIVE[:1], "pooled_projections": noise(1, 8),
                   "guidance": torch.ones(1) * 1000, **text}  # fmt: skip


def lumina2() -> Made:
    model = diffusers.Lumina2Transformer2DModel(
        sample_size=16, in_channels=4, hidden_size=24, num_layers=2, num_refiner_layers=1, num_attention_heads=3,
        num_kv_heads=1, multiple_of=2, axes_dim_rope=(4, 2, 2), axes_lens=(64, 64, 64), cap_feat_dim=16,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 8, 8), "timestep": HALF, "encoder_hidden_states": noise(2, 7, 16),
                   "encoder_attention_mask": torch.ones(2, 7, dtype=torch.bool)}  # fmt: skip


def auraflow() -> Made:
    model = diffusers.AuraFlowTransformer2DModel(
        sample_size=32, in_channels=4, out_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
        attention_head_dim=8, num_attention_heads=4, joint_attention_dim=32, caption_projection_dim=32,
        pos_embed_max_size=256,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 32, 32), "encoder_hidden_states": noise(2, 7, 32), "timestep": HALF}


def pixart() -> Made:
    model = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=16, sample_size=8, caption_channels=16, use_additional_conditions=False,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 8, 8), "encoder_hidden_states": noise(2, 7, 16), "timestep": FIVE,
                   "added_cond_kwargs": {"aspect_ratio": None, "resolution": None}}  # fmt: skip


def sana() -> Made:
    model = diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=4, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 8, 8), "encoder_hidden_states": noise(2, 7, 8), "timestep": FIVE}


def stable_audio() -> Made:
    model = diffusers.StableAudioDiTModel(
        sample_size=4, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        num_key_value_attention_heads=1, out_channels=4, cross_attention_dim=8, time_proj_dim=8,
        global_states_input_dim=8, cross_attention_input_dim=8,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 16), "timestep": HALF, "encoder_hidden_states": noise(2, 7, 8),
                   "global_hidden_states": noise(2, 1, 8)}  # fmt: skip


def ace_step() -> Made:
    model = diffusers.AceStepTransformer1DModel(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, in_channels=24, audio_acoustic_hidden_dim=8, patch_size=2, sliding_window=8, encoder_hidden_size=32,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 8, 8), "timestep": HALF, "timestep_r": HALF,
                   "encoder_hidden_states": noise(2, 7, 32), "context_latents": noise(2, 8, 16)}  # fmt: skip


BACKBONES: tuple[Callable[[], Made], ...] = (
    sd3, flux, chroma, flux2, qwen_image, z_image, wan, wan_image_to_video, ltx, cogvideox, cogview4, hunyuan_video,
    lumina2, auraflow, pixart, sana, stable_audio, ace_step,
)  # fmt: skip


def made(backbone: Callable[[], Made]) -> tuple[Any, Callable[[Any], Tensor]]:
    """Returns a model whose zero-initialised layers are random too, and a function that calls it on fixed inputs."""
    torch.manual_seed(0)
    model, inputs = backbone()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)

    def call(model: Any) -> Tensor:
        torch.manual_seed(1)  # Z-Image's padding is random in none of them, but a draw would show
        out = model(**inputs, return_dict=False)[0]
        return out[0] if isinstance(out, list | tuple) else out

    return model.eval(), call
