"""Draw the image at the top of the README: the sketches of a design with their texts, and the generated image.

python -m weftwork.scripts.maintenance.readme_image examples/scene/scene.json outputs/quickstart.png OUTPUT
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from weftwork.attention_processors.paired.conditions import SketchTextPair
from weftwork.pipelines.designs.reader import read_design

SIDE, MARGIN, LINE = 256, 12, 24


def main() -> None:
    design, image, target = (Path(text) for text in sys.argv[1:4])
    pairs = [c for row in read_design(design).conditions.values() for c in row if isinstance(c, SketchTextPair)]
    views = [(pair.sketch, pair.text or "") for pair in pairs if isinstance(pair.sketch, Image.Image)]
    views.append((Image.open(image), "the image"))
    canvas = Image.new("RGB", (len(views) * (SIDE + MARGIN) - MARGIN, SIDE + LINE), "white")
    for i, (view, words) in enumerate(views):
        left = i * (SIDE + MARGIN)
        canvas.paste(view.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, LINE))
        ImageDraw.Draw(canvas).text((left + 4, 4), words, fill="black", font_size=15)
    canvas.save(target)


if __name__ == "__main__":
    main()
