"""A page in the browser to draw, describe and generate on, with the shipped models or with your own.

    weftwork demo
    weftwork demo --model my-stable-diffusion --adapter paired=outputs/mine --port 8000
    weftwork demo --training_run outputs/mine
    weftwork demo --host 0.0.0.0 --auth me:secret

It listens on this machine only unless --host says otherwise. Jobs run one at a time; those that wait see their place
in the queue, and requests are rejected while the queue is full. Needs gradio: pip install gradio.
"""

import argparse
import contextlib
import gc
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weftwork.attention_processors.core.method import Method, methods
from weftwork.datasets.readers.errors import UserError, check_counts, check_installed
from weftwork.pretrained import DEFAULT_MODEL
from weftwork.scripts.generate_options import adapter_paths
from weftwork.scripts.training_runs import TrainingRun

if TYPE_CHECKING:
    from weftwork.scripts.demo.guards import GuardedBlocks
    from weftwork.scripts.demo.pages import Tab
    from weftwork.scripts.demo.studio import ImageStudio

QUEUE: Final = 32
UPLOAD: Final = "8mb"
SESSIONS: Final = 200
"""Sessions in memory; gradio copies the settings of every widget for each, and a call from a program is one."""
CSS: Final = """
.state { min-height: 1.6em }
.generate { background: #c2410c } /* that of the theme is too light below white words */
.generate:hover { background: #9a3412 }
.info-text, .min_value, .max_value, .or { /* too light on white */
  color: color-mix(in srgb, var(--body-text-color) 68%, var(--background-fill-primary)) }
footer button { color: var(--body-text-color) !important }
.result img { width: 100%; object-fit: contain }
/* the viewer has these */
#results .files, #results .form:has(.seed), #results .block.maps, #results.viewed > .result { display: none }
.form:has(#count), #count { border: 0; background: none }
#count { display: flex; align-items: center; gap: 14px; padding: 0 }
#count > span { margin: 0 }
#count .wrap { flex: 1; flex-wrap: nowrap; gap: 6px }
#count label { position: relative; flex: 1; justify-content: center; padding: 6px }
#count input { position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0 }
#count label.selected { background: var(--body-text-color); color: var(--background-fill-primary) }
#count label:focus-within { outline: 2px solid var(--color-accent); outline-offset: 1px }
.gallery-container .grid-wrap.fixed-height { min-height: 0 } /* of `height="auto"` too otherwise */
#training-images .grid-wrap { max-height: none }
#training-images .thumbnail-item { aspect-ratio: auto } /* a sheet is no square */
#training-images img { height: auto; object-fit: contain }
#curves .images { display: flex; flex-wrap: wrap; gap: 8px }
#curves img { width: 24rem }
@media (max-width: 700px) { /* the buttons stay in reach */
  .run { position: fixed; inset: auto 0 0 0; z-index: 50; padding: 10px 16px; flex-wrap: nowrap;
         background: var(--background-fill-primary); border-top: 1px solid var(--border-color-primary) }
  .run button { min-width: 0 }
  .tabitem { padding-bottom: 80px } /* rules act inside of `.gradio-container .contain` only */
  #styles-gallery .grid-container { grid: auto-flow / repeat(3, 1fr) }
  #design > .html-container, #viewer > .html-container { padding: 0 }
}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork demo`."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a shipped model or a folder (default: %(default)s)")
    own = "an adapter or ControlNet by name, before the shipped"
    parser.add_argument("--adapter", action="append", default=[], metavar="NAME=PATH", help=own)
    parser.add_argument("--image_encoder", help="CLIP's folder or Hub id, for references")
    for method in with_pipelines():
        text = f"folders for {method.name} (default: shipped)"
        parser.add_argument(f"--{method.option}", metavar="BACKBONE=MODULES", help=text)
    parser.add_argument(
        "--training_run", type=Path, metavar="FOLDER", help="show the progress of the run with this --output_dir"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, help="the port to listen on (default: the first free one from 7860 on)")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for these before anything is shown")
    parser.add_argument("--queue", type=int, default=QUEUE, help="calls that may wait (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where the model runs, for example cuda (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Opens the page and serves it until interrupted.

    Raises:
        ValueError: gradio is not installed.
        ValueError: a wrong option, or a model or adapter that cannot be opened.
    """
    check_installed("demo", "gradio")
    auth = None if arguments.auth is None else _account(arguments.auth)
    check_counts(queue=arguments.queue)
    if arguments.port is not None and not 0 < arguments.port < 1 << 16:
        raise UserError(f"port: got {arguments.port}, expected a number from 1 to 65535; change it")
    given = {one: text for one in with_pipelines() if (text := getattr(arguments, one.option)) is not None}
    folders = {one.name: _folders(one.option, text) for one, text in given.items()}
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    with tempfile.TemporaryDirectory(prefix="weftwork-gradio-") as uploads:
        os.environ.setdefault("GRADIO_TEMP_DIR", uploads)  # before gradio is imported
        _opened(arguments, folders).launch(
            server_name=arguments.host,
            server_port=arguments.port,
            auth=auth,
            max_file_size=UPLOAD,
            state_session_capacity=SESSIONS,
            show_error=True,
            share=False,
            ssr_mode=False,
            footer_links=["api"],
            css=CSS,
        )


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Leaves what is made inside out of garbage collections, which would slow the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@_uncollected()
def _opened(arguments: argparse.Namespace, folders: Mapping[str, tuple[str, str]]) -> "GuardedBlocks":
    """Imports the libraries, opens all models, and returns the demo."""
    from weftwork.scripts.demo.guards import restrict_image_formats
    from weftwork.scripts.demo.pages import Context, open_pages

    restrict_image_formats()
    adapters = adapter_paths(arguments.adapter)
    of_controlnets = [name for name in adapters if (one := methods().get(name)) and not one.adapters]
    controlnets = {name: (arguments.model, str(adapters.pop(name))) for name in of_controlnets}
    studio = open_studio(arguments.model, adapters, arguments.device, arguments.image_encoder)
    pages: list[Tab] = [*open_pages(Context(studio, {**folders, **controlnets}))]
    if arguments.training_run is not None:
        check_installed("training_run", "matplotlib")
        from weftwork.scripts.demo.training import TrainingPage

        pages.append(TrainingPage(TrainingRun(arguments.training_run)))
    return demo(studio, pages, arguments.queue)


