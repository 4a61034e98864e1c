"""Write the usage snippets of the shipped models' cards, from the methods' own.

python -m weftwork.scripts.maintenance.write_usage
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Final

from weftwork.attention_processors.core.method import Method, method_of
from weftwork.pretrained import ALL, available, shipped
from weftwork.scripts.inspect_folder import describe

BACKBONES: Final[Mapping[str, tuple[str, str]]] = {
    "tiny-drawings": (
        "diffusers:StableDiffusionPipeline",
        'image = pipe("a red car, noto style, on a white background", num_inference_steps=20).images[0]',
    ),
    "tiny-diffusion": (
        "diffusers:StableDiffusionPipeline",
        'image = pipe("a person wearing a red striped jacket", num_inference_steps=20).images[0]',
    ),
    "tiny-rooms": ("diffusers:StableDiffusionPipeline", 'image = pipe("a room", num_inference_steps=20).images[0]'),
    "tiny-audio": (
        "weftwork.pipelines.audio.pipeline:VideoToAudioPipeline",
        'pipe([], "a person walks", num_inference_steps=20).save("steps.wav")',
    ),
}
"""Pipelines of shipped backbones that need no other package, and a call."""
FENCE: Final = re.compile(r"```python\n.*?```\n", re.DOTALL)


@cache
def shipped_adapters() -> dict[str, Method]:
    """Returns methods by the shipped folder of their adapter."""
    found = {name: method_of(str(describe(shipped(name))["class"])) for name in available()}
    return {name: method for name, method in found.items() if method is not None}


def snippet(name: str) -> str:
    """Returns the Python text of the card of a shipped model."""
    if name in BACKBONES:
        path, call = BACKBONES[name]
        module, _, kind = path.partition(":")
        imports = f"from {module} import {kind}\nfrom weftwork.pretrained import shipped\n\n"
        return f'{imports}pipe = {kind}.from_pretrained(shipped("{name}"))\n{call}\n'
    return shipped_adapters()[name].snippet(f'shipped("{ALL[name].backbone}")', f'shipped("{name}")')


def with_snippet(card: str, text: str) -> str:
    """Returns a card with a snippet: in place of its first one, or in front of its data or scores."""
    block = f"```python\n{text}```\n"
    if FENCE.search(card):
        return FENCE.sub(lambda _: block, card, count=1)
    found = re.search(r"^\*\*(Data|Scores|License)", card, re.MULTILINE)
    return f"{card[: found.start()]}{block}\n{card[found.start() :]}" if found else f"{card.rstrip()}\n\n{block}"


def main() -> None:
    """Writes all cards."""
    for name in (*shipped_adapters(), *BACKBONES):
        path = shipped(name) / "README.md"
        path.write_text(with_snippet(path.read_text(encoding="utf-8"), snippet(name)), encoding="utf-8")


if __name__ == "__main__":
    main()
