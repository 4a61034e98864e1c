"""The page of troubleshooting: every message of weftwork on it is in the code, and libraries raise the others."""

import ast
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny import style_adapter, tiny_pipe

from weftwork.attention_processors import SketchEncoder
from weftwork.pipelines import ConditionedStableDiffusionPipeline

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"
if not (ROOT / "pipelines").is_dir():
    pytest.skip("not in a checkout", allow_module_level=True)
GAP = "\0"
FOLDERS = ("attention_processors", "datasets/readers", "pipelines", "training", "scripts", "evaluation")


def _templates(path: Path) -> Iterator[str]:
    """Yields the strings of a module, with a gap for each value in them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[sd.0-9f]+", GAP, node.value)


@pytest.fixture(scope="module")
def templates() -> list[str]:
    return [text for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") for text in _templates(path)]


MESSAGES = [
    line
    for block in re.findall(r"```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for line in block.splitlines()
]


def _attached() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(style=style_adapter(pipe.unet))
    pipe.unet.set_default_attn_processor()


RAISED: dict[str, Callable[[], object]] = {
    "Cannot call `set_default_attn_processor`": _attached,
    "Torch not compiled with CUDA enabled": lambda: torch.empty(1, device="cuda"),
    "mat1 and mat2": lambda: torch.nn.Linear(2, 2, dtype=torch.bfloat16)(torch.zeros(1, 2)),
    "Input type": lambda: torch.nn.Conv2d(1, 1, 1, dtype=torch.float16)(torch.zeros(1, 1, 2, 2)),
    "Refer to https://github.com/facebookresearch/xformers": lambda: tiny_pipe(
        ConditionedStableDiffusionPipeline
    ).enable_xformers_memory_efficient_attention(),
    "We couldn't connect": lambda: SketchEncoder.from_pretrained("nobody/nothing"),
    "the model is not fully cached": lambda: ConditionedStableDiffusionPipeline.from_pretrained("nobody/nothing"),
}
"""Calls that raise the messages of libraries, by the beginning of their line."""
UNTRIED = ("CUDA out of memory",)  # needs a GPU
NEEDS = {"Torch not": not torch.version.cuda, "Refer to": find_spec("xformers") is None}


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_those_of_the_code(message: str, templates: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = next((call for start, call in RAISED.items() if message.startswith(start)), None)
    if message.startswith(UNTRIED):
        pytest.skip("needs a GPU")
    if trigger is None:
        parts = [re.escape(part) for part in message.split("…")]
        pattern = re.compile(f"[^{GAP}]*{GAP}[^{GAP}]*".join(parts))
        assert any(pattern.search(text) for text in templates)
        return
    if not next((holds for start, holds in NEEDS.items() if message.startswith(start)), True):
        pytest.skip("not in this environment")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Exception, match=re.escape(message)):  # of several kinds
        trigger()
