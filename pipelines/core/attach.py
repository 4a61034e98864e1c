"""Adapters and conditions on any diffusers pipeline.

    attach(pipe, style=StyleAdapter.from_pretrained(folder))
    with conditions(pipe, {"style": Style("ink")}):
        image = pipe("a cat").images[0]
    detach(pipe, "style")

The pipeline is changed in nothing but the processors of its denoiser; it may be a modular one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline
from torch import nn
from transformers import PreTrainedTokenizerBase

from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.attached import AttachedAdapters, own_copy, release
from weftwork.attention_processors.core.attention_maps import MapRecorder
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.conditioning import Encoded
from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.core.processor import install, restore
from weftwork.attention_processors.core.records import TextKind
from weftwork.attention_processors.encoders import TextEncoders
from weftwork.attention_processors.encoders.latents import ImageLatents
from weftwork.attention_processors.encoders.vocabulary import warn_of_unknown_words
from weftwork.attention_processors.encoders.words import PromptWords
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.call import ConditionedCall, denoisers
from weftwork.pipelines.core.conditions import Conditions, designs_of, number_of_designs
from weftwork.pipelines.core.encoders import FrozenEncoders


def attached(pipe: DiffusionPipeline) -> dict[str, Adapter]:
    """Returns the adapters of a pipeline by name, in the order of attaching."""
    here = getattr(pipe, "adapters", None)
    return {} if here is None else dict(here.items())


def attach(pipe: DiffusionPipeline, **adapters: Adapter) -> None:
    """Attaches adapters by name; their order is the order of summation.

    Everything is checked before anything changes.

    Raises:
        ValueError: a pipeline without a denoiser, a name that is taken, a value that is no adapter, an adapter for
            another base, or a foreign attention processor on the denoiser.
    """
    have, parts = attached(pipe), denoisers(pipe)
    for name, adapter in adapters.items():
        if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise UserError(f"attach: got the name {name!r}, expected letters and digits; use another name")
        if name in have:
            raise UserError(f"attach: {name!r} is attached already; detach({name!r}) first or use another name")
        if not isinstance(adapter, Adapter):
            raise UserError(f"attach: {name!r} is a {type(adapter).__name__}, expected an Adapter")
        for denoiser in parts:
            adapter.check_base(denoiser)
    if not adapters:
        return
    device, here = pipe._execution_device, {**have, **adapters}
    for name, adapter in here.items():
        if all(p.device.type != "meta" for p in adapter.parameters()):  # otherwise accelerate moves it
            mine = own_copy(adapter, parts[0])
            mine.bind(parts[0])
            dtype = None if mine.keeps_precision else parts[0].dtype
            here[name] = nn.Module.to(mine, device, dtype).eval()  # pyright: ignore
    for denoiser in parts:
        for adapter in adapters.values():
            adapter.warn_of_other_weights(denoiser)
        if not have:
            install(denoiser)
    _register(pipe, here)


def detach(pipe: DiffusionPipeline, *names: str) -> None:
    """Detaches adapters (all, without names); without any, the stock processors are restored.

    Raises:
        ValueError: an unknown name; nothing is changed.
    """
    have, parts = attached(pipe), denoisers(pipe)
    unknown = [name for name in names if name not in have]
    if unknown:
        raise UserError(f"detach: got {unknown[0]!r}, attached are: {', '.join(have) or 'none'}")
    for name in names or have:
        release(have[name], parts[0])
    rest = {name: adapter for name, adapter in have.items() if names and name not in names}
    if have and not rest:
        for denoiser in parts:
            restore(denoiser)
    _register(pipe, rest)


def _register(pipe: DiffusionPipeline, adapters: Mapping[str, Adapter]) -> None:
    before, made = getattr(pipe, "adapters", None), AttachedAdapters(adapters) if adapters else None
    if made is not None and before is not None:
        made.weights.update({name: weight for name, weight in before.weights.items() if name in made})
    if isinstance(place := getattr(made, "place", None), nn.Parameter):
        place.data = place.to(next(denoisers(pipe)[0].parameters()).device)
    if _is_component(pipe):
        pipe.register_modules(adapters=made)
    else:
        pipe.adapters = made


def _is_component(pipe: DiffusionPipeline) -> bool:
    """Whether adapters are a component of the pipeline, which it moves and offloads."""
    return "adapters" in getattr(pipe, "config", {})


def set_encoders(pipe: DiffusionPipeline, **encoders: object) -> None:
    """Sets frozen encoders beside the pipeline's own, for example `sketch=SketchEncoder.from_pretrained(…)`.

    Those that are modules, or have one as `model`, move with a pipeline that has a class with conditions.
    """
    pipe.encoders = FrozenEncoders({**frozen_encoders(pipe), **encoders})
    if pipe.device.type != "meta":  # sequential offloading moves the modules
        pipe.encoders.to(pipe.device)


def frozen_encoders(pipe: DiffusionPipeline) -> dict[str, object]:
    """Returns the encoders that `set_encoders` has set, by name."""
    encoders = getattr(pipe, "encoders", None)
    return {} if encoders is None else encoders.by_name


@torch.no_grad()
def encoded(
    pipe: DiffusionPipeline, given: Conditions, prompts: int | None = None, lora_scale: float | None = None
) -> tuple[dict[str, Encoded], int]:
    """Encodes conditions by adapter name; returns them, and the number of designs.

    Args:
        prompts: number of prompts; None for the number of lists given, 1 where one list is for all prompts.
        lora_scale: scale of the LoRAs of text encoders.

    Raises:
        ValueError: an unknown name, a condition of the wrong type, or another number of designs than prompts.
    """
    have = attached(pipe)
    for name in given:
        if name not in have:
            raise UserError(
                f"conditions: got {name!r}, attached are: {', '.join(have) or 'none'}; attach({name}=…) first"
            )
    count = number_of_designs(given) if prompts is None else prompts
    text, made, vae = TextEncoders.of(pipe), {}, getattr(pipe, "vae", None)
    device = text.device  # that of the pipeline, which visits all modules at each access
    words = PromptWords.of(pipe, family_of(denoisers(pipe)[0]).text)
    own = {"text": text, "words": words, **({} if vae is None else {"latents": ImageLatents(vae)})}
    if not _is_component(pipe):
        pipe.adapters.to(device)
    for name, adapter in have.items():
        if name not in given:
            continue
        designs = designs_of(name, given[name], count, adapter.condition_type)
        _warn_of_unknown_words(pipe, name, designs)
        batch = adapter.collate(designs).to(device).scaled(pipe.adapters.weights[name])
        with text.scaled(lora_scale):
            features = adapter.features(batch, {**own, **frozen_encoders(pipe)})
        made[name] = pipe.adapters(name, features)
    return made, count


def _warn_of_unknown_words(pipe: DiffusionPipeline, name: str, designs: Sequence[Sequence[Condition]]) -> None:
    tokenizer = getattr(pipe, "tokenizer", None)
    known = tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else None
    for index, one in (numbered for design in designs for numbered in enumerate(design)):
        for key, (field, entry) in one.record_fields().items():
            if isinstance(entry.kind, TextKind):
                warn_of_unknown_words(known, getattr(one, field) or "", f"conditions.{name}[{index}]: {key}")


@contextmanager
def conditions(pipe: DiffusionPipeline, given: Conditions, *, recorder: MapRecorder | None = None) -> Iterator[None]:
    """Lets conditions act in the calls of a pipeline within the block.

    Args:
        given: by adapter name a condition, a list of them (for every prompt), or a list with one such list, or None,
            per prompt.
        recorder: records attention maps.

    Raises:
        ValueError: as `encoded`.
    """
    made, designs = encoded(pipe, given)
    with ConditionedCall(pipe, made, designs, recorder).active():
        yield
