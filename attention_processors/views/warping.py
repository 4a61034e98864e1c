"""Warping of references to another camera, with a mask of seen pixels.

Points behind the target camera, outside its image, or behind nearer points are not seen; pixels without a point stay
empty. Points alone (`warp_points`) leave gaps through which farther points show; a mesh over each reference
(`warp_mesh`) closes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError

Values = np.ndarray
NEAR = 1e-3
EDGE_SHARE = 0.48
"""Maximum share of a triangle's perimeter in one edge; slivers over depth breaks are left out; at most 0.5."""
LARGEST = 1 << 20
"""Candidate pixels, those in triangles' bounding boxes, per batch."""


@dataclass(frozen=True, eq=False)
class WarpedView:
    """References warped to the target camera; 0 where nothing is seen.

    Args:
        image, points, normals: [height, width, 3]; normals in world coordinates, 0 where only points are warped.
        depth: along the target's axis.
        seen: mask of pixels with a point.
    """

    image: Float[np.ndarray, "height width 3"]
    points: Float[np.ndarray, "height width 3"]
    normals: Float[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]
    seen: Bool[np.ndarray, "height width"]


def warp_points(references: Sequence[ReferenceView], camera: Camera, size: tuple[int, int]) -> WarpedView:
    """Warps reference pixels as points; those of `size` (height, width) show the nearest; `ValueError` for none."""
    _check(references)
    points = np.concatenate([one.points[one.known] for one in references])
    colors = np.concatenate([one.image[one.known] for one in references])
    places, depth = camera.project(points)
    pixel, inside = _pixels(places, depth, size)
    order = np.flatnonzero(inside)[np.argsort(-depth[inside], kind="stable")]
    nearest = np.full(size[0] * size[1], -1)
    nearest[pixel[order]] = order  # the last of several is kept
    seen = (nearest >= 0).reshape(size)
    picked = np.where(nearest >= 0, nearest, 0)
    image, kept = (np.where(seen[..., None], values[picked].reshape(*size, 3), 0) for values in (colors, points))
    return WarpedView(image, kept, np.zeros((*size, 3)), np.where(seen, depth[picked].reshape(size), 0), seen)


def warp_mesh(
    references: Sequence[ReferenceView],
    camera: Camera,
    size: tuple[int, int],
    *,
    stride: int = 1,
    edge_share: float = EDGE_SHARE,
) -> WarpedView:
    """Warps each reference as a mesh over its pixels, rendered with a depth buffer.

    After MoAI (arXiv 2506.11924). Differs: faces are kept where they face the ray of their pixel, not the
    central ray of the image, and points are interpolated in the mesh, too.

    Args:
        size: height and width of the target.
        stride: every `stride`-th pixel is a vertex.
        edge_share: see `EDGE_SHARE`.

    Raises:
        ValueError: no reference, or a stride that leaves no face.
    """
    _check(references)
    meshes = [_mesh(one, stride, edge_share) for one in references]
    corners, colors = (np.concatenate([mesh[i] for mesh in meshes]) for i in range(2))
    places, depth = camera.project(corners)
    front = (depth > NEAR).all(1)
    corners, colors, places, depth = corners[front], colors[front], places[front], depth[front]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    facing = ((corners.mean(1) - camera.position) * normals).sum(1) < 0
    corners, colors, places, depth, normals = (v[facing] for v in (corners, colors, places, depth, normals))
    face, weights, nearest = _drawn(places * np.array(size[::-1]), depth, size)
    seen = face >= 0
    picked = np.where(seen, face, 0)
    empty = np.zeros((*size, 3))
    if not seen.any():
        return WarpedView(empty, empty, empty, np.zeros(size), seen)
    image, points = (
        np.where(seen[..., None], (weights[..., None] * values[picked]).sum(2), 0) for values in (colors, corners)
    )
    return WarpedView(image, points, np.where(seen[..., None], normals[picked], 0), np.where(seen, nearest, 0), seen)


def _check(references: Sequence[ReferenceView]) -> None:
    if not references:
        raise UserError("references: got none, expected at least one view; pass at least one image")


