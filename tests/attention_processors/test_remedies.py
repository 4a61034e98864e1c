"""Remedies in errors of conditions, adapters and their files: the same call succeeds after them."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from remedies import Make, Row, check, given, row, table, text
from safetensors.torch import load_file, save_file
from tiny import drawn_sketch, paired_adapter, reference_adapter, style_adapter, tiny_unet
from tiny_audio import TRACK, spatial_adapter
from tiny_views import REFERENCES
from variants import SD, run

from weftwork.attention_processors import PairedAdapter, SketchTextPair, Style, StyleAdapter, StyleCard, StyleCards
from weftwork.attention_processors.audio.conditions import AudioPrompt, DepthClip, Envelope
from weftwork.attention_processors.core.adapter_files import WEIGHTS_NAME
from weftwork.attention_processors.core.attached import adapter_class
from weftwork.attention_processors.core.attention_maps import MapRecorder, overlay
from weftwork.attention_processors.paired.conditions import GlobalSketch
from weftwork.attention_processors.reference.conditions import Reference
from weftwork.attention_processors.regional.adapter import RegionalAdapter, RegionalPrompt
from weftwork.attention_processors.style.card import METADATA_KEY
from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.pipelines.core.conditions import number_of_designs

Options = dict[str, Any]


def by(call: Callable[..., Any], wrong: Options, words: str, right: Options) -> Row:
    """A call with other keyword arguments."""
    return row(lambda options: call(**options), given(wrong), words, given(right))


HEARD = np.sin(np.arange(99))[None] / 2
MAPS = np.ones((1, 2, 2))
AUDIO = [
    by(AudioPrompt, {"audio": HEARD[:, :0]}, "got no samples in .*; check where it comes from", {"audio": HEARD}),
    by(AudioPrompt, {"audio": HEARD * math.nan}, "not finite, or a rate of .*; correct the audio", {"audio": HEARD}),
    by(AudioPrompt, {"audio": HEARD * 0}, "got silence, expected audible samples; pass other audio", {"audio": HEARD}),
    by(AudioPrompt, {}, "got neither or both; pass audio or its embedding", {"embeds": np.ones(3)}),
    by(AudioPrompt, {"embeds": MAPS}, r"expected \[dim\], all finite; pass one vector", {"embeds": np.ones(3)}),
    by(
        DepthClip,
        {"times": [0]},
        "got neither or both; pass the maps or their embeddings",
        {"times": [0], "depth": MAPS},
    ),
    by(DepthClip, {"times": [0], "depth": -MAPS}, "not above 0; correct the maps", {"times": [0], "depth": MAPS}),
    (
        "got embeddings, which cannot be mirrored; pass maps",
        lambda _: DepthClip([0.0], embeds=np.ones((1, 3))).mirrored(),  # pyright: ignore[reportArgumentType]
        lambda _: DepthClip([0.0], MAPS).mirrored(),  # pyright: ignore[reportArgumentType]
    ),
    by(Envelope, {"values": [-1], "rate": 1}, "; pass amplitudes and Hz", {"values": [1], "rate": 1}),
    ("; set the condition's own times instead", lambda _: replace(TRACK, region=(0, 0, 1, 1)), lambda _: TRACK),
    by(spatial_adapter, {"time_code": "x"}, "expected one of .*; pass one of these", {"time_code": "sinusoidal"}),
    by(
        spatial_adapter,
        {"time_code": "rotary"},
        "'rotary' on frozen projections; pass projections='own' with it",
        {"time_code": "rotary", "projections": "own"},
    ),
]


@cache
def unet() -> Any:
    return tiny_unet()


def collated(make: Any, *conditions: Any) -> Any:
    return make(unet()).collate([list(conditions)])


EMBEDS = torch.ones(16)
FIRST = REFERENCES[0]
CONDITIONS = [
    by(Reference, {}, "got no image and no embeds; give one of them", {"embeds": EMBEDS}),
    by(Reference, {"embeds": EMBEDS * math.nan}, "expected finite ones; encode the image again", {"embeds": EMBEDS}),
    by(
        Reference,
        {"embeds": EMBEDS, "null_embeds": EMBEDS[1:]},
        "beside embeds of shape .*; encode zero pixels as embeds",
        {"embeds": EMBEDS, "null_embeds": EMBEDS * 0},
    ),
    by(
        Reference,
        {"face": lambda _: EMBEDS},
        "no image to call it with; give the image",
        {"face": lambda _: EMBEDS, "image": drawn_sketch()},
    ),
    by(Reference, {"face": lambda _: EMBEDS}, "; give the image, or the embedding", {"face": EMBEDS}),
    row(
        lambda one: collated(reference_adapter, one),
        given(Reference(embeds=EMBEDS, face=EMBEDS)),
        'no effect with the projection "basic"; leave it out',
        given(Reference(embeds=EMBEDS)),
    ),
    row(
        lambda one: collated(reference_adapter, one),
        given(Reference(embeds=EMBEDS[1:])),
        r"expects \(16,\): pooled, as .* gives them; encode with that",
        given(Reference(embeds=EMBEDS)),
    ),
    by(RegionalPrompt, {}, "expected one of both; pass prompt or tokens", {"prompt": "a"}),
    by(RegionalPrompt, {"prompt": " "}, "expected a text; write some words", {"prompt": "a hat"}),
    row(
        lambda some: collated(RegionalAdapter.for_denoiser, *some),
        given([RegionalPrompt("a"), RegionalPrompt(tokens=(1, 2))]),
        "got texts beside tokens, expected one kind in a call; encode the texts, too",
        given([RegionalPrompt(tokens=(3, 4)), RegionalPrompt(tokens=(1, 2))]),
    ),
    row(
        lambda one: collated(paired_adapter, one),
        given(GlobalSketch(drawn_sketch())),
        "trained without one; leave it out",
        given(SketchTextPair(drawn_sketch())),
    ),
    row(lambda name: collated(style_adapter, Style(name)), given("inc"), "; did you mean 'ink'", given("ink")),
    row(lambda name: collated(style_adapter, Style(name)), given("x"), "of ink, .*; use one of these", given("neon")),
    row(lambda one: replace(FIRST, image=one), given(FIRST.image[1:]), "; resize one of them", given(FIRST.image)),
    row(lambda one: replace(FIRST, image=one), given(FIRST.image * 255), "; divide bytes by 255", given(FIRST.image)),
    row(
        lambda one: replace(FIRST, points=one), given(FIRST.points * math.nan), "; check the depth", given(FIRST.points)
    ),
    row(
        lambda one: ReferenceView.of_depth(FIRST.image, one, FIRST.camera),
        given(np.ones((64, 64, 1))),
        r"expected \[height, width\]; drop the other axes",
        given(np.ones((64, 64))),
    ),
]


FACE = torch.ones(12)


def faced(make: Reference) -> Any:
    return collated(lambda unet: reference_adapter(unet, projection="faceid", face_dim=12), make)


CONDITIONS += [
    row(faced, given(Reference(embeds=EMBEDS)), '"faceid" reads one; give the embedding', given(Reference(face=FACE))),
    row(faced, given(Reference(face=FACE[1:])), "of one face; use the face recogniser", given(Reference(face=FACE))),
    row(
        faced,
        given(Reference(embeds=EMBEDS, face=FACE)),
        'no effect with the projection "faceid"; leave them out',
        given(Reference(face=FACE)),
    ),
    row(
        lambda some: collated(lambda unet: paired_adapter(unet, global_sketch=True), *some),
        given([GlobalSketch(drawn_sketch())] * 2),
        "several GlobalSketch in one design, expected at most one; merge them",
        given([GlobalSketch(drawn_sketch())]),
    ),
    row(
        lambda other: [paired_adapter(unet()).check_base(other)],
        given(tiny_unet(block_out_channels=(32, 32))),
        "base: got width .*; load an adapter that was trained for this backbone",
        given(unet()),
    ),
    row(
        lambda other: [paired_adapter(unet()).check_base(other)],
        given(tiny_unet(mid_block_type=None)),
        "which this UNet2DConditionModel does not have; load an adapter that was trained",
        given(unet()),
    ),
    row(
        number_of_designs,
        given({"one": [[], None], "two": [[]]}),
        r"got lists for \[1, 2\] prompts; pass as many for each adapter",
        given({"one": [[], None], "two": [[], []]}),
    ),
]


def recorded(recorder: MapRecorder, *, passed: bool) -> Any:
    pair = SketchTextPair(text="a")
    run(SD.attached(), conditions={"it": [pair]}, recorder=recorder if passed else MapRecorder())
    return recorder.maps()


def views(**options: Any) -> Any:
    return AlignedViews.for_denoiser(unet(), rank=1, **options)


ADAPTERS = [
    by(
        paired_adapter,
        {"unet": unet(), "layers": "x"},
        "which matches none .*; pass one of all,",
        {"unet": unet(), "layers": "all"},
    ),
    by(views, {"sharing": "x"}, "sharing: got 'x', .*; pass one of these", {"sharing": "instillation"}),
    by(views, {"sharing": "none", "gradient": "detach"}, "; change one of them", {"sharing": "none"}),
    (
        "nothing was recorded .*; pass the recorder as pipe.*",
        lambda _: recorded(MapRecorder(), passed=False),
        lambda _: recorded(MapRecorder(), passed=True),
    ),
    row(
        lambda one: overlay(drawn_sketch(), one),
        given(torch.ones(1, 2, 8, 8)),
        r"expected one map \[height, width\]; index row and part",
        given(torch.ones(1, 2, 8, 8)[0, 1]),
    ),
]


def saved(change: Callable[[Path], object] | None = None) -> Make:
    """The folder of an adapter, whole or changed."""

    def make(folder: Path) -> Path:
        paired_adapter(unet()).save_pretrained(folder / "it")
        if change is not None:
            change(folder / "it")
        return folder / "it"

    return make


def configured(content: Any) -> Make:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **content} if isinstance(content, dict) else content))

    return saved(change)


def weighed(change: Callable[[torch.Tensor], torch.Tensor]) -> Make:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_NAME)
        save_file({name: change(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS_NAME)

    return saved(edit)


def card(change: Callable[[StyleCard], StyleCard] | None = None) -> Make:
    made = style_adapter(unet()).bake("ink")
    return lambda folder: (made if change is None else change(made)).save(folder / "card.safetensors")


def marked(content: str) -> Make:
    """A card with this text as its metadata."""

    def make(folder: Path) -> Path:
        save_file({"a": EMBEDS}, folder / "card.safetensors", metadata={METADATA_KEY: content})
        return folder / "card.safetensors"

    return make


def poisoned(one: StyleCard) -> StyleCard:
    return replace(one, tensors={name: tuple(part * math.nan for part in row) for name, row in one.tensors.items()})


def emptied(folder: Path) -> None:
    save_file({"odd": EMBEDS}, folder / WEIGHTS_NAME)


INK, NEON = (style_adapter(unet()).bake(name) for name in ("ink", "neon"))
read, WHOLE = PairedAdapter.from_pretrained, saved()
FILES = [
    row(read, saved(lambda folder: (folder / "config.json").write_text("{")), "not JSON .*; restore it", WHOLE),
    row(read, configured({"token_dim": "wide"}), "does not describe a PairedAdapter .*; restore it", WHOLE),
    row(read, weighed(lambda one: one.int()), "has dtype torch.int32, expected one of .*; convert it", WHOLE),
    row(read, weighed(lambda one: one * math.nan), "holds NaN or infinite .*; train or download it again", WHOLE),
    row(read, saved(lambda folder: (folder / WEIGHTS_NAME).write_bytes(b"")), "; it is damaged .*: copy or", WHOLE),
    row(read, configured({"a b": 1}), "got the key 'a b' in config.json, .*; restore the file", WHOLE),
    row(read, configured({"format_version": 9}), "expected at most 1; update weftwork", WHOLE),
    row(read, saved(lambda folder: (folder / WEIGHTS_NAME).unlink()), "loads safetensors only, `weftwork conv", WHOLE),
    row(read, saved(emptied), "keys are missing .*; the file and config.json do not belong together", WHOLE),
    row(adapter_class, configured({"_class_name": "X"}), "got class 'X', .*; install the package that has it", WHOLE),
    row(
        lambda folder: [read(folder).check_base(unet())],
        configured({"base": {"family": "FluxTransformer2DModel"}}),
        "got an adapter for Flux.*; load one that was trained for it",
        WHOLE,
    ),
    row(adapter_class, lambda folder: WHOLE(folder).parent, "config.json is missing; give the folder of one", WHOLE),
    (
        "got a PairedAdapter, expected a StyleAdapter; load it with PairedAdapter.from_pretrained",
        lambda folder: StyleAdapter.from_pretrained(WHOLE(folder)),
        lambda folder: PairedAdapter.from_pretrained(folder / "it"),
    ),
    (
        "save_directory: got the file .*, expected a folder; choose another name",
        lambda folder: paired_adapter(unet()).save_pretrained(text("x")(folder)),
        lambda folder: [paired_adapter(unet()).save_pretrained(folder / "new")],
    ),
    row(StyleCard.load, text("x", "card.safetensors"), "; .*: save it again with StyleCard.save", card()),
    row(StyleCard.load, lambda folder: WHOLE(folder) / WEIGHTS_NAME, r"; bake one with adapter.bake\(name\)", card()),
    row(StyleCard.load, card(poisoned), "holds NaN or infinite numbers; bake the style again", card()),
    row(StyleCard.load, marked("{"), "got damaged metadata .*; save it again", card()),
    row(
        StyleCard.load,
        marked(json.dumps({"version": 9, "name": "a", "base": {}, "fusion": ""})),
        "expected at most 1; update weftwork",
        card(),
    ),
    row(
        lambda fusion: style_adapter(unet(), fusion=fusion).bake("ink"),
        given("exclusive"),
        "whose gates are not part of a card, expected another; pass the adapter's folder on",
        given("gated"),
    ),
    row(StyleCards.of, given([INK, INK]), "each name once; rename or drop one", given([INK, NEON])),
    row(
        StyleCards.of,
        given([INK, style_adapter(unet(), fusion="concat").bake("neon")]),
        "another fusion than 'ink'; stack cards that were baked for one backbone in one way",
        given([INK, NEON]),
    ),
    (
        "got a mixture of styles without one; name the card",
        lambda _: style_adapter(unet()).bake({"ink": 1, "neon": 1}),
        lambda _: style_adapter(unet()).bake({"ink": 1, "neon": 1}, "both"),
    ),
]


@table(*AUDIO, *CONDITIONS, *ADAPTERS, *FILES)
def test_remedies(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)
