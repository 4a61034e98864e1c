"""Conditions and training on a CUDA device agree with the CPU; skipped without one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline
from tiny import Method, paired_adapter, tiny_pipe
from tiny_audio import DEPTH, PROMPT, TRACK, prompt_embeds, spatial_adapter, tiny_audio_pipe
from tiny_training import Records, config, losses
from tiny_views import REFERENCES, TARGET

from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.attention_processors.views.adapter import SHARINGS, AlignedViews
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
from weftwork.training.core.checkpoints import checkpoints
from weftwork.training.core.loop import train
from weftwork.training.data.views import PreparedViews, RoomImages, cached_room_latents
from weftwork.training.tasks.paired import PairedConfig, PairedTask
from weftwork.training.tasks.views import AlignedViewsTask, ViewsConfig

SIZE = 64
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
NEAR = 5e-3
"""Tolerance between devices; conditions change images far more."""


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables TF32 convolutions and resets device and precision left by other tests."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def generated(pipe: Any, **options: Any) -> np.ndarray[Any, Any]:
    settings: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "guidance_scale": 3.0}
    settings["generator"] = torch.Generator().manual_seed(0)
    return pipe("a person", **{**settings, **options}).images.float().cpu().numpy()


def test_conditions_do_the_same_there(method: Method) -> None:
    def attached() -> Any:
        pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
        pipe.attach(it=method.adapter(pipe.unet))
        return pipe

    stock = generated(tiny_pipe(StableDiffusionPipeline).to("cuda"))
    here, there = attached(), attached().to("cuda")
    conditions = {"it": method.conditions()}
    assert np.array_equal(generated(there), stock)
    assert np.array_equal(generated(there, conditions={"it": method.conditions(weight=0.0)}), stock)
    changed = generated(there, conditions=conditions)
    assert np.abs(changed - stock).max() > 4 * NEAR
    np.testing.assert_allclose(changed, generated(here, conditions=conditions), atol=NEAR)
    there.detach()
    assert np.array_equal(generated(there), stock)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_acts(dtype: torch.dtype, method: Method) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(it=method.adapter(pipe.unet))
    pipe.to("cuda", dtype)
    changed = generated(pipe, conditions={"it": method.conditions()})
    assert np.isfinite(changed).all() and np.abs(changed - generated(pipe)).max() > 1e-3


@pytest.mark.parametrize("precision", ["no", "fp16", "bf16"])
def test_training_goes_on_where_it_was(precision: str, tmp_path: Path) -> None:
    """The state of the fp16 scaler is restored, too."""

    def run(folder: Path, **options: Any) -> Path:
        pipe = tiny_pipe(ConditionedStableDiffusionPipeline).to("cuda")
        task = PairedTask(paired_adapter(pipe.unet).to("cuda"), pipe, PairedConfig())
        settings = config(folder, use_cpu=False, mixed_precision=precision, max_train_steps=8, **options)
        before = state_sha256(pipe.unet)
        result = train(task, Records(task.module), settings)
        assert state_sha256(pipe.unet) == before
        return result

    run(tmp_path / "straight")
    run(tmp_path / "broken", checkpointing_steps=4)
    checkpoints(tmp_path / "broken")[-1].rename(tmp_path / "later")
    run(tmp_path / "broken", resume_from_checkpoint="latest")
    straight, broken = (losses(tmp_path / name) for name in ("straight", "broken"))
    np.testing.assert_allclose(list(broken.values()), list(straight.values()), rtol=1e-3)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("rooms")
    pipe: Any = tiny_pipe(AlignedViewsPipeline)
    pipe.save_pretrained(folder)
    images = RoomImages(folder / "cache", "train", 4, SIZE)
    return PreparedViews(images, cached_room_latents(folder / "cache", pipe.vae.to("cuda"), images))


@pytest.mark.parametrize("sharing", SHARINGS)
def test_views_are_trained_and_drawn(sharing: str, rooms: Any, tmp_path: Path) -> None:
    pipe: Any = tiny_pipe(AlignedViewsPipeline).to("cuda")
    task = AlignedViewsTask(AlignedViews.for_denoiser(pipe.unet, rank=2, sharing=sharing), pipe, ViewsConfig())
    folder = train(task, rooms, config(tmp_path, use_cpu=False, max_train_steps=3))
    drawn = []
    for device in ("cuda", "cpu"):
        pipe.to(device)
        pipe.load_adapter(folder, "views")
        options: dict[str, Any] = {"num_inference_steps": 2, "output_type": "np"}
        out = pipe(REFERENCES, TARGET.camera, generator=torch.Generator().manual_seed(0), **options)
        drawn.append(out)
    np.testing.assert_allclose(drawn[0].images, drawn[1].images, atol=NEAR)
    np.testing.assert_allclose(drawn[0].depth, drawn[1].depth, rtol=0.01)


def test_audio_is_the_same_there() -> None:
    pipe = tiny_audio_pipe(VideoToAudioPipeline)
    pipe.attach(spatial=spatial_adapter(pipe.transformer))
    heard = []
    for device in ("cuda", "cpu"):
        pipe.to(device)
        options: dict[str, Any] = {"seconds": 0.512, "num_inference_steps": 3}
        options["prompt_embeds"] = prompt_embeds().to(device)
        heard.append(pipe([TRACK, DEPTH, PROMPT], generator=torch.Generator().manual_seed(0), **options).audio)
    np.testing.assert_allclose(heard[0], heard[1], atol=NEAR)
