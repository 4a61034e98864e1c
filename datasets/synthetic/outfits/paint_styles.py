"""Styles of light, chalk, water and blocks: from a scene's layers to an image [size, size, 3] in 0 to 255."""

from typing import Final

import numpy as np

from weftwork.datasets.synthetic.outfits.figure import BACKGROUND, DARK, LIGHT, UNITS
from weftwork.datasets.synthetic.outfits.style_layers import (
    BODY,
    DARK_RGB,
    INK,
    Pixels,
    Plane,
    Rgb,
    Scene,
    blur,
    field,
    hatch,
    lightness,
    mix,
    over,
    palette,
    sheet,
    warp,
)

SKIES: Final = (
    ((148, 190, 226), (186, 216, 236)),
    ((154, 198, 178), (196, 226, 200)),
    ((196, 178, 220), (222, 208, 236)),
)


def pixel(scene: Scene) -> Pixels:
    """Blocks of four units with one of a few colours each."""
    block = round(4 * scene.unit)
    count = scene.size // block
    order = [material for material in scene.shares if material != BACKGROUND]
    weight = {DARK: 3.4, LIGHT: 1.9}
    stack = np.stack([weight.get(m, 1.0) * blocks(scene.shares[m], count) for m in order])
    dim = mix(scene.rgb, (30, 20, 70), 0.3) if lightness(scene.rgb) > 0.2 else mix(scene.rgb, (150, 150, 190), 0.22)
    colors = palette(scene.rgb)
    picture = np.asarray([colors[m] for m in order], np.float32)[np.argmax(stack, axis=0)]
    rows, columns = np.mgrid[0:count, 0:count]
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])[rows % 4, columns % 4] / 16
    shade = blocks(scene.shadow, count)
    winner = np.asarray(order)[np.argmax(stack, axis=0)]
    on_body = winner == BODY
    crease = on_body & (blocks(scene.inner(1.6), count) > 0.40)
    picture = over(picture, dim, on_body & (shade > 0.56 + 0.22 * bayer))
    picture = over(picture, mix(scene.rgb, (255, 255, 255), 0.4), on_body & (shade < 0.20 + 0.08 * bayer))
    picture = over(picture, mix(dim, INK, 0.35 if lightness(scene.rgb) > 0.2 else 0.0), crease)
    sky, ground = SKIES[int(scene.rng.integers(len(SKIES)))], (120, 112, 136)
    horizon = round((scene.ground - 6) * count / UNITS)
    scenery = np.broadcast_to(np.asarray(sky[0], np.float32), (count, count, 3))
    scenery = over(scenery, sky[1], rows / count > 0.15 + 0.6 * bayer)
    scenery = over(scenery, mix(ground, (160, 152, 170), 0.5), rows >= horizon)
    scenery = over(scenery, ground, (rows > horizon) & ((rows + columns) % 2 == 0))
    seen = blocks(scene.inside, count) >= 0.42
    rim = _grown(seen) & ~seen
    picture = np.where(seen[..., None], picture, scenery)
    picture = over(picture, INK, rim)
    return np.repeat(np.repeat(picture, block, 0), block, 1).astype(np.float32)


