# %% [markdown]
# # A style of your own
#
# Trains a new style on twenty images, and generates with it. It uses the shipped models.
#
# Run `python examples/notebooks/style.py` in the root of the checkout, or open it there as a notebook:
# `pip install jupytext jupyterlab`, then `jupytext --to notebook --output style.ipynb examples/notebooks/style.py`. The
# environment variable `STEPS` sets the number of steps.

# %%
import json
import os
import tempfile
from pathlib import Path

import torch
from PIL import Image

from weftwork.attention_processors import Style, StyleAdapter
from weftwork.pipelines import ConditionedStableDiffusionPipeline, shipped
from weftwork.scripts.cli import main

STEPS = int(os.environ.get("STEPS", "100"))
SAMPLING_STEPS = min(STEPS, 20)

# %% [markdown]
# The folder has images, and a line in `metadata.jsonl` for each: its file, a caption of the content, and the name of
# the style. These are outfits in chalk. Replace it by a folder of your own.

# %%
folder = Path("examples/finetuning/style")
rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def row(images):
    """Returns images side by side, each with 128 pixels a side."""
    sheet = Image.new("RGB", (128 * len(images), 128))
    for index, image in enumerate(images):
        sheet.paste(image.convert("RGB").resize((128, 128)), (128 * index, 0))
    return sheet


print(rows[0])
row([Image.open(folder / one["file_name"]) for one in rows[:6]])

# %% [markdown]
# This is the command `weftwork train style`. Training starts from the shipped styles and adds the new one; the backbone
# is frozen. [Training](../../docs/training.md) explains the options.

# %%
output = Path(tempfile.mkdtemp()) / "chalk"
options = {
    "train_data_dir": folder,
    "init_from": shipped("outfits-style"),
    "output_dir": output,
    "max_train_steps": STEPS,
    "train_batch_size": 10,
    "learning_rate": 1e-3,
    "logit_mean": 0.5,
    "lr_warmup_steps": min(STEPS - 1, 10),
    "ema_decay": 0.97,
    "validation_steps": 0,  # images are below
}
assert main(["train", "style", *(text for name, value in options.items() for text in (f"--{name}", str(value)))]) == 0

# %% [markdown]
# The same prompts without a style, and in the new one. [Fine-tuning](../finetuning/README.md) has the command for 600
# steps.

# %%
pipe = ConditionedStableDiffusionPipeline.from_pretrained(shipped("tiny-diffusion"))
pipe.attach(style=StyleAdapter.from_pretrained(output / "final"))
prompts = [
    "a person wearing a red plain jacket and a yellow striped skirt",
    "a person wearing a blue dotted t-shirt and white plain shorts",
    "a person wearing a green plain sweater, black plain trousers and a pink plain hat",
]


def generate(conditions):
    generators = [torch.Generator().manual_seed(0) for _ in prompts]
    settings = {"num_inference_steps": SAMPLING_STEPS, "guidance_scale": 3.0}
    return pipe(prompts, conditions=conditions, generator=generators, **settings).images


plain, chalk = generate({}), generate({"style": [Style("chalk")]})
row([*plain, *chalk])
