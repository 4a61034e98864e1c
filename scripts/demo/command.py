"""A page in the browser to draw, describe and generate on, with the shipped models or with your own.

    weftwork demo
    weftwork demo --model my-stable-diffusion --adapter paired=outputs/mine --port 8000
    weftwork demo --host 0.0.0.0 --auth me:secret

It listens on this machine only unless told otherwise. Pictures are made one at a time; who waits sees a place in the
line, and who finds it full is told so. Needs gradio: pip install gradio.
"""

import argparse
import os
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from weftwork.scripts.generate import DEFAULT_MODEL, adapter_paths

QUEUE: Final = 32
UPLOAD: Final = "8mb"
UPLOAD_PIXELS: Final = 16_000_000
SESSIONS: Final = 200
"""Kept in memory, the latest used; gradio holds a copy of every widget's settings for each, and a call is one."""
SHIPPED: Final = {"paired": "paired", "style": "style", "reference": "style-reference"}
"""By the name of an adapter, the shipped model."""
HEAD: Final = """<script>
document.addEventListener("change", async (event) => {
  const input = event.target;
  if (input.type !== "file" || !input.closest("[id^=sketch-]")) return;
  for (const file of [...input.files])
    if (!(await createImageBitmap(file).catch(() => null))) document.querySelector("#unreadable")?.click();
}, true);
</script>"""
"""Canvases leave out what a browser cannot read, and say nothing."""
CSS: Final = ".state { min-height: 1.6em } .picture img { width: 100%; object-fit: contain }"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `weftwork demo`."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a shipped model or a folder (default: %(default)s)")
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="NAME=PATH", help="an adapter by name, instead of the shipped"
    )
    parser.add_argument("--views", metavar="BACKBONE=MODULES", help="folders for the page of views (default: shipped)")
    parser.add_argument(
        "--sounds", metavar="BACKBONE=MODULES", help="folders for the page of sounds (default: shipped)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, help="the port to listen on (default: the first free one from 7860 on)")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for these before anything is shown")
    parser.add_argument("--queue", type=int, default=QUEUE, help="calls that may wait (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where the model runs, for example cuda (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Open the page and serve it until interrupted.

    Raises:
        RuntimeError: gradio is not there.
        ValueError: a wrong option, or a model or adapter that cannot be opened.
    """
    if find_spec("gradio") is None:
        raise RuntimeError("demo: got no gradio; install it with pip install gradio")
    if arguments.auth is not None and ":" not in arguments.auth:
        raise ValueError("auth: got no colon, expected USER:PASSWORD; write both")
    if arguments.queue < 1:
        raise ValueError(f"queue: got {arguments.queue}, expected at least 1")
    from weftwork.scripts.demo.jobs import Line
    from weftwork.scripts.demo.studio import Studio

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_TEMP_DIR", tempfile.mkdtemp(prefix="weftwork-gradio-"))
    restrict_pictures()
    line = Line()
    studio = Studio(open_demo_pipeline(arguments), arguments.model, line)
    page(studio, arguments.queue, **open_studios(arguments, line)).launch(
        server_name=arguments.host,
        server_port=arguments.port,
        auth=tuple(arguments.auth.split(":", 1)) if arguments.auth else None,
        max_file_size=UPLOAD,
        state_session_capacity=SESSIONS,
        show_error=True,
        share=False,
        ssr_mode=False,
        footer_links=["api"],
        css=CSS,
        head=HEAD,
    )


def restrict_pictures() -> None:
    """Let this process decode the formats that weftwork reads, at a limited size, and no other."""
    from PIL import Image

    from weftwork.datasets.readers.images import FORMATS

    Image.init()
    Image.ID[:] = [name for name in Image.ID if name in FORMATS]
    Image.MAX_IMAGE_PIXELS = UPLOAD_PIXELS // 2  # twice as many are an error, this many a warning
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def without_addresses(block: Any) -> None:
    """Let a component take files that were uploaded, and fetch none from an address; callers may name either."""
    from gradio_client.utils import is_http_url_like

    from weftwork.scripts.demo.parts import complaint

    keep = block.async_move_resource_to_block_cache

    async def kept(path: Any) -> Any:
        if isinstance(path, str) and is_http_url_like(path):
            raise complaint("Upload: got an address, expected a file; save it, and bring the file")
        return await keep(path)

    block.async_move_resource_to_block_cache = kept


def open_demo_pipeline(arguments: argparse.Namespace) -> Any:
    """The model with the adapters that are named, and on the default model with the shipped ones.

    Raises:
        ValueError: something that cannot be opened.
    """
    from weftwork.attention_processors.encoders import ImageEncoder
    from weftwork.pipelines.designs.design import Design
    from weftwork.pipelines.designs.run import open_pipeline
    from weftwork.pretrained import available, shipped

    given = adapter_paths(arguments.adapter)
    pipe = open_pipeline(arguments.model, given, Design(""))
    if arguments.model == DEFAULT_MODEL:
        for name, folder in SHIPPED.items():
            if name not in given and folder in available():
                pipe.load_adapter(shipped(folder), name)
        if "reference" in (pipe.adapters or ()) and "creature-encoder" in available():
            pipe.set_encoders(image=ImageEncoder.from_pretrained(str(shipped("creature-encoder"))))
    return pipe.to(arguments.device)


def open_studios(arguments: argparse.Namespace, line: Any) -> dict[str, Any]:
    """Views and sounds for `page`: the models that are named, or the shipped ones where these are.

    Raises:
        ValueError: modules that cannot be opened.
    """
    from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
    from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
    from weftwork.scripts.demo.audio import SoundStudio
    from weftwork.scripts.demo.views import ViewStudio

    kinds: dict[str, tuple[str, Any, Any, Any]] = {
        "views": ("aligned-views", ViewStudio, AlignedViewsPipeline, AlignedViewsPipeline.load_views),
        "sounds": ("spatial-audio", SoundStudio, VideoToAudioPipeline, VideoToAudioPipeline.load_spatial),
    }
    studios = {}
    for option, (method, studio, pipeline, load) in kinds.items():
        folders = _folders(getattr(arguments, option), method, option)
        if folders is not None:
            pipe = pipeline.from_pretrained(folders[0], use_safetensors=True).to(arguments.device)
            load(pipe, folders[1])
            studios[option] = studio(pipe, Path(folders[0]).name, line)
    return studios


def _folders(given: str | None, method: str, option: str) -> tuple[str, str] | None:
    """Backbone and modules, of `BACKBONE=MODULES`, or the shipped ones of a method where these are.

    Raises:
        ValueError: no = between them.
    """
    from weftwork.attention_processors.core.method import methods
    from weftwork.pretrained import available, shipped

    if given is not None:
        base, found, modules = given.partition("=")
        if not (base and found and modules):
            raise ValueError(f"{option}: got {given!r}, expected BACKBONE=MODULES; name both folders")
        return base, modules
    names = methods()[method].backbone, method
    return (str(shipped(names[0])), str(shipped(names[1]))) if set(names) <= set(available()) else None


def _unseen(studio: Any) -> None:
    """What is not on the page: the call for programs, and where its script tells of sketches that cannot be read."""
    import gradio as gr

    from weftwork.scripts.demo.parts import DEVICE, HEARD, complaint, told
    from weftwork.scripts.demo.studio import Made

    def unreadable() -> None:
        raise complaint("Sketch: got a file that is no picture; bring a PNG, JPEG or WebP")

    def generate(design: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        with told():
            *_, made = studio.draw(studio.design(design))
        assert isinstance(made, Made)
        return str(made.path), {**design, "seed": made.seed}

    gr.Button(visible="hidden", elem_id="unreadable").click(unreadable, None, None, **HEARD)
    asked, picture, used = gr.JSON(visible=False), gr.Image(visible=False, type="filepath"), gr.JSON(visible=False)
    gr.Button(visible=False).click(
        generate, asked, [picture, used], api_name="generate", concurrency_id=DEVICE, concurrency_limit=1
    )


def page(studio: Any, waiting: int = QUEUE, *, views: Any = None, sounds: Any = None) -> Any:
    """The page with a tab per method that there is a model of.

    Args:
        views, sounds: a `ViewStudio` and a `SoundStudio`, or None.
    """
    import gradio as gr

    from weftwork.scripts.demo.audio import sound_page
    from weftwork.scripts.demo.jobs import KEPT_SECONDS
    from weftwork.scripts.demo.outfit import outfit_page
    from weftwork.scripts.demo.style import reference_page, style_page
    from weftwork.scripts.demo.views import view_page

    pages = {
        "paired": ("Outfit", outfit_page),
        "style": ("Style", style_page),
        "reference": ("Reference", reference_page),
    }
    with gr.Blocks(title="weftwork", delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        gr.Markdown(f"# weftwork\nOn **{Path(studio.model).name}**, on {studio.device}; one picture at a time.")
        with gr.Tabs():
            for name, (title, build) in pages.items():
                if name in (studio.pipe.adapters or ()):
                    with gr.Tab(title, id=name):
                        build(studio)
            for other, title, build in ((views, "View", view_page), (sounds, "Sound", sound_page)):
                if other is not None:
                    with gr.Tab(title, id=title.lower()):
                        build(other)

        def left(request: gr.Request) -> None:
            studio.line.forget(request.session_hash)

        blocks.unload(left)
        _unseen(studio)
    for block in blocks.blocks.values():
        without_addresses(block)
    return blocks.queue(max_size=waiting, default_concurrency_limit=4)