def _pixels(
    places: Float[np.ndarray, "point 2"], depth: Float[np.ndarray, " point"], size: tuple[int, int]
) -> tuple[Int[np.ndarray, " point"], Bool[np.ndarray, " point"]]:
    """Returns the flat index of each point's pixel, and whether it is in the image."""
    scaled = np.floor(places * np.array(size[::-1]))
    inside = (depth > NEAR) & (scaled >= 0).all(1) & (scaled < np.array(size[::-1])).all(1)
    whole = np.where(inside[:, None], scaled, 0).astype(np.int64)
    return whole[:, 1] * size[1] + whole[:, 0], inside


def _mesh(view: ReferenceView, stride: int, edge_share: float) -> tuple[Values, Values]:
    """Returns corners and colours of a reference's triangles that face its camera, [face, 3, 3] each."""
    if stride < 1 or min(view.image.shape[:2]) <= stride:
        raise UserError(f"stride: got {stride} for an image of {view.image.shape[:2]}, expected fewer than its sides")
    rows, columns = (np.arange(0, side, stride) for side in view.image.shape[:2])
    grid = np.ix_(rows, columns)
    points, colors = view.points[grid], view.image[grid]
    quads = np.s_[:-1, :-1], np.s_[1:, :-1], np.s_[1:, 1:], np.s_[:-1, 1:]
    triangles = [(quads[0], quads[1], quads[2]), (quads[0], quads[2], quads[3])]
    corners, shades = (
        np.concatenate([np.stack([values[q] for q in triangle], 2).reshape(-1, 3, 3) for triangle in triangles])
        for values in (points, colors)
    )
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    kept = np.isfinite(edges).all(1) & (edges.max(1) < edge_share * edges.sum(1))
    return corners[kept], shades[kept]


def _drawn(
    corners: Float[np.ndarray, "face 3 2"], depth: Float[np.ndarray, "face 3"], size: tuple[int, int]
) -> tuple[Int[np.ndarray, "height width"], Float[np.ndarray, "height width 3"], Float[np.ndarray, "height width"]]:
    """Returns by pixel the nearest face (-1 for none), the weights of its corners, and its depth.

    Weights are perspective-correct: inverse to the corners' depth.
    """
    face = np.full(size[0] * size[1], -1)
    weights, nearest = np.zeros((len(face), 3)), np.full(len(face), np.inf)
    low = np.maximum(np.ceil(corners.min(1) - 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(1) - 0.5), np.array(size[::-1]) - 1).astype(np.int64)
    extent = np.maximum(high - low + 1, 0)
    side = extent.max(1)
    flat = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    drawable = (extent.min(1) > 0) & (np.abs(flat) > 1e-12)
    for width in np.unique(1 << np.ceil(np.log2(np.maximum(side[drawable], 1))).astype(np.int64)):
        group = np.flatnonzero(drawable & (side <= width) & (side * 2 > width))
        for start in range(0, len(group), step := max(1, LARGEST // int(width) ** 2)):
            chosen = group[start : start + step]
            found = _candidates(corners[chosen], depth[chosen], low[chosen], high[chosen], int(width))
            row, pixel, shares, distance = found[0], found[1] @ np.array([1, size[1]]), found[2], found[3]
            order = np.argsort(-distance, kind="stable")
            order = order[distance[order] < nearest[pixel[order]]]
            nearest[pixel[order]], face[pixel[order]] = distance[order], chosen[row[order]]
            weights[pixel[order]] = shares[order]
    return face.reshape(size), weights.reshape(*size, 3), nearest.reshape(size)


def _candidates(
    corners: Values, depth: Values, low: Values, high: Values, width: int
) -> tuple[Values, Values, Values, Values]:
    """Returns pixels (x, y) in faces with boxes of at most `width`: face, pixel, weights of corners, depth."""
    steps = np.stack(np.meshgrid(np.arange(width), np.arange(width)), -1).reshape(-1, 2)
    pixels = low[:, None] + steps
    a, b, c = (corners[:, i, None] for i in range(3))
    center = pixels + 0.5
    area = _cross(b - a, c - a)
    shares = np.stack(
        [_cross(b - center, c - center), _cross(c - center, a - center), _cross(a - center, b - center)], 2
    )
    shares = shares / area[..., None]
    inside = (shares >= 0).all(2) & (pixels <= high[:, None]).all(2)
    row, column = np.nonzero(inside)
    inverse = shares[row, column] / depth[row]
    distance = 1 / inverse.sum(1)
    return row, pixels[row, column], inverse * distance[:, None], distance


def _cross(one: Values, other: Values) -> Values:
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
