"""Fixtures of the demo's tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_browser import CHROMIUM, opened
from diffusers import UNet2DConditionModel
from PIL import Image
from tiny import seed, tiny_pipe
from tiny_audio import prompt_embeds, spatial_adapter, tiny_audio_pipe
from tiny_baselines import tiny_vision_model
from tiny_runs import write_run
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.reference.adapter import ReferenceAdapter
from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
from weftwork.pretrained import shipped
from weftwork.scripts.demo.jobs import JobQueue
from weftwork.scripts.training_runs import TrainingRun


class Wordless(VideoToAudioPipeline):
    """Without a text encoder."""

    def __call__(self, conditions: Any, prompt: str, **options: Any) -> Any:
        return super().__call__(conditions, prompt_embeds=prompt_embeds(), **options)


@pytest.fixture(scope="package", autouse=True)
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps folders of gradio and its client, which are never removed, among those that pytest removes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
        yield


@pytest.fixture(scope="module")
def queue() -> Iterator[JobQueue]:
    queue = JobQueue()
    yield queue
    queue.close()


@pytest.fixture(scope="module")
def views(queue: JobQueue) -> Any:
    """A `ViewStudio`, whose module pytest can import only where gradio is installed."""
    studio = pytest.importorskip("weftwork.scripts.demo.views").ViewStudio
    torch.manual_seed(0)
    pipe: Any = tiny_pipe(AlignedViewsPipeline)
    pipe.attach(views=AlignedViews.for_denoiser(pipe.unet, rank=2))
    with torch.no_grad():
        for parameter in pipe.views.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return studio(pipe, "tiny", queue)


@pytest.fixture(scope="module")
def sounds(queue: JobQueue) -> Any:
    """An `AudioStudio`."""
    studio = pytest.importorskip("weftwork.scripts.demo.audio").AudioStudio
    pipe = tiny_audio_pipe(Wordless)
    pipe.attach(spatial=spatial_adapter(pipe.transformer))
    return studio(pipe, "tiny", queue)


@pytest.fixture(scope="module")
def image_encoder() -> ImageEncoder:
    sizes: dict[str, Any] = dict(hidden_size=16, intermediate_size=37, projection_dim=16, patch_size=16, image_size=32)
    config = CLIPVisionConfig(**sizes, num_hidden_layers=1, num_attention_heads=2)
    return ImageEncoder(CLIPVisionModelWithProjection(config).eval())


@pytest.fixture
def no_shipped_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the shipped models, so that only methods on the given pipeline have pages."""
    monkeypatch.setattr("weftwork.scripts.demo.pages.available", list)


@pytest.fixture
def image_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores what the demo restricts of Pillow in its process."""
    Image.init()
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.fixture(scope="session")
def training_run(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    return write_run(tmp_path_factory.mktemp("training") / "<mine>")


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory, training_run: TrainingRun) -> Iterator[str]:
    """The address of `weftwork demo` on the outfits' model, with untrained references and a training run, and a queue
    of two.
    """
    folder = tmp_path_factory.mktemp("references")
    seed(0)
    tiny_vision_model().save_pretrained(folder / "encoder")
    unet = UNet2DConditionModel.from_pretrained(shipped("tiny-diffusion"), subfolder="unet")
    ReferenceAdapter.for_denoiser(unet, image_dim=128, token_dim=128, image_size=128).save_pretrained(
        folder / "adapter"
    )
    references = ("--adapter", f"reference={folder / 'adapter'}", "--image_encoder", str(folder / "encoder"))
    options = ("--model", "tiny-diffusion", *references, "--training_run", str(training_run.folder))
    with served(tmp_path_factory.mktemp("demo"), *options) as address:
        yield address


@pytest.fixture(scope="session")
def default_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `weftwork demo` without options."""
    with served(tmp_path_factory.mktemp("demo")) as address:
        yield address


@contextmanager
def served(folder: Path, *options: str) -> Iterator[str]:
    load = pytest.importorskip("weftwork.scripts.maintenance.check_demo_load", reason="not in the wheel")
    process, address = load.serve(2, folder, *options)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as shown:
        yield shown
