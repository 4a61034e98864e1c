"""Draw a design with seeds 0 to 63 and join all images to one sheet of eight columns.

python -m weftwork.scripts.maintenance.image_sheet examples/scene/scene.json docs/drawings-sheet.jpg
"""

import sys
from dataclasses import replace

from diffusers.utils import make_image_grid

from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import draw, open_pipeline
from weftwork.pretrained import DEFAULT_MODEL

SIDE = 8
QUALITY = 88


def main() -> None:
    design, target = read_design(sys.argv[1]), sys.argv[2]
    pipe = open_pipeline(design.model or DEFAULT_MODEL, {}, design)
    seeds = range(0, SIDE * SIDE, SIDE)
    images = [image for seed in seeds for image in draw(pipe, replace(design, seed=seed), SIDE)]
    make_image_grid(images, SIDE, SIDE).save(target, quality=QUALITY)


if __name__ == "__main__":
    main()
