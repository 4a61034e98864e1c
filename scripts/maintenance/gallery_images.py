"""Draw the images of the gallery from the designs beside them, with the shipped models.

python -m weftwork.scripts.maintenance.gallery_images docs/gallery
"""

import sys
from pathlib import Path

from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import attach_all, draw_files, open_pipeline
from weftwork.pretrained import DEFAULT_MODEL


def main() -> None:
    pipes: dict[str, ConditionedPipelineMixin] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        design = read_design(path)
        model = design.model or DEFAULT_MODEL
        pipes[model] = pipe = pipes.get(model) or open_pipeline(model, {}, design)
        attach_all(pipe, model, {}, design.conditions)
        print(*draw_files(pipe, design, [path.with_suffix(".png")]))


if __name__ == "__main__":
    main()