def _account(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not colon:
        raise UserError("auth: got no colon, expected USER:PASSWORD; write both")
    return user, password


def with_pipelines() -> list[Method]:
    """Returns the methods with a pipeline of their own."""
    return [one for one in methods().values() if one.opens_itself]


def open_studio(
    model: str, adapters: Mapping[str, Path], device: str, image_encoder: str | None = None
) -> "ImageStudio":
    """Opens the model with the named adapters and those without weights, a shipped one with its shipped adapters.

    Raises:
        ValueError: something that cannot be opened.
    """
    from weftwork.pipelines.core.hardware import device_named
    from weftwork.pipelines.designs.design import Design
    from weftwork.pipelines.designs.run import attach_untrained, open_pipeline, untrained
    from weftwork.pretrained import adapters_of
    from weftwork.scripts.demo.studio import ImageStudio

    pipe = open_pipeline(model, adapters, Design("", conditions=dict.fromkeys(adapters_of(model), ())), image_encoder)
    for name in untrained():
        with contextlib.suppress(UserError):  # not for this backbone
            attach_untrained(pipe, name)
    return ImageStudio(pipe.to(device_named(device)), model)


def _folders(option: str, text: str) -> tuple[str, str]:
    """Returns the backbone and the modules of `BACKBONE=MODULES`.

    Raises:
        ValueError: no = between them.
    """
    backbone, found, modules = text.partition("=")
    if not (backbone and found and modules):
        raise UserError(f"{option}: got {text!r}, expected BACKBONE=MODULES; name both folders")
    return backbone, modules


def demo(studio: "ImageStudio", pages: "Sequence[Tab]", waiting: int = QUEUE) -> "GuardedBlocks":
    """Returns the demo with a tab per page.

    Args:
        waiting: jobs that may wait.
    """
    import gradio as gr

    from weftwork.scripts.demo.guards import GuardedBlocks
    from weftwork.scripts.demo.jobs import KEPT_SECONDS

    with GuardedBlocks(title="weftwork", delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        gr.Markdown(f"# weftwork\nOn **{Path(studio.model).name}**, on {studio.pipe.device}; one image at a time.")
        with gr.Tabs():
            for page in pages:
                with gr.Tab(page.title):
                    page.build()

        def ended(request: gr.Request) -> None:
            studio.queue.cancel_session(request.session_hash)

        blocks.unload(ended)
        _add_hidden(studio)
    blocks.queue(max_size=waiting, default_concurrency_limit=4)
    return blocks


def _add_hidden(studio: "ImageStudio") -> None:
    """Adds the call for programs."""
    import gradio as gr

    from weftwork.scripts.demo.guards import errors_shown
    from weftwork.scripts.demo.studio import ImageResult
    from weftwork.scripts.demo.widgets import DEVICE

    def generate(design: dict[str, object]) -> tuple[str, dict[str, object]]:
        with errors_shown():
            *_, result = studio.generate(studio.design(design))
        assert isinstance(result, ImageResult)
        return str(result.path), {**design, "seed": result.seed}

    design, image, used = gr.JSON(visible=False), gr.Image(visible=False, type="filepath"), gr.JSON(visible=False)
    gr.Button(visible=False).click(
        generate, design, [image, used], api_name="generate", concurrency_id=DEVICE, concurrency_limit=1
    )
