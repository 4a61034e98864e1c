"""The run of a design: opens a pipeline with its adapters, LoRAs and ControlNets, draws, and writes PNGs."""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from weftwork.attention_processors.core.attention_maps import MapRecorder, overlay
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.method import load, methods
from weftwork.attention_processors.parts.cross_gates import check_several
from weftwork.datasets.readers.errors import NotFiniteError, UserError, nearest
from weftwork.pipelines.core.attach import attached
from weftwork.pipelines.core.call import denoisers
from weftwork.pipelines.core.initial_image import image_pipeline
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin, ConditionedStableDiffusionControlNetPipeline
from weftwork.pipelines.core.opening import open_conditioned, open_controlnet, opening
from weftwork.pipelines.designs.arguments import call_arguments
from weftwork.pipelines.designs.design import OF_IMAGE, SETTINGS, Design, Lora
from weftwork.pipelines.designs.files import write_images
from weftwork.pipelines.designs.initial_image import binary_mask
from weftwork.pipelines.designs.noise import generators, variations
from weftwork.pipelines.designs.samplers import sampler
from weftwork.pretrained import (
    ALL,
    IMAGE_BACKBONES,
    adapters_of,
    available,
    backbone_of,
    located,
    model_folder,
    shipped,
    shipped_name,
)


def open_pipeline(
    model: str | Path, adapters: Mapping[str, Path], design: Design, image_encoder: str | None = None
) -> ConditionedPipelineMixin:
    """Opens a model with all that a design needs.

    Args:
        model: folder, or name of a shipped model.
        adapters: folders, or style cards, by name.
        image_encoder: folder or Hub id of the CLIP vision model that references are read through.

    Raises:
        ValueError: something that cannot be found or opened, or conditions without an adapter.
    """
    folder = model_folder(model)
    if not (folder / "model_index.json").is_file():
        ready = ", ".join(name for name in IMAGE_BACKBONES if name in available()) or "none is installed"
        raise UserError(
            f"model: got {str(model)!r}, expected a folder with model_index.json or a shipped model ({ready}); check "
            "the path"
        )
    with opening("model", model):
        pipe: Any = open_conditioned(folder, local_files_only=True)
    if design.controlnets:
        controlnets = [open_controlnet(control.controlnet, pipe) for control in design.controlnets]
        check_several(controlnets)
        pipe = ConditionedStableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=controlnets)
    _add_loras(pipe, design.loras)
    attach_all(pipe, model, adapters, design.conditions)
    if image_encoder is not None:
        from weftwork.attention_processors.encoders import ImageEncoder

        with opening("image_encoder", image_encoder):
            pipe.set_encoders(image=ImageEncoder.from_pretrained(image_encoder))
    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    return pipe


def attach_all(
    pipe: ConditionedPipelineMixin,
    model: str | Path,
    given: Mapping[str, Path],
    conditions: Mapping[str, Sequence[Condition]],
) -> None:
    """Attaches the given adapters and style cards; for other conditions shipped ones, or those that need no weights.

    Args:
        model: folder, or name of a shipped model, that the pipeline was opened from; shipped adapters belong to it.

    Raises:
        ValueError: nothing at a path, a shipped adapter of another shipped model, or conditions without an adapter.
    """
    from weftwork.attention_processors import StyleCard, StyleCards

    for name, path in given.items():
        _check_backbone(name, path, model)
        if path.is_file():
            pipe.attach(**{name: StyleCards.of([StyleCard.load(path)])})
        elif path.is_dir():
            pipe.load_adapter(located(path), name)
        else:
            raise UserError(f"adapter: got {name}={path}, expected a folder or a style card there; check the path")
    for name in untrained():
        if name in conditions:
            attach_untrained(pipe, name, conditions[name])
    missing = [name for name in conditions if name not in (pipe.adapters or ())]
    ready = adapters_of(model)
    for name in missing:
        if name not in ready:
            other = [one.backbone for adapter, one in ALL.items() if one.condition == name and adapter in available()]
            remedy = f"pass --adapter {name}=PATH" + "".join(f", or --model {one}, which has one" for one in other)
            raise UserError(
                f"conditions: got {name!r}, for which there is no adapter, expected a name among "
                f"{', '.join(pipe.adapters or ()) or 'none'} (attached), {', '.join(ready) or 'none'} (shipped for "
                f"{Path(model).name}) or {', '.join(untrained())} (without weights); "
                + nearest(name, [*(pipe.adapters or ()), *ready, *untrained()], remedy)
            )
        pipe.load_adapter(shipped(ready[name]), name)


