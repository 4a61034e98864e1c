"""Tiny denoisers of the families of diffusers, with random weights in all layers, and inputs for one call."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch import Tensor

from weftwork.attention_processors.core.example import Inputs

Made = tuple[Any, Inputs]


def noise(*shape: int) -> Tensor:
    """Returns standard normal numbers."""
    return torch.randn(*shape)


def ids(height: int, width: int, axes: int = 3, image: int = 0) -> Tensor:
    """Coordinates (image, y, x, …) of packed tokens, row by row."""
    made = torch.zeros(height, width, axes)
    made[..., 0] = image
    made[..., 1], made[..., 2] = torch.arange(height)[:, None], torch.arange(width)
    return made.flatten(0, 1)


HALF = torch.tensor([0.5, 0.5])
FIVE = torch.tensor([500, 500])
FLUX: Inputs = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}


def unet() -> Made:
    blocks: Inputs = {
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    }
    model = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=4,
        norm_num_groups=8, **blocks,
    )  # fmt: skip
    return model, {"sample": noise(2, 4, 8, 8), "timestep": FIVE, "encoder_hidden_states": noise(2, 7, 32)}


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
                   "pooled_projections": noise(2, 32), "timestep": HALF, "img_ids": ids(4, 4),
                   "txt_ids": torch.zeros(7, 3)}  # fmt: skip


def chroma() -> Made:
    model = diffusers.ChromaTransformer2DModel(
        in_channels=4, joint_attention_dim=32, axes_dims_rope=(4, 4, 8), approximator_num_channels=8,
        approximator_hidden_dim=16, approximator_layers=1, **FLUX,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 16, 4), "encoder_hidden_states": noise(2, 7, 32), "timestep": HALF,
                   "img_ids": ids(4, 4), "txt_ids": torch.zeros(7, 3),
                   "attention_mask": torch.ones(2, 23, dtype=torch.bool)}  # fmt: skip


def flux2() -> Made:
    model = diffusers.Flux2Transformer2DModel(
        in_channels=4, joint_attention_dim=32, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4), **FLUX
    )
    return model, {"hidden_states": noise(2, 16, 4), "encoder_hidden_states": noise(2, 7, 32), "timestep": HALF,
                   "img_ids": ids(4, 4, 4), "txt_ids": torch.zeros(7, 4), "guidance": torch.ones(2)}  # fmt: skip


def flux3() -> Made:
    model = diffusers.Flux3Transformer2DModel(
        in_channels=4, cond_in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, timestep_channels=32, axes_dims_rope=(4, 4, 4, 4),
    )  # fmt: skip
    reference = ids(2, 3, 4)
    reference[:, 3] = -1
    return model, {"hidden_states": noise(2, 16, 4), "encoder_hidden_states": noise(2, 7, 32), "timestep": HALF,
                   "img_ids": ids(4, 4, 4), "txt_ids": torch.zeros(7, 4), "image_cond_ids": reference,
                   "image_cond_hidden_states": noise(2, 6, 4)}  # fmt: skip


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
    text = {"encoder_hidden_states": noise(2, 7, 16), "encoder_attention_mask": torch.ones(2, 7)}
    return model, {"hidden_states": noise(2, 4, 2, 4, 4), "timestep": FIVE, "pooled_projections": noise(2, 8),
                   "guidance": torch.ones(2) * 1000, **text}  # fmt: skip


def mochi() -> Made:
    model = diffusers.MochiTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, in_channels=4,
        text_embed_dim=16, time_embed_dim=4, max_sequence_length=16,
    )  # fmt: skip
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2]).bool()
    return model, {"hidden_states": noise(2, 4, 2, 8, 8), "encoder_hidden_states": noise(2, 7, 16),
                   "timestep": FIVE.float(), "encoder_attention_mask": mask}  # fmt: skip


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
    with torch.no_grad():
        model.time_step_proj.linear_2.weight *= 10  # else gates near 0 hide what attention adds
    return model, {"hidden_states": noise(2, 4, 16, 16), "encoder_hidden_states": noise(2, 7, 32), "timestep": HALF}


def pixart() -> Made:
    model = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=16, sample_size=8, caption_channels=16, use_additional_conditions=False,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 8, 8), "encoder_hidden_states": noise(2, 7, 16), "timestep": FIVE,
                   "added_cond_kwargs": {"aspect_ratio": None, "resolution": None}}  # fmt: skip


def sana() -> Made:
    model = diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=8,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 8, 8), "encoder_hidden_states": noise(2, 7, 8), "timestep": FIVE}


def stable_audio() -> Made:
    model = diffusers.StableAudioDiTModel(
        sample_size=4, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        num_key_value_attention_heads=1, out_channels=4, cross_attention_dim=8, time_proj_dim=8,
        global_states_input_dim=16, cross_attention_input_dim=8,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 16), "timestep": HALF, "encoder_hidden_states": noise(2, 7, 8),
                   "global_hidden_states": noise(2, 1, 16)}  # fmt: skip


def stable_audio3() -> Made:
    model = diffusers.StableAudio3DiTModel(
        io_channels=4, embed_dim=16, depth=2, num_heads=2, cond_token_dim=8, global_cond_dim=8, local_add_cond_dim=5,
        timestep_features_dim=8, num_memory_tokens=2,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 16), "timestep": HALF, "encoder_hidden_states": noise(2, 7, 8),
                   "global_hidden_states": noise(2, 8)}  # fmt: skip


def ace_step() -> Made:
    model = diffusers.AceStepTransformer1DModel(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, in_channels=24, audio_acoustic_hidden_dim=8, patch_size=2, sliding_window=8, encoder_hidden_size=32,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 8, 8), "timestep": HALF, "timestep_r": HALF,
                   "encoder_hidden_states": noise(2, 7, 32), "context_latents": noise(2, 8, 16)}  # fmt: skip


def ltx2() -> Made:
    model = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=4,
        audio_cross_attention_dim=8, num_layers=1, caption_channels=16, rope_double_precision=False,
    )  # fmt: skip
    text = {"encoder_hidden_states": noise(2, 7, 16), "audio_encoder_hidden_states": noise(2, 7, 16),
            "encoder_attention_mask": torch.ones(2, 7), "audio_encoder_attention_mask": torch.ones(2, 7)}  # fmt: skip
    return model, {"hidden_states": noise(2, 32, 4), "audio_hidden_states": noise(2, 9, 4), "timestep": FIVE,
                   "num_frames": 2, "height": 4, "width": 4, "audio_num_frames": 9, **text}  # fmt: skip


def hunyuan_dit() -> Made:
    model = diffusers.HunyuanDiT2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, patch_size=2, sample_size=8, hidden_size=16,
        num_layers=2, cross_attention_dim=8, cross_attention_dim_t5=8, pooled_projection_dim=4, text_len=4,
        text_len_t5=4,
    )  # fmt: skip
    return model, {"hidden_states": noise(2, 4, 8, 8), "timestep": FIVE.float(),
                   "encoder_hidden_states": noise(2, 4, 8),
                   "text_embedding_mask": torch.ones(2, 4), "encoder_hidden_states_t5": noise(2, 4, 8),
                   "text_embedding_mask_t5": torch.ones(2, 4), "style": torch.zeros(2).long(),
                   "image_meta_size": torch.tensor([[64.0, 64, 64, 64, 0, 0]] * 2),
                   "image_rotary_emb": [torch.ones(16, 8), torch.zeros(16, 8)]}  # fmt: skip


def kandinsky5() -> Made:
    model = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16, out_visual_dim=4, patch_size=(1, 2, 2),
        model_dim=16, ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(2, 2, 4),
    )  # fmt: skip
    places = [torch.arange(2), torch.arange(4), torch.arange(4)]
    return model, {"hidden_states": noise(2, 2, 8, 8, 4), "encoder_hidden_states": noise(2, 7, 16),
                   "timestep": FIVE.float(), "pooled_projections": noise(2, 8), "visual_rope_pos": places,
                   "text_rope_pos": torch.arange(7)}  # fmt: skip


def krea2() -> Made:
    model = diffusers.Krea2Transformer2DModel(
        in_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=32, timestep_embed_dim=16, text_hidden_dim=16, num_text_layers=2, text_num_attention_heads=2,
        text_num_key_value_heads=2, text_intermediate_size=16, num_layerwise_text_blocks=1, num_refiner_text_blocks=1,
        axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    places = torch.cat([torch.zeros(7, 3), ids(4, 4)])
    return model, {"hidden_states": noise(2, 16, 4), "encoder_hidden_states": noise(2, 7, 2, 16), "timestep": HALF,
                   "position_ids": places}  # fmt: skip


BACKBONES: tuple[Callable[[], Made], ...] = (
    sd3, flux, chroma, flux2, qwen_image, z_image, wan, wan_image_to_video, ltx, cogvideox, cogview4, hunyuan_video,
    mochi, lumina2, auraflow, pixart, sana, stable_audio, ace_step, ltx2, hunyuan_dit, kandinsky5, krea2, stable_audio3,
)  # fmt: skip
"""Transformers with a record in `core.families`."""
if hasattr(diffusers, "Flux3Transformer2DModel"):  # not in the oldest version
    BACKBONES += (flux3,)
FAMILIES: tuple[Callable[[], Made], ...] = (unet, *BACKBONES)
"""All denoisers of the table."""


def parts(backbone: Callable[[], Made]) -> Made:
    """Returns a model whose zero-initialised layers are random too, and the inputs of a call."""
    torch.manual_seed(0)
    model, inputs = backbone()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval().requires_grad_(False), inputs


def run(model: Any, inputs: Inputs) -> Tensor:
    """Returns the output of a call; of the first row alone where that is a list."""
    torch.manual_seed(1)  # so that calls that draw random numbers agree
    out = model(**inputs, return_dict=False)
    while not isinstance(out, Tensor):
        out = out[0]
    return out


def made(backbone: Callable[[], Made]) -> tuple[Any, Callable[[Any], Tensor]]:
    """Returns a model, and a function that calls it on fixed inputs."""
    model, inputs = parts(backbone)
    return model.requires_grad_(True), lambda model: run(model, inputs)
