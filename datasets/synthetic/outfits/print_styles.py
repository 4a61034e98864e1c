"""Styles of lines and plates: from a scene's layers to an image of shape [size, size, 3] in 0 to 255."""

import numpy as np

from weftwork.datasets.synthetic.outfits.figure import DARK, LIGHT
from weftwork.datasets.synthetic.outfits.style_layers import (
    BODY,
    DARK_RGB,
    INK,
    Pixels,
    Plane,
    Scene,
    blur,
    field,
    hatch,
    mix,
    over,
    palette,
    ramp,
    sheet,
    shift,
)


def ink(scene: Scene) -> Pixels:
    """Black pen lines and hatching in the colour's ink over a light wash, on paper."""
    paper = (240, 230, 208)
    picture = sheet(scene, paper, grain=0.012, mottle=0.015)
    pen = 0.72 + 0.28 * field(scene, 12)
    ground = hatch(scene, 0, 3.2, 0.34, wobble=0.7) * (scene.cast_shadow(6.0) > 0.32)
    picture = over(picture, INK, 0.85 * ground * (1 - scene.inside))
    wash = mix(scene.rgb, paper, 0.22) if scene.color != "white" else (255, 255, 255)
    wet = np.clip(0.90 + 0.12 * field(scene, 6), 0, 1)
    picture = picture * (1 - scene.inside * wet)[..., None] + scene.fill(palette(wash)) * wet[..., None]
    strong = mix(scene.rgb, INK, 0.35) if scene.color != "white" else (150, 152, 172)
    strokes = hatch(scene, 52, 3.4, 1.5 * (scene.shadow - 0.36), wobble=0.5)
    cross = hatch(scene, -35, 3.4, 1.3 * (scene.shadow - 0.62), wobble=0.5)
    picture = over(picture, strong, 0.85 * np.maximum(strokes, cross) * scene.layer(BODY))
    lines = np.maximum(scene.outer(1.9) * np.clip(pen + 0.25, 0, 1), scene.inner(1.25) * pen)
    return over(picture, INK, np.clip(1.15 * lines, 0, 1))


def blueprint(scene: Scene) -> Pixels:
    """Pale construction lines on gridded blue, filled with threads of the colour."""
    y, x = scene.grid
    base = (24, 58, 122)
    picture = sheet(scene, base, grain=0.015, mottle=0.03)
    for period, strength in ((8.0, 0.16), (32.0, 0.22)):
        mesh = np.maximum(*(hatch(scene, angle, period, 1.0 / period, phase=0.5 * period) for angle in (0, 90)))
        picture = over(picture, (170, 205, 255), strength * mesh)
    rows, columns = np.flatnonzero(scene.inside.max(1) > 0.5), np.flatnonzero(scene.inside.max(0) > 0.5)
    top, bottom, left, right = (float(i) / scene.unit for i in (rows[0], rows[-1], columns[0], columns[-1]))
    marks = np.zeros_like(x)
    for distance in (
        np.maximum(np.abs(y - min(bottom + 5, 125)) - 0.4, np.abs(x - 0.5 * (left + right)) - 0.5 * (right - left)),
        np.maximum(np.abs(x - max(left - 5, 3)) - 0.4, np.abs(y - 0.5 * (top + bottom)) - 0.5 * (bottom - top)),
        *(np.maximum(np.abs(x - at) - 0.4, np.abs(y - min(bottom + 5, 125)) - 2.4) for at in (left, right)),
        *(np.maximum(np.abs(y - at) - 0.4, np.abs(x - max(left - 5, 3)) - 2.4) for at in (top, bottom)),
    ):
        marks = np.maximum(marks, ramp(distance, scene))
    radius = 0.54 * max(right - left, bottom - top)
    circle = np.abs(np.hypot(x - 0.5 * (left + right), y - 0.5 * (top + bottom)) - radius) - 0.35
    marks = np.maximum(marks, 0.5 * ramp(circle, scene) * (hatch(scene, 45, 5, 0.6) > 0.5))
    picture = over(picture, (200, 222, 255), 0.6 * marks * (1 - scene.inside))
    vivid = mix(scene.rgb, (255, 255, 255), 0.16 if scene.color not in ("black", "brown") else 0.04)
    if scene.color == "blue":
        vivid = (72, 128, 255)
    colors = {BODY: vivid, DARK: (12, 26, 66), LIGHT: (236, 244, 255)}
    thread = hatch(scene, 45, 3.0, np.clip(0.55 + 0.5 * (0.6 - scene.shadow), 0.3, 0.8))
    solid = np.maximum(scene.layer(DARK), scene.layer(LIGHT))
    part = np.clip((0.48 + 0.46 * thread) + solid, 0, 1)[..., None]
    picture = picture * (1 - scene.inside[..., None] * part) + scene.fill(colors) * part
    line = (226, 238, 255)
    picture = over(picture, line, 0.9 * scene.outer(1.3))
    return over(picture, line, 0.72 * scene.inner(0.9))


