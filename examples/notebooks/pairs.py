# %% [markdown]
# # Pairs and their attention maps
#
# Generates an outfit from three pairs of sketch and text, and shows where each pair acts. It uses the shipped models.
#
# Run `python examples/notebooks/pairs.py` in the root of the checkout, or open it there as a notebook:
# `pip install jupytext jupyterlab`, then `jupytext --to notebook --output pairs.ipynb examples/notebooks/pairs.py`. The
# environment variable `STEPS` sets the number of steps.

# %%
import os

import torch
from PIL import Image

from weftwork.attention_processors import MapRecorder, PairedAdapter, SketchTextPair, overlay
from weftwork.pipelines import ConditionedStableDiffusionPipeline, shipped

STEPS = int(os.environ.get("STEPS", "20"))

pipe = ConditionedStableDiffusionPipeline.from_pretrained(shipped("tiny-diffusion"))
pipe.attach(paired=PairedAdapter.from_pretrained(shipped("outfits-paired")))

# %% [markdown]
# A pair is a sketch on the canvas of the whole image and a text. `region="sketch"` keeps the pair inside its strokes.

# %%
texts = {"jacket": "a red striped jacket", "skirt": "a black dotted skirt", "boots": "plain brown boots"}
sketches = {name: Image.open(f"examples/outfit/{name}.png") for name in texts}
pairs = [SketchTextPair(sketches[name], texts[name], region="sketch") for name in texts]


def generate(pairs, recorder=None):
    return pipe(
        "a person wearing an outfit",
        conditions={"paired": pairs},
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
        recorder=recorder,
    ).images[0]


def row(images):
    """Returns images side by side, each with 256 pixels a side."""
    sheet = Image.new("RGB", (256 * len(images), 256))
    for index, image in enumerate(images):
        sheet.paste(image.convert("RGB").resize((256, 256)), (256 * index, 0))
    return sheet


recorder = MapRecorder()
image = generate(pairs, recorder)
row([*sketches.values(), image])

# %% [markdown]
# The influence of a pair at a place is the size of what it adds there, relative to the text attention. Warm places are
# those where the pair acts most.

# %%
maps = recorder.maps("influence", size=(image.height, image.width))[0]  # [pair, height, width]
row([overlay(image, one) for one in maps])

# %% [markdown]
# Without regions, each pair can act everywhere. The maps show which places it reads by itself.

# %%
free = [SketchTextPair(sketches[name], texts[name]) for name in texts]
recorder = MapRecorder()
image_without_regions = generate(free, recorder)
maps_without_regions = recorder.maps("influence", size=(image.height, image.width))[0]
row([image_without_regions, *(overlay(image_without_regions, one) for one in maps_without_regions)])

# %% [markdown]
# The weight of a pair goes from 0, which is the image without it bit for bit, to 1 and above.

# %%
weights = [0.0, 0.5, 1.0]
row([generate([SketchTextPair(sketches["jacket"], texts["jacket"], region="sketch", weight=one)]) for one in weights])
