"""References: equal to diffusers' IP-Adapter on the same weights, and what weftwork adds to it; bad input."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import attend, reference_adapter, tiny_unet
from tiny_ip_adapter import IMAGE_DIM, KINDS, TOKENS, apart, authors_checkpoint, close, embeds, referred
from torch import Tensor
from transformers import AutoConfig, CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from variants import SD, VARIANTS, Variant, half_mask, picture, run

from weftwork.attention_processors.core.branch import OwnAttention
from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.reference.adapter import Reference, ReferenceAdapter, SummedBranch
from weftwork.scripts.converters.command import IP_ADAPTER_NAME, convert_to_ip_adapter
from weftwork.scripts.converters.ip_adapter import ip_adapter_to_adapter

XL = next(variant for variant in VARIANTS if variant.name == "xl")


def vision_model() -> CLIPVisionModelWithProjection:
    torch.manual_seed(7)
    sizes: dict[str, Any] = dict(hidden_size=IMAGE_DIM, intermediate_size=37, projection_dim=IMAGE_DIM, patch_size=16)
    sizes |= dict(image_size=32, num_hidden_layers=3, num_attention_heads=2)
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes)).eval()


def stock_and_ours(kind: str, variant: Variant = SD, **config: Any) -> tuple[Any, Any]:
    """diffusers' pipeline with a random checkpoint of the authors' layout, and ours with the same one converted."""
    theirs, ours = variant.make(variant.stock), variant.make(variant.conditioned)
    groups, encoder = authors_checkpoint(kind, theirs.unet), vision_model()
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    theirs.register_modules(image_encoder=encoder, feature_extractor=processor)
    theirs.unet._load_ip_adapter_weights([groups])
    settings, state = ip_adapter_to_adapter(groups, ours.unet)
    adapter = ReferenceAdapter(**{**settings, "image_size": 32, **config})
    adapter.load_state_dict(state)
    ours.attach(ref=adapter)
    ours.set_encoders(image=ImageEncoder(encoder))
    return theirs, ours


def their_embeds(kind: str, *references: Tensor, null: Tensor | None = None) -> list[Tensor]:
    """[unconditional, conditional] features [2, reference, …] of one adapter."""
    positive = torch.stack(references)
    negative = torch.zeros_like(positive) if null is None else null.expand_as(positive)
    return [torch.stack([negative, positive])]


@pytest.fixture(scope="module", params=KINDS)
def pipes(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    return request.param, *stock_and_ours(request.param)


@pytest.fixture(scope="module")
def stock() -> np.ndarray:
    return run(SD.make(SD.stock))


# -- equal to diffusers ----------------------------------------------------------------------------------------


def test_projections_are_equal(pipes: tuple[str, Any, Any]) -> None:
    kind, theirs, ours = pipes
    features = torch.stack([embeds(kind, seed) for seed in range(3)])
    with torch.no_grad():
        (wanted,) = theirs.unet.encoder_hid_proj([features[None]])
        assert torch.equal(ours.adapters["ref"].image_projection(features), wanted[0])


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_latents_with_embeds_are_equal(pipes: tuple[str, Any, Any], scale: float, stock: np.ndarray) -> None:
    kind, theirs, ours = pipes
    theirs.set_ip_adapter_scale(scale)
    feature, null = embeds(kind), None if kind == "basic" else embeds(kind, 9)
    wanted = run(theirs, ip_adapter_image_embeds=their_embeds(kind, feature, null=null))
    close(referred(ours, Reference(embeds=feature, null_embeds=null, weight=scale)), wanted)
    apart(wanted, stock)


def test_latents_with_images_are_equal(pipes: tuple[str, Any, Any]) -> None:
    """Through the vision model, resizing and cropping included, and with the null of zero pixels."""
    _, theirs, ours = pipes
    theirs.set_ip_adapter_scale(1.0)
    for image in (picture(3, (32, 32)), picture(4, (50, 71))):
        close(referred(ours, Reference(image)), run(theirs, ip_adapter_image=image))


def test_latents_without_guidance_are_equal(pipes: tuple[str, Any, Any]) -> None:
    kind, theirs, ours = pipes
    theirs.set_ip_adapter_scale(1.0)
    feature = embeds(kind)
    wanted = run(theirs, ip_adapter_image_embeds=[feature[None, None]], guidance_scale=1.0)
    close(referred(ours, Reference(embeds=feature), guidance_scale=1.0), wanted)


def test_latents_under_a_mask_are_equal(pipes: tuple[str, Any, Any]) -> None:
    _, theirs, ours = pipes
    theirs.set_ip_adapter_scale(0.8)
    image, mask = picture(3, (32, 32)), (np.asarray(half_mask()) > 0).astype(np.float32)
    masks = {"ip_adapter_masks": [torch.from_numpy(mask)[None, None]]}
    wanted = run(theirs, ip_adapter_image=image, cross_attention_kwargs=masks)
    close(referred(ours, Reference(image, weight=0.8, region=half_mask())), wanted)
    apart(wanted, run(theirs, ip_adapter_image=image))


def test_several_references_are_one_softmax_without_masks(pipes: tuple[str, Any, Any]) -> None:
    kind, theirs, ours = pipes
    theirs.set_ip_adapter_scale(0.7)
    features, null = [embeds(kind, seed) for seed in range(3)], torch.zeros_like(embeds(kind))
    wanted = run(theirs, ip_adapter_image_embeds=their_embeds(kind, *features))
    close(referred(ours, *(Reference(embeds=f, null_embeds=null, weight=0.7) for f in features)), wanted)


@pytest.mark.parametrize("merging", ["sum", "joint"])
def test_several_references_under_masks(merging: str) -> None:
    """A sum where masks overlap; where they do not, both mergings are theirs."""
    theirs, ours = stock_and_ours("basic", merging=merging)
    features, left = [embeds("basic", seed) for seed in range(2)], np.zeros((64, 64), np.float32)
    left[:, :32] = 1
    for second in (1 - left, np.ones_like(left)):
        theirs.set_ip_adapter_scale([[0.5, 0.9]])
        masks = {"ip_adapter_masks": [torch.from_numpy(np.stack([left, second]))[None]]}
        wanted = run(theirs, ip_adapter_image_embeds=their_embeds("basic", *features), cross_attention_kwargs=masks)
        regions = [left > 0, second > 0]
        given = zip(features, (0.5, 0.9), regions, strict=True)
        got = referred(ours, *(Reference(embeds=f, weight=w, region=r) for f, w, r in given))
        overlap = merging == "joint" and second.all()
        apart(got, wanted) if overlap else close(got, wanted)


def test_sdxl_is_equal() -> None:
    theirs, ours = stock_and_ours("basic", XL)
    feature = embeds("basic")
    wanted = run(theirs, ip_adapter_image_embeds=their_embeds("basic", feature))
    close(referred(ours, Reference(embeds=feature)), wanted)
    apart(wanted, run(XL.make(XL.stock)))


def test_diffusers_loads_the_file_that_is_written(pipes: tuple[str, Any, Any], tmp_path: Path) -> None:
    kind, theirs, ours = pipes
    theirs.set_ip_adapter_scale(1.0)
    ours.adapters["ref"].save_pretrained(tmp_path / "adapter")
    convert_to_ip_adapter(tmp_path / "adapter", tmp_path / "again", tiny_unet())
    again, options = SD.make(SD.stock), {"ip_adapter_image_embeds": their_embeds(kind, embeds(kind))}
    again.load_ip_adapter(str(tmp_path / "again"), "", IP_ADAPTER_NAME, image_encoder_folder=None)
    assert np.array_equal(run(again, **options), run(theirs, **options))


# -- what weftwork adds --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe = SD.make(SD.conditioned)
    pipe.attach(ref=reference_adapter(pipe.unet, image_dim=IMAGE_DIM))
    pipe.set_encoders(image=ImageEncoder(vision_model()))
    return pipe


def test_masks_of_ones_and_mergings_of_one_reference() -> None:
    """The first are no masks, the second are equal."""
    alone = []
    for merging in ("joint", "sum"):
        pipe = SD.make(SD.conditioned)
        pipe.attach(ref=reference_adapter(pipe.unet, image_dim=IMAGE_DIM, num_tokens=3, merging=merging))
        features = [embeds("basic", seed) for seed in range(2)]
        plain, masked = (
            referred(pipe, *(Reference(embeds=f, region=region) for f in features))
            for region in (None, Image.new("L", (64, 64), 255))
        )
        close(masked, plain)
        alone.append(referred(pipe, Reference(embeds=features[0], region=(0, 0, 0.5, 1))))
    close(*alone)


def test_summed_branches_leave_out_padding_and_absent_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 5, 2, 4, generator=generator)
    tokens = torch.randn(2, 8, 8, generator=generator)
    parts = torch.tensor([0, 0, 1, 1, 2, 2, 0, 0])  # three parts of two, and padding
    bias = torch.tensor([0.0, 0.0, -0.7, -0.7, -torch.inf, -torch.inf, -torch.inf, -torch.inf]).expand(2, 1, 1, 8)
    branch = SummedBranch(tokens, tokens.flip(1), torch.full((2, 1, 1, 1), 0.5), bias, token_part=parts)
    assert branch.spans == ((0, 2), (2, 4), (4, 6))
    out = torch.zeros_like(query)
    heads, values = tokens.unflatten(-1, (2, 4)), tokens.flip(1).unflatten(-1, (2, 4))
    first, second = (attend(query, heads[:, i : i + 2], values[:, i : i + 2]) for i in (0, 2))
    expected = 0.5 * (first + float(np.exp(-0.7)) * second)
    torch.testing.assert_close(branch.mix(query, out, attend, OwnAttention(query, query, None, out)), expected)
    half = replace(branch, conditional=1).rows(1)
    assert isinstance(half, SummedBranch) and half.spans == branch.spans


def test_references_of_each_prompt(pipe: Any) -> None:
    designs = [[Reference(embeds=embeds("basic", 1))], None, [Reference(picture(3)), Reference(picture(4), weight=0.5)]]
    seeds = [torch.Generator().manual_seed(i) for i in range(3)]
    batch = run(pipe, prompt=["a", "b", "c"], conditions={"ref": designs}, generator=seeds)
    for i, design in enumerate(designs):
        options: dict[str, Any] = {"prompt": "abc"[i], "generator": torch.Generator().manual_seed(i)}
        single = referred(pipe, *design, **options) if design else run(pipe, **options)
        close(batch[i], single[0])


def test_no_image_and_no_encoder_at_weight_zero(stock: np.ndarray) -> None:
    for kind in KINDS:
        pipe = SD.make(SD.conditioned)
        pipe.attach(ref=reference_adapter(pipe.unet, projection=kind))
        assert np.array_equal(run(pipe), stock)
        assert np.array_equal(referred(pipe, Reference(weight=0)), stock)
        assert np.array_equal(referred(pipe, Reference(picture(), weight=0.0)), stock)
        pipe.set_weights(ref=0.0)
        assert np.array_equal(referred(pipe, Reference(picture())), stock)


def test_layers_and_guidance(pipe: Any, stock: np.ndarray) -> None:
    feature = embeds("basic")
    plain = referred(pipe, Reference(embeds=feature))
    assert np.array_equal(referred(pipe, Reference(embeds=feature, layers={"all": 0.0})), stock)
    half = referred(pipe, Reference(embeds=feature, layers={"all": 0.5}))
    assert np.array_equal(half, referred(pipe, Reference(embeds=feature, weight=0.5)))
    apart(referred(pipe, Reference(embeds=feature, layers={"decoder": 0.0})), plain)
    alone = referred(pipe, Reference(embeds=feature, cfg="cond_only"))
    away = referred(pipe, Reference(embeds=feature, null_embeds=embeds("basic", 5)))
    for other in (alone, away):
        apart(other, plain)
    close(referred(pipe, Reference(embeds=feature, null_embeds=torch.zeros(IMAGE_DIM))), plain)
    with pytest.raises(ValueError, match="layers: got 'self', which matches none of"):
        referred(pipe, Reference(embeds=feature, layers={"self": 0.0}))


def test_the_encoder_reads_only_what_acts() -> None:
    encoder, counts = ImageEncoder(vision_model()), []
    encoder.model.register_forward_hook(lambda _, inputs, *rest: counts.append(len(inputs[0])))
    adapter = reference_adapter(tiny_unet(), projection="plus", image_dim=IMAGE_DIM)
    rows = [[Reference(picture(1)), Reference(picture(2), weight=0.0)], [Reference(picture(3))]]
    _, features = (adapter.features(adapter.collate(rows), {"image": encoder}) for _ in range(2))
    assert counts == [2, 1, 2], "two pictures, and zero pixels once"
    assert features.image.shape == (2, 2, TOKENS, IMAGE_DIM)
    assert not features.image[0, 1].any() and not features.image[1, 1].any()
    with torch.no_grad():
        zeros = encoder.model(torch.zeros(1, 3, 32, 32), output_hidden_states=True).hidden_states[-2]
    assert torch.equal(features.null[0, 0], zeros[0]) and torch.equal(features.null[1, 0], zeros[0])


def test_encoders_are_read_from_folders_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vision_model().save_pretrained(tmp_path / "image_encoder")
    loaded, pixels = ImageEncoder.from_pretrained(str(tmp_path / "image_encoder")), torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(loaded.pooled(pixels), ImageEncoder(vision_model()).pooled(pixels), atol=1e-6, rtol=1e-5)
    asked: list[Any] = []
    loader = lambda name, **options: asked.append((name, options["subfolder"])) or vision_model()  # noqa: E731
    monkeypatch.setattr(CLIPVisionModelWithProjection, "from_pretrained", loader)
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *_, **__: CLIPVisionConfig())
    for name in (ReferenceAdapter(layers={"a": 8}, token_dim=8).config["image_encoder"], "laion/clip"):
        ImageEncoder.from_pretrained(name)
    assert asked == [("h94/IP-Adapter", "models/image_encoder"), ("laion/clip", "")]


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "reference: got no image and no embeds; give one of them"),
        ({"image": picture(), "embeds": torch.zeros(4)}, "reference: got both image and embeds; give one"),
        ({"embeds": [1.0]}, r"embeds: got list, expected a floating tensor \[dim\] or \[token, dim\]"),
        ({"embeds": torch.zeros(4, dtype=torch.long)}, r"embeds: got torch.int64 of shape \(4,\), expected a floating"),
        ({"embeds": torch.zeros(2, 1, 4)}, r"embeds: got torch.float32 of shape \(2, 1, 4\), expected a floating"),
        ({"embeds": torch.full((4,), torch.nan)}, "embeds: got NaN or infinite numbers"),
        ({"image": picture(), "null_embeds": torch.zeros(4)}, r"null_embeds: got shape \(4,\) beside no embeds"),
        ({"embeds": torch.zeros(4), "null_embeds": torch.zeros(5)}, r"got shape \(5,\) beside embeds of shape \(4,\)"),
        ({"image": "nowhere.png"}, "image: got no file at 'nowhere.png'"),
        ({"image": 3}, "image: got a int, expected an image"),
        ({"image": picture(), "layers": {"decoder": float("nan")}}, "weight: got nan"),
        ({"image": picture(), "cfg": "cond"}, "cfg: got 'cond', expected one of both, cond_only"),
        ({"image": picture(), "region": (0, 0, 2, 1)}, "region: got"),
    ],
)
def test_bad_references(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reference(**arguments)


BESIDE = r"embeds: got shape \(4, 24\) beside \(5, 24\) from the image encoder, expected one shape"


@pytest.mark.parametrize(
    ("projection", "references", "message"),
    [
        ("basic", [Reference(embeds=torch.zeros(9))], r"embeds: got features of shape \(9,\).*expects \(24,\): pooled"),
        ("basic", [Reference(embeds=torch.zeros(5, 24))], r"embeds: got features of shape \(5, 24\).*\(24,\): pooled"),
        ("plus", [Reference(embeds=torch.zeros(24))], r"shape \(24,\).* \"plus\" expects \(token, 24\): penultimate"),
        ("full", [Reference(embeds=torch.zeros(n, 24)) for n in (4, 5)], r"got shapes \(4, 24\), \(5, 24\)"),
        ("plus", [Reference(embeds=torch.zeros(4, 24)), Reference(picture())], BESIDE),
        ("plus", [Reference(embeds=torch.zeros(4, 24))], BESIDE),
    ],
)
def test_embeds_that_do_not_fit(projection: str, references: list[Reference], message: str) -> None:
    pipe = SD.make(SD.conditioned)
    pipe.attach(ref=reference_adapter(pipe.unet, projection=projection, image_dim=IMAGE_DIM))
    pipe.set_encoders(image=ImageEncoder(vision_model()))
    with pytest.raises(ValueError, match=message):
        referred(pipe, *references)


def test_encoders_that_are_missing_or_wrong() -> None:
    pipe = SD.make(SD.conditioned)
    pipe.attach(ref=reference_adapter(pipe.unet, projection="plus", image_dim=16))
    states = torch.zeros(3, 16)
    for reference in (Reference(picture()), Reference(embeds=states)):
        with pytest.raises(ValueError, match=r"image encoder: .*\(image=ImageEncoder.from_pretrained\('h94"):
            referred(pipe, reference)
    for reference in (Reference(embeds=states, cfg="cond_only"), Reference(embeds=states, null_embeds=states)):
        assert np.isfinite(referred(pipe, reference)).all()
    pipe.set_encoders(image=ImageEncoder(vision_model()))
    with pytest.raises(ValueError, match=r"image encoder: got features of shape \(5, 24\) .* expects \(token, 16\)"):
        referred(pipe, Reference(picture()))


def test_bad_adapters() -> None:
    with pytest.raises(ValueError, match="projection: got 'resampler', expected one of basic, plus, full"):
        reference_adapter(tiny_unet(), projection="resampler")
    with pytest.raises(ValueError, match="merging: got 'mean', expected one of joint, sum"):
        reference_adapter(tiny_unet(), merging="mean")
    with pytest.raises(ValueError, match="num_tokens: got 0, expected at least 1"):
        reference_adapter(tiny_unet(), num_tokens=0)
