"""A design as a JSON file: the prompt, the settings of the run, and the conditions by adapter name.

    {"prompt": "a person wearing an outfit", "seed": 0, "num_inference_steps": 20, "guidance_scale": 3.0,
     "conditions": {"paired": [{"sketch": "jacket.png", "text": "a red striped jacket", "region": "sketch"},
                               {"text": "a black skirt", "region": [0.2, 0.5, 0.8, 0.8], "weight": 0.7, "end": 0.5}]}}

- only `prompt` is required; `negative_prompt`, `height` and `width` exist too; what is `null` counts as left out;
- a pair has a sketch or a text or both; paths are relative to the file, or pictures are in it, as PNG in data URIs;
- `{"global_sketch": "all.png", "weight": 1.0}` is a sketch of the whole, for adapters with a module for it;
- `{"style": "ink"}` or `{"style": {"ink": 0.7, "pastel": 0.3}}` is a style, with `weight`, `region`, `start`, `end`,
  `layers` (factors by preset or pattern) and `cfg`;
- `loras` and `controlnets` beside `conditions` are lists of `{"lora": "my-lora", "weight": 0.8}` and
  `{"controlnet": "my-controlnet", "image": "edges.png", "weight": 0.7}`, the latter with `start` and `end` too: what
  diffusers' own `load_lora_weights` and `ControlNetModel.from_pretrained` read;
- a region is "sketch", a box `[left, top, right, bottom]` in fractions of the canvas, or the path of a mask;
- `$schema` is ignored; it may lead editors to `design.schema.json` beside this file, with which they check designs;
- other keys, and keys given twice, are refused.
"""

import json
import math
import re
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from PIL import Image

from weftwork.attention_processors.core.strength import Schedule, check_weight
from weftwork.attention_processors.paired.conditions import GlobalSketch, SketchTextPair
from weftwork.attention_processors.style.conditions import Style
from weftwork.datasets.readers.images import read_image
from weftwork.datasets.readers.inline_images import located

GLOBAL_SKETCH_KEYS: Final = ("global_sketch", "weight", "start", "end")
STYLE_KEYS: Final = ("style", "weight", "region", "start", "end", "layers", "cfg")
PAIR_KEYS: Final = ("sketch", "text", "weight", "region", "start", "end")
Condition = SketchTextPair | GlobalSketch | Style
MAX_STEPS: Final = 1000
MAX_SIDE: Final = 4096
SIDE_MULTIPLE: Final = 8
MAX_SEED: Final = 2**63


@dataclass(frozen=True)
class Lora:
    """A LoRA of diffusers' format.

    Args:
        lora: safetensors file, or a folder with one.
        weight: 0 is off, 1 as trained.

    Raises:
        ValueError: a weight that is not finite.
    """

    lora: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"weight: got {self.weight}, expected a finite number; change it")


@dataclass(frozen=True)
class Control:
    """A ControlNet with its picture.

    Args:
        controlnet: folder of a `ControlNetModel`.
        image: the picture that it reads, resized to the canvas; a file is opened here.
        weight: diffusers' `controlnet_conditioning_scale`.
        start, end: when it acts, in fractions of the steps: `control_guidance_start` and `control_guidance_end`.

    Raises:
        ValueError: a number out of its range, or a picture that cannot be read.
    """

    controlnet: Path
    image: Image.Image | Path
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight)
        Schedule(self.start, self.end)
        if self.start == self.end:
            raise ValueError(f"start: got {self.start}, expected less than end ({self.end}); swap or change them")
        if isinstance(self.image, Path):
            object.__setattr__(self, "image", read_image(self.image))


