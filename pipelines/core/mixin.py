"""Mixin that adds conditions to stock diffusers pipelines, and the pipelines made with it.

pipe = ConditionedStableDiffusionPipeline.from_pretrained(folder)
pipe.attach(paired=PairedAdapter.from_pretrained(other_folder))
pipe("a person", conditions={"paired": [SketchTextPair(sketch, "a red jacket")]}).images[0]
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.attached import AttachedAdapters, adapter_class, use_public_name
from weftwork.attention_processors.core.attention_maps import MapRecorder
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.strength import GUIDED, Layout, check_weight
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.attach import attach, detach, encoded, frozen_encoders, set_encoders
from weftwork.pipelines.core.auto import register_auto
from weftwork.pipelines.core.call import ConditionedCall
from weftwork.pipelines.core.conditions import Conditions
from weftwork.pipelines.core.encoders import FrozenEncoders
from weftwork.pipelines.core.signatures import bound_arguments, with_stock_parameters
from weftwork.pipelines.core.stock_config import named_as

OWN = ("adapters", "encoders")
"""Components that stock pipelines do not have."""
EXTRA_ARGUMENTS = ("conditions", "conditioning", "recorder")
if TYPE_CHECKING:
    from _collections_abc import dict_keys
_Pipeline = DiffusionPipeline if TYPE_CHECKING else object


class _Components(dict[str, Any]):
    """Components whose keys, which `**` unpacks, are those of a stock pipeline; items and values are all."""

    def __iter__(self) -> Iterator[str]:
        return (name for name in super().__iter__() if name not in OWN)

    def keys(self) -> "dict_keys[str, Any]":
        return dict.fromkeys(self).keys()


class ConditionedPipelineMixin(_Pipeline):
    """`attach`, `detach` and `conditions=` for a pipeline with a U-Net or a transformer.

    Use it as `class X(ConditionedPipelineMixin, StockPipeline)`. Attached adapters and frozen encoders are optional
    components beside the stock ones.
    """

    adapters: AttachedAdapters | None
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
        order = str(cls.model_cpu_offload_seq)
        cls.model_cpu_offload_seq = re.sub(r"\b(unet|transformer)\b", r"adapters->\1", order, count=1)

    def __init__(
        self,
        *args: Any,
        adapters: AttachedAdapters | None = None,
        encoders: FrozenEncoders | None = None,
        **kwargs: Any,
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
        if conditioning is not None:
            call = ConditionedCall(self, conditioning, recorder=recorder)
        else:
            arguments = bound.arguments
            prompts = next((arguments[n] for n in ("prompt", "prompt_embeds") if arguments.get(n) is not None), "")
            kinds = ("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs")
            scale = next((arguments[name].get("scale") for name in kinds if arguments.get(name)), None)
            made = encoded(self, conditions or {}, 1 if isinstance(prompts, str) else len(prompts), scale)
            call = ConditionedCall(self, *made, recorder)
        with call.active():
            return stock(*args, **kwargs)

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """Reads the index of a folder; the class of `adapters` is found also where an earlier version named it."""
        loaded: Any = super().load_config(*args, **kwargs)
        use_public_name(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    def to_json_string(self) -> str:
        """Returns the index of a stock pipeline, beside components that only conditioned ones have."""
        return named_as(
            stock_class(type(self)).__name__, super().to_json_string(), [n for n in OWN if getattr(self, n) is None]
        )

    @property
    def components(self) -> dict[str, Any]:
        """Components by name. `Stock(**pipe.components)` is a stock pipeline, `from_pipe` carries adapters over."""
        return _Components(super().components)

    # -- adapters ------------------------------------------------------------------------------------------

    def attach(self, **adapters: Adapter) -> None:
        """Attaches adapters by name, see `weftwork.pipelines.attach`."""
        attach(self, **adapters)

    def detach(self, *names: str) -> None:
        """Detaches adapters (all, without names), see `weftwork.pipelines.detach`."""
        detach(self, *names)

    def load_adapter(self, pretrained_model_name_or_path: str | Path, name: str, **kwargs: Any) -> Adapter:
        """Loads the adapter in a local folder, of the class that its config names, and attaches it."""
        adapter = adapter_class(pretrained_model_name_or_path).from_pretrained(pretrained_model_name_or_path, **kwargs)
        self.attach(**{name: adapter})
        return adapter

    def set_weights(self, **weights: float) -> None:
        """Set default weights of adapters by name, which multiply the weights of their conditions.

        Raises:
            ValueError: an unknown name, or not a number that a condition's weight may be.
        """
        for name, weight in weights.items():
            if self.adapters is None or name not in self.adapters:
                raise UserError(f"set_weights: got {name!r}, attached are: {', '.join(self.adapters or ()) or 'none'}")
            check_weight(weight, f"set_weights, {name}")
        if self.adapters is not None:
            self.adapters.weights.update({name: float(weight) for name, weight in weights.items()})

    def set_encoders(self, **encoders: Any) -> None:
        """Sets frozen encoders beside the pipeline's own; `save_pretrained` leaves them out."""
        set_encoders(self, **encoders)

    @property
    def frozen_encoders(self) -> dict[str, Any]:
        """Encoders that `set_encoders` has set, by name."""
        return frozen_encoders(self)

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
            ValueError: an unknown name, a condition of the wrong type, another number of designs than prompts, or a
                side that the pipeline cannot generate.
        """
        if getattr(self, "unet", None) is None:
            raise UserError(
                "encode_conditions: got a pipeline of a transformer, whose conditions are laid out when it runs; pass "
                "conditions= to each call"
            )
        for name, side in (("height", height), ("width", width)):
            if side is not None and (side <= 0 or side % self.vae_scale_factor):
                raise UserError(f"{name}: got {side}, expected a multiple of {self.vae_scale_factor}; round it")
        default = self.unet.config["sample_size"]
        sides = (default, default) if isinstance(default, int) else default
        rows, columns = (
            side if given is None else given // self.vae_scale_factor
            for side, given in zip(sides, (height, width), strict=True)
        )
        halves = GUIDED[not do_classifier_free_guidance :]
        layout = Layout(layer_levels(self.unet), (rows, columns), num_images_per_prompt, halves)
        return Conditioning.of(encoded(self, conditions, batch_size)[0], layout)


def stock_class(kind: type[ConditionedPipelineMixin]) -> type:
    """Returns the stock class that a class of pipelines with conditions is made of."""
    return next(one for one in kind.__mro__ if not issubclass(one, ConditionedPipelineMixin))


class ConditionedStableDiffusionPipeline(ConditionedPipelineMixin, StableDiffusionPipeline): ...


class ConditionedStableDiffusionXLPipeline(ConditionedPipelineMixin, StableDiffusionXLPipeline): ...


class ConditionedStableDiffusionImg2ImgPipeline(ConditionedPipelineMixin, StableDiffusionImg2ImgPipeline): ...


class ConditionedStableDiffusionInpaintPipeline(ConditionedPipelineMixin, StableDiffusionInpaintPipeline): ...


class ConditionedStableDiffusionControlNetPipeline(ConditionedPipelineMixin, StableDiffusionControlNetPipeline): ...


register_auto(
    "conditioned-stable-diffusion",
    ConditionedStableDiffusionPipeline,
    ConditionedStableDiffusionImg2ImgPipeline,
    ConditionedStableDiffusionInpaintPipeline,
)
register_auto("conditioned-stable-diffusion-controlnet", ConditionedStableDiffusionControlNetPipeline)
register_auto(
    "conditioned-stable-diffusion-xl",
    ConditionedStableDiffusionXLPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
)
