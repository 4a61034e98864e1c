"""Synthetic dataset: papered rooms with exact depth, seen from posed cameras."""

from weftwork.datasets.synthetic.rooms.dataset import (
    PLACES,
    REFERENCES,
    SHAPES,
    SPLITS,
    TARGETS,
    RoomSample,
    Scene,
    View,
    caption,
    geometry_edges,
    painted_edges,
    sample,
    split_of,
    things,
)

__all__ = [
    "PLACES",
    "REFERENCES",
    "SHAPES",
    "SPLITS",
    "TARGETS",
    "RoomSample",
    "Scene",
    "View",
    "caption",
    "geometry_edges",
    "painted_edges",
    "sample",
    "split_of",
    "things",
]
