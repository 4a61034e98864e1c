"""The schema for editors accepts what the reader of designs accepts and nothing else, as far as a schema can tell."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from tiny import drawn_sketch

from weftwork.attention_processors import Attend, Subject
from weftwork.attention_processors.core.families import PRESETS
from weftwork.attention_processors.core.records import Recorded
from weftwork.pipelines.designs.design import KEYS, Control, Design, Lora, condition_classes
from weftwork.pipelines.designs.reader import SCHEMA_FILE, SCHEMA_KEY, design_schema, read_design

SCHEMA: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
EXAMPLE = Path(__file__).parents[3] / "examples" / "outfit" / "outfit.json"
FILES = ("a", " ", "both", "sketch")
KINDS: dict[str, type[Recorded]] = {kind.__name__: kind for _, kind in condition_classes()}
RECORDS = (*KINDS.values(), Lora, Control)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sketches, which are masks as well, under names that are no names of files elsewhere."""
    folder = tmp_path_factory.mktemp("designs")
    for name in FILES:
        drawn_sketch().resize((16, 16)).save(folder / name, "PNG")
    Image.new("L", (16, 16), 0).save(folder / "black", "PNG")
    return folder


def admitted(document: Any) -> bool:
    """Whether the schema has nothing against a document."""
    return Draft202012Validator(SCHEMA).is_valid(document)


def read(folder: Path, document: Any) -> bool:
    """Whether the reader takes a document."""
    path = folder / "design.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    try:
        read_design(path)
    except ValueError:
        return False
    return True


def design(*conditions: Any, **settings: Any) -> dict[str, Any]:
    return {"prompt": "a person", "conditions": {"any": list(conditions)}, **settings}


# What the schema says


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def test_the_file_is_made_from_the_classes() -> None:
    assert design_schema() == SCHEMA, "run python -m weftwork.pipelines.designs.reader"
    items = SCHEMA["properties"]["conditions"]["additionalProperties"]["items"]
    assert [one["title"] for one in items["anyOf"]] == list(KINDS)
    assert {"SketchTextPair", "GlobalSketch", "Style", "Reference"} <= set(KINDS)


@pytest.mark.parametrize("kind", [*RECORDS, Design], ids=lambda kind: kind.__name__)
def test_the_keys_are_the_readers_and_described(kind: type[Recorded]) -> None:
    schema = kind.schema()
    assert list(schema["properties"]) == list(kind.record_fields())
    assert schema["additionalProperties"] is False
    assert schema["description"].endswith(".")
    for key, value in schema["properties"].items():
        assert value["description"].endswith("."), key


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_defaults_and_presets_are_the_classes(kind: type[Recorded]) -> None:
    found = {key: value["default"] for key, value in kind.schema()["properties"].items() if "default" in value}
    drawn = {key: one for key, one in {"ink": "auto", "guidance": 1.0}.items() if key in kind.schema()["properties"]}
    cfg = {"ReferenceOnly": "cond_only"}.get(kind.__name__, "both")
    end = 0.5 if kind is Attend else 1.0
    assert found == {"weight": 1.0, "start": 0.0, "end": end, "cfg": cfg} | drawn
    if kind not in (Attend, Subject):
        assert f"({', '.join(PRESETS)})" in kind.schema()["properties"]["layers"]["description"]


# Schema and reader


