"""The demo's page of views: a room or a picture with depth, a camera carried around, what it sees, and its points."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import gradio as gr
import numpy as np
import torch
from PIL import Image

from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.sidecar_files import read_array
from weftwork.datasets.synthetic.rooms import REFERENCES, sample
from weftwork.pipelines.views.point_maps import depth_picture
from weftwork.pipelines.views.warping import ReferenceView
from weftwork.scripts.demo.jobs import MethodStudio, Step, User, seed_of
from weftwork.scripts.demo.parts import QUIET, Buttons, complaint, downloads, guarded, run_settings, state_line
from weftwork.scripts.demo.points import points_shown, points_viewer

ROOMS: Final = 6
"""So many rooms of the world's test split are offered."""
SHOWN: Final = 256
"""Side in pixels that small pictures are shown at."""


class ViewStudio(MethodStudio):
    """An `AlignedViewsPipeline`."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that references are brought to."""
        side: Any = self.pipe.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return height * self.pipe.vae_scale_factor, width * self.pipe.vae_scale_factor

    def draw(self, asked: "AskedView", seed: int, steps: int, user: User | None = None) -> "Iterator[Step | MadeView]":
        """Steps, and the view at the end.

        Raises:
            Stopped: it was cancelled.
            ValueError: as the pipeline's call.
        """

        def job(report: Callable[[Step], None]) -> MadeView:
            noise = torch.Generator().manual_seed(seed)
            out = self.pipe(
                asked.references,
                asked.camera,
                num_inference_steps=steps,
                generator=noise,
                callback_on_step_end=lambda _pipe, step, _time, _tensors: report(Step(step + 1, steps)),
            )
            picture = self.line.file("view.png")
            out.images[0].save(picture)
            cloud = picture.with_name("view.ply")
            shown = points_shown(out.points, out.pixels, asked.camera)
            return MadeView(out.images[0], depth_picture(out.depth), picture, out.save_point_cloud(cloud), shown)

        yield from self.line.make(job, user)


@dataclass(frozen=True)
class AskedView:
    """What is known of a place, and where it is seen from."""

    references: tuple[ReferenceView, ...]
    camera: Camera


@dataclass(frozen=True)
class MadeView:
    """A view with its geometry.

    Args:
        cloud, shown: its points, for the user's viewers and for the page's own (`points_shown`).
    """

    picture: Image.Image
    depth: Image.Image
    path: Path
    cloud: Path
    shown: str


def view_page(studio: ViewStudio) -> None:
    """Draws the page into the open `gr.Blocks`."""
    gr.Markdown(f"On **{studio.model}**. The camera turns around what the first picture shows in its middle.")
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            names = [f"Room {index + 1}" for index in range(ROOMS)]
            room = gr.Dropdown(names, value=names[0], label="A place", elem_id="room")
            known = gr.Gallery(
                _pictures(names[0], studio.size), label="Seen so far", columns=2, height="auto", format="png"
            )
            own = _own()
            with gr.Row():
                azimuth = gr.Slider(-45, 45, 10, step=1, label="To the right (degrees)", elem_id="azimuth")
                elevation = gr.Slider(-20, 30, 0, step=1, label="Up (degrees)", elem_id="elevation")
                distance = gr.Slider(0.6, 1.5, 1, step=0.05, label="Times as far", elem_id="distance")
            cloud = points_viewer(elem_id="cloud")
        with gr.Column(scale=2, min_width=320):
            settings = run_settings(guidance=None, maps=False)
            buttons = Buttons(studio.line)
            picture = gr.Image(label="Picture", format="png", interactive=False, elem_classes="picture")
            state = state_line()
            depth = gr.Image(label="Depth, near is bright", format="png", interactive=False)
            seed = gr.Textbox(label="Seed of this picture", interactive=False, elem_classes="seed")
            with gr.Row():
                png = gr.DownloadButton("Picture (PNG)", interactive=False)
                ply = gr.DownloadButton("Points (PLY)", interactive=False)
    room.change(lambda name: _pictures(name, studio.size), room, known, **QUIET)

    def make(user: User, *values: Any) -> Iterator[Any]:
        place, upload, depth_file, angle, *orbit, given, steps = values
        used = seed_of(given)
        for result in studio.draw(_asked(studio.size, place, upload, depth_file, angle, orbit), used, int(steps), user):
            if isinstance(result, Step):
                yield result
                continue
            files = downloads(result.path, result.cloud)
            yield [_enlarged(result.picture), "Done.", _enlarged(result.depth), result.shown, str(used), *files]

    outputs = [picture, state, depth, cloud, seed, png, ply]
    buttons.wire(make, [room, *own, azimuth, elevation, distance, *settings], outputs, api_name="view")


def _own() -> list[Any]:
    """A place of the user's own: picture, depth, angle of view."""
    with gr.Accordion("A picture of your own", open=False):
        with gr.Row():
            upload = gr.Image(label="Picture", type="pil", sources=["upload", "clipboard"], format="png")
            depth = gr.File(label="Its depth (NPY, along the camera's axis)", file_types=[".npy"], elem_id="own-depth")
        angle = gr.Slider(20, 120, 60, step=1, label="Angle of view across the picture (degrees)")
    return [guarded(upload), depth, angle]


def _asked(
    size: tuple[int, int], place: str, upload: Image.Image | None, depth: str | None, angle: float, orbit: Any
) -> AskedView:
    """What the page's values ask for.

    Raises:
        gr.Error: a picture without depth, or depth without a picture.
        ValueError: depth that cannot be read, or of another shape than a picture's.
    """
    if (upload is None) != (depth is None):
        missing = "depth" if depth is None else "picture"
        raise complaint(f"Picture of your own: got no {missing}, expected both; bring it, or remove the other one")
    if upload is None or depth is None:
        references = _room(place, size)
    else:
        aspect = upload.height / upload.width
        camera = Camera.looking((0, 0, 0), (0, 0, -1), field_of_view=angle, aspect=aspect)
        references = (ReferenceView.of_picture(upload, read_array(Path(depth)), camera, size),)
    first = references[0]
    height, width = size
    middle = first.points[height // 3 : -height // 3, width // 3 : -width // 3].reshape(-1, 3)
    known = middle[np.isfinite(middle).all(-1)] if np.isfinite(middle).any() else first.points[first.known]
    return AskedView(references, first.camera.orbited(np.median(known, 0), *orbit))


@cache
def _room(name: str, size: tuple[int, int]) -> tuple[ReferenceView, ...]:
    """Both known views of a room.

    Raises:
        ValueError: a name that is none of the page's.
    """
    index = name.removeprefix("Room ")
    if not index.isdecimal() or not 1 <= int(index) <= ROOMS:
        raise ValueError(f"room: got {name!r}, expected Room 1 to Room {ROOMS}; choose one")
    views = sample("test", int(index) - 1, size=max(size), views=REFERENCES).views
    return tuple(ReferenceView.of_view(views[one]) for one in REFERENCES)


def _pictures(name: str, size: tuple[int, int]) -> list[Image.Image]:
    return [_enlarged(Image.fromarray((one.image * 255).astype(np.uint8))) for one in _room(name, size)]


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = -(-SHOWN // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
