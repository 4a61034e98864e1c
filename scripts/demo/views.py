"""The demo's page for new views: a room or an image with depth, a camera around it, the image it sees and points."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import gradio as gr
import numpy as np
import torch
from gradio.components import Component
from PIL import Image

from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.point_maps import depth_image
from weftwork.attention_processors.views.warping import WarpedView
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.sidecar_files import read_array
from weftwork.datasets.synthetic.rooms import REFERENCES, sample
from weftwork.pipelines.views.known import reliable
from weftwork.pipelines.views.turning import pivot_of
from weftwork.scripts.demo.jobs import Report, Step, User
from weftwork.scripts.demo.pages import PipelinePage
from weftwork.scripts.demo.points import points_shown, points_viewer
from weftwork.scripts.demo.studio import Studio, seed_or_random
from weftwork.scripts.demo.widgets import QUIET, RunButtons, Values, downloads, image_upload, run_settings, state_line

ROOMS: Final = 6
"""Number of rooms of the test split."""
SHOWN: Final = 512
"""Side in pixels to which small images are enlarged."""


@dataclass(frozen=True)
class ViewRequest:
    """A request for the view from a camera.

    Args:
        keep: whether the view keeps what the references show reliably.
    """

    references: tuple[ReferenceView, ...]
    camera: Camera
    keep: bool = True


@dataclass(frozen=True)
class ViewResult:
    """A view with its geometry.

    Args:
        known: what the references show reliably of it.
        cloud, shown: its points as a file, and for the page's viewer (`points_shown`).
    """

    image: Image.Image
    depth: Image.Image
    known: Image.Image
    path: Path
    cloud: Path
    shown: str
    seed: int


class ViewStudio(Studio):
    """An `AlignedViewsPipeline`."""

    def generate(
        self, request: ViewRequest, seed: float | None, steps: float, user: User | None = None
    ) -> Iterator[Step | ViewResult]:
        """Yields steps, and the view at the end; a seed of None is drawn.

        Raises:
            Cancelled: it was cancelled.
            ValueError: as the pipeline's call.
        """
        seed, steps = seed_or_random(seed), int(steps)

        def job(report: Report[ViewResult]) -> ViewResult:
            out = self.pipe(
                request.references,
                request.camera,
                num_inference_steps=steps,
                blend_latents=request.keep,
                blend_pixels=request.keep,
                generator=torch.Generator().manual_seed(seed),
                callback_on_step_end=lambda _pipe, step, _timestep, _tensors: report(Step(step + 1, steps)),
            )
            path = self.queue.new_file("view.png")
            out.images[0].save(path)
            cloud = out.save_point_cloud(path.with_name("view.ply"))
            shown = points_shown(out.points, out.pixels, request.camera)
            known = _known_image(request.references, out.warped)
            return ViewResult(out.images[0], depth_image(out.depth), known, path, cloud, shown, seed)

        yield from self.queue.run(job, user)


class ViewPage(PipelinePage[ViewStudio]):
    """A camera that orbits a room or an uploaded image with depth."""

    title = "View"
    order = 60
    studio_class = ViewStudio

    def build(self) -> None:
        studio, size = self.studio, self.studio.pipe.size
        gr.Markdown(
            f"On **{studio.model}**. The camera orbits what the first image shows in its middle. What the references "
            "show reliably is kept; the model generates the rest, and the depth of everything."
        )
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                names = [f"Room {index + 1}" for index in range(ROOMS)]
                room = gr.Dropdown(names, value=names[0], label="Room", elem_id="room")
                known = gr.Gallery(
                    _room_images(names[0], size),
                    label="Reference views",
                    columns=2,
                    height="auto",
                    format="png",
                )
                own = _own_image()
                camera = _camera()
                gr.Markdown("The view as points, to turn:")
                cloud = points_viewer(elem_id="cloud")
            with gr.Column(scale=3, min_width=320):
                settings = run_settings(guidance=None, maps=False)
                buttons = RunButtons(studio.queue)
                shown = _results()
        room.change(lambda name: _room_images(name, size), room, known, **QUIET)
        buttons.connect(
            lambda user, *values: studio.generate(
                view_request(size, *values[:-3], keep=values[-3]), *values[-2:], user=user
            ),
            _values,
            {"room": room, **own, **camera, **settings},
            [*shown[:4], cloud, *shown[4:]],
            api_name="view",
        )


def _camera() -> dict[str, Component]:
    """Adds the orbit, and whether known pixels are kept, by name."""
    with gr.Row():
        azimuth = gr.Slider(-45, 45, 10, step=1, label="To the right (degrees)", elem_id="azimuth")
        elevation = gr.Slider(-20, 30, 0, step=1, label="Up (degrees)", elem_id="elevation")
        distance = gr.Slider(0.6, 1.5, 1, step=0.05, label="Relative distance", elem_id="distance")
    keep = gr.Checkbox(True, label="Keep what the references show", elem_id="keep")
    return {"azimuth": azimuth, "elevation": elevation, "distance": distance, "keep": keep}


def _results() -> list[Component]:
    """Adds image, state, what is known, depth, seed and downloads."""
    image = gr.Image(label="Image", format="png", interactive=False, elem_classes="result")
    state = state_line()
    with gr.Row():
        known = gr.Image(label="Known; striped is generated", format="png", interactive=False)
        depth = gr.Image(label="Depth: white is near, black far", format="png", interactive=False)
    seed = gr.Textbox(label="Seed of this image", interactive=False, elem_classes="seed")
    with gr.Row():
        png = gr.DownloadButton("Image (PNG)", interactive=False)
        ply = gr.DownloadButton("Points (PLY)", interactive=False)
    return [image, state, known, depth, seed, png, ply]


def _values(result: ViewResult) -> Values:
    files = downloads(result.path, result.cloud)
    images = [_enlarged(result.known), _enlarged(result.depth)]
    return [_enlarged(result.image), "Done.", *images, result.shown, str(result.seed), *files]


def view_request(
    size: tuple[int, int],
    room: str,
    upload: Image.Image | None,
    depth: str | None,
    angle: float,
    *orbit: float,
    keep: bool = True,
) -> ViewRequest:
    """Returns the request of the page's values; `orbit` is azimuth, elevation and relative distance.

    Raises:
        ValueError: an image without depth, depth without an image, depth that cannot be read or of another shape.
    """
    if (upload is None) != (depth is None):
        missing = "depth" if depth is None else "image"
        raise UserError(f"Your own image: got no {missing}, expected both; upload it, or remove the other one")
    if upload is None or depth is None:
        references = _room_views(room, size)
    else:
        aspect = upload.height / upload.width
        camera = Camera.looking((0, 0, 0), (0, 0, -1), field_of_view=angle, aspect=aspect)
        references = (ReferenceView.of_image(upload, read_array(Path(depth)), camera, size),)
    first = references[0]
    return ViewRequest(references, first.camera.orbited(pivot_of(first), *orbit), keep)


def _own_image() -> dict[str, Component]:
    """Adds uploads of an image, its depth, and its angle of view, by name."""
    with gr.Accordion("Your own image", open=False):
        with gr.Row():
            upload = image_upload("Image")
            depth = gr.File(label="Its depth (NPY, along the camera's axis)", file_types=[".npy"], elem_id="own-depth")
        angle = gr.Slider(20, 120, 60, step=1, label="Horizontal angle of view (degrees)")
        return {"image": upload, "depth": depth, "angle": angle}


@cache
def _room_views(name: str, size: tuple[int, int]) -> tuple[ReferenceView, ...]:
    """Returns both reference views of a room.

    Raises:
        ValueError: an unknown name.
    """
    index = name.removeprefix("Room ")
    if not index.isdecimal() or not 1 <= int(index) <= ROOMS:
        raise UserError(f"room: got {name!r}, expected Room 1 to Room {ROOMS}; choose one")
    views = sample("test", int(index) - 1, size=max(size), views=REFERENCES).views
    return tuple(ReferenceView.of_view(views[one]) for one in REFERENCES)


def _room_images(name: str, size: tuple[int, int]) -> list[Image.Image]:
    return [_enlarged(Image.fromarray((one.image * 255).astype(np.uint8))) for one in _room_views(name, size)]


def _known_image(references: Sequence[ReferenceView], warped: WarpedView) -> Image.Image:
    """Returns what references show reliably from a camera, and grey stripes elsewhere."""
    mask, colors = reliable(references, warped)
    stripes = 0.6 + 0.15 * (np.indices(mask.shape).sum(0) // 4 % 2)
    shown = np.where(mask[..., None], colors.clip(0, 1), stripes[..., None])
    return Image.fromarray((shown * 255).round().astype(np.uint8))


def _enlarged(image: Image.Image) -> Image.Image:
    factor = -(-SHOWN // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
