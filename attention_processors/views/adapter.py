"""Adapter for image and geometry of a new view: one frozen denoiser in four roles (after MoAI, arXiv 2506.11924).

A role is the denoiser with a LoRA of its own; the frozen weights exist once, whatever the number of roles:

    image_reference      reads images of the references       -> what the image role reads beside its target
    geometry_reference   reads their point maps               -> the same for the geometry role
    image                denoises the target's image           -> its attention, for
    geometry             denoises the target's point map

Differs: the authors train four full networks, initialised from two pretrained ones; here only LoRAs and the
correspondence encoder are trained, and inputs beyond the four latent channels enter as features.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from diffusers import StableDiffusionPipeline
from jaxtyping import Float, Int
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter_files import check_config, read_tensors, state_sha256
from weftwork.attention_processors.core.conditioning import Conditioning, Encoded
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.layers import select_layers
from weftwork.attention_processors.core.processor import conditioned, install, unwrapped
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.views import SHARINGS
from weftwork.attention_processors.views.correspondence import CorrespondenceEncoder, added_after_conv_in
from weftwork.attention_processors.views.instillation import GRADIENTS, Instillation
from weftwork.attention_processors.views.reference_attention import References
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.json_object import read_json

ROLES: Final = ("image_reference", "geometry_reference", "image", "geometry")
TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2")
"""Modules that get LoRAs: attention, feed-forward layers, and the convolutions of the residual blocks."""
BLOCKS: Final = ("down_blocks", "mid_block", "up_blocks")
INNER: Final = ("resnets", "attentions")
STAGES: Final = ("attn1", "attn2", "ff")
"""Execution order of the parts of a U-Net."""
LORA_NAME: Final = "pytorch_lora_weights.safetensors"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True, eq=False)
class SeenReferences:
    """Recorded inputs of both reference roles, for all steps of one call.

    Args:
        views: references per row.
    """

    image: References
    geometry: References
    views: int


class AlignedViews(nn.Module):
    """Trained modules of aligned views for one denoiser; the denoiser's frozen weights are not part of them.

    Args:
        denoiser: a U-Net; it is not changed, roles are copies that share its tensors.
        rank: of the LoRAs.
        channels: number of channels of the correspondences, see `CorrespondenceEncoder`.
        warped: whether `CorrespondenceEncoder` also reads the latents of the warped image.
        sharing: input of the geometry role from the image role: its attention ("instillation"), its features as further
            keys and values ("concatenated"), its attention as a target in training ("distilled"), or nothing ("none").
        layers: self-attention layers that share, as in `select_layers`.
        gradient: whether the geometry's loss reaches the image role, "live" or "detach".
        training: origin of the weights: data, steps, seed.

    Raises:
        ValueError: an unknown sharing or gradient, "detach" without instillation, or a denoiser that is not a U-Net.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        *,
        rank: int = 16,
        channels: int = 20,
        warped: bool = True,
        sharing: str = "instillation",
        layers: str | Sequence[str] = "self",
        gradient: str = "live",
        training: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        if sharing not in SHARINGS:
            raise UserError(f"sharing: got {sharing!r}, expected one of {', '.join(SHARINGS)}; pass one of these")
        if gradient not in GRADIENTS or (gradient != "live" and sharing != "instillation"):
            raise UserError(
                f"gradient: got {gradient!r} for {sharing!r}, expected 'live', or 'detach' for 'instillation'; change "
                "one of them"
            )
        self.config = {
            "rank": rank,
            "channels": channels,
            "warped": warped,
            "sharing": sharing,
            "layers": layers,
            "gradient": gradient,
            "training": training,
        }
        self.levels = layer_levels(denoiser)
        select_layers(denoiser, layers)
        instilled = sharing in ("instillation", "distilled")
        self.link = Instillation(layers, gradient=gradient) if instilled else References(layers)
        self.own = Instillation(layers)
        """Attention of the geometry role, recorded for distillation."""
        self.roles = nn.ModuleDict({role: self._role(role, unwrapped(denoiser)) for role in ROLES})
        first = unwrapped(denoiser).get_submodule("conv_in")
        assert isinstance(first, nn.Conv2d)
        latents = first.in_channels if warped else 0
        self.correspondence = CorrespondenceEncoder(channels, first.out_channels, warped_channels=latents)
        self.base_sha256 = _sha256(denoiser)
        """SHA-256 of the denoiser's weights; None in half precision."""

    def _role(self, role: str, denoiser: nn.Module) -> nn.Module:
        """Returns the denoiser with LoRAs on all modules whose output the role uses."""
        network = _sharing_copy(denoiser)
        install(network)
        targets = [name for name, _ in network.named_modules() if name.endswith(TARGETS)]
        if role.endswith("_reference"):  # up to the last layer that is read
            last = max(select_layers(network, References().layers), key=_place)
            targets = [name for name in targets if _place(name) < _place(last)]
        if role == "geometry" and self.sharing == "instillation":
            assert isinstance(self.link, Instillation)
            unused = {
                name.removesuffix(".weight").removesuffix(".bias") for name in self.link.unused_parameters(network)
            }
            targets = [name for name in targets if name not in unused]
        rank = self.config["rank"]
        lora = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
        network = inject_adapter_in_model(lora, network, "default")
        for parameter in network.parameters():
            if parameter.requires_grad:  # created in the backbone's precision
                parameter.data = parameter.data.float()
        return network

    @property
    def sharing(self) -> str:
        return self.config["sharing"]

    def see(
        self,
        images: Float[Tensor, "row_view channel h w"],
        geometry: Float[Tensor, "row_view channel h w"],
        views_geometry: Float[Tensor, "row_view 8 height width"],
        context: Float[Tensor, "row token dim"],
    ) -> SeenReferences:
        """Reads the references, once for all steps, and returns what `forward` takes.

        Args:
            images, geometry: latents of the references' images and point maps, views of a row together.
            views_geometry: their input of `CorrespondenceEncoder`.
            context: prompt embeddings, by row.

        Raises:
            ValueError: numbers of images, point maps, geometries and rows that do not match.
        """
        if len(images) % len(context) or not len(images) == len(geometry) == len(views_geometry):
            raise UserError(
                f"references: got {len(images)} images, {len(geometry)} point maps and {len(views_geometry)} "
                f"geometries for {len(context)} rows, expected as many of each, equally many per row; give every row "
                "its views"
            )
        views = len(images) // len(context)
        context = context.repeat_interleave(views, 0)
        features = self.correspondence(views_geometry)
        times = torch.zeros(len(images), dtype=torch.long, device=images.device)
        seen = SeenReferences(References(), References(), views)
        for role, latents, references in (
            ("image_reference", images, seen.image),
            ("geometry_reference", geometry, seen.geometry),
        ):
            self._run(role, latents, times, context, features, references=references.record())
        return seen

    def forward(
        self,
        image: Float[Tensor, "row channel h w"],
        geometry: Float[Tensor, "row channel h w"],
        times: Int[Tensor, " row"],
        features: Float[Tensor, "row out h w"],
        context: Float[Tensor, "row token dim"],
        seen: SeenReferences,
    ) -> tuple[Tensor, Tensor]:
        """Returns both roles' predictions for noisy latents of the target, at one step.

        Args:
            features: output of `correspondence` for the target camera's view.
            seen: the references, as `see` returns them.
        """
        self.link.store.clear()
        given, taken = self._taps()
        references = seen.image.extend(seen.views)
        first = self._run("image", image, times, context, features, references=references, **given)
        references = seen.geometry.extend(seen.views)
        return first, self._run("geometry", geometry, times, context, features, references=references, **taken)

    def _taps(self) -> tuple[dict[str, Encoded], dict[str, Encoded]]:
        """Taps of the image role and of the geometry role."""
        if self.sharing == "none":
            return {}, {}
        given: dict[str, Encoded] = {"link": self.link.record()}
        if isinstance(self.link, References):
            return given, {"link": self.link.extend(1)}
        if self.sharing == "instillation":
            return given, {"link": self.link.use()}
        self.own.clear()
        return given, {"own": self.own.record()}

    def _run(
        self, role: str, latents: Tensor, times: Tensor, context: Tensor, features: Tensor, **taps: Encoded
    ) -> Tensor:
        height, width = latents.shape[-2:]
        conditioning = Conditioning.of(taps, Layout(self.levels, (height, width)))
        network: Any = self.roles[role]
        dtype = network.conv_in.weight.dtype  # `network.dtype` walks through all modules
        with added_after_conv_in(network, features), conditioned(network, conditioning):
            return network(latents.to(dtype), times, context.to(dtype)).sample

    def counts(self) -> dict[str, int]:
        """Numbers of trained parameters: LoRAs of each role, and the correspondence encoder."""
        parts = {**self.roles, "correspondence": self.correspondence}
        return {name: sum(p.numel() for p in part.parameters() if p.requires_grad) for name, part in parts.items()}

    def register_to_config(self, **values: object) -> None:
        """Changes entries of the config, as diffusers' models do."""
        self.config.update(values)

    def check_base(self, denoiser: nn.Module) -> None:
        """Raises unless these modules were trained for a denoiser with these weights; half precision is not compared.

        Raises:
            ValueError: another denoiser.
        """
        _refuse_other_base(self.base_sha256, _sha256(denoiser))

    # -- files ---------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path, safe_serialization: bool = True) -> None:
        """Writes a folder of LoRAs in diffusers' format, one per role, and the correspondence encoder.

        Raises:
            OSError: it cannot be written; an earlier folder is unchanged.
        """
        with atomic_path(folder) as stage:
            for role, network in self.roles.items():
                layers: dict[str, nn.Module | Tensor] = {**get_peft_model_state_dict(network)}
                StableDiffusionPipeline.save_lora_weights(
                    stage / role, unet_lora_layers=layers, weight_name=LORA_NAME, safe_serialization=safe_serialization
                )
            self.correspondence.save_pretrained(stage / "correspondence", safe_serialization=safe_serialization)
            about = {
                "_class_name": type(self).__name__,
                "base_sha256": self.base_sha256,
                "format_version": FORMAT_VERSION,
                **self.config,
            }
            (stage / "config.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path, denoiser: nn.Module) -> Self:
        """Loads the modules from a folder, on the denoiser that they were trained for.

        Raises:
            ValueError: no such folder, the folder of another class, a newer format, another denoiser, or files that
                are missing, damaged or hold numbers that are not finite.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: config.json is missing; give the folder that save_pretrained wrote")
        config = read_json(folder / "config.json")
        check_config(folder, config, cls.__name__)
        known = config.pop("base_sha256", None)  # keep the hash of the unrounded base
        options = {key: value for key, value in config.items() if key not in ("_class_name", "format_version")}
        views = cls(denoiser, **options)
        _refuse_other_base(known or (options.get("training") or {}).get("base_sha256"), views.base_sha256)
        for role, network in views.roles.items():
            tensors = read_tensors(folder / role / LORA_NAME)
            layers = {key.removeprefix("unet."): value for key, value in tensors.items()}
            result = set_peft_model_state_dict(network, layers)
            if result.unexpected_keys or any("lora" in key for key in result.missing_keys):
                odd = [*result.unexpected_keys, *(key for key in result.missing_keys if "lora" in key)]
                raise UserError(f"{folder / role}: {odd[0]} is missing or unexpected; copy or save the folder again")
        views.correspondence = CorrespondenceEncoder.from_pretrained(folder / "correspondence", use_safetensors=True)
        return views


def _sha256(denoiser: nn.Module) -> str | None:
    plain = unwrapped(denoiser)
    return state_sha256(plain) if next(plain.parameters()).dtype == torch.float32 else None


def _refuse_other_base(trained_on: str | None, here: str | None) -> None:
    if None not in (trained_on, here) and trained_on != here:
        raise UserError(
            "base: this adapter was trained on another denoiser than this one, expected the same weights; load the one "
            "that its card names"
        )


def _place(name: str) -> tuple[int, ...]:
    """Position of a module in a U-Net's execution order: block, residual block or transformer, layer in it."""
    parts = name.replace("mid_block.", "mid_block.0.").split(".")
    numbers = [int(part) for part in parts if part.isdigit()] + [0]
    stage = next((i for i, layer in enumerate(STAGES) if layer in parts), 0)
    return BLOCKS.index(parts[0]), numbers[0], numbers[1], INNER.index(parts[2]), numbers[2], stage


def _sharing_copy(denoiser: nn.Module) -> nn.Module:
    """Returns a frozen copy of the modules that shares the network's tensors."""
    tensors = [*denoiser.parameters(), *denoiser.buffers()]
    return copy.deepcopy(denoiser, {id(tensor): tensor for tensor in tensors}).requires_grad_(False)
