"""Mixin that adds conditions to stock diffusers pipelines, and the pipelines made with it.

pipe = ConditionedStableDiffusionPipeline.from_pretrained(folder)
pipe.attach(paired=PairedAdapter.from_pretrained(other_folder))
pipe("a person", conditions={"paired": [SketchTextPair(sketch, "a red jacket")]}).images[0]
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from torch import nn

from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.attached import AdapterBank, adapter_class, use_public_name
from weftwork.attention_processors.core.attention_maps import MapRecorder, refuse_compiled
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.processor import conditioned, install, is_compiled, layer_levels, restore
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.encoders import TextEncoders
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.conditions import Conditions, designs_of, step_callback
from weftwork.pipelines.core.encoders import FrozenEncoders
from weftwork.pipelines.core.signatures import bound_arguments, with_stock_parameters

EXTRA_ARGUMENTS = ("conditions", "conditioning", "recorder")
_Pipeline = DiffusionPipeline if TYPE_CHECKING else object


class ConditionedPipelineMixin(_Pipeline):
    """`attach`, `detach` and `conditions=` for a pipeline with `unet` and `cross_attention_kwargs`.

    Use it as `class X(ConditionedPipelineMixin, StockPipeline)`. Attached adapters and frozen encoders are optional
    components beside the stock ones.
    """

    adapters: AdapterBank | None
    encoders: FrozenEncoders | None
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    vae_scale_factor: int
    image_processor: VaeImageProcessor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        mixin = ConditionedPipelineMixin
        if not issubclass(cls, DiffusionPipeline) or cls.__init__ is not mixin.__init__:
            return
        stock: Any = super(mixin, cls)
        cls.__init__ = with_stock_parameters(mixin.__init__, stock.__init__)
        if cls.__call__ is mixin.__call__:
            cls.__call__ = with_stock_parameters(mixin.__call__, stock.__call__)
        cls._optional_components = [*cls._optional_components, "adapters", "encoders"]
        cls.model_cpu_offload_seq = str(cls.model_cpu_offload_seq).replace("unet", "adapters->unet")

    def __init__(
        self, *args: Any, adapters: AdapterBank | None = None, encoders: FrozenEncoders | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.register_modules(adapters=None, encoders=None)
        self.encoders = encoders
        if adapters is not None:
            self.attach(**dict(adapters.items()))
            assert self.adapters is not None
            self.adapters.weights.update(adapters.weights)

    def __call__(
        self,
        *args: Any,
        conditions: Conditions | None = None,
        conditioning: Conditioning | None = None,
        recorder: MapRecorder | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate with the stock pipeline; without conditions its call runs unchanged.

        Args:
            conditions: by adapter name a condition, a list of them (one design, used for every prompt), or a list with
                one such list, or None, per prompt.
            conditioning: conditions that `encode_conditions` has encoded, instead of `conditions`.
            recorder: records attention maps.

        Raises:
            ValueError: as `encode_conditions`; conditions and conditioning, or a recorder without either.
            TypeError: an unknown argument.

        The other arguments are those of the stock pipeline:
        """
        stock: Callable[..., Any] = super().__call__  # pyright: ignore[reportAttributeAccessIssue]
        bound = bound_arguments(stock, args, kwargs, EXTRA_ARGUMENTS)
        if not conditions and conditioning is None:
            if recorder is not None:
                raise UserError("recorder: got one without conditions, so there is nothing to record; pass conditions")
            return stock(*args, **kwargs)
        if conditioning is not None and conditions:
            raise UserError("conditions, conditioning: got both; pass the encoded one or the raw ones")
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        legacy = arguments.pop("kwargs", {})
        if conditioning is None:
            conditioning = self._encoded(conditions or {}, arguments)
        conditioning = self._followed(arguments, conditioning, recorder)
        with conditioned(self.unet, conditioning):
            return stock(**arguments, **legacy)

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """Reads the index of a folder; the class of `adapters` is found also where an earlier version named it."""
        loaded: Any = super().load_config(*args, **kwargs)
        use_public_name(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    # -- adapters ------------------------------------------------------------------------------------------

    def attach(self, **adapters: Adapter) -> None:
        """Attaches adapters by name; their order is the order of summation.

        Everything is checked before anything changes.

        Raises:
            ValueError: a name that is taken, a value that is no adapter, an adapter for another base, or a foreign
                attention processor on the denoiser.
        """
        have = {} if self.adapters is None else dict(self.adapters.items())
        for name, adapter in adapters.items():
            if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
                raise UserError(f"attach: got the name {name!r}, expected letters and digits; use another name")
            if name in have:
                raise UserError(f"attach: {name!r} is attached already; detach({name!r}) first or use another name")
            if not isinstance(adapter, Adapter):
                raise UserError(f"attach: {name!r} is a {type(adapter).__name__}, expected an Adapter")
            adapter.check_base(self.unet)
        for adapter in adapters.values():
            adapter.warn_of_other_weights(self.unet)
        if not adapters:
            return
        if not have:
            install(self.unet)
        device = self._execution_device
        for adapter in {**have, **adapters}.values():
            if all(p.device.type != "meta" for p in adapter.parameters()):  # otherwise accelerate moves it
                nn.Module.to(adapter, device, self.unet.dtype).eval()  # pyright: ignore
        self._set_bank({**have, **adapters})

    def detach(self, *names: str) -> None:
        """Detaches adapters (all, without names); without any, the stock processors are restored.

        Raises:
            ValueError: an unknown name; nothing is changed.
        """
        have = {} if self.adapters is None else dict(self.adapters.items())
        unknown = [name for name in names if name not in have]
        if unknown:
            raise UserError(f"detach: got {unknown[0]!r}, attached are: {', '.join(have) or 'none'}")
        rest = {name: adapter for name, adapter in have.items() if names and name not in names}
        if have and not rest:
            restore(self.unet)
        self._set_bank(rest)

    def load_adapter(self, pretrained_model_name_or_path: str | Path, name: str, **kwargs: Any) -> Adapter:
        """Loads the adapter in a local folder, of the class that its config names, and attaches it."""
        adapter = adapter_class(pretrained_model_name_or_path).from_pretrained(pretrained_model_name_or_path, **kwargs)
        self.attach(**{name: adapter})
        return adapter

    def set_weights(self, **weights: float) -> None:
        """Set default weights of adapters by name, which multiply the weights of their conditions.

        Raises:
            ValueError: an unknown name, or not a finite number of at least 0.
        """
        for name, weight in weights.items():
            if self.adapters is None or name not in self.adapters:
                raise UserError(f"set_weights: got {name!r}, attached are: {', '.join(self.adapters or ()) or 'none'}")
            if not (isinstance(weight, int | float) and 0 <= weight < float("inf")):
                raise UserError(f"set_weights: got {weight!r} for {name!r}, expected a finite number of at least 0")
        if self.adapters is not None:
            self.adapters.weights.update(weights)

    def set_encoders(self, **encoders: Any) -> None:
        """Set frozen encoders beside the pipeline's own, for example `sketch=SketchEncoder.from_pretrained(…)`.

        Those that are modules, or have one as `model`, move with the pipeline; `save_pretrained` leaves them out.
        """
        self.encoders = FrozenEncoders({**self.frozen_encoders, **encoders})
        if self.device.type != "meta":  # sequential offloading moves the modules
            self.encoders.to(self.device)

    @property
    def frozen_encoders(self) -> dict[str, Any]:
        """Encoders that `set_encoders` has set, by name."""
        return {} if self.encoders is None else self.encoders.by_name

    def _set_bank(self, adapters: Mapping[str, Adapter]) -> None:
        weights = {} if self.adapters is None else self.adapters.weights
        bank = AdapterBank(adapters) if adapters else None
        if bank is not None:
            bank.weights.update({name: weight for name, weight in weights.items() if name in bank})
        self.register_modules(adapters=bank)

    # -- conditions ----------------------------------------------------------------------------------------

    def encode_conditions(
        self,
        conditions: Conditions,
        *,
        batch_size: int = 1,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        height: int | None = None,
        width: int | None = None,
    ) -> Conditioning:
        """Encode conditions once, to be passed as `conditioning=` to several calls (other seeds, other schedulers).

        Args:
            conditions: by adapter name a condition, a list of them (one design, used for every prompt), or a list with
                one such list, or None, per prompt.

        Raises:
            ValueError: an unknown name, a condition of the wrong type, or another number of designs than prompts.
        """
        size = self._latent_size({"height": height, "width": width})
        layout = Layout(layer_levels(self.unet), size, num_images_per_prompt, do_classifier_free_guidance)
        return self._conditioning(conditions, batch_size, layout)

    @torch.no_grad()
    def _conditioning(self, conditions: Conditions, batch: int, layout: Layout) -> Conditioning:
        bank = self.adapters
        for name in conditions:
            if bank is None or name not in bank:
                raise UserError(
                    f"conditions: got {name!r}, attached are: {', '.join(bank or ()) or 'none'}; attach({name}=…) first"
                )
        assert bank is not None
        device = self._execution_device
        encoders = {"text": TextEncoders.of(self), **self.frozen_encoders}
        encoded = {}
        for name in bank:
            if name not in conditions:
                continue
            designs = designs_of(name, conditions[name], batch, bank[name].condition_type)
            given = bank[name].collate(designs).to(device).scaled(bank.weights[name])
            encoded[name] = bank(name, bank[name].features(given, encoders))
        return Conditioning.of(encoded, layout)

    def _latent_size(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Returns height and width of the latents of a call with these arguments."""
        factor = self.vae_scale_factor
        if arguments.get("latents") is not None:
            height, width = arguments["latents"].shape[-2:]
            return height, width
        default = self.unet.config["sample_size"]
        sides = (default, default) if isinstance(default, int) else default
        height = arguments.get("height") or sides[0] * factor
        width = arguments.get("width") or sides[1] * factor
        return height // factor, width // factor

    def _encoded(self, conditions: Conditions, arguments: dict[str, Any]) -> Conditioning:
        """Encodes conditions for a call with these arguments, whose size is made explicit."""
        prompt, embeds = arguments["prompt"], arguments["prompt_embeds"]
        batch = 1 if isinstance(prompt, str) else len(embeds if prompt is None else prompt)
        unguided = self.unet.config.get("time_cond_proj_dim") is not None
        size, repeat = self._latent_size(arguments), arguments.get("num_images_per_prompt") or 1
        if arguments.get("height") or arguments.get("width"):  # a stock pipeline may ignore one without the other
            arguments["height"], arguments["width"] = (side * self.vae_scale_factor for side in size)
        guidance = arguments["guidance_scale"] > 1 and not unguided
        return self._conditioning(conditions, batch, Layout(layer_levels(self.unet), size, repeat, guidance))

    def _followed(
        self, arguments: dict[str, Any], conditioning: Conditioning, recorder: MapRecorder | None
    ) -> Conditioning:
        """Puts the callback that moves schedules into the arguments of a call; returns what acts in it."""
        if recorder is not None:
            refuse_compiled(is_compiled(self.unet))
            assert conditioning.layout is not None
            recorder.begin(conditioning.layout)
            conditioning = replace(conditioning, recorder=recorder)
        conditioning.set_step(0, 1)
        theirs = arguments.get("callback_on_step_end")
        if isinstance(theirs, PipelineCallback | MultiPipelineCallbacks):
            arguments["callback_on_step_end_tensor_inputs"] = theirs.tensor_inputs
        arguments["callback_on_step_end"] = step_callback(conditioning, theirs)
        return conditioning


class _ImageSizedMixin(ConditionedPipelineMixin):
    """Mixin for pipelines that take the size from `image` without height and width."""

    def _latent_size(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        image = arguments.get("image")
        if image is None or (arguments.get("height") and arguments.get("width")):
            return super()._latent_size(arguments)
        if isinstance(image, torch.Tensor) and image.ndim == 4 and image.shape[1] == self.vae.config["latent_channels"]:
            return image.shape[-2], image.shape[-1]
        image = image[0] if isinstance(image, list) else image
        height, width = self.image_processor.get_default_height_width(image)
        return super()._latent_size({"height": height, "width": width})


class ConditionedStableDiffusionPipeline(ConditionedPipelineMixin, StableDiffusionPipeline): ...


class ConditionedStableDiffusionXLPipeline(ConditionedPipelineMixin, StableDiffusionXLPipeline): ...


class ConditionedStableDiffusionImg2ImgPipeline(_ImageSizedMixin, StableDiffusionImg2ImgPipeline): ...


class ConditionedStableDiffusionInpaintPipeline(ConditionedPipelineMixin, StableDiffusionInpaintPipeline): ...


class ConditionedStableDiffusionControlNetPipeline(_ImageSizedMixin, StableDiffusionControlNetPipeline): ...


def open_conditioned(source: str | Path, **options: Any) -> Any:
    """Open the text-to-image pipeline of a folder or repository, of Stable Diffusion or Stable Diffusion XL.

    Args:
        options: of `from_pretrained`.

    Raises:
        ValueError: a pipeline of another kind.
    """
    local = {"local_files_only": options["local_files_only"]} if "local_files_only" in options else {}
    index: Any = DiffusionPipeline.load_config(str(source), **local)
    if "unet" not in index or "text_encoder" not in index:
        name = index.get("_class_name")
        raise UserError(f"model: got a {name}, expected Stable Diffusion or Stable Diffusion XL; choose another folder")
    kind = ConditionedStableDiffusionXLPipeline if "text_encoder_2" in index else ConditionedStableDiffusionPipeline
    return kind.from_pretrained(source, **options)
