"""Generate the view of another camera from a photograph and its depth, and a turn around it as a video.

    weftwork view photo.jpg --depth photo.npy --azimuth 15 --output outputs/photo
    weftwork view photo.jpg --depth Depth-Anything-V2-Small-hf --turn 20
    weftwork view photo.jpg --depth photo.npy --model models/moai --vae sd-vae-ft-mse --image_encoder CLIP-ViT-H-14

Writes NAME.png, NAME-depth.png (near is bright), NAME.ply (a point cloud) and, with --turn, NAME.mp4. The camera orbits
what the middle of the photograph shows. The shipped model knows synthetic rooms only.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weftwork.datasets.readers.errors import UserError, check_counts
from weftwork.scripts.outputs import naming_replaced

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from weftwork.pipelines.views.sampling import AlignedViewsOutput

SUFFIXES: Final = (".png", "-depth.png", ".ply", ".mp4")
FRAMES: Final = 24
PUBLISHED: Final = ("vae", "image_encoder")
"""Models that the folder of `weftwork convert moai` lacks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork view`."""
    parser.add_argument("image", type=Path, help="photograph")
    parser.add_argument(
        "--depth",
        type=Path,
        required=True,
        help="its depth along the camera's axis as NPY, or the folder of a depth model of transformers",
    )
    parser.add_argument("--field_of_view", type=float, default=60.0, help="horizontal, in degrees (default: 60)")
    parser.add_argument("--azimuth", type=float, default=10.0, help="to the right, in degrees (default: 10)")
    parser.add_argument("--elevation", type=float, default=0.0, help="up, in degrees (default: 0)")
    parser.add_argument("--distance", type=float, default=1.0, help="relative to the photograph's (default: 1)")
    parser.add_argument("--turn", type=float, help="also write a video that turns by so many degrees to each side")
    parser.add_argument("--frames", type=int, help=f"of the turn, one way (default: {FRAMES})")
    parser.add_argument(
        "--model", help="backbone, or folder of weftwork convert moai (default: the shipped tiny-rooms)"
    )
    parser.add_argument("--adapter", help="folder of trained modules (default: the shipped aligned-views)")
    parser.add_argument("--vae", help="autoencoder folder, for a model of weftwork convert moai")
    parser.add_argument("--image_encoder", help="CLIP image encoder folder, for a model of weftwork convert moai")
    parser.add_argument("--device", default="cpu", help="device of the model, for example cuda (default: %(default)s)")
    parser.add_argument("--num_inference_steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("outputs/view"), help="name without suffix")


def run(arguments: argparse.Namespace) -> None:
    """Writes the view, its depth, its points, and the video of a turn; `ValueError` for bad options or files."""
    import numpy as np
    import torch

    from weftwork.attention_processors.views.conditions import ReferenceView
    from weftwork.datasets.readers.cameras import Camera
    from weftwork.datasets.readers.images import read_image
    from weftwork.datasets.readers.sidecar_files import read_array
    from weftwork.pipelines.views.depth import DepthModel
    from weftwork.pipelines.views.turning import pivot_of, save_video, turned

    _check(arguments)
    photo = read_image(arguments.image)
    source = arguments.depth
    depth = DepthModel.from_pretrained(source) if source.is_dir() else read_array(source)
    camera = Camera.looking(
        (0, 0, 0), (0, 0, -1), field_of_view=arguments.field_of_view, aspect=photo.height / photo.width
    )
    orbit = arguments.azimuth, arguments.elevation, arguments.distance
    camera.orbited((0, 0, -1), *orbit)  # refuses them before a model is opened
    pipe = _pipeline(arguments)
    view = ReferenceView.of_image(photo, depth, camera, pipe.size)

    def generate(references: Any, camera: Camera) -> "AlignedViewsOutput":
        noise = torch.Generator().manual_seed(arguments.seed)
        return pipe(references, camera, num_inference_steps=arguments.num_inference_steps, generator=noise)

    name = arguments.output
    with naming_replaced(name.with_name(name.name + suffix) for suffix in SUFFIXES):
        written = _write(name, generate([view], camera.orbited(pivot_of(view), *orbit)), photo)
        if arguments.turn is not None:
            frames = turned(generate, view, arguments.turn, arguments.frames)
            video = [np.asarray(_unsqueezed(frame, photo)) for frame in frames]
            written.append(save_video(name.with_name(f"{name.name}.mp4"), video))
        print(", ".join(map(str, written)))


def _check(arguments: argparse.Namespace) -> None:
    check_counts(num_inference_steps=arguments.num_inference_steps)
    if not 1 < arguments.field_of_view < 179:
        raise UserError(f"field_of_view: got {arguments.field_of_view}, expected degrees between 1 and 179; change it")
    if arguments.turn is None and arguments.frames is not None:
        raise UserError("frames: has no effect without --turn; leave it out")
    arguments.frames = FRAMES if arguments.frames is None else arguments.frames
    if arguments.turn is not None and (not 0 < arguments.turn <= 90 or arguments.frames < 3):
        raise UserError(
            f"turn, frames: got {arguments.turn} and {arguments.frames}, expected up to 90 degrees and at least 3 "
            "frames; change them"
        )


def _pipeline(arguments: argparse.Namespace) -> Any:
    """Opens the pipeline of a backbone with trained modules, or that of converted MoAI networks."""
    from weftwork.pipelines.core.hardware import device_named
    from weftwork.pipelines.views.moai import MoAIPipeline
    from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
    from weftwork.pretrained import shipped

    model = arguments.model or str(shipped("tiny-rooms"))
    given = {name: getattr(arguments, name) for name in PUBLISHED}
    if (Path(model) / "geometry_reference" / "config.json").is_file():
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise UserError(
                f"{missing[0]}: got none, needed by the MoAI networks in {model}; pass --{missing[0]} FOLDER"
            )
        if arguments.adapter is not None:
            raise UserError(f"adapter: got {arguments.adapter!r}, has no effect with MoAI networks; leave it out")
        pipe: Any = MoAIPipeline.from_folder(model, vae=given["vae"], image_encoder=given["image_encoder"])
    else:
        useless = [name for name, value in given.items() if value is not None]
        if useless:
            raise UserError(
                f"{useless[0]}: has no effect with {model}, which is no folder of convert moai; leave it out"
            )
        pipe = AlignedViewsPipeline.from_pretrained(model)
        pipe.load_adapter(arguments.adapter or shipped("aligned-views"), "views")
    return pipe.to(device_named(arguments.device))


def _write(name: Path, out: "AlignedViewsOutput", photo: "Image.Image") -> list[Path]:
    """Writes image, depth and points, and returns their paths."""
    import numpy as np

    from weftwork.attention_processors.views.point_maps import depth_image
    from weftwork.datasets.readers.atomic import atomic_path

    written = []
    for suffix, pixels in ((".png", out.pixels), ("-depth.png", np.asarray(depth_image(out.depth)))):
        path = name.with_name(f"{name.name}{suffix}")
        with atomic_path(path) as partial:
            _unsqueezed(pixels, photo).save(partial, format="PNG")
        written.append(path)
    return [*written, out.save_point_cloud(name.with_name(f"{name.name}.ply"))]


def _unsqueezed(pixels: "np.ndarray", photo: "Image.Image") -> "Image.Image":
    """Resizes a square view to the aspect of the photograph; its shorter side stays."""
    from PIL import Image

    scale = min(pixels.shape[:2]) / min(photo.size)
    size = round(photo.width * scale), round(photo.height * scale)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