GOOD: list[dict[str, Any]] = [
    {"prompt": "a person"},
    {"prompt": ""},
    dict.fromkeys((SCHEMA_KEY, *KEYS)) | {"prompt": "a"},
    {"$schema": "../design.schema.json", "prompt": "a", "conditions": {}},
    design(negative_prompt="", seed=2**63 - 1, num_inference_steps=1000, guidance_scale=0, height=8, width=4096),
    design({"sketch": "a"}, {"text": "b"}, {"sketch": "a", "text": "b", "region": "sketch"}),
    design({"text": "b", **dict.fromkeys(("region", "start", "end", "layers", "cfg")), "sketch": None, "weight": 0}),
    design({"text": "b", "layers": {"all": 1}, "cfg": "cond_only"}, {"image": "a"}, {"image": "a", "weight": 0.5}),
    design({"text": "b", "region": [0, 0.5, 1, 1.0], "weight": 7.5, "start": 0.25, "end": 0.5}),
    design({"text": "b", "region": "a"}, {"style": "ink", "region": "a"}),
    design({"global_sketch": "a"}, {"global_sketch": "a", "weight": 2, "start": 0, "end": None}),
    design({"style": "ink"}, {"style": {"ink": 0, "neon": 0.5}, "region": [0, 0, 1, 1], "layers": {"all": 0.5}}),
    design({"style": "ink", "cfg": "cond_only", "layers": {}, "weight": None, "start": 0.5}),
    {"prompt": "a", "conditions": {"paired": [{"text": "b"}], "style": [{"style": "c"}], "": []}},
    {"prompt": "a", "loras": [{"lora": "a"}, {"lora": "both", "weight": -0.5}], "controlnets": []},
    {"prompt": "a", "controlnets": [{"controlnet": "a", "image": "a", "weight": 0.5, "start": 0.1, "end": 0.9}]},
    {"prompt": "a", "image": "a", "strength": 1, "mask_image": "both", "height": 16, "variations": [{"seed": 1}]},
]
BAD: list[Any] = [
    [],
    None,
    {},
    {"prompt": None},
    design(promt="a"),
    design(seed=0.5),
    design(height=100),
    design(num_inference_steps=True),
    {"prompt": "a", "conditions": [{"text": "b"}]},
    {"prompt": "a", "conditions": {"paired": {"text": "b"}}},
    {"prompt": "a", "conditions": {"paired": None}},
    design("b"),
    design({}),
    design({"sketch": None, "text": None}),
    design({"weight": 1}),
    design({"text": " \n"}),
    design({"text": "b", "region": "sketch"}),
    design({"text": "b", "sketch": None, "region": "sketch"}),
    design({"text": "b", "curve": None}),
    design({"text": "b", "region": [0, 0, 1.5, 1]}),
    design({"text": "b", "region": {"left": 0}}),
    design({"text": "b", "layers": {"all": -1}}),
    design({"text": "b", "cfg": "neither"}),
    design({"image": "a", "region": "sketch"}),
    design({"image": None, "weight": 0}),
    design({"image": "a", "embeds": [0.5]}),
    design({"global_sketch": "a", "text": "b"}),
    design({"global_sketch": "a", "region": "sketch"}),
    design({"global_sketch": None, "text": "b"}),
    design({"global_sketch": "a", "style": "b"}),
    design({"style": None, "text": "b"}),
    design({"style": "ink", "text": None}),
    design({"style": {"ink": 0, "neon": 0}}),
    design({"style": ["ink"]}),
    design({"style": "ink", "region": "sketch"}),
    design({"style": "ink", "layers": {"all": None}}),
    design({"text": "b"}, {"text": "c", "weight": -1}),
    {"prompt": "a", "loras": {"lora": "a"}},
    {"prompt": "a", "loras": [{}]},
    {"prompt": "a", "loras": ["a"]},
    {"prompt": "a", "loras": [{"lora": "a", "image": "a"}]},
    {"prompt": "a", "controlnets": [{"controlnet": "a"}]},
    {"prompt": "a", "controlnets": [{"controlnet": "a", "image": "a", "weight": -1}]},
]


@pytest.mark.parametrize("document", GOOD, ids=str)
def test_both_take_good_designs(folder: Path, document: Any) -> None:
    assert read(folder, document)
    assert admitted(document)


@pytest.mark.parametrize("document", BAD, ids=str)
def test_both_refuse_bad_designs(folder: Path, document: Any) -> None:
    assert not read(folder, document)
    assert not admitted(document)