def woodcut(scene: Scene) -> Pixels:
    """A key block of carved strokes over one block of colour."""
    paper = (240, 226, 196)
    y, x = scene.grid
    block = (34, 28, 30)
    grain = hatch(scene, 3, 2.6, 0.5, wobble=2.2)
    picture = sheet(scene, paper, grain=0.01, mottle=0.02)
    radius = np.hypot(x - scene.x, 1.1 * (y - scene.ground + 45))
    carved = hatch(scene, 0, 4.2, np.clip(0.72 - 0.004 * radius + 0.16 * field(scene, 8), 0.25, 0.8), wobble=1.3)
    rim = blur(scene.inside, 2.2 * scene.unit) > 0.10
    margin = np.maximum(np.abs(x - 64), np.abs(y - 64)) + 0.8 * field(scene, 14)
    carved = np.where(y < scene.ground - 7, carved, hatch(scene, -8, 3.4, 0.42, wobble=1.6))
    picture = over(picture, block, (1 - carved) * ~rim * ramp(margin - 60, scene))
    white = scene.color == "white"
    colors = palette((255, 255, 255) if white else scene.rgb) | ({} if white else {LIGHT: (250, 244, 226)})
    picture = picture * (1 - scene.inside)[..., None] + scene.fill(colors)
    contour = _contour_strokes(scene, 4.4)
    lift = mix(scene.rgb, paper, 0.7 if scene.color != "black" else 0.6)
    light = contour * (scene.shadow < 0.40) * (1 - scene.inner(2.0)) * scene.layer(BODY)
    picture = over(picture, lift, 0.9 * light)
    dark = contour * np.clip(6 * (scene.shadow - 0.52), 0, 1) * scene.layer(BODY)
    deep = {"black": (120, 112, 108), "white": (96, 90, 92)}.get(scene.color, mix(scene.rgb, block, 0.72))
    picture = over(picture, deep, 0.9 * dark)
    picture = over(picture, paper, 0.25 * grain * scene.layer(BODY) * (not white))
    edge = block if scene.color != "black" else (14, 12, 14)
    picture = over(picture, edge, np.clip(1.2 * scene.outer(2.6), 0, 1))
    inner = block if scene.color != "black" else (176, 164, 148)
    picture = over(picture, inner, np.clip(1.2 * scene.inner(1.5), 0, 1))
    return over(picture, block, scene.layer(DARK))


def poster(scene: Scene) -> Pixels:
    """Flat colours, a hard shadow, rays and a frame."""
    y, x = scene.grid
    rays, field_color = (
        ((250, 238, 206), (126, 192, 190)),
        ((250, 238, 206), (148, 170, 204)),
        ((250, 238, 206), (206, 176, 160)),
    )[int(scene.rng.integers(3))]
    angle = np.arctan2(y - scene.ground + 36, x - scene.x) + scene.rng.uniform(0, 1)
    distance = np.hypot(y - scene.ground + 36, x - scene.x)
    period = 2 * np.pi / 14
    edge = (np.abs(angle % period - 0.5 * period) - 0.25 * period) * distance
    picture = over(sheet(scene, field_color), rays, ramp(edge, scene))
    picture = over(picture, mix(field_color, INK, 0.55), ramp(scene.ground - 4 - y, scene))
    thick = np.maximum(scene.outer(4.4), scene.inside)
    picture = over(picture, mix(field_color, INK, 0.72), shift(thick, 4, 3.5, scene))
    picture = over(picture, (255, 252, 240), thick)
    dark = np.clip(8 * (scene.shadow - 0.60), 0, 1)
    colors = palette(scene.rgb)
    lower = {material: mix(color, (40, 20, 80), 0.26) for material, color in colors.items()}
    if scene.color == "black":
        lower |= {BODY: (78, 76, 92)}
    body = scene.fill(colors) * (1 - dark)[..., None] + scene.fill(lower) * dark[..., None]
    picture = picture * (1 - scene.inside)[..., None] + body
    line = INK if scene.color != "black" else (150, 148, 164)
    picture = over(picture, line, scene.inner(1.3))
    picture = over(picture, DARK_RGB, scene.layer(DARK))
    picture = over(picture, INK, scene.outer(1.5))
    margin = np.maximum(np.abs(x - 64), np.abs(y - 64))
    picture = over(picture, (250, 244, 226), ramp(58.5 - margin, scene))
    return over(picture, INK, ramp(np.abs(margin - 58.2) - 0.7, scene))


def _contour_strokes(scene: Scene, period: float) -> Plane:
    """Strokes that follow the form: level lines of a height field over the body."""
    y, x = scene.grid
    height = 26 * blur(scene.inside, 7 * scene.unit) + 0.55 * (x + y)
    across = height % period
    return np.clip((0.25 * period - np.abs(across - 0.5 * period)) * scene.unit + 0.5, 0, 1).astype(np.float32)
