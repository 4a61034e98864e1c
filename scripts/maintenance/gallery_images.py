"""Draw the images of the gallery from the designs beside them, with the shipped models.

python -m weftwork.scripts.maintenance.gallery_images docs/gallery
"""

import sys
from pathlib import Path

from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import draw_files, open_pipeline
from weftwork.pretrained import DEFAULT_MODEL


def main() -> None:
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        design = read_design(path)
        pipe = open_pipeline(design.model or DEFAULT_MODEL, {}, design)
        print(*draw_files(pipe, design, [path.with_suffix(".png")]))


if __name__ == "__main__":
    main()
