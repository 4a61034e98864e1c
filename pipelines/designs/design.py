"""A design: the prompt, the settings of the run, and the conditions by adapter name.

    {"prompt": "drawings of things on white", "seed": 0, "num_inference_steps": 20, "guidance_scale": 3.0,
     "conditions": {"paired": [{"sketch": "house.png", "text": "a house with a red roof", "region": "sketch"},
                               {"text": "a green tree", "region": [0.6, 0.2, 1, 0.9], "weight": 0.7, "end": 0.5}]}}

- `model` is the shipped model that it is for; a saved image has the one that made it;
- only `prompt` is required; `null` counts as left out; unknown keys, and keys given twice, are rejected;
- a condition is of the registered class whose `needs` it has: `{"sketch": …, "text": …}`, `{"global_sketch": …}`,
  `{"style": "ink"}`, `{"image": "reference.png"}`, `{"image": "fox.png", "text": "fox"}`, `{"prompt": "a red car"}`;
  each also takes `weight`, `region`, `start`, `end`, `layers`, `cfg` where they mean something;
- paths are relative to the file; images may also be in it, as PNG in data URIs;
- `image` is what the run begins with, as far as `strength` says; where `mask_image` is black, it stays as it is;
- `images` are read by editing models; a condition `{"index": 0, "weight": 0.5}` sets the strength of the first;
  `{"image": "reference.png"}` under `in_context` is read by all other models;
- `loras` and `controlnets` are what diffusers' `load_lora_weights` and `ControlNetModel.from_pretrained` read;
- `$schema` is ignored; editors can check designs by `design.schema.json` beside this file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Final

from PIL import Image

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.method import load, methods
from weftwork.attention_processors.core.records import (
    ChoiceKind,
    ImageKind,
    Kind,
    Locate,
    NumberKind,
    PathKind,
    Recorded,
    Schema,
    TextKind,
    WholeKind,
    check_guidance,
    is_finite,
    recorded,
    short,
)
from weftwork.attention_processors.core.regions import opened
from weftwork.attention_processors.core.strength import MAX_WEIGHT, Schedule, check_weight
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.designs.files import moved_paths
from weftwork.pipelines.designs.initial_image import DEFAULT_STRENGTH, check_initial_image
from weftwork.pipelines.designs.kinds import ImagesKind, ListKind, OpenedKind, each
from weftwork.pipelines.designs.samplers import SAMPLERS
from weftwork.pretrained import IMAGE_BACKBONES

SIDE: Final = WholeKind(8, 4096, multiple=8)
SEED: Final = WholeKind(0, 2**63 - 1)
INLINE_PIXELS: Final = 4_000_000
"""Pixels of all images of a design up to which generated images store them."""
WEIGHT_HELP: Final = "Strength: 0 is off, 1 as trained."
SETTINGS: Final = ("seed", "num_inference_steps", "guidance_scale", "height", "width", "negative_prompt", "strength")
"""Keys that options of commands replace, and that images store as they were used."""
OF_IMAGE: Final = ("mask_image", "strength")
NOT_BESIDE_IMAGE: Final = ("images", "controlnets")
"""Keys that designs have only with `image`, and only without it."""


@dataclass(frozen=True)
class Lora(Recorded):
    """A LoRA that diffusers' load_lora_weights reads.

    Args:
        lora: safetensors file, or a folder with one.
        weight: 0 is off, 1 as trained.

    Raises:
        ValueError: a weight that is not finite.
    """

    lora: Path = field(metadata=recorded(PathKind(), "Path of a safetensors file, or of a folder with one."))
    weight: float = field(default=1.0, metadata=recorded(NumberKind(minimum=None), WEIGHT_HELP))

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise UserError(f"weight: got {self.weight}, expected a finite number; change it")


@dataclass(frozen=True)
class Control(Recorded):
    """A ControlNet that diffusers' ControlNetModel.from_pretrained reads, with its image.

    Args:
        controlnet: folder of a `ControlNetModel`.
        image: its input image, resized to the canvas; a file is opened here.
        weight: diffusers' `controlnet_conditioning_scale`.
        start, end: shares of the steps between which it acts: `control_guidance_start` and `control_guidance_end`.

    Raises:
        ValueError: a number out of its range, or an image that cannot be read.
    """

    controlnet: Path = field(metadata=recorded(PathKind(), "Path of its folder."))
    image: Image.Image | Path = field(metadata=recorded(ImageKind(), "Path of its input image."))
    weight: float = field(default=1.0, metadata=recorded(NumberKind(maximum=MAX_WEIGHT), WEIGHT_HELP))
    start: float = field(
        default=0.0,
        metadata=recorded(NumberKind(maximum=1, excluded=1), "Share of the steps where it begins; less than end."),
    )
    end: float = field(
        default=1.0,
        metadata=recorded(NumberKind(maximum=1, excluded=0), "Share of the steps where it ends; more than start."),
    )

    def __post_init__(self) -> None:
        check_weight(self.weight)
        Schedule(self.start, self.end)
        if self.start == self.end:
            raise UserError(f"start: got {self.start}, expected less than end ({self.end}); swap or change them")
        object.__setattr__(self, "image", opened(self.image))


@dataclass(frozen=True)
class Variation(Recorded):
    """Noise that is mixed into that of a design, for images near to its own.

    Args:
        seed: seed of the noise that is mixed in.
        strength: 0 leaves the image as it is, 1 is the image of the other seed.

    Raises:
        ValueError: a strength outside of [0, 1].
    """

    seed: int = field(metadata=recorded(SEED, "Seed of the noise that is mixed in."))
    strength: float = field(
        default=0.3, metadata=recorded(NumberKind(maximum=1), "0 leaves the image, 1 is that of the other seed.")
    )

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UserError(f"strength: got {self.strength}, expected a number from 0 to 1; change it")


@dataclass(frozen=True)
class ConditionsKind(Kind):
    """Lists of conditions by adapter name, of all registered classes that records can describe."""

    def read(self, value: object, locate: Locate) -> dict[str, tuple[Condition, ...]]:
        if not isinstance(value, dict):
            example = '{"paired": [{…}, …]}'
            raise UserError(f"got {short(value)}, expected lists by adapter name; write {example}")
        return {
            name: each(
                records, f".{name}", lambda record, name=name: condition_class(record, name).from_record(record, locate)
            )
            for name, records in value.items()
        }

    def schema(self) -> Schema:
        kinds = {"anyOf": [kind.schema() for _, kind in condition_classes()]}
        return {"type": "object", "additionalProperties": {"type": "array", "items": kinds}}


@cache
def condition_classes() -> list[tuple[str, type[Condition]]]:
    """Returns usual adapter names and the condition classes of records: those with one `needs` key first, and those of
    methods with weights, whose adapters may have any name."""
    found = [(method, load(path)) for method in methods().values() for path in method.conditions]
    found.sort(key=lambda one: (len(one[1].needs), not one[0].trained))
    return [(method.option, kind) for method, kind in found if kind.needs]


def condition_class(record: object, adapter: str) -> type[Condition]:
    """Returns the class whose `needs` an object has; of several, one that has all its keys, then the one of the method
    with the adapter's name.

    Raises:
        ValueError: no object, or one with the keys of no class.
    """
    keys = ", ".join(dict.fromkeys(key for _, kind in reversed(condition_classes()) for key in kind.needs))
    if not isinstance(record, dict):
        raise UserError(f"got {short(record)}, expected an object with one of {keys}; write {{…}}")
    fitting = [one for one in condition_classes() if any(record.get(key) is not None for key in one[1].needs)]
    if not fitting:
        raise UserError(f"got {short(record)}, expected one of the keys {keys}; add one")
    unknown = {kind: len(record.keys() - kind.record_fields().keys()) for _, kind in fitting}
    return min(fitting, key=lambda one: (unknown[one[1]], len(one[1].needs), one[0] != adapter))[1]


@dataclass(frozen=True, eq=False)
class Design(Recorded):
    """One image: its prompt, the settings of the run and its conditions. null counts as left out.

    Args:
        prompt: prompt of the whole image; may be empty.
        negative_prompt: negative prompt of guidance.
        seed: seed of the noise; None draws one.
        variations: noise that is mixed in, in order.
        sampler: one of `SAMPLERS`; None takes the model's own.
        height, width: in pixels, multiples of 8; None takes those of `image`, or the model's own size.
        image: image that the run begins with, of the size of the result.
        strength: share of the steps that are run on `image`; with 1 and no mask none of it is left. None is 0.8.
        mask_image: white where `image` is drawn anew; elsewhere its pixels are pasted back.
        conditions: by adapter name.
        images: reference images of an editing model, whose strengths are conditions of `in-context`.
        loras, controlnets: added to the pipeline by diffusers itself.
        model: shipped model that it is for; None takes the default one.
        source: the file's content as it was read.
        files: paths in `source`.

    Raises:
        ValueError: a value of the wrong type or out of its range, by name.
    """

    prompt: str = field(metadata=recorded(TextKind(empty=True), "Prompt of the whole image; may be empty."))
    negative_prompt: str | None = field(
        default=None, metadata=recorded(TextKind(empty=True), "Negative prompt of guidance.")
    )
    seed: int | None = field(default=None, metadata=recorded(SEED, "Seed of the noise; left out, one is drawn."))
    variations: Sequence[Variation] = field(
        default=(), metadata=recorded(ListKind(Variation), "Noise that is mixed in, in order.")
    )
    num_inference_steps: int = field(default=20, metadata=recorded(WholeKind(1, 1000), "Denoising steps."))
    sampler: str | None = field(
        default=None, metadata=recorded(ChoiceKind(tuple(SAMPLERS)), "Sampler; left out, the model's own.")
    )
    guidance_scale: float = field(default=3.0, metadata=recorded(NumberKind(), "Guidance scale; 1 turns guidance off."))
    guidance_rescale: float = field(
        default=0.0,
        metadata=recorded(
            NumberKind(maximum=1), "Correction of the contrast that guidance adds; 0 is none, 0.7 usual."
        ),
    )
    height: int | None = field(default=None, metadata=recorded(SIDE, "In pixels; left out, the model's own."))
    width: int | None = field(default=None, metadata=recorded(SIDE, "In pixels; left out, the model's own."))
    image: Image.Image | None = field(
        default=None,
        metadata=recorded(OpenedKind(), "Path of the image that the run begins with."),
    )
    strength: float | None = field(
        default=None,
        metadata=recorded(
            NumberKind(maximum=1, excluded=0), "Share of the steps that are run on image; left out, 0.8."
        ),
    )
    mask_image: Image.Image | None = field(
        default=None, metadata=recorded(OpenedKind(), "Path of a mask of image: white is drawn anew, black stays.")
    )
    conditions: Mapping[str, Sequence[Condition]] = field(
        default_factory=dict, metadata=recorded(ConditionsKind(), "Lists of conditions by the name of their adapter.")
    )
    images: Sequence[Image.Image] = field(
        default=(), metadata=recorded(ImagesKind(), "Paths of reference images that an editing model reads, in order.")
    )
    loras: Sequence[Lora] = field(default=(), metadata=recorded(ListKind(Lora), "LoRAs of diffusers' format."))
    controlnets: Sequence[Control] = field(
        default=(), metadata=recorded(ListKind(Control), "ControlNets of diffusers' format, each with its image.")
    )
    model: str | None = field(
        default=None,
        metadata=recorded(ChoiceKind(IMAGE_BACKBONES), "Shipped model that it is for; left out, the default one."),
    )
    source: Mapping[str, object] = field(default_factory=dict)
    files: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_guidance(self.guidance_scale)
        if not (is_finite(self.guidance_rescale) and 0 <= self.guidance_rescale <= 1):
            raise UserError(
                f"guidance_rescale: got {short(self.guidance_rescale)}, expected a number from 0 to 1; 0.7 is usual"
            )
        if self.model not in (None, *IMAGE_BACKBONES):
            raise UserError(f"model: got {short(self.model)}, expected one of {', '.join(IMAGE_BACKBONES)}; change it")
        if self.sampler not in (None, *SAMPLERS):
            raise UserError(f"sampler: got {short(self.sampler)}, expected one of {', '.join(SAMPLERS)}; change it")
        self._begin()
        optional = {one.name for one in fields(self) if one.default is None}
        for key, (name, entry) in self.record_fields().items():
            value = getattr(self, name)
            if isinstance(entry.kind, TextKind | WholeKind) and not (value is None and name in optional):
                try:
                    entry.kind.read(value, Path)
                except ValueError as error:
                    raise UserError(f"{key}: {error}") from error

    def _begin(self) -> None:
        """Checks what the run begins with, and takes its size."""
        image = self.image
        if image is None:
            for name in OF_IMAGE:
                if getattr(self, name) is not None:
                    raise UserError(f"{name}: got one without image; add image, or leave {name} out")
            return
        for name in NOT_BESIDE_IMAGE:
            if getattr(self, name):
                raise UserError(f"{name}: got some beside image, expected one of both; leave {name} or image out")
        strength = DEFAULT_STRENGTH if self.strength is None else self.strength
        object.__setattr__(self, "strength", strength)
        check_initial_image(image, self.mask_image, strength, self.num_inference_steps)
        for name, side in (("height", image.height), ("width", image.width)):
            if getattr(self, name) not in (None, side):
                raise UserError(f"{name}: got {getattr(self, name)}, expected {side}, that of image; resize image")
            object.__setattr__(self, name, side)

    @property
    def begins_with_image(self) -> bool:
        """Whether the result depends on `image`."""
        return self.image is not None and (self.mask_image is not None or self.strength != 1)

    def complete(self, folder: Path = Path()) -> dict[str, object]:
        """Returns the content of a design file in a folder that needs no images beside it.

        A design with large images is returned as it was read, with its paths.
        """
        if self.source and not (self.files and self._pixels() <= INLINE_PIXELS):
            return dict(self.source)
        return moved_paths(self.record(), Path(), folder)

    def _pixels(self) -> int:
        holders = [self, *(one for some in self.conditions.values() for one in some), *self.controlnets]
        images = [*self.images, *(value for one in holders for value in vars(one).values())]
        return sum(one.width * one.height for one in images if isinstance(one, Image.Image))

    def numbered(self, index: int) -> "Design":
        """Returns the design of one of several images: seeds count on, of variations the last one's."""
        if not index:
            return self
        if not self.variations:
            assert self.seed is not None
            seed = self.seed + index
            return replace(self, seed=seed, source={**self.source, "seed": seed})
        *before, last = self.variations
        varied = (*before, replace(last, seed=last.seed + index))
        return replace(self, variations=varied, source={**self.source, "variations": [asdict(one) for one in varied]})


KEYS: Final = tuple(Design.record_fields())
