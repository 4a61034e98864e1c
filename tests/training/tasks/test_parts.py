"""Training of a ControlNet on both views: records, the loss, what it changes, and the command."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from tiny import tiny_pipe, tiny_unet
from tiny_training import losses_of

from weftwork.attention_processors.parts.cross_gates import CrossGate, CrossGatedControlNetModel, load_controlnet
from weftwork.datasets.readers.json_object import read_json
from weftwork.datasets.synthetic.hands import sample
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.core.opening import open_controlnet
from weftwork.scripts.cli import main
from weftwork.training.data.image_cache import cached_latents
from weftwork.training.data.parts import HandViews, PartRecords
from weftwork.training.tasks.controlnet import check_unet, new_controlnet
from weftwork.training.tasks.parts import PartTask
from weftwork.training.trainers.parts import PartConfig


@pytest.fixture
def hands(tmp_path: Path) -> PartRecords:
    images = HandViews(tmp_path, "train", 3, 64)
    return PartRecords(images, cached_latents(tmp_path, tiny_pipe(ConditionedStableDiffusionPipeline).vae, images))


def task(local_weight: float, **options: Any) -> PartTask:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    return PartTask(new_controlnet(pipe, 0.0), pipe, PartConfig(local_weight=local_weight), **options)


def test_records_have_both_views_of_an_image(hands: PartRecords) -> None:
    assert len(hands) == 3
    one, image = hands[1], sample("train", 1)
    assert one.captions == (image.caption,) and one.latents.shape == one.local_latents.shape == (4, 8, 8)
    whole, part = ((control > 0.05).float().mean() for control in (one.control, one.local_control))
    assert 0 < whole < 0.4 * part
    assert not torch.equal(one.latents, one.local_latents)


def test_the_loss_is_the_mean_of_both_views_with_the_same_noise(hands: PartRecords) -> None:
    def loss(share: float, swap: bool = False) -> float:
        one = task(share)
        torch.nn.init.normal_(one.module.controlnet_mid_block.weight, std=0.1)
        batch = one.collate([hands[0], hands[2]])
        if swap:
            batch.latents.copy_(batch.local_latents)
            batch.control.copy_(batch.local_control)
        return one.loss(batch, torch.Generator().manual_seed(4), 0).item()

    torch.manual_seed(0)
    both, whole, local = (loss(share) for share in (0.5, 0.0, 1.0))
    assert both == pytest.approx((whole + local) / 2, rel=1e-5) and abs(whole - local) > 1e-4
    assert loss(0.0, swap=True) == pytest.approx(local, rel=1e-5)


def test_a_new_controlnet_changes_nothing_and_alone_gets_gradients(hands: PartRecords) -> None:
    one = task(0.5)
    batch = one.collate([hands[0], hands[1]])
    plain = one.denoising_loss(one.denoiser(), batch.latents, batch.captions, torch.Generator().manual_seed(0))
    own = one.denoising_loss(
        one.controlled(batch.control), batch.latents, batch.captions, torch.Generator().manual_seed(0)
    )
    assert torch.equal(plain, own)
    one.loss(batch, torch.Generator().manual_seed(0), 0).backward()
    assert one.module.controlnet_mid_block.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in one.pipe.unet.parameters())
    embedding = one.module.controlnet_cond_embedding
    assert not embedding(torch.zeros(1, 3, 64, 64)).any() and embedding(batch.control).std() > 0.01


def test_the_loss_falls(hands: PartRecords) -> None:
    one = task(0.5)
    losses = losses_of(one, one.collate([hands[0], hands[1]]), 1e-3, 10)
    assert losses[-1] < losses[0]


def test_the_command_trains_a_stock_controlnet_and_continues_from_it(tmp_path: Path) -> None:
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path / "model")
    options = {"pretrained_model_name_or_path": tmp_path / "model", "cache_dir": tmp_path / "cache", "samples": 4}
    options |= {"max_train_steps": 2, "train_batch_size": 2, "validation_steps": 2, "lr_warmup_steps": 0}
    given = ["train", "parts", "--synthetic=hands", "--use_cpu", "--report_to=none"]
    given += [f"--{name}={value}" for name, value in options.items()]
    assert main([*given, f"--output_dir={tmp_path / 'run'}"]) == 0
    final = tmp_path / "run/final"
    trained = ControlNetModel.from_pretrained(final, use_safetensors=True)
    assert trained.controlnet_mid_block.weight.abs().max() > 0
    assert list((tmp_path / "run/validation").glob("000002*.png")) and (final / "README.md").is_file()
    again = [*given, f"--output_dir={tmp_path / 'again'}", f"--init_from={final}", "--local_weight=0"]
    assert main(again) == 0
    continued = ControlNetModel.from_pretrained(tmp_path / "again/final", use_safetensors=True)
    assert not torch.equal(continued.controlnet_mid_block.weight, trained.controlnet_mid_block.weight)
    first, second = (read_json(tmp_path / run / "final/config.json")["training"] for run in ("run", "again"))
    assert second["after"] == first and first["steps"] == 2 and "after" not in first
    assert main([*given, f"--output_dir={tmp_path / 'gated'}", f"--init_from={final}", "--cross_gates"]) == 0
    gated = load_controlnet(tmp_path / "gated/final")
    assert isinstance(gated, CrossGatedControlNetModel)
    assert all(one.feature_out.weight.any() for one in gated.modules() if isinstance(one, CrossGate))


def test_other_denoisers_and_weights_are_refused() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    sizes = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 56}
    pipe.unet = tiny_unet(addition_embed_type="text_time", **sizes)
    with pytest.raises(ValueError, match="got a UNet2DConditionModel of Stable Diffusion XL"):
        check_unet(pipe)
    with pytest.raises(ValueError, match="local_weight: got 2"):
        PartConfig(local_weight=2)


def test_controlnets_of_another_backbone_are_refused(tmp_path: Path) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    new_controlnet(pipe, 0.0).save_pretrained(tmp_path / "own")
    assert open_controlnet(tmp_path / "own", pipe).config["in_channels"] == 4
    pipe.unet = tiny_unet(block_out_channels=(16, 32))
    with pytest.raises(ValueError, match=r"block_out_channels .32, 64., expected .16, 32. as in the U-Net"):
        open_controlnet(tmp_path / "own", pipe)
    with pytest.raises(ValueError, match=r"controlnet: got .*nothing.*copy or save it again"):
        open_controlnet(tmp_path / "nothing", pipe)
