"""Mixin that adds conditions to stock diffusers pipelines, and the pipelines made with it.

pipe = ConditionedStableDiffusionPipeline.from_pretrained(folder)
pipe.attach(paired=PairedAdapter.from_pretrained(other_folder))
pipe("a person", conditions={"paired": [SketchTextPair(sketch, "a red jacket")]}).images[0]
"""

from collections.abc import Callable, Mapping
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
from torch import nn

from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.attached import AdapterBank, adapter_class, own_copy, release, use_public_name
from weftwork.attention_processors.core.attention_maps import MapRecorder
from weftwork.attention_processors.core.conditioning import Conditioning, Encoded
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.processor import install, restore
from weftwork.attention_processors.core.strength import GUIDED, Layout
from weftwork.attention_processors.encoders import TextEncoders
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.call import ConditionedCall
from weftwork.pipelines.core.conditions import Conditions, designs_of
from weftwork.pipelines.core.encoders import FrozenEncoders
from weftwork.pipelines.core.signatures import bound_arguments, with_stock_parameters
from weftwork.pipelines.core.stock_config import named_as

OWN = ("adapters", "encoders")
"""Components that stock pipelines do not have."""
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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        mixin = ConditionedPipelineMixin
        if not issubclass(cls, DiffusionPipeline) or cls.__init__ is not mixin.__init__:
            return
        stock: Any = super(mixin, cls)
        cls.__init__ = with_stock_parameters(mixin.__init__, stock.__init__)
        if cls.__call__ is mixin.__call__:
            cls.__call__ = with_stock_parameters(mixin.__call__, stock.__call__)
        cls._optional_components = [*cls._optional_components, *OWN]
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
        if kwargs.get("padding_mask_crop") is not None:
            raise UserError(
                "padding_mask_crop: got it beside conditions, which would act on the crop; leave it out, and crop "
                "image, mask and sketches alike"
            )
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        legacy = arguments.pop("kwargs", {})
        call = self._call(conditions or {}, conditioning, {**arguments, "recorder": recorder})
        call.follow(arguments)
        with call.acting():
            return stock(**arguments, **legacy)

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """Reads the index of a folder; the class of `adapters` is found also where an earlier version named it."""
        loaded: Any = super().load_config(*args, **kwargs)
        use_public_name(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    def to_json_string(self) -> str:
        """Returns the index of a stock pipeline, beside components that only conditioned ones have."""
        stock = next(kind for kind in type(self).__mro__ if not issubclass(kind, ConditionedPipelineMixin))
        return named_as(stock.__name__, super().to_json_string(), [n for n in OWN if getattr(self, n) is None])

    @property
    def components(self) -> dict[str, Any]:
        """Components by name, for other pipelines; `adapters` and `encoders` only where there are some."""
        return {name: part for name, part in super().components.items() if name not in OWN or part is not None}

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
        device, here = self._execution_device, {**have, **adapters}
        for name, adapter in here.items():
            if all(p.device.type != "meta" for p in adapter.parameters()):  # otherwise accelerate moves it
                mine = own_copy(adapter, self.unet)
                here[name] = nn.Module.to(mine, device, self.unet.dtype).eval()  # pyright: ignore
        self._set_bank(here)

    def detach(self, *names: str) -> None:
        """Detaches adapters (all, without names); without any, the stock processors are restored.

        Raises:
            ValueError: an unknown name; nothing is changed.
        """
        have = {} if self.adapters is None else dict(self.adapters.items())
        unknown = [name for name in names if name not in have]
        if unknown:
            raise UserError(f"detach: got {unknown[0]!r}, attached are: {', '.join(have) or 'none'}")
        for name in names or have:
            release(have[name], self.unet)
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
        default = self.unet.config["sample_size"]
        sides = (default, default) if isinstance(default, int) else default
        rows, columns = (
            side if given is None else given // self.vae_scale_factor
            for side, given in zip(sides, (height, width), strict=True)
        )
        halves = GUIDED[not do_classifier_free_guidance :]
        layout = Layout(layer_levels(self.unet), (rows, columns), num_images_per_prompt, halves)
        return Conditioning.of(self._encoded(conditions, batch_size), layout)

    @torch.no_grad()
    def _encoded(self, conditions: Conditions, batch: int, lora_scale: float | None = None) -> dict[str, Encoded]:
        bank = self.adapters
        for name in conditions:
            if bank is None or name not in bank:
                raise UserError(
                    f"conditions: got {name!r}, attached are: {', '.join(bank or ()) or 'none'}; attach({name}=…) first"
                )
        assert bank is not None
        device = self._execution_device
        text = TextEncoders.of(self)
        encoders = {"text": text, **self.frozen_encoders}
        encoded = {}
        for name in bank:
            if name not in conditions:
                continue
            designs = designs_of(name, conditions[name], batch, bank[name].condition_type)
            given = bank[name].collate(designs).to(device).scaled(bank.weights[name])
            with text.scaled(lora_scale):
                features = bank[name].features(given, encoders)
            encoded[name] = bank(name, features)
        return encoded

    def _call(
        self, conditions: Conditions, conditioning: Conditioning | None, arguments: Mapping[str, Any]
    ) -> ConditionedCall:
        """Encodes conditions for a call with these arguments of the stock pipeline."""
        recorder = arguments["recorder"]
        if conditioning is not None:
            return ConditionedCall(self.unet, conditioning, recorder=recorder)
        prompt, embeds = arguments["prompt"], arguments["prompt_embeds"]
        prompts = embeds if prompt is None else prompt
        batch = 1 if prompts is None or isinstance(prompts, str) else len(prompts)  # the stock call refuses none
        unguided = self.unet.config.get("time_cond_proj_dim") is not None
        return ConditionedCall(
            self.unet,
            self._encoded(conditions, batch, (arguments.get("cross_attention_kwargs") or {}).get("scale")),
            repeat=arguments.get("num_images_per_prompt") or 1,
            guidance=arguments["guidance_scale"] > 1 and not unguided,
            recorder=recorder,
        )


class ConditionedStableDiffusionPipeline(ConditionedPipelineMixin, StableDiffusionPipeline): ...


class ConditionedStableDiffusionXLPipeline(ConditionedPipelineMixin, StableDiffusionXLPipeline): ...


class ConditionedStableDiffusionImg2ImgPipeline(ConditionedPipelineMixin, StableDiffusionImg2ImgPipeline): ...


class ConditionedStableDiffusionInpaintPipeline(ConditionedPipelineMixin, StableDiffusionInpaintPipeline): ...


class ConditionedStableDiffusionControlNetPipeline(ConditionedPipelineMixin, StableDiffusionControlNetPipeline): ...
