"""FaceID and FaceID Plus: equal to diffusers' IP-Adapter on the same weights, LoRA included; conversion; bad input."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import reference_adapter, tiny_unet
from tiny_ip_adapter import (
    FACE_DIM,
    FACE_KINDS,
    IMAGE_DIM,
    TOKENS,
    Groups,
    apart,
    authors_checkpoint,
    close,
    embeds,
    referred,
)
from torch import Tensor
from variants import SD, VARIANTS, Variant, picture, run

from weftwork.attention_processors.reference.adapter import ReferenceAdapter
from weftwork.attention_processors.reference.conditions import Reference
from weftwork.scripts.converters.command import (
    FACE_V2_NAME,
    IP_ADAPTER_NAME,
    convert_from_ip_adapter,
    convert_to_ip_adapter,
)
from weftwork.scripts.converters.face_lora import LORA_NAME

XL = next(variant for variant in VARIANTS if variant.name == "xl")
CASES = [("faceid", False, SD), ("faceid_plus", False, SD), ("faceid_plus", True, SD), ("faceid", False, XL)]


def face(seed: int = 0) -> Tensor:
    return torch.randn(FACE_DIM, generator=torch.Generator().manual_seed(seed))


def flat(groups: Groups) -> dict[str, Tensor]:
    return {f"{group}.{key}": tensor for group, keys in groups.items() for key, tensor in keys.items()}


def written(kind: str, folder: Path, unet: Any, shortcut: bool = False, lora: int = 2) -> Path:
    path = folder / f"ip-adapter-{kind}{'-plusv2' if shortcut else ''}.safetensors"
    save_file(flat(authors_checkpoint(kind, unet, lora=lora)), path)
    return path


def their_latents(kind: str, shortcut: bool, variant: Variant, source: Path, scale: float) -> np.ndarray:
    """Latents of diffusers' pipeline with `load_ip_adapter`, LoRA included."""
    theirs = variant.make(variant.stock)
    theirs.load_ip_adapter(str(source.parent), "", source.name, image_encoder_folder=None)
    theirs.set_ip_adapter_scale(scale)
    if kind == "faceid_plus":
        projection = theirs.unet.encoder_hid_proj.image_projection_layers[0]
        projection.clip_embeds = torch.stack([embeds("plus", 9), embeds("plus")])[None]
        projection.shortcut = shortcut
    faces = torch.stack([torch.zeros(FACE_DIM), face()])[:, None]
    return run(theirs, ip_adapter_image_embeds=[faces])


def reference(kind: str, **options: Any) -> Reference:
    states = {"embeds": embeds("plus"), "null_embeds": embeds("plus", 9)} if kind == "faceid_plus" else {}
    return Reference(face=face(), **states, **options)


@pytest.mark.parametrize(("kind", "shortcut", "variant"), CASES)
def test_latents_are_those_of_diffusers(kind: str, shortcut: bool, variant: Variant, tmp_path: Path) -> None:
    ours = variant.make(variant.conditioned)
    source = written(kind, tmp_path, ours.unet, shortcut)
    convert_from_ip_adapter(source, tmp_path / "adapter", ours.unet)
    ours.load_adapter(tmp_path / "adapter", "ref")
    ours.load_lora_weights(tmp_path / "adapter")
    wanted = their_latents(kind, shortcut, variant, source, 0.7)
    close(referred(ours, reference(kind, weight=0.7)), wanted)
    alone = referred(ours, reference(kind, weight=0.0))
    apart(alone, wanted)
    apart(alone, run(variant.make(variant.stock)))  # the LoRA acts


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("kind", FACE_KINDS)
def test_files_come_back_with_the_same_tensors(kind: str, shortcut: bool, lora: int, tmp_path: Path) -> None:
    unet = tiny_unet()
    source = written(kind, tmp_path, unet, shortcut, lora)
    convert_from_ip_adapter(source, tmp_path / "adapter", unet)
    assert (tmp_path / "adapter" / LORA_NAME).exists() == bool(lora)
    convert_to_ip_adapter(tmp_path / "adapter", tmp_path / "again", unet)
    version_2 = kind == "faceid_plus" and shortcut
    (again,) = (tmp_path / "again").iterdir()
    assert again.name == (FACE_V2_NAME if version_2 else IP_ADAPTER_NAME)
    convert_from_ip_adapter(again, tmp_path / "adapter again", unet)
    for path in (tmp_path / "adapter").iterdir():
        assert path.read_bytes() == (tmp_path / "adapter again" / path.name).read_bytes()
    save_file(flat(authors_checkpoint(kind, unet, lora=lora)), tmp_path / "wanted", metadata={"format": "pt"})
    assert again.read_bytes() == (tmp_path / "wanted").read_bytes()