def pastel(scene: Scene) -> Pixels:
    """Chalk strokes that let a toned paper through."""
    paper = (122, 128, 148)
    tooth = 0.5 + 0.5 * field(scene, scene.size // 2) + 0.15 * scene.rng.standard_normal((scene.size,) * 2, np.float32)
    picture = sheet(scene, paper, grain=0.03, mottle=0.02)
    y, x = scene.grid
    cloud = np.exp(-((((x - scene.x) / 50) ** 2 + ((y - scene.ground + 42) / 44) ** 2) ** 2))
    back = ((232, 206, 190), (196, 214, 222), (214, 206, 232), (214, 222, 196))[int(scene.rng.integers(4))]
    chalk = 0.5 + 0.5 * hatch(scene, -38, 5.0, 0.62, wobble=1.6)
    picture = over(picture, back, 0.85 * _chalk(cloud * chalk, tooth))
    picture = over(picture, (72, 74, 96), 0.7 * _chalk(0.8 * scene.cast_shadow(6.0), tooth))
    soft = blur(scene.inside, 0.6 * scene.unit)
    body, rgb = scene.layer(BODY), mix(scene.rgb, (255, 250, 244), 0.14)
    colors = scene.fill(palette(rgb)) / np.maximum(scene.inside, 0.05)[..., None]
    colors = np.where(scene.inside[..., None] > 0.05, colors, np.asarray(rgb, np.float32))
    stroke = 0.68 + 0.45 * hatch(scene, 58, 4.6, 0.6, wobble=1.4)
    picture = over(picture, colors, _chalk(soft * stroke, tooth))
    light, deep = mix(scene.rgb, (255, 250, 240), 0.62), mix(scene.rgb, (30, 24, 60), 0.45)
    lit = hatch(scene, 58, 4.6, 2.6 * (0.36 - scene.shadow), wobble=1.4)
    dark = hatch(scene, 58, 4.6, 1.8 * (scene.shadow - 0.52), wobble=1.4)
    picture = over(picture, light, 0.9 * _chalk(lit * body, tooth))
    picture = over(picture, deep if scene.color != "black" else (10, 10, 14), 0.7 * _chalk(dark * body, tooth))
    edge = deep if scene.color != "black" else (112, 112, 128)
    lines = blur(np.maximum(scene.inner(1.4), 0.7 * scene.outer(1.4)), 0.5 * scene.unit)
    picture = over(picture, edge, 0.75 * _chalk(1.2 * lines, tooth))
    return over(picture, DARK_RGB, scene.layer(DARK))


def neon(scene: Scene) -> Pixels:
    """Tubes that glow on a dark wall."""
    y, x = scene.grid
    picture = sheet(scene, (24, 18, 40), grain=0.05, mottle=0.12)
    row = np.floor(y / 8)
    mortar = np.maximum(hatch(scene, 0, 8, 0.12), np.abs((x + 8 * (row % 2)) % 16 - 8) < 0.5)
    picture = over(picture, (10, 8, 18), 0.8 * mortar)
    tube = _tube_color(scene)
    glow = {"black": (96, 96, 112), "brown": (150, 84, 40)}.get(scene.color, tube)
    outer, inner = scene.outer(1.9), scene.inner(1.5)
    halo = 1.1 * blur(outer, 3.0 * scene.unit) + 0.55 * blur(scene.inside, 9 * scene.unit)
    picture = picture + halo[..., None] * np.asarray(glow, np.float32) * 0.75
    floor = np.exp(-(((x - scene.x) / 36) ** 2 + ((y - scene.ground - 4) / 3.4) ** 2))
    picture = picture + (0.35 * floor)[..., None] * np.asarray(glow, np.float32)
    fill = {"black": (8, 8, 12), "white": (150, 152, 160)}.get(scene.color, mix(scene.rgb, (10, 6, 24), 0.42))
    colors = {BODY: fill, DARK: (10, 8, 20), LIGHT: (235, 240, 250)}
    picture = picture * (1 - scene.inside)[..., None] + scene.fill(colors) * (1.12 - 0.3 * scene.shadow)[..., None]
    near = blur(np.maximum(outer, inner), 1.4 * scene.unit)
    picture = picture + (0.65 * near)[..., None] * np.asarray(glow, np.float32)
    picture = over(picture, tube, np.clip(1.2 * np.maximum(outer, 0.9 * inner), 0, 1))
    core = scene.outer(0.7)
    return over(picture, mix(tube, (255, 255, 255), 0.75 if scene.color != "black" else 0.35), 0.8 * core)


def watercolor(scene: Scene) -> Pixels:
    """Wet colour that pools at its edges and runs on rough paper."""
    paper = sheet(scene, (250, 248, 242), grain=0.008)
    rough = field(scene, scene.size * 2 // 5)
    y, x = scene.grid
    tones = ((150, 186, 206), (160, 196, 178), (196, 176, 206), (206, 190, 160))
    back = tones[int(scene.rng.integers(4))]
    blob = 1 - np.hypot((x - scene.x) / 60, (y - scene.ground + 44) / 54)
    blob += 0.35 * field(scene, 5) + 0.08 * field(scene, 22)
    wash = np.clip(6 * blob, 0, 1)
    pool = np.clip(1 - np.abs(blob - 0.1) / 0.07, 0, 1)
    density = wash * (0.42 + 0.16 * field(scene, 6) + 0.05 * rough) + 0.16 * pool
    picture = _stain(paper, back, density)
    picture = _stain(picture, (90, 96, 130), 0.55 * scene.cast_shadow(5.0))
    white = scene.color == "white"
    rgb = (255, 255, 255) if white else mix(scene.rgb, (255, 255, 255), 0.06)
    inside, fill, contour = warp((scene.inside, scene.fill(palette(rgb)), scene.outer(1.2)), 1.3, scene)
    fill = fill / np.maximum(inside, 0.05)[..., None]
    inside = np.clip(1.4 * inside - 0.2, 0, 1)
    soft = blur(inside, 2.2 * scene.unit)
    pool = inside * np.clip(1.5 - 1.5 * soft, 0, 1)
    strength = 0.88 + 0.20 * field(scene, 7) + 0.10 * rough + 0.5 * pool + 0.4 * (scene.shadow - 0.45)
    bloom = np.clip(3 * (field(scene, 5) - 0.42), 0, 0.30)
    picture = picture * (1 - inside)[..., None] + paper * inside[..., None]
    strength = np.clip(strength - bloom, 0.45, 1.5) * inside
    picture = _stain(picture, np.clip(fill, 6, 255), strength)
    if white:
        picture = _stain(picture, (150, 160, 190), inside * (0.75 * np.clip(scene.shadow - 0.42, 0, 1) + 0.5 * pool))
    run = inside * 0.9 * scene.inner(1.4)
    line = (130, 136, 166) if white else mix(scene.rgb, (34, 26, 70), 0.5 if scene.color != "black" else 0.2)
    picture = over(picture, line if scene.color != "black" else (120, 120, 136), 0.75 * run)
    picture = over(picture, line, 0.45 * contour)
    return over(picture, DARK_RGB, 0.92 * scene.layer(DARK))


def blocks(plane: Plane, count: int) -> Plane:
    """The means of an image's blocks, this many along each side."""
    side = len(plane) // count
    return plane.reshape(count, side, count, side).mean((1, 3))


def _grown(flags: np.ndarray) -> np.ndarray:
    grown = flags.copy()
    grown[1:] |= flags[:-1]
    grown[:-1] |= flags[1:]
    grown[:, 1:] |= flags[:, :-1]
    grown[:, :-1] |= flags[:, 1:]
    return grown


def _chalk(pressure: Plane, tooth: Plane) -> Plane:
    """Chalk reaches the paper's valleys only under pressure."""
    return np.clip(2.6 * (1.25 * pressure - 0.55 * tooth - 0.08), 0, 1) * (pressure > 0.02)


def _tube_color(scene: Scene) -> Rgb:
    """The brightest version of the colour; black is a dim grey tube, brown a dim amber one."""
    special: dict[str, Rgb] = {"black": (128, 128, 142), "white": (250, 250, 255), "brown": (178, 104, 52)}
    if scene.color in special:
        return special[scene.color]
    red, green, blue = (255 * (channel / max(scene.rgb)) ** 1.15 for channel in scene.rgb)
    return red, green, blue


def _stain(picture: Pixels, pigment: Rgb | np.ndarray, density: Plane) -> Pixels:
    """Transparent pigment: light passes it twice, so densities multiply."""
    absorbed = np.log(np.maximum(np.asarray(pigment, np.float32), 6) / 255)
    return picture * np.exp(absorbed * density[..., None])