def _check_backbone(name: str, path: Path, model: str | Path) -> None:
    """Raises for a shipped adapter of another shipped model, which may have the same layers."""
    backbone, here = backbone_of(path), shipped_name(model)
    if backbone and here is not None and backbone != here:
        raise UserError(
            f"adapter: got {name}={path}, which belongs to {backbone}, expected one of {here}; pass --model "
            f"{backbone}, or leave --adapter {name} out"
        )


def untrained() -> dict[str, tuple[str, ...]]:
    """Returns paths of the adapter classes of methods without weights, by adapter name."""
    return {one.option: one.adapters for one in methods().values() if not one.trained}


def attach_untrained(pipe: ConditionedPipelineMixin, name: str, conditions: Sequence[Condition] = ()) -> None:
    """Attaches a new adapter of a method without weights, the first for these conditions, unless one of this name fits.

    Raises:
        ValueError: conditions for different adapters, or a method that does not act in this backbone.
    """
    kinds = [load(path) for path in untrained()[name]]
    fitting = [kind for kind in kinds if all(isinstance(one, kind.condition_type) for one in conditions)]
    if not fitting:
        got = " beside ".join(dict.fromkeys(type(one).__name__ for one in conditions))
        raise UserError(f"conditions[{name!r}]: got {got}, expected one kind; leave the others out")
    here = attached(pipe).get(name)
    if here is not None and (type(here) not in kinds or isinstance(here, tuple(fitting))):
        return
    made = fitting[0].for_denoiser(denoisers(pipe)[0])
    if here is not None:  # of an earlier design
        pipe.detach(name)
    pipe.attach(**{name: made})


def _add_loras(pipe: ConditionedPipelineMixin, loras: Sequence[Lora]) -> None:
    weights = {f"lora_{index}": lora.weight for index, lora in enumerate(loras)}
    for name, lora in zip(weights, loras, strict=True):
        with opening("lora", lora.lora):
            pipe.load_lora_weights(lora.lora, adapter_name=name, local_files_only=True, use_safetensors=True)
    if weights:
        pipe.set_adapters(list(weights), list(weights.values()))


def draw(
    pipe: ConditionedPipelineMixin,
    design: Design,
    count: int = 1,
    recorder: MapRecorder | None = None,
    **options: Any,
) -> list[Image.Image]:
    """Draws images of a design.

    Args:
        count: images, see `Design.numbered`.
        options: arguments of the pipeline's call.

    Raises:
        ValueError: as `call_arguments`, or a pipeline of something else than images.
        FloatingPointError: NaN or infinite pixels.
    """
    designs = [design.numbered(index) for index in range(count)]
    drawing = generators(designs)
    with sampler(pipe, design.sampler), _beginning(pipe, design) as begun, variations(designs, drawing):
        out: Any = begun(
            num_images_per_prompt=count,
            generator=drawing,
            conditions={name: list(some) for name, some in design.conditions.items()},
            recorder=recorder,
            output_type="np",
            **options,
            **call_arguments(begun, design, count),
        )
    if (images := getattr(out, "images", None)) is None:
        raise UserError(f"model: got {type(pipe).__name__}, which makes no images, expected one that does; change it")
    if not np.isfinite(images).all():
        raise NotFiniteError("image: got NaN or infinite numbers; lower guidance_scale or the weights")
    made = pipe.image_processor.numpy_to_pil(images)
    if design.image is None or design.mask_image is None:
        return made
    return [Image.composite(one, design.image, binary_mask(design.mask_image)) for one in made]


