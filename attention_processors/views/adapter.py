"""Adapter for image and geometry of a new view: one frozen denoiser in four roles (after MoAI, arXiv 2506.11924).

A role is the denoiser with a LoRA of its own; the frozen weights exist once, whatever the number of roles:

    image_reference      reads images of the references       -> what the image role reads beside its target
    geometry_reference   reads their point maps               -> the same for the geometry role
    image                denoises the target's image           -> its attention, for
    geometry             denoises the target's point map

Differs: the authors train four full networks, initialised from two pretrained ones; here only LoRAs and the
correspondence encoder are trained, and inputs beyond the four latent channels enter as features.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self
from weakref import ref

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from jaxtyping import Int
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.adapter_files import FORMAT_VERSION, check_config, state_sha256
from weftwork.attention_processors.core.conditioning import Conditioning, Encoded
from weftwork.attention_processors.core.families import at_timestep, base_description, call_layout, family_of, sample_of
from weftwork.attention_processors.core.frozen_weights import cast_alike
from weftwork.attention_processors.core.grids import Given
from weftwork.attention_processors.core.image_latents import LatentsT, latent_size, replaced_latents, with_latents
from weftwork.attention_processors.core.layers import select_layers
from weftwork.attention_processors.core.processor import conditioned, unwrapped
from weftwork.attention_processors.core.strength import GUIDED
from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.attention_processors.views import SHARINGS
from weftwork.attention_processors.views.batch import EncodedViews, ViewsBatch, ViewsFeatures, WarpedScene
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.correspondence import CorrespondenceEncoder, added_to_latents, embedder_of
from weftwork.attention_processors.views.instillation import GRADIENTS, Instillation
from weftwork.attention_processors.views.reference_attention import References
from weftwork.attention_processors.views.roles import read_loras, role_networks, write_loras
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.readers.json_object import read_json


class AlignedViews(Adapter[ViewsBatch, ViewsFeatures]):
    """Adapter for image and geometry of a new view; the denoiser's frozen weights are not part of it.

    Its roles are made on the denoiser that it is bound to. `forward` reads the references once per generation,
    `denoise` runs both denoising roles at one step.

    Args:
        layers: self-attention layers that share, as in `select_layers`.
        base: description of the base model; filled in by `bind`.
        rank: of the LoRAs.
        channels: number of channels of the correspondences, see `CorrespondenceEncoder`.
        warped: whether `CorrespondenceEncoder` also reads the latents of the warped image.
        sharing: input of the geometry role from the image role: its attention ("instillation"), its features as further
            keys and values ("concatenated"), its attention as a target in training ("distilled"), or nothing ("none").
        gradient: whether the geometry's loss reaches the image role, "live" or "detach".
        training: origin of the weights: data, steps, seed.
        base_sha256: SHA-256 of the denoiser's weights; None in half precision.

    Raises:
        ValueError: an unknown sharing or gradient, or "detach" without instillation.
    """

    condition_type = (ReferenceView,)
    keeps_precision = True

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the config)
        self,
        layers: str | Sequence[str] = "self",
        base: dict[str, object] | None = None,
        rank: int = 16,
        channels: int = 20,
        warped: bool = True,
        sharing: str = "instillation",
        gradient: str = "live",
        training: dict[str, object] | None = None,
        base_sha256: str | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        check_choice("sharing", sharing, SHARINGS)
        if gradient not in GRADIENTS or (gradient != "live" and sharing != "instillation"):
            raise UserError(
                f"gradient: got {gradient!r} for {sharing!r}, expected 'live', or 'detach' for 'instillation'; change "
                "one of them"
            )
        instilled = sharing in ("instillation", "distilled")
        self.link = Instillation(layers, gradient=gradient) if instilled else References(layers)
        self.own = Instillation(layers)
        """Attention of the geometry role, recorded for distillation."""
        self.roles = nn.ModuleDict()
        self.correspondence: CorrespondenceEncoder | None = None
        self._loras: Mapping[str, Mapping[str, Tensor]] = {}
        self._bound: ref[nn.Module] | None = None
        self.readers: Sequence[str] = ()
        self.shared: Sequence[str] = ()
        """Layers that read references, all in which image tokens read each other; and those that share."""

    @property
    def sharing(self) -> str:
        return self.config["sharing"]

    @classmethod
    def for_denoiser(cls, denoiser: nn.Module, *, layers: str | Sequence[str] = "self", **config: Any) -> Self:
        """Makes a new adapter for a denoiser; `ValueError` as the class, or for `layers` that match nothing there."""
        adapter = cls(layers=layers, **config)
        adapter.bind(denoiser)
        return adapter

    def check_base(self, denoiser: nn.Module) -> None:
        """Raises `ValueError` unless this was trained for a denoiser with these weights; half precision passes."""
        embedder_of(denoiser)
        here, training = _sha256(denoiser), self.config["training"] or {}
        trained_on = self.config["base_sha256"] or training.get("base_sha256")
        if None not in (trained_on, here) and trained_on != here:
            raise UserError(
                "base: this adapter was trained on another denoiser than this one, expected the same weights; load the "
                "one that its card names"
            )
        select_layers(denoiser, self.config["layers"], linear=True)

    def bind(self, denoiser: nn.Module) -> None:
        """Makes the roles on the weights of a denoiser; `ValueError` as `check_base`, or for LoRAs of other layers."""
        base: Any = unwrapped(denoiser)
        if self._bound is not None and self._bound() is base:
            return
        self.check_base(base)
        link = self.link if self.sharing == "instillation" else None
        unused = link.unused_parameters(base) if isinstance(link, Instillation) else []
        roles = role_networks(base, self.config["rank"], unused, self._states())
        if self.correspondence is None:
            self.correspondence = CorrespondenceEncoder.for_denoiser(
                base, self.config["channels"], self.config["warped"]
            )
        if isinstance(self.link, References):
            self.link = References.of(base, self.config["layers"])
        layers = References().layers, self.config["layers"]
        self.readers, self.shared = (list(select_layers(base, one, linear=True)) for one in layers)
        self.roles, self._bound, self._loras = nn.ModuleDict(roles), ref(base), {}
        self.register_to_config(
            base=self.config["base"] or base_description(base), base_sha256=self.config["base_sha256"] or _sha256(base)
        )

    def own_modules(self) -> Iterator[nn.Module]:
        return (one for name, one in self.named_modules() if not name.startswith("roles."))

    # -- references ----------------------------------------------------------------------------------------

    def collate(
        self, conditions: Sequence[Sequence[ReferenceView]], *, cameras: Sequence[Camera] = (), mesh: bool = True
    ) -> ViewsBatch:
        """Warps the references of each design to its target camera.

        Args:
            cameras: target camera of each design; without references in any of them it has no effect.
            mesh: warp references as meshes; as points otherwise.

        Raises:
            ValueError: no camera for a design, another number of references than in other designs, images of different
                sizes, or a camera with no point in front of it.
        """
        if len(cameras) != len(conditions):
            raise UserError(
                f"cameras: got {len(cameras)} for {len(conditions)} designs, expected one for each; generate views "
                "with AlignedViewsPipeline"
            )
        if not any(conditions):
            return ViewsBatch.of_nothing(len(conditions))
        counts, sizes = {len(row) for row in conditions}, {one.image.shape for row in conditions for one in row}
        if len(counts) != 1 or len(sizes) != 1:
            raise UserError(
                f"references: got {sorted(counts)} per design, of {len(sizes)} sizes, expected equally many of one "
                "size; give every design its views"
            )
        return ViewsBatch.of_scenes(
            [WarpedScene.of(row, camera, mesh=mesh) for row, camera in zip(conditions, cameras, strict=True)],
            self.readers,
        )

    def features(self, batch: ViewsBatch, encoders: Mapping[str, Any]) -> ViewsFeatures:
        """Returns latents; `encoders` are the autoencoder `vae`, and `given` as in `ViewsFeatures`."""
        vae, parts = encoders["vae"], batch.images.shape[:2]
        warped = encode_latents(vae, batch.warped * 2 - 1)
        nothing = warped.new_zeros(*parts, *warped.shape[1:])  # if no design has a reference
        images, points = (
            encode_latents(vae, one.flatten(0, 1) * 2 - 1).unflatten(0, parts) if parts[1] else nothing
            for one in (batch.images, batch.points)
        )
        latents, given = {"images": images, "points": points, "warped": warped}, encoders["given"]
        strengths = batch.strengths_at(self.readers)
        return ViewsFeatures(geometry=batch.geometry, given=given, strengths=strengths, **latents)

    def forward(self, features: ViewsFeatures) -> EncodedViews:
        """Reads the references, once for all steps; `ValueError` for an adapter that is not bound to a denoiser."""
        if not self.roles or self.correspondence is None:
            raise UserError("views: got an adapter that is not attached; attach it to a pipeline first")
        if self._bound is not None and (denoiser := self._bound()) is not None:
            for role in self.roles.values():
                cast_alike(role, denoiser)
        designs, views = features.images.shape[:2]
        network, given = self.roles["image"], features.given
        family, halves = family_of(network), len(sample_of(given)) // designs
        grid = call_layout(network, given).latent_size

        def rows(values: Tensor) -> Tensor:
            return values.repeat(halves, *[1] * (values.ndim - 1))

        encode = partial(self.correspondence, grid=grid)
        known = [rows(encode(one)) for one in features.geometry[:, :-1].unbind(1)]
        clean = at_timestep(given, family.clean)
        image, geometry = References.of(network), References.of(network)
        for role, latents, references in (
            ("image_reference", features.images, image),
            ("geometry_reference", features.points, geometry),
        ):
            passes = []
            for own, added in zip(latents.unbind(1), known, strict=True):
                self._run(role, with_latents(network, clean, rows(own)), added, references=references.record())
                passes.append(dict(references.store))
            if views:
                references.join(passes)
        warped = features.warped
        if not views:  # a canvas on which nothing is seen, of any size
            warped = F.interpolate(warped, latent_size(network, given))
        target = rows(encode(features.geometry[:, -1], warped))
        order = family.halves if halves == 2 else GUIDED[1:]
        return EncodedViews(image, geometry, views, target, given, order, features.strengths)

    # -- denoising -----------------------------------------------------------------------------------------

    def denoise(
        self,
        image: LatentsT,
        geometry: LatentsT,
        timesteps: Int[Tensor, " row"],
        encoded: EncodedViews,
        step: tuple[int, int] = (0, 1),
    ) -> tuple[LatentsT, LatentsT]:
        """Returns both roles' predictions for noisy latents of the target, in the form of the denoiser's calls.

        `step` is the loop index and the number of steps, for schedules.
        """
        self.link.store.clear()
        links, given = self._taps(), at_timestep(encoded.given, timesteps)
        calls, added = (replaced_latents(given, image), replaced_latents(given, geometry)), encoded.features
        first = self._run("image", calls[0], added, step, references=encoded, **links[0])
        layers = self.shared if self.sharing == "instillation" else ()
        references = encoded.of_geometry(layers, self.config["gradient"])
        return first, self._run("geometry", calls[1], added, step, references=references, **links[1])

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

    def _run(self, role: str, given: Given, features: Tensor, step: tuple[int, int] = (0, 1), **taps: Encoded) -> Any:
        network = self.roles[role]
        layout = call_layout(network, given)
        conditioning = Conditioning.of(taps, layout)
        conditioning.set_step(*step)
        with added_to_latents(network, features, layout.tokens), conditioned(network, conditioning):
            return network(**given, return_dict=False)[0]

    def counts(self) -> dict[str, int]:
        """Numbers of trained parameters: LoRAs of each role, and the correspondence encoder."""
        parts = {name: part for name, part in {**self.roles, "correspondence": self.correspondence}.items() if part}
        return {name: sum(p.numel() for p in part.parameters() if p.requires_grad) for name, part in parts.items()}

    # -- files ---------------------------------------------------------------------------------------------

    @property
    def _component(self) -> str:
        """Name of the denoiser in diffusers' pipelines and LoRAs."""
        return "transformer" if "presets" in (self.config["base"] or {}) else "unet"

    def _states(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Returns the LoRAs by role, as PEFT names them."""
        return {role: get_peft_model_state_dict(network) for role, network in self.roles.items()} or self._loras

    def save_pretrained(self, save_directory: str | Path, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Writes a folder of LoRAs in diffusers' format, one per role, and the correspondence encoder.

        After an `OSError`, an earlier folder is unchanged.
        """
        assert self.correspondence is not None
        with atomic_path(save_directory) as stage:
            write_loras(self._states(), stage, self._component, safe_serialization)
            self.correspondence.save_pretrained(stage / "correspondence", safe_serialization=safe_serialization)
            options = {name: value for name, value in self.config.items() if not name.startswith("_")}
            about = json.dumps({"_class_name": type(self).__name__, **options}, indent=2, sort_keys=True)
            (stage / "config.json").write_text(about + "\n")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Loads a local folder; `bind` makes the roles, which pipelines call when they attach the adapter.

        Raises:
            ValueError: no such folder, the folder of another class, a newer format, or files that are missing, damaged
                or hold numbers that are not finite.
        """
        folder = Path(pretrained_model_name_or_path) / (kwargs.get("subfolder") or "")
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: config.json is missing; give the folder that save_pretrained wrote")
        config = read_json(folder / "config.json")
        check_config(folder, config, cls.__name__)
        adapter = cls(**{key: value for key, value in config.items() if not key.startswith("_")})
        adapter._loras = read_loras(folder, adapter._component)
        adapter.correspondence = CorrespondenceEncoder.from_pretrained(folder / "correspondence", use_safetensors=True)
        return adapter


def _sha256(denoiser: nn.Module) -> str | None:
    plain = unwrapped(denoiser)
    return state_sha256(plain) if all(one.dtype == torch.float32 for one in plain.parameters()) else None