@dataclass(frozen=True, eq=False)
class Design:
    """What one picture is made of.

    Args:
        prompt: words for the whole picture; may be empty.
        negative_prompt: words for what guidance leads away from.
        seed: of the noise; None draws one.
        height, width: in pixels, multiples of 8; None takes the model's own size.
        conditions: pairs, sketches of the whole and styles by adapter name.
        loras, controlnets: what diffusers itself adds to a pipeline.
        source: the file's content as it was read.

    Raises:
        ValueError: a value of the wrong type or out of its range, by name.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None
    num_inference_steps: int = 20
    guidance_scale: float = 3.0
    height: int | None = None
    width: int | None = None
    conditions: Mapping[str, Sequence[Condition]] = field(default_factory=dict)
    loras: Sequence[Lora] = ()
    controlnets: Sequence[Control] = ()
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise ValueError(f"prompt: got {_short(self.prompt)}, expected a text; quote it")
        if not isinstance(self.negative_prompt, str | None):
            raise ValueError(f"negative_prompt: got {_short(self.negative_prompt)}, expected a text; quote it")
        _check_whole("num_inference_steps", self.num_inference_steps, 1, MAX_STEPS)
        if self.seed is not None:
            _check_whole("seed", self.seed, 0, MAX_SEED - 1)
        if not (_is_number(self.guidance_scale) and math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise ValueError(
                f"guidance_scale: got {_short(self.guidance_scale)}, expected a finite number of at least 0; "
                "1 turns guidance off"
            )
        for name in ("height", "width"):
            side = getattr(self, name)
            if side is not None:
                _check_whole(name, side, SIDE_MULTIPLE, MAX_SIDE)
                if side % SIDE_MULTIPLE:
                    raise ValueError(
                        f"{name}: got {side}, expected a multiple of {SIDE_MULTIPLE}; "
                        f"use {side // SIDE_MULTIPLE * SIDE_MULTIPLE} or leave it out"
                    )


KEYS: Final = tuple(entry.name for entry in fields(Design) if entry.name != "source")
SCHEMA_KEY: Final = "$schema"
NAME: Final = re.compile(r"[\w-]{1,100}")


def read_design(path: str | Path) -> Design:
    """Read and check a design, its pictures included.

    Raises:
        ValueError: no such file, no JSON, an unknown key, or a bad value; the message says where.
    """
    path = Path(path)
    return as_design(_parsed(_read_text(path), str(path)), path.parent, str(path))


def read_designs(path: str | Path) -> dict[str, Design]:
    """Read and check designs, a JSON object per line, by the names they have under `name` or by their line's number.

    Raises:
        ValueError: lists every line that is wrong.
    """
    path = Path(path)
    designs: dict[str, Design] = {}
    wrong: list[str] = []
    lines = _read_text(path).splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            record = _parsed(line, place)
            name = record.pop("name", f"{number:06d}") if isinstance(record, dict) else ""
            if not (isinstance(name, str) and NAME.fullmatch(name)) or name in designs:
                raise ValueError(f"{place}: got the name {_short(name)}, expected letters, digits, - and _, once")
            designs[name] = as_design(record, path.parent, place)
        except ValueError as error:
            wrong.append(str(error))
    if wrong or not designs:
        raise ValueError(
            f"{path}: " + ("\n  ".join(["got lines that are wrong", *wrong]) if wrong else "got no design")
        )
    return designs


def as_design(record: Any, folder: Path, place: str = "design") -> Design:
    """The design that an object of JSON is, paths from a folder on; `place` begins what errors say."""
    try:
        _check_keys(record, "the design", (*KEYS, SCHEMA_KEY))
        given = {key: value for key, value in record.items() if value is not None and key != SCHEMA_KEY}
        if "prompt" not in given:
            raise ValueError('prompt: got none, expected a text; add "prompt": "…"')
        read: dict[str, Any] = {"conditions": _read_conditions(given.pop("conditions", {}), folder)}
        read["loras"] = _read_list(Lora, "loras", given, folder)
        read["controlnets"] = _read_list(Control, "controlnets", given, folder)
        return Design(**given, **read, source=record)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"design: got no file at {str(path)!r}, expected a JSON file; check the path") from error
    except OSError as error:
        raise ValueError(
            f"design: got {str(path)!r}, which cannot be read ({error.strerror}), expected a JSON file; check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: got a text that is not JSON ({error}), expected an object; mend it") from error


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: got a text that is not JSON ({error}), expected an object; mend it") from error


def _read_conditions(record: Any, folder: Path) -> dict[str, tuple[Condition, ...]]:
    if not isinstance(record, dict):
        raise ValueError(
            f'conditions: got {_short(record)}, expected lists by adapter name; write {{"paired": [{{…}}, …]}}'
        )
    conditions: dict[str, tuple[Condition, ...]] = {}
    for name, pairs in record.items():
        if not isinstance(pairs, list):
            raise ValueError(f"conditions.{name}: got {_short(pairs)}, expected a list of pairs; write [{{…}}, …]")
        conditions[name] = tuple(_read_condition(p, f"conditions.{name}[{i}]", folder) for i, p in enumerate(pairs))
    return conditions


def _read_list(kind: Any, name: str, given: dict[str, Any], folder: Path) -> tuple[Any, ...]:
    """What diffusers adds: objects of `kind`, with paths relative to `folder`."""
    records = given.pop(name, [])
    if not isinstance(records, list):
        raise ValueError(f"{name}: got {_short(records)}, expected a list; write [{{…}}, …]")
    entries = fields(kind)
    read = []
    for i, record in enumerate(records):
        place = f"{name}[{i}]"
        _check_keys(record, place, [entry.name for entry in entries])
        values = {key: value for key, value in record.items() if value is not None}
        _check_numbers(values, place)
        for key in (entry.name for entry in entries if entry.type is not float):
            if not isinstance(values.get(key), str) or not values[key]:
                raise ValueError(f"{place}: {key}: got {_short(values.get(key))}, expected a path; write one")
            values[key] = folder / values[key]
            if not values[key].exists():
                raise ValueError(
                    f"{place}: {key}: got nothing at {str(values[key])!r}, expected a file or folder; check the path"
                )
        try:
            read.append(kind(**values))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    return tuple(read)


def _read_condition(record: Any, place: str, folder: Path) -> Condition:
    named = {} if not isinstance(record, dict) else {key: value for key, value in record.items() if value is not None}
    kind = next((key for key in ("global_sketch", "style") if key in named), "pair")
    keys = {"global_sketch": GLOBAL_SKETCH_KEYS, "style": STYLE_KEYS, "pair": PAIR_KEYS}[kind]
    _check_keys(record, place, keys)
    return _condition(kind, named, place, folder)


def _condition(kind: str, given: dict[str, Any], place: str, folder: Path) -> Condition:
    for name in ("global_sketch", "sketch", "text"):
        if name in given and not isinstance(given[name], str):
            expected = "words" if name == "text" else "the path of a picture"
            raise ValueError(f"{place}: {name}: got {_short(given[name])}, expected {expected}; quote it")
    _check_numbers(given, place)
    _check_shares("style", given.get("style", ""), place)
    _check_shares("layers", given.get("layers", {}), place)
    region = given.get("region")
    if not isinstance(region, str | list | None) or (isinstance(region, list) and not all(map(_is_number, region))):
        raise ValueError(
            f'{place}: region: got {_short(region)}, expected "sketch", [left, top, right, bottom] or the path of a '
            "mask; use one of these or leave it out"
        )
    for name in ("global_sketch", "sketch", "region"):
        if isinstance(path := given.get(name), str) and (name, path) != ("region", "sketch"):
            given[name] = _located(name, path, place, folder)
    try:
        if kind == "global_sketch":
            return GlobalSketch(given.pop("global_sketch"), **given)
        return Style(given.pop("style"), **given) if kind == "style" else SketchTextPair(**given)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _located(name: str, text: str, place: str, folder: Path) -> Path | Image.Image:
    try:
        return located(text, folder)
    except ValueError as error:
        raise ValueError(f"{place}: {name}: {error}") from error


def _check_keys(record: Any, place: str, known: Sequence[str]) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"{place}: got {_short(record)}, expected an object with {', '.join(known)}; write {{…}}")
    unknown = [key for key in record if key not in known]
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise ValueError(f"{place}: got the unknown key {names}, expected {', '.join(known)}; rename or drop it")


def _check_shares(name: str, value: Any, place: str) -> None:
    named = isinstance(value, dict) and all(_is_number(share) for share in value.values())
    if not named and not (name == "style" and isinstance(value, str)):
        raise ValueError(f'{place}: {name}: got {_short(value)}, expected numbers by name; write {{"name": 0.5}}')


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name}: got {_short(value)}, expected a whole number from {low} to {high}; change it")


def _check_numbers(given: Mapping[str, Any], place: str) -> None:
    for name in ("weight", "start", "end"):
        if name in given and not _is_number(given[name]):
            raise ValueError(f"{place}: {name}: got {_short(given[name])}, expected a number; write it without quotes")


def _is_number(value: Any) -> bool:
    """JSON's whole numbers have any number of digits; those beyond every float are none of ours."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max


def _short(value: Any) -> str:
    return reprlib.repr(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"a key given twice among {', '.join(key for key, _ in pairs)}")
    return record