@pytest.mark.parametrize("kind", FACE_KINDS)
def test_a_denoiser_that_diffusers_saved_with_an_adapter_is_read(kind: str, tmp_path: Path) -> None:
    unet = tiny_unet()
    convert_from_ip_adapter(written(kind, tmp_path, unet, lora=0), tmp_path / "adapter", unet)
    unet._load_ip_adapter_weights([authors_checkpoint(kind, unet)])
    unet.save_pretrained(tmp_path / "unet")
    name = "diffusion_pytorch_model.safetensors"
    convert_from_ip_adapter(tmp_path / "unet" / name, tmp_path / "again", tiny_unet())
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "adapter" / name).read_bytes()


def test_a_missing_lora_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = SD.make(SD.conditioned)
    convert_from_ip_adapter(written("faceid", tmp_path, pipe.unet), tmp_path / "adapter", pipe.unet)
    adapter = ReferenceAdapter.from_pretrained(tmp_path / "adapter")
    with caplog.at_level(logging.WARNING):
        pipe.attach(ref=adapter)
        assert "trained beside a LoRA" in caplog.text
        pipe.detach()
        caplog.clear()
        pipe.load_lora_weights(tmp_path / "adapter")
        pipe.attach(ref=adapter)
    assert "trained beside a LoRA" not in caplog.text


def test_a_function_makes_the_embedding_of_the_image() -> None:
    pipe, image = SD.make(SD.conditioned), picture(3)
    pipe.attach(ref=reference_adapter(pipe.unet, projection="faceid", face_dim=3))
    given: list[Any] = []

    def recognise(image: Any) -> np.ndarray:
        given.append(image.size)
        return np.asarray(image, np.float32).mean((0, 1)) / 255

    made = Reference(image, face=recognise)
    assert given == [image.size]
    wanted = Reference(face=torch.from_numpy(recognise(image)))
    assert np.array_equal(referred(pipe, made), referred(pipe, wanted))
    apart(referred(pipe, made), run(pipe))


@pytest.mark.parametrize(
    ("projection", "options", "message"),
    [
        ("faceid", {"embeds": torch.zeros(12)}, 'face: got none, but the projection "faceid" reads one'),
        ("faceid", {"face": torch.zeros(9)}, r"face: got shape \(9,\), expected \(12,\): the embedding of one face"),
        ("faceid", {"face": face(), "embeds": face()}, 'embeds: got some, which have no effect with .* "faceid"'),
        ("faceid_plus", {"face": face(), "embeds": face()}, r"embeds: got features of shape \(12,\)"),
        ("basic", {"face": face()}, 'face: got one, which has no effect with the projection "basic"'),
    ],
)
def test_faces_that_do_not_fit(projection: str, options: dict[str, Any], message: str) -> None:
    adapter = reference_adapter(tiny_unet(), projection=projection, image_dim=IMAGE_DIM, face_dim=FACE_DIM)
    with pytest.raises(ValueError, match=message):
        adapter.collate([[Reference(**options)]])


def test_bad_faces() -> None:
    with pytest.raises(ValueError, match="face: got a function and no image to call it with"):
        Reference(embeds=torch.zeros(4), face=lambda image: face())
    with pytest.raises(ValueError, match=r"face: got torch\.int64 of shape"):
        Reference(face=torch.zeros(4, dtype=torch.long))


def test_a_lora_of_another_denoiser_is_refused(tmp_path: Path) -> None:
    groups = authors_checkpoint("faceid", tiny_unet(), lora=2)
    for key, shape, message in (
        ("1.to_q_lora.down.weight", (2, 5), r"attn2\.to_q: got a LoRA of shapes \(2, 5\) and .* for a layer of"),
        ("99.to_q_lora.up.weight", (5, 2), r"keys of the LoRA in ip_adapter: 0 are missing .* and 1 unexpected"),
    ):
        spoilt = {**groups, "ip_adapter": {**groups["ip_adapter"], key: torch.zeros(shape)}}
        save_file(flat(spoilt), tmp_path / "spoilt.safetensors")
        with pytest.raises(ValueError, match=f"{message}.*; pass a whole file"):
            convert_from_ip_adapter(tmp_path / "spoilt.safetensors", tmp_path / "adapter", tiny_unet())
        assert not (tmp_path / "adapter").exists()
    save_file(flat(groups), tmp_path / "whole.safetensors")
    convert_from_ip_adapter(tmp_path / "whole.safetensors", tmp_path / "adapter", tiny_unet())


def test_a_design_without_references_reads_no_face() -> None:
    adapter = reference_adapter(tiny_unet(), projection="faceid_plus", image_dim=IMAGE_DIM, face_dim=FACE_DIM)
    batch = adapter.collate([[reference("faceid_plus")], []])
    features = adapter.features(batch, {})
    assert features.image.shape == (2, 1, TOKENS, IMAGE_DIM) and features.face is not None
    assert torch.equal(features.face[0, 0], face()) and not features.face[1].any()
    dropped = features.without(torch.tensor([True, False]))
    assert dropped.face is not None and not dropped.face.any()
