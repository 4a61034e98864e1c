"""Subjects: the authors' numbers, places of words, the conditional half alone, delayed conditioning, and errors."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from PIL import Image
from remedies import check_call
from safetensors.torch import load_file
from tiny import subject_adapter, tiny_pipe, tiny_unet
from tiny_pipelines import PIPELINES, Tiny, run_tiny
from tiny_transformers import tiny_transformer_pipe
from torch import Tensor

from weftwork.attention_processors import Subject, SubjectAdapter
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.strength import Layout, Schedule
from weftwork.attention_processors.subjects.adapter import prompt_width
from weftwork.attention_processors.subjects.conditions import delayed
from weftwork.pipelines import ConditionedStableDiffusionPipeline, attach, conditions
from weftwork.pipelines.designs.design import condition_class

REFERENCE = Path(__file__).parents[2] / "data" / "fastcomposer_reference.safetensors"
PROMPT = "a fox beside a red car"
EMBEDS = torch.randn(2, 16, generator=torch.Generator().manual_seed(7))
FOX, CAR = 4, 17
"""Positions of the last letters: every letter is a token of the tiny tokenizer, behind the begin token."""
AUDIO = ("stable_audio", "stable_audio3", "ace_step")


def built() -> Any:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(it=subject_adapter(pipe.unet))
    return pipe


def read(pipe: Any, given: Any, prompt: Any = PROMPT, **options: Any) -> list[Tensor]:
    """Returns the prompt embeddings that the denoiser gets, by step."""
    seen: list[Tensor] = []
    hook = (
        pipe.unet.down_blocks[0]
        .attentions[0]
        .register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
        )
    )
    settings = {"num_inference_steps": 2, "output_type": "latent", "guidance_scale": 3.0, **options}
    pipe(prompt, conditions=given, generator=torch.Generator().manual_seed(0), **settings)
    hook.remove()
    return seen


@torch.no_grad()
def test_equals_the_authors_module() -> None:
    given = load_file(REFERENCE)
    text, mask = given["text"], given["mask"].bool()
    adapter = SubjectAdapter.for_denoiser(tiny_unet(cross_attention_dim=12), image_dim=12)
    adapter.fuser.load_state_dict({n[16:]: v for n, v in given.items() if n.startswith("postfuse_module.")})
    designs = [
        [Subject(embeds=given["image"][row, part], token=int(place)) for part, place in enumerate(mask[row].nonzero())]
        for row in range(3)
    ]
    encoded = adapter(adapter.features(adapter.collate(designs), {}))
    unet = tiny_unet(cross_attention_dim=12)
    _, (strength,) = encoded.build(Layout(layer_levels(unet), (8, 8)))
    assert strength.on_call is not None
    changed = strength.on_call(None, unet, (torch.zeros(3, 4, 8, 8), 1, text), {})
    assert changed is not None
    fused = changed[1]["encoder_hidden_states"]
    assert (fused - given["fused"]).abs().max() <= 1e-5
    assert torch.equal(fused[~mask], text[~mask]) and (fused - text)[mask].abs().max() > 0.1


def test_delayed_conditioning_has_the_authors_steps() -> None:
    given = load_file(REFERENCE)
    for row, alpha in zip(given["text_only"], given["alpha"].tolist(), strict=True):
        for wanted, steps in zip(row.tolist(), given["steps"].tolist(), strict=True):
            schedule = Schedule(delayed(alpha, steps))
            assert sum(schedule.at(i, steps) == 0 for i in range(steps)) == wanted, (alpha, steps)
    assert delayed(0.7, 50) == 16 / 50
    assert sum(Schedule(0.3).at(i, 50) == 0 for i in range(50)) == 15


def test_text_alone_until_the_start() -> None:
    pipe = built()
    stock = read(pipe, None, num_inference_steps=5)
    start = delayed(0.7, 5)  # 2 of 5
    late = read(pipe, {"it": Subject(embeds=EMBEDS[0], text="fox", start=start)}, num_inference_steps=5)
    assert [torch.equal(one, other) for one, other in zip(late, stock, strict=True)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_words_change_their_last_token_in_the_conditional_half() -> None:
    pipe = built()
    stock = read(pipe, None)[0]
    subjects = [Subject(embeds=EMBEDS[0], text="Fox"), Subject(embeds=EMBEDS[1], text="red car")]
    changed = read(pipe, {"it": subjects})[0]
    assert (changed != stock).any(-1).nonzero().tolist() == [[1, FOX], [1, CAR]]
    tokens = [Subject(embeds=EMBEDS[0], token=FOX), Subject(embeds=EMBEDS[1], token=CAR)]
    assert torch.equal(read(pipe, {"it": tokens})[0], changed)
    half = read(pipe, {"it": Subject(embeds=EMBEDS[0], text="fox", weight=0.5)})[0]
    mean = (stock[1, FOX] + changed[1, FOX]) / 2
    torch.testing.assert_close(half[1, FOX], mean)


def test_each_prompt_has_its_own_subjects() -> None:
    pipe = built()
    prompts = [PROMPT, "a car", "a house"]
    fox, car = Subject(embeds=EMBEDS[0], text="fox"), Subject(embeds=EMBEDS[1], text="car")
    options: dict[str, Any] = {"num_images_per_prompt": 2}
    stock = read(pipe, None, prompts, **options)[0]
    changed = read(pipe, {"it": [[fox, car], [car], None]}, prompts, **options)[0]
    places = (changed != stock).any(-1).nonzero().tolist()
    assert places == [[6, FOX], [6, CAR], [7, FOX], [7, CAR], [8, 4], [9, 4]]


def test_images_are_padded_with_black_and_encoded() -> None:
    class Encoder:
        def pooled(self, images: Tensor) -> Tensor:
            self.seen = images
            return images.mean((1, 2, 3))[:, None] + torch.arange(16.0)

    pipe, encoder = built(), Encoder()
    white = Image.new("RGB", (64, 32), "white")
    with pytest.raises(ValueError, match=r"set_encoders\(image="):
        read(pipe, {"it": Subject(white, text="fox")})
    pipe.set_encoders(image=encoder)
    changed = read(pipe, {"it": [Subject(white, text="fox"), Subject(embeds=EMBEDS[1], text="car")]})[0]
    assert encoder.seen.shape == (1, 3, 32, 32)
    assert encoder.seen[0, :, 8:24].min() == 1 and encoder.seen[0, :, :7].max() == 0
    mean = torch.full((1,), 0.5) + torch.arange(16.0)
    assert torch.equal(
        read(pipe, {"it": [Subject(embeds=mean, text="fox"), Subject(embeds=EMBEDS[1], text="car")]})[0], changed
    )


@pytest.mark.parametrize(
    "tiny",
    [
        pytest.param(one, marks=[pytest.mark.slow] if one.name.startswith("qwen_image_edit") else [], id=one.name)
        for one in PIPELINES
        if one.name not in AUDIO
    ],
)
def test_subjects_act_on_all_families(tiny: Tiny) -> None:
    pipe, arguments = tiny.make(), partial(tiny.arguments, steps=1)
    stock = run_tiny(pipe, arguments())
    attach(pipe, it=SubjectAdapter.for_denoiser(pipe.transformer, image_dim=16))
    with conditions(pipe, {"it": Subject(embeds=EMBEDS[0], token=1)}):
        assert (run_tiny(pipe, arguments()) - stock).abs().max() > 1e-5
    with conditions(pipe, {"it": Subject(embeds=EMBEDS[0], token=1, weight=0.0)}):
        assert torch.equal(run_tiny(pipe, arguments()), stock)


@pytest.mark.parametrize("family", ["flux", "sd3", "qwen-image"])
def test_words_on_transformers(family: str) -> None:
    pipe = tiny_transformer_pipe(family)
    attach(pipe, it=SubjectAdapter.for_denoiser(pipe.transformer, image_dim=16))
    seen: list[Tensor] = []
    layer = getattr(pipe.transformer, "context_embedder", None) or pipe.transformer.txt_norm
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    options: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent", "height": 32, "width": 32}
    for given in ({}, {"it": Subject(embeds=EMBEDS[0], text="fox")}):
        with conditions(pipe, given):
            pipe(PROMPT, generator=torch.Generator().manual_seed(0), **options)
    hook.remove()
    stock, changed = seen[0], seen[len(seen) // 2]
    places = (changed != stock).any(-1)[-1].nonzero().flatten().tolist()
    assert places == ({"flux": [FOX], "sd3": [FOX, 77 + FOX]}.get(family) or [_fox_in_template(pipe)])


def _fox_in_template(pipe: Any) -> int:
    text = pipe.prompt_template_encode.format(PROMPT)
    ids = pipe.tokenizer(text[: text.index("fox") + 3]).input_ids
    return len(ids) - 1 - pipe.prompt_template_encode_start_idx


def test_errors_and_their_remedies() -> None:
    pipe, embeds = built(), {"embeds": EMBEDS[0]}

    def run(subjects: Any) -> Any:
        return read(pipe, {"it": subjects})

    check_call(
        run,
        Subject(text="cat", **embeds),
        "got 'cat', expected words .* a, fox, beside, red, car",
        Subject(text="car", **embeds),
    )
    same = [Subject(text="car", **embeds), Subject(text="red car", **embeds)]
    check_call(run, same, "two subjects at token 17", [same[0], Subject(text="fox", **embeds)])
    check_call(run, Subject(token=77, **embeds), "prompt has 77", Subject(token=76, **embeds))
    wide = torch.zeros(17)
    check_call(run, Subject(text="fox", embeds=wide), r"expected \(16,\)", Subject(text="fox", embeds=wide[:16]))
    other = SubjectAdapter.for_denoiser(tiny_unet(), text_dim=8, image_dim=16)
    with pytest.raises(ValueError, match="a text_dim of 8"):
        pipe.attach(other=other)
    with pytest.raises(ValueError, match="got UNet2DModel, whose config has no width of prompt embeddings"):
        prompt_width(
            UNet2DModel(
                sample_size=8,
                block_out_channels=(8,),
                down_block_types=("DownBlock2D",),
                up_block_types=("UpBlock2D",),
                norm_num_groups=4,
            )
        )


def test_designs_name_subjects_by_file_and_words(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32), "white").save(tmp_path / "white.png")
    record = {"image": "white.png", "text": "fox", "weight": 0.7, "start": 0.3}
    subject = condition_class(record, "subjects").from_record(record, lambda name: tmp_path / name)
    assert isinstance(subject, Subject) and isinstance(subject.image, Image.Image)
    assert (subject.image.size, subject.text, subject.weight, subject.start) == ((64, 32), "fox", 0.7, 0.3)
    for key in ("region", "layers"):
        with pytest.raises(ValueError, match=f"unknown key '{key}', expected image, weight"):
            Subject.from_record({**record, key: None}, lambda name: tmp_path / name)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"region": (0.0, 0.0, 0.5, 1.0)}, "RegionalPrompt"),
        ({"layers": {"decoder": 0.5}}, "layers: got factors"),
        ({"text": None}, "expected one of both"),
        ({"text": " "}, "expected words of the prompt"),
        ({"text": None, "token": -1}, "whole number"),
        ({"embeds": None}, "no image and no embeds"),
        ({"embeds": torch.full((16,), np.nan)}, "NaN"),
    ],
    ids=str,
)
def test_conditions_are_checked(wrong: dict[str, Any], words: str) -> None:
    right: dict[str, Any] = {"embeds": EMBEDS[0], "text": "fox"}
    with pytest.raises(ValueError, match=words):
        Subject(**{**right, **wrong})
    assert Subject(**right).weight == 1
