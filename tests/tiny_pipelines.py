"""Stock pipelines of tiny transformers of several families, and the arguments of a short call of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from tiny_backbones import flux, flux2, ltx, parts, qwen_image, sd3, wan, z_image
from torch import Tensor

VIDEO_VAE: dict[str, Any] = dict(
    z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True], latents_mean=[0.0] * 4,
    latents_std=[1.0] * 4,
)  # fmt: skip


def embeds(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def empty(*names: str) -> dict[str, None]:
    return dict.fromkeys(names)


def image_vae(channels: int, kind: Any = diffusers.AutoencoderKL, **more: Any) -> Any:
    torch.manual_seed(2)
    return kind(block_out_channels=[8], latent_channels=channels, norm_num_groups=4, **more).eval()


def flux_parts() -> dict[str, Any]:
    none = empty("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    return {"transformer": parts(flux)[0], "vae": None, **none, "scheduler": FlowMatchEulerDiscreteScheduler()}


def flux2_parts() -> dict[str, Any]:
    none = empty("text_encoder", "tokenizer")
    vae = image_vae(
        1, diffusers.AutoencoderKLFlux2, down_block_types=["DownEncoderBlock2D"], up_block_types=["UpDecoderBlock2D"]
    )
    return {"transformer": parts(flux2)[0], "vae": vae, **none, "scheduler": FlowMatchEulerDiscreteScheduler()}


def sd3_parts() -> dict[str, Any]:
    none = empty(*(f"{kind}{number}" for kind in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")))
    scheduler = FlowMatchEulerDiscreteScheduler()
    return {"transformer": parts(sd3)[0], "vae": image_vae(4), **none, "scheduler": scheduler}


def qwen_image_parts() -> dict[str, Any]:
    torch.manual_seed(2)
    vae = diffusers.AutoencoderKLQwenImage(base_dim=4, **VIDEO_VAE).eval()
    none = empty("text_encoder", "tokenizer")
    return {"transformer": parts(qwen_image)[0], "vae": vae, **none, "scheduler": FlowMatchEulerDiscreteScheduler()}


def z_image_parts() -> dict[str, Any]:
    none = empty("text_encoder", "tokenizer")
    scheduler = FlowMatchEulerDiscreteScheduler()
    return {"transformer": parts(z_image)[0], "vae": image_vae(16), **none, "scheduler": scheduler}


def wan_parts() -> dict[str, Any]:
    torch.manual_seed(2)
    vae = diffusers.AutoencoderKLWan(base_dim=3, **VIDEO_VAE).eval()
    scheduler = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    return {"transformer": parts(wan)[0], "vae": vae, **empty("text_encoder", "tokenizer"), "scheduler": scheduler}


def ltx_parts() -> dict[str, Any]:
    none = empty("text_encoder", "tokenizer")
    torch.manual_seed(2)
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1), patch_size=1,
        patch_size_t=1,
    ).eval()  # fmt: skip
    return {"transformer": parts(ltx)[0], "vae": vae, **none, "scheduler": FlowMatchEulerDiscreteScheduler()}


@dataclass(frozen=True)
class Tiny:
    """One pipeline: its stock class, its components, and what its calls take.

    Args:
        prompts: prompt embeddings of a seed, for one prompt, by name of the argument; "negative_…" are made of them.
        guided: arguments that turn guidance on.
        batch: whether both halves of guidance come in one batch.
    """

    name: str
    stock: str
    parts: Callable[[], dict[str, Any]]
    prompts: Callable[[int], dict[str, Any]]
    guided: tuple[tuple[str, Any], ...]
    plain: tuple[tuple[str, Any], ...] = ()
    size: tuple[tuple[str, int], ...] = (("height", 32), ("width", 32))

    def make(self, kind: Any = None) -> Any:
        pipe = (kind or getattr(diffusers, self.stock))(**self.parts())
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def arguments(self, guided: bool = True, steps: int = 2) -> dict[str, Any]:
        """Returns the arguments of a call with a fixed seed."""
        negative = {f"negative_{name}": value for name, value in self.prompts(1).items()} if guided else {}
        settings = {
            "num_inference_steps": steps,
            "output_type": "latent",
            "generator": torch.Generator().manual_seed(0),
        }
        more = self.guided if guided else self.plain
        return {**self.prompts(0), **negative, **settings, **dict(self.size), **dict(more)}


def run_tiny(pipe: Any, arguments: dict[str, Any], **more: Any) -> Tensor:
    """Returns the latents of a call."""
    out = pipe(**arguments, **more)[0]
    return (out if isinstance(out, Tensor) else torch.stack(list(out))).float()


def _with_pooled(seed: int) -> dict[str, Any]:
    return {"prompt_embeds": embeds(1, 7, 32, seed=seed), "pooled_prompt_embeds": embeds(1, 64, seed=seed + 9)}


def _flux_prompts(seed: int) -> dict[str, Any]:
    return {"prompt_embeds": embeds(1, 7, 32, seed=seed), "pooled_prompt_embeds": embeds(1, 32, seed=seed + 9)}


def _qwen_prompts(seed: int) -> dict[str, Any]:
    return {"prompt_embeds": embeds(1, 7, 16, seed=seed), "prompt_embeds_mask": torch.ones(1, 7).long()}


def _ltx_prompts(seed: int) -> dict[str, Any]:
    return {"prompt_embeds": embeds(1, 7, 16, seed=seed), "prompt_attention_mask": torch.ones(1, 7)}


SCALE = (("guidance_scale", 3.0),)
OFF = (("guidance_scale", 1.0),)
PIPELINES = (
    Tiny("flux", "FluxPipeline", flux_parts, _flux_prompts, (("true_cfg_scale", 3.0),)),
    Tiny("flux2", "Flux2KleinPipeline", flux2_parts, lambda s: {"prompt_embeds": embeds(1, 7, 32, seed=s)}, SCALE, OFF),
    Tiny("sd3", "StableDiffusion3Pipeline", sd3_parts, _with_pooled, SCALE, OFF, (("height", 16), ("width", 16))),
    Tiny("qwen_image", "QwenImagePipeline", qwen_image_parts, _qwen_prompts, (("true_cfg_scale", 3.0),)),
    Tiny(
        "z_image", "ZImagePipeline", z_image_parts, lambda s: {"prompt_embeds": [embeds(9, 16, seed=s)]}, SCALE,
        (("guidance_scale", 0.0),), (("height", 16), ("width", 16)),
    ),
    Tiny(
        "wan", "WanPipeline", wan_parts, lambda s: {"prompt_embeds": embeds(1, 7, 16, seed=s)}, SCALE, OFF,
        (("height", 32), ("width", 32), ("num_frames", 5)),
    ),
    Tiny(
        "ltx", "LTXPipeline", ltx_parts, _ltx_prompts, SCALE, OFF,
        (("height", 64), ("width", 64), ("num_frames", 9)),
    ),
)  # fmt: skip
