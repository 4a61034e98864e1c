"""Four roles of one frozen denoiser: what is shared, what is trained, and what is on disk."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import loaded_views, tiny_unet
from tiny_views import REFERENCES, TARGET
from torch import Tensor

from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.attention_processors.views.adapter import SHARINGS, AlignedViews
from weftwork.attention_processors.views.batch import ViewsFeatures
from weftwork.attention_processors.views.roles import ROLES

CONTEXT = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1))
GIVEN = {"sample": torch.zeros(2, 4, 8, 8), "timestep": torch.tensor([400, 700]), "encoder_hidden_states": CONTEXT}


def small_unet() -> Any:
    """A denoiser that attends at its lower level alone, in down, middle and up blocks: LoRAs take most of the time."""
    blocks = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    return tiny_unet(**blocks, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def views_of(unet: Any, *, born: bool = False, **options: Any) -> AlignedViews:
    """Modules that do something, unlike at birth."""
    torch.manual_seed(4)
    views = AlignedViews.for_denoiser(unet, rank=2, channels=16, **options)
    with torch.no_grad():
        for name, parameter in views.named_parameters():
            if parameter.requires_grad and not born and ("lora_B" in name or "conv_out" in name or "warped_in" in name):
                parameter.normal_(std=0.05)
    return views


@cache
def shared_views(sharing: str = "instillation") -> AlignedViews:
    """Modules for tests that only read them."""
    return views_of(small_unet(), sharing=sharing)


def features_of(count: int = 2) -> ViewsFeatures:
    """Two designs with `count` references each."""
    return ViewsFeatures(
        images=noise(1, 2, count, 4, 8, 8),
        points=noise(2, 2, count, 4, 8, 8),
        geometry=torch.cat([noise(3, 2, count, 8, 64, 64), noise(4, 2, 1, 8, 64, 64)], 1),
        warped=noise(7, 2, 4, 8, 8),
        given=GIVEN,
    )


def step(views: AlignedViews, count: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """One step of two rows with `count` references each."""
    encoded = views(features_of(count))
    return views.denoise(noise(5 + seed, 2, 4, 8, 8), noise(6, 2, 4, 8, 8), torch.tensor([400, 700]), encoded)


def test_frozen_weights_exist_once_and_stay() -> None:
    unet = small_unet()
    before = state_sha256(unet)
    views = views_of(unet)
    own = {p.data_ptr() for p in unet.parameters()}
    for network in views.roles.values():
        frozen = [p for p in network.parameters() if not p.requires_grad]
        assert {p.data_ptr() for p in frozen} == own
    trained = {name for name, p in views.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name or name.startswith("correspondence.") for name in trained)
    image, geometry = step(views)
    (image.square().mean() + geometry.square().mean()).backward()
    torch.optim.SGD([p for p in views.parameters() if p.requires_grad], lr=0.1).step()
    assert state_sha256(unet) == before
    assert all(p.grad is None for p in unet.parameters())


def test_everything_that_is_trained_gets_a_gradient() -> None:
    views = views_of(small_unet())
    image, geometry = step(views)
    (image.square().mean() + geometry.square().mean()).backward()
    idle = {n for n, p in views.named_parameters() if p.requires_grad and (p.grad is None or bool((p.grad == 0).all()))}
    assert not idle, idle


@pytest.mark.parametrize(
    ("layers", "sharing"),
    [
        (r"down_blocks\..*attn1", "instillation"),
        (r"mid_block\..*attn1", "instillation"),
        (r"up_blocks\.0\..*attn1", "instillation"),
        (r"mid_block\..*attn1", "none"),
    ],
)
def test_what_nobody_reads_is_not_trained(layers: str, sharing: str) -> None:
    views = views_of(small_unet(), layers=layers, sharing=sharing)
    image, geometry = step(views)
    (image.square().mean() + geometry.square().mean()).backward()
    idle = [name for name, p in views.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, idle
    whole = shared_views(sharing).counts()
    assert all(views.counts()[role] == whole[role] for role in ROLES[:2])  # read in all layers
    assert views.counts().keys() == {*ROLES, "correspondence"}
    assert sum(views.counts().values()) == sum(p.numel() for p in views.parameters() if p.requires_grad)


def test_a_detached_geometry_teaches_the_image_nothing() -> None:
    for gradient, reached in (("live", True), ("detach", False)):
        views = views_of(small_unet(), gradient=gradient)
        step(views)[1].square().mean().backward()
        grads = [p.grad for p in views.roles["image"].parameters() if p.requires_grad]
        assert any(grad is not None and bool(grad.any()) for grad in grads) is reached
    for options in ({"gradient": "none"}, {"gradient": "detach", "sharing": "concatenated"}):
        with pytest.raises(ValueError, match=r"gradient: got .* expected 'live', or 'detach' for 'instillation'"):
            views_of(small_unet(), **options)


def test_every_design_has_its_camera_and_equally_many_views() -> None:
    views = shared_views()
    with pytest.raises(ValueError, match="cameras: got 0 for 1 designs"):
        views.collate([REFERENCES])
    with pytest.raises(ValueError, match=r"references: got \[1, 2\] per design"):
        views.collate([REFERENCES, REFERENCES[:1]], cameras=[TARGET.camera] * 2)
    batch = views.collate([REFERENCES, REFERENCES[::-1]], cameras=[TARGET.camera] * 2)
    assert batch.images.shape == batch.points.shape == (2, 2, 3, 64, 64) and batch.geometry.shape == (2, 3, 8, 64, 64)
    assert torch.equal(batch.images[0, 0], batch.images[1, 1])


def test_modules_trained_in_half_precision_open_on_the_whole_model(tmp_path: Path) -> None:
    views = AlignedViews.for_denoiser(small_unet().to(torch.bfloat16), rank=2)
    views.save_pretrained(tmp_path / "unknown")
    views.register_to_config(training={"base_sha256": state_sha256(small_unet())})
    views.save_pretrained(tmp_path / "known")
    other = small_unet()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    for name in ("unknown", "known"):
        loaded_views(tmp_path / name, small_unet())
        loaded_views(tmp_path / name, small_unet().to(torch.bfloat16))
    with pytest.raises(ValueError, match="was trained on another denoiser"):
        loaded_views(tmp_path / "known", other)


@torch.no_grad()
@pytest.mark.parametrize("sharing", SHARINGS)
def test_what_is_shared_reaches_the_geometry_and_never_the_image(sharing: str) -> None:
    views = shared_views(sharing)
    (image, geometry), (other_image, other) = step(views), step(views, seed=10)
    assert (image - other_image).abs().max() > 1e-3
    assert torch.equal(geometry, other) == (sharing in ("none", "distilled"))
    assert torch.equal(step(views)[1], geometry)


@torch.no_grad()
def test_any_number_of_references_is_read() -> None:
    views = shared_views()
    found = [step(views, count) for count in (1, 2, 3)]
    for role in range(2):
        assert (found[0][role] - found[1][role]).abs().max() > 1e-4
        assert (found[1][role] - found[2][role]).abs().max() > 1e-4


@torch.no_grad()
def test_at_birth_the_image_role_without_references_is_the_frozen_denoiser() -> None:
    unet = small_unet()
    views = views_of(unet, born=True)
    x, times = noise(5, 2, 4, 8, 8), torch.tensor([400, 700])
    plain = unet(x, times, CONTEXT).sample
    assert views.correspondence is not None
    features = views.correspondence(noise(4, 2, 8, 64, 64), noise(7, 2, 4, 8, 8))
    torch.testing.assert_close(views._run("image", {**GIVEN, "sample": x}, features), plain, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_folder_brings_the_modules_back(tmp_path: Path) -> None:
    unet = small_unet()
    views = views_of(unet)
    expected = step(views)
    views.save_pretrained(tmp_path / "views")
    assert {path.name for path in (tmp_path / "views").iterdir()} == {*ROLES, "correspondence", "config.json"}
    again = loaded_views(tmp_path / "views", unet)
    for one, other in zip(step(again), expected, strict=True):
        assert torch.equal(one, other)
    again.save_pretrained(tmp_path / "again")
    for path in (tmp_path / "views").rglob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "views")).read_bytes()


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    unet = small_unet()
    views_of(unet).save_pretrained(tmp_path)
    other = small_unet()
    with torch.no_grad():
        other.conv_in.weight.add_(1)
    with pytest.raises(ValueError, match="was trained on another denoiser"):
        loaded_views(tmp_path, other)
    with pytest.raises(ValueError, match="was trained on another denoiser"):
        views_of(unet).check_base(other)
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        loaded_views(tmp_path / "none", unet)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "StyleAdapter"}))
    with pytest.raises(ValueError, match="got a StyleAdapter, expected a AlignedViews"):
        loaded_views(tmp_path, unet)
    (tmp_path / "config.json").write_text(json.dumps(config))
    lora = tmp_path / "image" / "pytorch_lora_weights.safetensors"
    tensors = load_file(lora)
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}, lora)
    with pytest.raises(ValueError, match="holds NaN or infinite numbers"):
        loaded_views(tmp_path, unet)
    lora.unlink()
    with pytest.raises(ValueError, match="not found; the folder is incomplete"):
        loaded_views(tmp_path, unet)
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 9}))
    with pytest.raises(ValueError, match="got format version 9"):
        loaded_views(tmp_path, unet)
    with pytest.raises(ValueError, match="sharing: got 'all', expected one of instillation, concatenated, dist"):
        AlignedViews.for_denoiser(unet, sharing="all")


# -- strengths of references -------------------------------------------------------------------------------


def strengths_of(views: AlignedViews, **options: Any) -> Any:
    """Strengths of two designs with two references, the second one at full weight."""
    second = [REFERENCES[1], REFERENCES[0]]
    rows = [[replace(REFERENCES[0], **options), second[0]], second]
    return views.collate(rows, cameras=[TARGET.camera] * 2).strengths_at(views.readers)


def both(views: AlignedViews, strengths: Any, count: int = 2, at: tuple[int, int] = (0, 1)) -> tuple[Tensor, Tensor]:
    encoded = views(replace(features_of(count), strengths=strengths))
    return views.denoise(noise(5, 2, 4, 8, 8), noise(6, 2, 4, 8, 8), torch.tensor([400, 700]), encoded, at)


@pytest.mark.parametrize("sharing", SHARINGS)
@torch.no_grad()
def test_both_roles_read_references_at_their_strengths(sharing: str) -> None:
    """At weights of almost 1 as without them; the second design is as it was."""
    views = shared_views(sharing)
    almost, half = strengths_of(views, weight=1.0000001), strengths_of(views, weight=0.5)
    wanted = both(views, None)
    for got, one in zip(both(views, almost), wanted, strict=True):
        torch.testing.assert_close(got, one, atol=2e-5, rtol=0)
    for got, one in zip(both(views, half), wanted, strict=True):
        assert (got[0] - one[0]).abs().max() > 1e-4
        torch.testing.assert_close(got[1], one[1], atol=2e-5, rtol=0)


@torch.no_grad()
def test_schedules_and_regions_of_references() -> None:
    views = shared_views()
    none, late = strengths_of(views, weight=0.0), strengths_of(views, start=0.5)
    left = strengths_of(views, region=(0.0, 0.0, 0.5, 1.0))
    for at, wanted in (((0, 2), both(views, none)), ((1, 2), both(views, None))):
        for got, one in zip(both(views, late, at=at), wanted, strict=True):
            torch.testing.assert_close(got, one, atol=2e-5, rtol=0)
    placed, whole, without = (both(views, one)[0] for one in (left, None, none))
    assert (placed - whole).abs().max() > 1e-4 and (placed - without).abs().max() > 1e-4
    assert views.collate([REFERENCES], cameras=[TARGET.camera]).strengths_at(()) is None
    guided = strengths_of(views, cfg="cond_only")
    assert guided is not None and guided["null_weight"].tolist() == [[0.0, 1.0], [1.0, 1.0]]


def test_a_detached_image_role_gets_no_gradient_from_weighted_references() -> None:
    for gradient, reached in (("live", True), ("detach", False)):
        views = views_of(small_unet(), gradient=gradient)
        both(views, strengths_of(views, weight=0.5))[1].square().mean().backward()
        grads = [p.grad for p in views.roles["image"].parameters() if p.requires_grad]
        assert any(grad is not None and bool(grad.any()) for grad in grads) is reached
