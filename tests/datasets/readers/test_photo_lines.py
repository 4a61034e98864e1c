"""Line drawings of photographs."""

import numpy as np
import pytest
from PIL import Image

from weftwork.datasets.readers.photo_lines import line_drawing


@pytest.mark.parametrize("side", [128, 512, 1024])
def test_lines_follow_edges_at_every_size(side: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(100, 2, (side, side, 3))
    values[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4, 0] += 80  # differs in color more than in tone
    ink = np.asarray(line_drawing(Image.fromarray(values.clip(0, 255).astype(np.uint8)))) < 128
    rows, columns = np.nonzero(ink)
    distance = np.maximum(abs(rows + 0.5 - side / 2), abs(columns + 0.5 - side / 2))
    assert (abs(distance - side / 4) <= max(4, side / 64)).all()
    assert ink[side // 2].sum() >= 2 and ink[:, side // 2].sum() >= 2


def test_an_image_without_edges_is_refused() -> None:
    with pytest.raises(ValueError, match="photo: got an image without edges, expected one with things in it; choose"):
        line_drawing(Image.new("RGB", (64, 64), "grey"))
