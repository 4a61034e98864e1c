"""Arguments of a pipeline's call from a design: what is warned of before a run."""

from typing import Any

import pytest
from PIL import Image
from tiny import paired_adapter, tiny_pipe
from transformers import CLIPTokenizer

from weftwork.attention_processors import SketchTextPair
from weftwork.attention_processors.encoders import vocabulary
from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.arguments import call_arguments
from weftwork.pipelines.designs.design import Design
from weftwork.pretrained import shipped


def test_words_unknown_to_the_model_are_named_by_their_place(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "_WARNED", set())
    pipe: Any = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(paired=paired_adapter(pipe.unet))
    pipe.tokenizer = CLIPTokenizer.from_pretrained(shipped("tiny-drawings") / "tokenizer")
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer), mean_resizing=False)
    pairs = [SketchTextPair(text="a dark cat"), SketchTextPair(text="a red lamborghini")]
    call_arguments(pipe, Design("a cat on a roof", negative_prompt="blurry roof"))
    pipe.encode_conditions({"paired": pairs})  # as every call with conditions does
    assert [one.getMessage().partition(", unknown to this model")[0] for one in caplog.records] == [
        "prompt: got 'roof'",
        "negative_prompt: got 'blurry'",
        "conditions.paired[1]: text: got 'lamborghini'",
    ]


def test_regions_of_another_aspect_are_named_by_their_place() -> None:
    pipe: Any = tiny_pipe(ConditionedStableDiffusionPipeline)
    plain, square, wide = (SketchTextPair(text="a cat", region=one) for one in (None, mask(64, 64), mask(64, 32)))

    def check(*pairs: SketchTextPair, **sides: int) -> None:
        call_arguments(pipe, Design("a cat", conditions={"paired": pairs}, **sides))

    check(plain, square, square)
    check(plain, wide, height=32, width=64)
    with pytest.raises(ValueError, match=r"^conditions.paired\[1\]: region: got sketches .* 0.50 for an image of 1.00"):
        check(plain, wide)
    with pytest.raises(ValueError, match=r"^conditions.paired\[2\]: region: got aspects .*\[0.5, 1.0\], expected one"):
        check(plain, square, wide)


def mask(width: int, height: int) -> Image.Image:
    return Image.new("L", (width, height), 255)
