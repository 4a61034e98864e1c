"""Synthetic dataset: papered rooms with exact depth, seen from posed cameras."""

from weftwork.datasets.synthetic.rooms.dataset import (
    DETAILS,
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
    "DETAILS",
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