BOX = (0.25, 0.25, 0.75, 0.75)
VALUES: list[Any] = [
    *(None, True, False, -1, 0, 0.5, 1, 1.5, 8, 12, 4096, 4104, 2**63 - 1, 2**63),
    *("", *FILES, [], ["a"], {}, [{"text": "a"}], {"a": [{"text": "a"}]}, {"a": []}),
    *([0, 0, 1, 1], [0, 0, 1], [0, 0, 1, 1, 1]),
    *({"a": 1}, {"a": 0}, {"a": 0, "b": 0.5}, {"a": -1}, {"a": None}, {"a": True}, {"a": "b"}, {"": 1}, {"a": [1]}),
]
BOXES: list[Any] = [
    [*BOX[:place], odd, *BOX[place + 1 :]] for place in range(4) for odd in (-0.5, 0, 1, 1.5, "0.5", None, True)
]
ELSEWHERE: list[Any] = [None, 0.5, "a", {"a": 1}, [0, 0, 1, 1]]
"""Values of keys that a record of this kind does not have."""
FITTING = ("height", "width", "num_inference_steps")
"""Keys that have to fit an image and its strength."""
BASES: dict[str, dict[str, Any]] = {
    "design": {"prompt": "a"},
    "begun": {"prompt": "a", "image": "a"},
    "text": {"text": "a"},
    "sketch": {"sketch": "a"},
    "global_sketch": {"global_sketch": "a"},
    "style": {"style": "a"},
    "image": {"image": "a"},
    "loras": {"lora": "a"},
    "controlnets": {"controlnet": "a", "image": "a"},
}


def variants(base: str) -> Iterator[dict[str, Any]]:
    """Designs with any value under any key, known here or elsewhere."""
    kinds = [kind.record_fields() for kind in RECORDS]
    keys = {key for kind in kinds for key in kind}
    own = {key for kind in kinds if {*BASES[base]} <= {*kind} for key in kind}
    known = [SCHEMA_KEY, *(key for key in KEYS if base == "design" or key not in FITTING)]
    for key in [*(known if "prompt" in BASES[base] else sorted(keys)), "curve"]:
        values = VALUES + BOXES * (key == "region") if key in own or "prompt" in BASES[base] else ELSEWHERE
        records = [{**BASES[base], key: value} for value in values]
        if "prompt" in BASES[base]:
            yield from records
        elif base in ("loras", "controlnets"):
            yield from (design(**{base: [record]}) for record in records)
        else:
            yield from map(design, records)


@pytest.mark.parametrize("base", BASES)
def test_any_value_anywhere_is_taken_by_both_or_neither(folder: Path, base: str) -> None:
    validator = Draft202012Validator(SCHEMA)
    taken = [(document, read(folder, document), validator.is_valid(document)) for document in variants(base)]
    assert [document for document, by_reader, by_schema in taken if by_reader != by_schema] == []
    assert {by_reader for _, by_reader, _ in taken} == {True, False}


@pytest.mark.parametrize(
    "document",
    [
        design(seed=1.0),  # to a schema, 1.0 is whole
        design({"text": "b", "start": 0.6, "end": 0.5}),
        design({"text": "b", "region": [0.6, 0, 0.5, 1]}),
        design({"sketch": "none.png"}),
        design(loras=[{"lora": "none"}]),
        design(controlnets=[{"controlnet": "a", "image": "a", "start": 0.6, "end": 0.5}]),
        design({"sketch": "black"}),
        design({"text": "b", "region": "black"}),
        design(image="a", mask_image="black"),
        design(image="a", height=8),
    ],
    ids=str,
)
def test_the_reader_alone_tells_order_and_files(folder: Path, document: Any) -> None:
    assert admitted(document) and not read(folder, document)


@pytest.mark.parametrize(
    "page", sorted((EXAMPLE.parent.parent.parent / "docs").glob("*.md")), ids=lambda page: page.stem
)
def test_designs_in_the_docs_are_designs(page: Path) -> None:
    for text in re.findall(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        assert admitted(json.loads(text)), text


# The key for editors


def test_the_schemas_path_is_ignored(folder: Path) -> None:
    for value in ("none.json", None, 3):
        path = folder / "named.json"
        path.write_text(json.dumps({"$schema": value, "prompt": "a", "seed": 3}), encoding="utf-8")
        design = read_design(path)
        assert (design.prompt, design.seed, design.source["$schema"]) == ("a", 3, value)


def test_the_example_leads_to_the_schema() -> None:
    record = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    assert admitted(record)
    path = EXAMPLE.parent / record["$schema"]
    if not path.parent.is_dir():
        pytest.skip("not in a checkout")
    assert json.loads(path.read_text(encoding="utf-8")) == SCHEMA
