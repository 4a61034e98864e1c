"""Stock diffusers pipelines that take conditions; nothing of diffusers is copied.

pipe = ConditionedStableDiffusionPipeline.from_pretrained(folder)
pipe.attach(paired=PairedAdapter.from_pretrained(other_folder))
pipe("a person", conditions={"paired": [SketchTextPair(sketch, "a red jacket")]}).images[0]
"""

import functools
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import nn

from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.attached import OUR_NAMES, PUBLIC, AdapterBank
from weftwork.attention_processors.core.attention_maps import refuse_compiled
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.processor import check_installed, install, is_compiled, layer_levels, restore
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.encoders import TextEncoders

logger = logging.getLogger(__name__)

EXTRA_ARGUMENTS = ("conditions", "conditioning", "recorder")


class ConditionedPipelineMixin:
    """`attach`, `detach` and `conditions=` for a pipeline with `unet` and `cross_attention_kwargs`.

    Use it as `class X(ConditionedPipelineMixin, StockPipeline)`; the stock signatures stay visible.
    """

    adapters: AdapterBank | None
    unet: nn.Module

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if issubclass(cls, DiffusionPipeline) and "adapters" not in inspect.signature(cls.__init__).parameters:
            _extend_init(cls)
            _extend_call(cls)

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """Reads the index of a folder; the class of `adapters` is found also where an earlier version named it."""
        loaded = super().load_config(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        index = loaded[0] if isinstance(loaded, tuple) else loaded
        module, name = index.get("adapters") or ("", "")
        if name == AdapterBank.__name__ and str(module).partition(".")[0] in OUR_NAMES:
            index["adapters"] = [PUBLIC, name]
        return loaded

    # -- adapters ------------------------------------------------------------------------------------------

    def attach(self, **adapters: Adapter) -> None:
        """Attach adapters by name; order is the order of summation.

        Everything is checked before anything changes.

        Raises:
            ValueError: a name that is taken, a value that is no adapter, an adapter for another base, or an attention
                processor of someone else on the denoiser.
        """
        have = {} if self.adapters is None else dict(self.adapters.items())
        for name, adapter in adapters.items():
            if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
                raise ValueError(f"attach: got the name {name!r}, expected letters and digits; use another name")
            if name in have:
                raise ValueError(f"attach: {name!r} is attached already; detach({name!r}) first or use another name")
            if not isinstance(adapter, Adapter):
                raise ValueError(f"attach: {name!r} is a {type(adapter).__name__}, expected an Adapter")
            adapter.check_base(self.unet)
        if not adapters:
            return
        for adapter in adapters.values():
            adapter.warn_of_other_weights(self.unet)
        if not have:
            self._found_processors = install(self.unet)
        device = self._execution_device  # pyright: ignore[reportAttributeAccessIssue]
        for adapter in {**have, **adapters}.values():
            if all(p.device.type != "meta" for p in adapter.parameters()):  # else accelerate moves it itself
                nn.Module.to(adapter, device, self.unet.dtype).eval()  # pyright: ignore
        self._set_bank({**have, **adapters})

    def detach(self, *names: str) -> None:
        """Detach adapters (all, without names); with the last one the stock processors return.

        Raises:
            ValueError: an unknown name; nothing is changed.
        """
        have = {} if self.adapters is None else dict(self.adapters.items())
        unknown = [name for name in names if name not in have]
        if unknown:
            raise ValueError(f"detach: got {unknown[0]!r}, attached are: {', '.join(have) or 'none'}")
        rest = {name: adapter for name, adapter in have.items() if names and name not in names}
        if have and not rest:
            restore(self.unet, self._found_processors)
            del self._found_processors
        self._set_bank(rest)

    def load_adapter(self, pretrained_model_name_or_path: str | Path, name: str, **kwargs: Any) -> Adapter:
        """`from_pretrained` of the class that a local folder names, then `attach`."""
        from weftwork.attention_processors.core.attached import adapter_class

        adapter = adapter_class(pretrained_model_name_or_path).from_pretrained(pretrained_model_name_or_path, **kwargs)
        self.attach(**{name: adapter})
        return adapter

    def set_weights(self, **weights: float) -> None:
        """Default weight of adapters by name; multiplies the weights of their conditions.

        Raises:
            ValueError: an unknown name, or not a finite number of at least 0.
        """
        for name, weight in weights.items():
            if self.adapters is None or name not in self.adapters:
                raise ValueError(f"set_weights: got {name!r}, attached are: {', '.join(self.adapters or ()) or 'none'}")
            if not (isinstance(weight, int | float) and 0 <= weight < float("inf")):
                raise ValueError(f"set_weights: got {weight!r} for {name!r}, expected a finite number of at least 0")
        if self.adapters is not None:
            self.adapters.weights.update(weights)

    def set_encoders(self, **encoders: Any) -> None:
        """Frozen encoders beside the pipeline's own, for example `sketch=SketchEncoder.from_pretrained(…)`."""
        self._encoders = {**getattr(self, "_encoders", {}), **encoders}

    def _set_bank(self, adapters: Mapping[str, Adapter]) -> None:
        weights = {} if self.adapters is None else self.adapters.weights
        bank = AdapterBank(adapters) if adapters else None
        if bank is not None:
            bank.weights.update({name: weight for name, weight in weights.items() if name in bank})
        self.register_modules(adapters=bank)  # pyright: ignore[reportAttributeAccessIssue]

    # -- conditions ----------------------------------------------------------------------------------------

    def encode_conditions(
        self,
        conditions: Mapping[str, Any],
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
    def _conditioning(self, conditions: Mapping[str, Any], batch: int, layout: Layout) -> Conditioning:
        bank = self.adapters
        for name in conditions:
            if bank is None or name not in bank:
                raise ValueError(
                    f"conditions: got {name!r}, attached are: {', '.join(bank or ()) or 'none'}; attach({name}=…) first"
                )
        assert bank is not None
        check_installed(self.unet)
        device = self._execution_device  # pyright: ignore[reportAttributeAccessIssue]
        encoders = {"text": TextEncoders.of(self), **getattr(self, "_encoders", {})}
        encoded = {}
        for name in bank:
            if name not in conditions:
                continue
            designs = _designs(name, conditions[name], batch, bank[name].condition_type)
            raw = bank[name].collate(designs)
            raw = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in raw.items()}
            raw["weight"] = raw["weight"] * bank.weights[name]
            encoded[name] = bank(name, bank[name].features(raw, encoders))
        return Conditioning.of(encoded, layout)

    def _latent_size(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of the latents that a call with these arguments denoises."""
        factor: int = self.vae_scale_factor  # pyright: ignore[reportAttributeAccessIssue]
        if arguments.get("latents") is not None:
            return tuple(arguments["latents"].shape[-2:])  # pyright: ignore[reportReturnType]
        default: Any = self.unet.config["sample_size"]  # pyright: ignore
        sides = (default, default) if isinstance(default, int) else tuple(default)
        height: int = arguments.get("height") or sides[0] * factor
        width: int = arguments.get("width") or sides[1] * factor
        return height // factor, width // factor

    def _prepared(self, arguments: dict[str, Any], extra: Mapping[str, Any]) -> None:
        """Put the conditioning of a call, and the callback that moves its schedules, into the call's arguments."""
        conditioning, conditions, recorder = extra["conditioning"], extra["conditions"], extra["recorder"]
        if conditioning is not None and conditions:
            raise ValueError("conditions, conditioning: got both; pass the encoded one or the raw ones")
        if conditioning is None:
            prompt, embeds = arguments.get("prompt"), arguments.get("prompt_embeds")
            batch = len(embeds) if prompt is None else 1 if isinstance(prompt, str) else len(prompt)  # pyright: ignore
            unguided = self.unet.config.get("time_cond_proj_dim") is not None  # pyright: ignore
            guidance = arguments["guidance_scale"] > 1 and not unguided
            size, repeat = self._latent_size(arguments), arguments.get("num_images_per_prompt") or 1
            if arguments.get("height") or arguments.get("width"):  # a stock pipeline may ignore one without the other
                arguments["height"], arguments["width"] = (side * self.vae_scale_factor for side in size)  # pyright: ignore
            layout = Layout(layer_levels(self.unet), size, repeat, guidance)
            conditioning = self._conditioning(conditions, batch, layout)
        if recorder is not None:
            refuse_compiled(is_compiled(self.unet))
            recorder.begin(conditioning.layout)
            conditioning = replace(conditioning, recorder=recorder)
        check_installed(self.unet)
        conditioning.set_step(0, 1)
        given = arguments.get("cross_attention_kwargs") or {}
        arguments["cross_attention_kwargs"] = {**given, "conditioning": conditioning}
        theirs = arguments.get("callback_on_step_end")
        if isinstance(theirs, PipelineCallback | MultiPipelineCallbacks):
            arguments["callback_on_step_end_tensor_inputs"] = theirs.tensor_inputs

        def callback(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            values = values if theirs is None else theirs(pipe, step, timestep, values)
            return conditioning.callback(pipe, step, timestep, values)

        arguments["callback_on_step_end"] = callback


def _extend_init(cls: type) -> None:
    """Make `adapters` an optional component: a parameter of `__init__`, offloaded before the denoiser."""
    base_init = cls.__init__

    @functools.wraps(base_init)
    def __init__(self: Any, *args: Any, adapters: AdapterBank | None = None, **kwargs: Any) -> None:
        base_init(self, *args, **kwargs)
        self.register_modules(adapters=None)
        if adapters is not None:
            self.attach(**dict(adapters.items()))
            self.adapters.weights.update(adapters.weights)

    signature = inspect.signature(base_init)
    extra = inspect.Parameter("adapters", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=AdapterBank)
    __init__.__signature__ = signature.replace(parameters=[*signature.parameters.values(), extra])  # pyright: ignore
    __init__.__annotations__ = {**base_init.__annotations__, "adapters": AdapterBank}
    cls.__init__ = __init__
    cls._optional_components = [*cls._optional_components, "adapters"]  # pyright: ignore
    cls.model_cpu_offload_seq = cls.model_cpu_offload_seq.replace("unet", "adapters->unet")  # pyright: ignore


def _extend_call(cls: type) -> None:
    """Add `conditions`, `conditioning` and `recorder` to `__call__`; without them the stock call runs untouched."""
    base_call = cls.__call__
    signature = inspect.signature(base_call)

    @functools.wraps(base_call)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        extra = {name: kwargs.pop(name, None) for name in EXTRA_ARGUMENTS}
        if not extra["conditions"] and extra["conditioning"] is None:
            if extra["recorder"] is not None:
                raise ValueError("recorder: got one without conditions, so there is nothing to record; pass conditions")
            return base_call(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        rest = bound.arguments.pop("kwargs", {})
        self._prepared(bound.arguments, extra)
        arguments = dict(bound.arguments)
        return base_call(arguments.pop("self"), **arguments, **rest)

    named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    added = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None) for n in EXTRA_ARGUMENTS]
    __call__.__signature__ = signature.replace(parameters=[*named, *added])  # pyright: ignore
    cls.__call__ = __call__


def _designs(name: str, given: Any, batch: int, kinds: tuple[type, ...]) -> list[list[Any]]:
    """One list of conditions per prompt, from what the caller passed."""
    names = " or ".join(kind.__name__ for kind in kinds)
    if isinstance(given, kinds):
        given = [given]
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError(f"conditions[{name!r}]: got a {type(given).__name__}, expected {names} or a list of them")
    per_prompt = any(row is None or isinstance(row, Sequence) for row in given)
    designs = [list(row or ()) for row in given] if per_prompt else [list(given)] * batch
    if len(designs) != batch:
        raise ValueError(
            f"conditions[{name!r}]: got {len(designs)} lists for {batch} prompts; pass one list (or None) per prompt"
        )
    for wrong in (c for row in designs for c in row if not isinstance(c, kinds)):
        raise ValueError(f"conditions[{name!r}]: got a {type(wrong).__name__}, expected {names}")
    return designs


class _ImageSizedMixin(ConditionedPipelineMixin):
    """For pipelines that take the size from `image` when no height and width are given."""

    def _latent_size(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        image = arguments.get("image")
        if image is None or (arguments.get("height") and arguments.get("width")):
            return super()._latent_size(arguments)
        if isinstance(image, torch.Tensor) and image.ndim == 4 and image.shape[1] == self.vae.config.latent_channels:  # pyright: ignore
            return image.shape[-2], image.shape[-1]
        image = image[0] if isinstance(image, list) else image
        height, width = self.image_processor.get_default_height_width(image)  # pyright: ignore
        return super()._latent_size({"height": height, "width": width})


class ConditionedStableDiffusionPipeline(ConditionedPipelineMixin, StableDiffusionPipeline): ...


class ConditionedStableDiffusionXLPipeline(ConditionedPipelineMixin, StableDiffusionXLPipeline): ...


class ConditionedStableDiffusionImg2ImgPipeline(_ImageSizedMixin, StableDiffusionImg2ImgPipeline): ...


class ConditionedStableDiffusionInpaintPipeline(ConditionedPipelineMixin, StableDiffusionInpaintPipeline): ...


class ConditionedStableDiffusionControlNetPipeline(_ImageSizedMixin, StableDiffusionControlNetPipeline): ...


def open_conditioned(source: str | Path, **options: Any) -> Any:
    """The text-to-image pipeline of a folder or repository: XL where it is one of those.

    Args:
        options: of `from_pretrained`.

    Raises:
        ValueError: a pipeline of another kind.
    """
    local = {"local_files_only": options["local_files_only"]} if "local_files_only" in options else {}
    index: Any = DiffusionPipeline.load_config(str(source), **local)
    if "unet" not in index or "text_encoder" not in index:
        name = index.get("_class_name")
        raise ValueError(
            f"model: got a {name}, expected Stable Diffusion or Stable Diffusion XL; choose another folder"
        )
    kind = ConditionedStableDiffusionXLPipeline if "text_encoder_2" in index else ConditionedStableDiffusionPipeline
    return kind.from_pretrained(source, **options)
