"""Renderer of maps by OpenGL without a window (EGL): colours and exact depth."""

from importlib import import_module
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from weftwork.datasets.openarena.archives import Archives
from weftwork.datasets.openarena.maps import LIGHTMAP_SIDE, Map
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError, check_installed

NEAR, FAR = 0.05, 200.0
"""Metres."""
SAMPLES: Final = 3
"""Colours are means over a grid of so many samples a side; depth is that of a pixel's centre."""
UNTEXTURED: Final = (110, 105, 100)
VERTEX_SHADER: Final = """#version 330
in vec3 position; in vec2 texture_at; in vec2 light_at;
uniform mat4 projection; uniform vec4 axis;
out vec2 texture_place; out vec2 light_place; out float depth;
void main() {
  gl_Position = projection * vec4(position, 1);
  texture_place = texture_at; light_place = light_at; depth = dot(vec4(position, 1), axis);
}"""
FRAGMENT_SHADER: Final = """#version 330
in vec2 texture_place; in vec2 light_place; in float depth;
uniform sampler2D colors; uniform sampler2D lights; uniform int kind;
out vec4 color; layout(location=1) out float distance;
void main() {
  vec3 light = kind == 1 ? pow(texture(lights, light_place).rgb, vec3(.55)) * 2.2 : vec3(.8);
  color = kind == 2 ? vec4(.55, .68, .85, 1) : vec4(min(texture(colors, texture_place).rgb * light, vec3(1)), 1);
  distance = kind == 2 ? 0. : depth;
}"""
UNLIT, LIT, SKY = range(3)


class Renderer:
    """Renders a map at `size` pixels a side; a context manager; `ValueError` without moderngl or EGL."""

    def __init__(self, place: Map, archives: Archives, size: int) -> None:
        self.size, self._context = size, _context()
        self._program = self._context.program(vertex_shader=VERTEX_SHADER, fragment_shader=FRAGMENT_SHADER)
        textures: dict[str, Any] = {}
        lights: dict[int, Any] = {}
        self._parts = []
        for surface, corners in place.triangles.items():
            if surface.texture not in textures:
                image = archives.texture(surface.texture) or Image.new("RGB", (8, 8), UNTEXTURED)
                textures[surface.texture] = self._texture(image)
            lit = 0 <= surface.lightmap < len(place.lightmaps)
            if lit and surface.lightmap not in lights:
                light = place.lightmaps[surface.lightmap]
                lights[surface.lightmap] = self._context.texture((LIGHTMAP_SIDE, LIGHTMAP_SIDE), 3, light.tobytes())
            buffer = self._context.buffer(corners.astype(np.float32).tobytes())
            layout = [(buffer, "3f 2f 2f", "position", "texture_at", "light_at")]
            kind = SKY if surface.sky else LIT if lit else UNLIT
            vertices = self._context.vertex_array(self._program, layout, skip_errors=True)
            self._parts.append((vertices, textures[surface.texture], lights.get(surface.lightmap), kind))
        self._frames = {side: self._framebuffer(side) for side in (size, size * SAMPLES)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._context.release()

    def view(self, camera: Camera) -> tuple[UInt8[np.ndarray, "size size 3"], Float[np.ndarray, "size size"]]:
        """Renders the view of a camera: its colours, and depth along its axis in metres, 0 where there is none."""
        fine = self._drawn(camera, self.size * SAMPLES)[0].reshape(self.size, SAMPLES, self.size, SAMPLES, 3)
        return fine.mean((1, 3)).round().astype(np.uint8), self._drawn(camera, self.size)[1]

    def _drawn(self, camera: Camera, side: int) -> tuple[np.ndarray, np.ndarray]:
        frame, images = self._frames[side]
        frame.use()
        self._context.enable(self._context.DEPTH_TEST)
        frame.clear()
        self._program["projection"].write(projection(camera).T.astype(np.float32).tobytes())
        self._program["axis"].value = tuple(camera.world_to_camera[2])
        for name, unit in (("colors", 0), ("lights", 1)):
            self._program[name].value = unit
        for vertices, texture, light, kind in self._parts:
            texture.use(0)
            (light or texture).use(1)
            self._program["kind"].value = kind
            vertices.render()
        colors = np.frombuffer(images[0].read(), np.uint8).reshape(side, side, 4)[..., :3]
        return colors, np.frombuffer(images[1].read(), np.float32).reshape(side, side).astype(np.float64)

    def _texture(self, image: Image.Image) -> Any:
        texture = self._context.texture(image.size, 3, image.tobytes(), alignment=1)
        texture.build_mipmaps()
        return texture

    def _framebuffer(self, side: int) -> Any:
        images = [self._context.texture((side, side), 4), self._context.texture((side, side), 1, dtype="f4")]
        return self._context.framebuffer(images, self._context.depth_renderbuffer((side, side))), images


def projection(camera: Camera) -> Float[np.ndarray, "4 4"]:
    """Returns OpenGL's projection of world points; its first row of pixels is the top of the image."""
    scale, center = np.array(camera.focal) * 2, np.array(camera.center) * 2 - 1
    matrix = np.array(
        [
            [scale[0], 0, center[0], 0],
            [0, scale[1], center[1], 0],
            [0, 0, (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)],
            [0, 0, 1, 0],
        ]
    )
    return matrix @ camera.world_to_camera


def _context() -> Any:
    check_installed("places", "moderngl")
    moderngl: Any = import_module("moderngl")  # its types reject the backend
    try:
        return moderngl.create_standalone_context(backend="egl")
    except Exception as error:  # drivers raise anything
        raise UserError(
            f"places: got no OpenGL without a window ({error}), expected EGL; install libegl1 and libgl1-mesa-dri"
        ) from error
