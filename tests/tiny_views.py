"""One small room, two reference views of it and a target."""

from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.datasets.synthetic.rooms import sample

ROOM = sample("train", 1, size=64)
TARGET = ROOM.views["interpolating"]


def reference(name: str) -> ReferenceView:
    view = ROOM.views[name]
    return ReferenceView.of_depth(view.image / 255, view.depth, view.camera)


REFERENCES = [reference("reference_0"), reference("reference_1")]