def _beginning(
    pipe: ConditionedPipelineMixin, design: Design
) -> contextlib.AbstractContextManager[ConditionedPipelineMixin]:
    if not design.begins_with_image:
        return contextlib.nullcontext(pipe)
    return image_pipeline(pipe, design.mask_image is not None)


def draw_files(
    pipe: ConditionedPipelineMixin,
    design: Design,
    targets: Sequence[Path],
    *,
    maps: bool = False,
    made_of: Mapping[str, str] | None = None,
    recorder: MapRecorder | None = None,
) -> list[Path]:
    """Writes one image of a design per target, all or none, and returns the paths of all files.

    Args:
        maps: also write the sheet of attention maps of each image, see `maps_path`.
        made_of: digests that are stored beside the design.
        recorder: records the run.

    Raises:
        ValueError, FloatingPointError: as `draw`.
        OSError: the images cannot be written.
    """
    recorder = MapRecorder() if maps and recorder is None else recorder
    images = draw(pipe, design, len(targets), recorder)
    texts = [stored(design, index, made_of, target.parent) for index, target in enumerate(targets)]
    files = dict(zip(targets, zip(images, texts, strict=True), strict=True))
    if maps and recorder is not None:
        sheets = map_sheets(recorder, design, images)
        files |= dict(zip(map(maps_path, targets), zip(sheets, texts, strict=True), strict=True))
    write_images(files)
    return list(files)


def numbered(target: Path, count: int) -> list[Path]:
    """Returns the paths of so many images: several are numbered."""
    return [target] if count == 1 else [target.with_name(f"{target.stem}-{i}{target.suffix}") for i in range(count)]


def maps_path(target: Path) -> Path:
    """Returns the path of an image's sheet of attention maps."""
    return target.with_name(f"{target.stem}-maps{target.suffix}")


def check_conditions(design: Design, option: str) -> None:
    """Raises for a design without conditions, for an option of the command that needs some."""
    if not any(design.conditions.values()):
        raise UserError(f"{option}: got a design without conditions, expected some; add pairs or leave --{option} out")


def check_maps(design: Design) -> None:
    """Raises for a design without conditions, or with conditions alone that have no maps."""
    check_conditions(design, "maps")
    if not any(one.has_maps for some in design.conditions.values() for one in some):
        names = ", ".join(name for name, some in design.conditions.items() if some)
        raise UserError(f"maps: got conditions of {names} alone, which have none; add pairs or leave --maps out")


def map_sheets(recorder: MapRecorder, design: Design, images: Sequence[Image.Image]) -> list[Image.Image]:
    """Returns a sheet per image with the influence maps of conditions that have some, in the order of the design."""
    shown = {name: some for name, some in design.conditions.items() if name in recorder.adapters}
    maps = {name: recorder.maps("influence", adapter=name) for name in shown}
    sheets = []
    for row, image in enumerate(images):
        views = [overlay(image, maps[n][row, i]) for n, some in shown.items() for i in range(len(some))]
        sheet = Image.new("RGB", (image.width * len(views), image.height))
        for index, view in enumerate(views):
            sheet.paste(view, (image.width * index, 0))
        sheets.append(sheet)
    return sheets


def stored(design: Design, index: int = 0, made_of: Mapping[str, str] | None = None, folder: Path = Path()) -> str:
    """Returns the text stored in a PNG of a folder: `design`, a complete design file, seed, and digests of inputs."""
    one = design.numbered(index)
    content = {name: value for name, value in one.complete(folder).items() if name != "model"}
    model = {} if one.model is None else {"model": one.model}
    settings = {name: getattr(one, name) for name in SETTINGS if name not in OF_IMAGE or one.image is not None}
    record = {"design": {**content, **model, **settings}, "seed": one.seed}
    return json.dumps(record if made_of is None else {**record, "made_of": made_of})
