"""Stock pipelines of tiny transformers of all families, and the arguments of a short call of each."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image
from tiny_transformers import language_tokenizer
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

from weftwork.attention_processors.core.families import call_arguments
from weftwork.scripts.benchmarks.backbones import tiny as tiny_backbones
from weftwork.scripts.benchmarks.backbones.tiny import Made, parts

VIDEO_VAE: dict[str, Any] = dict(
    z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True], latents_mean=[0.0] * 4,
    latents_std=[1.0] * 4,
)  # fmt: skip


def embeds(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def image_vae(channels: int, kind: Any = diffusers.AutoencoderKL, **more: Any) -> Any:
    return kind(block_out_channels=[8], latent_channels=channels, norm_num_groups=4, **more)


def flux2_vae() -> Any:
    blocks = {"down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"]}
    return image_vae(1, diffusers.AutoencoderKLFlux2, **blocks)


def ltx_vae() -> Any:
    return diffusers.AutoencoderKLLTXVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1), patch_size=1,
        patch_size_t=1,
    )  # fmt: skip


def qwen_vae() -> Any:
    return diffusers.AutoencoderKLQwenImage(base_dim=4, **VIDEO_VAE)


def oobleck() -> Any:
    return diffusers.AutoencoderOobleck(
        encoder_hidden_size=4, downsampling_ratios=[2, 2], decoder_channels=4, decoder_input_channels=4,
        channel_multiples=[1, 2], audio_channels=2, sampling_rate=4,
    )  # fmt: skip


def connectors() -> dict[str, Any]:
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "num_learnable_registers": None}
    sides = {f"{side}_connector_{name}": value for side in ("video", "audio") for name, value in heads.items()}
    audio = diffusers.AutoencoderKLLTX2Audio(4, ch_mult=(1,), num_res_blocks=1, latent_channels=1, mel_bins=16)
    text = LTX2TextConnectors(16, 1, rope_double_precision=False, **sides)
    return {"connectors": text.eval(), "audio_vae": audio.eval()}


def durations() -> dict[str, Any]:
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel

    return {"projection_model": StableAudioProjectionModel(8, 8, 0, 4).eval()}


SIZE: Mapping[str, int] = {"height": 32, "width": 32}
VIDEO: Mapping[str, int] = {**SIZE, "num_frames": 5}
SCALE, OFF = {"guidance_scale": 3.0}, {"guidance_scale": 1.0}
UNBINNED = {"use_resolution_binning": False, "negative_prompt": None}
TRUE = {"true_cfg_scale": 3.0}
EDIT = Image.effect_noise((64, 64), 90).convert("RGB")


@dataclass(frozen=True)
class Tiny:
    """One pipeline: its stock class, its components, and what its calls take.

    Args:
        prompts: shapes of prompt embeddings of one prompt by argument; for negative prompts too.
        masks: shapes of masks of prompts by argument.
        guided: arguments that turn guidance on; none for distilled models.
        plain: arguments that turn it off.
        size: arguments of all calls.
        fewest: number of steps that its schedule needs.
    """

    name: str
    stock: str
    backbone: Callable[[], Made]
    prompts: Mapping[str, tuple[int, ...]]
    masks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    guided: Mapping[str, Any] = field(default_factory=lambda: SCALE)
    plain: Mapping[str, Any] = field(default_factory=lambda: OFF)
    size: Mapping[str, Any] = field(default_factory=lambda: SIZE)
    vae: Callable[[], Any] = lambda: None
    scheduler: Callable[[], Any] = FlowMatchEulerDiscreteScheduler
    more: Callable[[], dict[str, Any]] = dict
    fewest: int = 1

    def parts(self) -> dict[str, Any]:
        """Returns components by name; those that are not needed are None."""
        names = list(inspect.signature(getattr(diffusers, self.stock).__init__).parameters)[1:]
        given: dict[str, Any] = {"transformer": parts(self.backbone)[0], "scheduler": self.scheduler()}
        torch.manual_seed(2)
        given |= {"vae": self.vae(), **self.more()}
        if given["vae"] is not None:
            given["vae"].eval()
        return {name: given.get(name) for name in names if name in given or not _has_default(self.stock, name)}

    def make(self, kind: Any = None) -> Any:
        pipe = (kind or getattr(diffusers, self.stock))(**self.parts())
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def of_prompts(self, seed: int) -> dict[str, Any]:
        made: dict[str, Any] = {name: embeds(*shape, seed=seed + len(shape)) for name, shape in self.prompts.items()}
        made |= {name: torch.ones(*shape).bool() for name, shape in self.masks.items()}
        if self.name == "z_image":
            return {name: list(value) for name, value in made.items()}
        if self.name == "kandinsky5":
            return {**made, "prompt_cu_seqlens": torch.tensor([0, 7])}
        return made

    def arguments(self, guided: bool = True, steps: int = 2) -> dict[str, Any]:
        """Returns the arguments of a call with a fixed seed."""
        negative = self.of_prompts(1) if guided and self.guided else {}
        settings = {
            "num_inference_steps": max(steps, self.fewest),
            "output_type": "latent",
            "generator": torch.Generator().manual_seed(0),
        }
        prompts = {**self.of_prompts(0), **{f"negative_{name}": value for name, value in negative.items()}}
        return {**prompts, **settings, **self.size, **(self.guided if guided else self.plain)}


def _has_default(stock: str, name: str) -> bool:
    parameter = inspect.signature(getattr(diffusers, stock).__init__).parameters[name]
    return parameter.default is not inspect.Parameter.empty


def run_tiny(pipe: Any, arguments: dict[str, Any], **more: Any) -> Tensor:
    """Returns the latents of a call."""
    out = pipe(**arguments, **more)[0]
    return (out if isinstance(out, Tensor) else torch.stack(list(out))).float()


@contextmanager
def calls_of(denoiser: Any) -> Iterator[list[tuple[dict[str, Any], Any]]]:
    """Yields a list of the arguments and the result of each of its calls."""
    seen: list[tuple[dict[str, Any], Any]] = []

    def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        given = {name: value for name, value in call_arguments(module, args, kwargs).items() if name != "self"}
        given |= {name: value.clone() for name, value in given.items() if isinstance(value, Tensor)}  # steps overwrite
        seen.append((given, out[0]))

    hook = denoiser.register_forward_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def unipc() -> Any:
    return UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")


def ace_step() -> dict[str, Any]:
    from diffusers.pipelines.ace_step import AceStepConditionEncoder

    text = Qwen3Config(
        vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    encoder = AceStepConditionEncoder(
        hidden_size=32, intermediate_size=16, text_hidden_dim=16, timbre_hidden_dim=8,
        num_lyric_encoder_hidden_layers=1, num_timbre_encoder_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    model = Qwen3Model(text).eval()
    return {"text_encoder": model, "tokenizer": language_tokenizer(), "condition_encoder": encoder.eval()}


FLUX = {"prompt_embeds": (1, 7, 32), "pooled_prompt_embeds": (1, 32)}
TEXT = {"prompt_embeds": (1, 7, 16)}
MASK = {"prompt_attention_mask": (1, 7)}
QWEN = {"prompt_embeds_mask": (1, 7)}
PIPELINES = (
    Tiny("flux", "FluxPipeline", tiny_backbones.flux, FLUX, guided=TRUE, plain={}),
    Tiny("flux2", "Flux2KleinPipeline", tiny_backbones.flux2, {"prompt_embeds": (1, 7, 32)}, vae=flux2_vae),
    Tiny(
        "sd3", "StableDiffusion3Pipeline", tiny_backbones.sd3,
        {"prompt_embeds": (1, 7, 32), "pooled_prompt_embeds": (1, 64)}, vae=lambda: image_vae(4),
        size={"height": 16, "width": 16},
    ),
    Tiny("qwen_image", "QwenImagePipeline", tiny_backbones.qwen_image, TEXT, QWEN, TRUE, {}, vae=qwen_vae),
    Tiny(
        "z_image", "ZImagePipeline", tiny_backbones.z_image, {"prompt_embeds": (1, 9, 16)},
        plain={"guidance_scale": 0.0}, size={"height": 16, "width": 16}, vae=lambda: image_vae(16),
    ),
    Tiny(
        "wan", "WanPipeline", tiny_backbones.wan, TEXT, size=VIDEO, scheduler=unipc,
        vae=lambda: diffusers.AutoencoderKLWan(base_dim=3, **VIDEO_VAE),
    ),
    Tiny(
        "ltx", "LTXPipeline", tiny_backbones.ltx, TEXT, MASK, vae=ltx_vae,
        size={"height": 64, "width": 64, "num_frames": 9},
    ),
    Tiny("chroma", "ChromaPipeline", tiny_backbones.chroma, {"prompt_embeds": (1, 7, 32)}, MASK),
    Tiny(
        "flux2_dev", "Flux2Pipeline", tiny_backbones.flux2, {"prompt_embeds": (1, 7, 32)}, guided={}, vae=flux2_vae,
        size={**SIZE, "image": [EDIT]},
    ),
    Tiny(
        "kontext", "FluxKontextPipeline", tiny_backbones.flux, FLUX, guided=TRUE, plain={},
        size={**SIZE, "image": embeds(1, 1, 4, 4), "max_area": 1024}, vae=lambda: image_vae(1),
    ),
    Tiny(
        "qwen_image_edit", "QwenImageEditPipeline", tiny_backbones.qwen_image, TEXT, QWEN, TRUE, {}, vae=qwen_vae,
        size={**SIZE, "image": EDIT},
    ),
    Tiny(
        "qwen_image_edit_plus", "QwenImageEditPlusPipeline", tiny_backbones.qwen_image, TEXT, QWEN, TRUE, {},
        vae=qwen_vae, size={**SIZE, "image": [EDIT, EDIT]},
    ),
    Tiny(
        "pixart", "PixArtSigmaPipeline", tiny_backbones.pixart, TEXT, MASK,
        size={**SIZE, **UNBINNED}, scheduler=DPMSolverMultistepScheduler,
    ),
    Tiny(
        "sana", "SanaPipeline", tiny_backbones.sana, {"prompt_embeds": (1, 7, 8)}, MASK,
        size={"height": 256, "width": 256, **UNBINNED},
    ),
    Tiny("auraflow", "AuraFlowPipeline", tiny_backbones.auraflow, {"prompt_embeds": (1, 7, 32)}, MASK),
    Tiny(
        "cogview4", "CogView4Pipeline", tiny_backbones.cogview4, {"prompt_embeds": (1, 7, 8)},
        scheduler=lambda: FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    ),
    Tiny(
        "hunyuan_dit", "HunyuanDiTPipeline", tiny_backbones.hunyuan_dit,
        {"prompt_embeds": (1, 4, 8), "prompt_embeds_2": (1, 4, 8)},
        {"prompt_attention_mask": (1, 4), "prompt_attention_mask_2": (1, 4)}, scheduler=DDPMScheduler,
        size={"height": 64, "width": 64, "use_resolution_binning": False},
    ),
    Tiny("lumina2", "Lumina2Pipeline", tiny_backbones.lumina2, TEXT, MASK),
    Tiny(
        "krea2", "Krea2Pipeline", tiny_backbones.krea2, {"prompt_embeds": (1, 7, 2, 16)}, QWEN,
        plain={"guidance_scale": 0.0},
    ),
    Tiny(
        "cogvideox", "CogVideoXPipeline", tiny_backbones.cogvideox, {"prompt_embeds": (1, 8, 8)}, size=VIDEO,
        scheduler=CogVideoXDDIMScheduler,
    ),
    Tiny(
        "hunyuan_video", "HunyuanVideoPipeline", tiny_backbones.hunyuan_video,
        {**TEXT, "pooled_prompt_embeds": (1, 8)}, MASK, TRUE, {}, VIDEO,
    ),
    Tiny(
        "mochi", "MochiPipeline", tiny_backbones.mochi, TEXT, MASK, size={"height": 64, "width": 64, "num_frames": 7},
        scheduler=lambda: FlowMatchEulerDiscreteScheduler(invert_sigmas=True), fewest=2,
    ),
    Tiny(
        "kandinsky5", "Kandinsky5T2VPipeline", tiny_backbones.kandinsky5,
        {"prompt_embeds_qwen": (1, 7, 16), "prompt_embeds_clip": (1, 8)}, size={**VIDEO, "height": 64},
    ),
    Tiny(
        "ltx2", "LTX2Pipeline", tiny_backbones.ltx2, TEXT, MASK, plain={**OFF, "audio_guidance_scale": 1.0},
        vae=ltx_vae, more=connectors, size={"height": 64, "width": 64, "num_frames": 9},
    ),
    Tiny(
        "stable_audio", "StableAudioPipeline", tiny_backbones.stable_audio, {"prompt_embeds": (1, 7, 8)},
        {"attention_mask": (1, 7)}, size={"audio_end_in_s": 4.0}, vae=oobleck, more=durations,
        scheduler=EDMDPMSolverMultistepScheduler,
    ),
    Tiny(
        "ace_step", "AceStepPipeline", tiny_backbones.ace_step, {}, vae=oobleck, more=ace_step,
        size={"prompt": "music", "audio_duration": 4.0}, scheduler=lambda: FlowMatchEulerDiscreteScheduler(1),
    ),
)  # fmt: skip
"""Pipelines of the families."""
