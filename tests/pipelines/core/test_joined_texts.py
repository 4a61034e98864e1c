"""Texts in regions on transformers: encoded and joined to the prompt by the pipeline itself."""

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from tiny import tiny_tokenizer
from tiny_pipelines import PIPELINES, calls_of, run_tiny
from tiny_transformers import WIDE, flux2_klein, language_tokenizer, t5, tiny_transformer_pipe
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, Qwen3Config, Qwen3Model, Qwen3VLConfig, Qwen3VLModel

from weftwork.attention_processors import RegionalAdapter, RegionalPrompt, joined_prompts
from weftwork.pipelines import attach, conditions
from weftwork.scripts.benchmarks.backbones.tiny import parts

PROMPT, TEXTS = "a man", ("red", "blue")
NOT_ALONE = ("z-image", "lumina2", "hunyuan_dit", "hunyuan_video", "mochi", "ltx2", "krea2")
"""Families in which a text of weight 0 still counts: what pools or refines the text reads it, or it stands in padding's
place."""


def complete(name: str, **size: Any) -> tuple[Any, dict[str, Any]]:
    guided: dict[str, Any] = {"true_cfg_scale": 3.0, "negative_prompt": "red"} if name in ("flux", "qwen-image") else {}
    pipe = tiny_transformer_pipe(flux2_klein if name == "flux2" else name)
    return pipe, {"height": 32, "width": 32, **guided, **size}


def with_encoder(name: str, width: int, model: Callable[[int], Any] = t5, **size: Any) -> tuple[Any, dict[str, Any]]:
    """A pipeline of `tiny_pipelines` that has a text encoder."""
    tiny = next(one for one in PIPELINES if one.name == name)
    pipe = tiny.make()
    torch.manual_seed(4)
    tokenizer = tiny_tokenizer() if model is t5 else language_tokenizer()
    pipe.register_modules(text_encoder=model(width).eval(), tokenizer=tokenizer)
    return pipe, {**tiny.size, **tiny.guided, **size}


def language_model(width: int) -> Any:
    return Qwen3Model(Qwen3Config(**{**WIDE, "hidden_size": width}, head_dim=8))


def hunyuan_dit() -> tuple[Any, dict[str, Any]]:
    """Two encoders, which the pipeline calls one after another, and a fixed number of tokens of each."""
    pipe, call = with_encoder("hunyuan_dit", 8)
    pipe.register_modules(text_encoder_2=t5(8).eval(), tokenizer_2=tiny_tokenizer())
    config = {**pipe.transformer.config, "text_len": 77, "text_len_t5": 256}
    own = {name: value for name, value in config.items() if not name.startswith("_")}
    pipe.transformer = parts(lambda: (type(pipe.transformer)(**own), {}))[0]
    return pipe, call


def hunyuan_video() -> tuple[Any, dict[str, Any]]:
    pipe, call = with_encoder("hunyuan_video", 16, language_model, negative_prompt="red", max_sequence_length=32)
    config = CLIPTextConfig(
        vocab_size=len(tiny_tokenizer()), hidden_size=8, intermediate_size=8, num_attention_heads=2, bos_token_id=0,
        num_hidden_layers=1, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    pipe.register_modules(text_encoder_2=CLIPTextModel(config).eval(), tokenizer_2=tiny_tokenizer())
    return pipe, {**call, "prompt_template": {"template": "{}", "crop_start": 0}}


def ltx2() -> tuple[Any, dict[str, Any]]:
    """Padding in front of the prompt, in whose place connectors put registers, behind it."""
    pipe, call = with_encoder("ltx2", 16, language_model, max_sequence_length=32, negative_prompt="red")
    torch.manual_seed(5)
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "num_learnable_registers": 8}
    sides = {f"{side}_connector_{name}": value for side in ("video", "audio") for name, value in heads.items()}
    pipe.register_modules(connectors=LTX2TextConnectors(16, 3, rope_double_precision=False, **sides).eval())
    return pipe, call


def krea2() -> tuple[Any, dict[str, Any]]:
    """Padding between the prompt and the end of the template."""
    rope = {"mrope_section": [2, 1, 1], "rope_type": "default", "rope_theta": 1e6}
    config = Qwen3VLConfig(text_config={**WIDE, "head_dim": 8, "rope_parameters": rope}, vision_config={"depth": 0})
    pipe, call = with_encoder(
        "krea2", 16, lambda _: Qwen3VLModel(config), max_sequence_length=32, negative_prompt="red"
    )
    vars(pipe)["text_encoder_select_layers"] = (0, 2)
    pipe.prompt_template_encode_prefix, pipe.prompt_template_encode_start_idx = "a", 1
    pipe.prompt_template_encode_suffix, pipe.prompt_template_encode_num_suffix_tokens = "b", 1
    return pipe, call


CASES: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "flux": lambda: complete("flux", max_sequence_length=32),
    "flux2": lambda: complete("flux2"),
    "sd3": lambda: complete("sd3", max_sequence_length=32),
    "qwen-image": lambda: complete("qwen-image"),
    "z-image": lambda: complete("z-image"),
    "wan": lambda: with_encoder("wan", 16, max_sequence_length=24),
    "ltx": lambda: with_encoder("ltx", 16, max_sequence_length=24),
    "chroma": lambda: with_encoder("chroma", 32, max_sequence_length=24),
    "pixart": lambda: with_encoder("pixart", 16, max_sequence_length=24, negative_prompt="red", clean_caption=False),
    "auraflow": lambda: with_encoder("auraflow", 32, max_sequence_length=24),
    "cogview4": lambda: with_encoder("cogview4", 8, language_model, max_sequence_length=32, negative_prompt="red"),
    "hunyuan_dit": hunyuan_dit,
    "hunyuan_video": hunyuan_video,
    "sana": lambda: with_encoder("sana", 8, language_model, complex_human_instruction=None, negative_prompt="red"),
    "mochi": lambda: with_encoder("mochi", 16, max_sequence_length=24, negative_prompt="red"),
    "ltx2": ltx2,
    "krea2": krea2,
    "lumina2": lambda: with_encoder("lumina2", 16, language_model, system_prompt="a"),
}


def attached(name: str) -> tuple[Any, Callable[..., Tensor]]:
    pipe, call = CASES[name]()
    attach(pipe, regional=RegionalAdapter.for_denoiser(pipe.transformer))

    def drawn(given: Any = None, prompt: Any = PROMPT, seeds: tuple[int, ...] = (0,), **more: Any) -> Tensor:
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        settings = {"num_inference_steps": 2, "output_type": "latent", "generator": noise}
        arguments = {**call, **settings, "prompt": prompt, **more}
        if given is None:
            return run_tiny(pipe, arguments)
        with conditions(pipe, {"regional": given}):
            return run_tiny(pipe, arguments)

    return pipe, drawn


def prompts(**options: Any) -> list[RegionalPrompt]:
    return [RegionalPrompt(text, **options) for text in TEXTS]


@pytest.mark.parametrize("name", CASES)
def test_texts_act_and_weight_zero_is_the_prompt_alone(name: str) -> None:
    pipe, drawn = attached(name)
    with calls_of(pipe.transformer) as plain:
        stock = drawn()
    with calls_of(pipe.transformer) as calls:
        off = drawn(prompts(weight=0.0))
    everywhere, left = drawn(prompts()), drawn(prompts(region=(0.0, 0.0, 0.5, 1.0)))
    for one, other in ((everywhere, stock), (left, stock), (left, everywhere)):
        assert (one - other).abs().max() > 1e-4
    if name not in NOT_ALONE:
        torch.testing.assert_close(off, stock, atol=2e-5, rtol=1e-4)
    for (given, out), (before, wanted) in zip(calls, plain, strict=True):
        same = [name for name, value in before.items() if torch.is_tensor(value) and torch.equal(value, given[name])]
        assert {"pooled_projections", "t", "timestep"} & set(before) <= set(same)
        if {"hidden_states", "encoder_hidden_states"} <= set(same):  # an unconditional call
            assert torch.equal(out, wanted)


def test_texts_are_tokens_of_a_joined_prompt() -> None:
    pipe, drawn = attached("flux")
    region = {"region": (0.0, 0.5, 1.0, 1.0), "weight": 0.7}
    encoded = [pipe.encode_prompt(text, None, max_sequence_length=32) for text in (PROMPT, *TEXTS)]
    embeds, spans = joined_prompts(*(states for states, _, _ in encoded))
    given = [RegionalPrompt(tokens=span, **region) for span in spans[1:]]
    by_hand = drawn(given, None, prompt_embeds=embeds, pooled_prompt_embeds=encoded[0][1])
    assert torch.equal(drawn(prompts(**region)), by_hand)


@torch.no_grad()
def test_padding_stays_in_front_of_a_joined_prompt() -> None:
    """Where the encoder puts it; LTX-2's connectors then move tokens to the front."""
    pipe, drawn = attached("ltx2")
    rows = []
    for text in (PROMPT, *TEXTS):
        states, mask, *_ = pipe.encode_prompt(text, None, False, max_sequence_length=32)
        rows.append(states[0][mask[0].bool()])
        assert not mask[0, 0] and mask[0, -1]
    joined, ends = torch.cat(rows), list(accumulate(map(len, rows)))
    embeds, mask = joined.new_zeros(1, 32, joined.shape[1]), torch.zeros(1, 32, dtype=torch.long)
    embeds[0, -len(joined) :], mask[0, -len(joined) :] = joined, 1
    _, _, negative, negative_mask = pipe.encode_prompt(PROMPT, "red", True, max_sequence_length=32)
    of_prompts = {"prompt_embeds": embeds, "prompt_attention_mask": mask, "negative_prompt": None}
    of_prompts |= {"negative_prompt_embeds": negative, "negative_prompt_attention_mask": negative_mask}
    region = {"region": (0.0, 0.5, 1.0, 1.0), "weight": 0.7}
    given = [RegionalPrompt(tokens=span, **region) for span in pairwise(ends)]
    assert torch.equal(drawn(prompts(**region)), drawn(given, None, **of_prompts))


@pytest.mark.parametrize("name", ["sd3", "qwen-image", "pixart", "ltx", "chroma"])
def test_prompts_have_texts_of_their_own(name: str) -> None:
    """A batch of two prompts, of other lengths and with other numbers of texts, is its rows."""
    _, drawn = attached(name)
    more = {"negative_prompt": ["red", "red"]} if name in ("qwen-image", "pixart") else {}
    both = (PROMPT, "a person in a blue street")
    given = [prompts(region=(0.0, 0.0, 0.5, 1.0)), [RegionalPrompt("a dotted jacket", weight=0.8)]]
    together = drawn(given, list(both), (0, 1), **more)
    for row, (prompt, own) in enumerate(zip(both, given, strict=True)):
        torch.testing.assert_close(together[row], drawn(own, prompt, (row,))[0], atol=1e-4, rtol=1e-4)


def test_several_images_per_prompt() -> None:
    _, drawn = attached("sd3")
    two = drawn(prompts(), seeds=(0, 1), num_images_per_prompt=2)
    torch.testing.assert_close(two[1], drawn(prompts(), seeds=(1,))[0], atol=1e-4, rtol=1e-4)


def test_what_cannot_be_joined_is_refused() -> None:
    _, drawn = attached("qwen-image")
    with pytest.raises(ValueError, match="prompts of several lengths; pass one list of conditions per prompt"):
        drawn(prompts(), [PROMPT, "a person in a street"], (0, 1), negative_prompt=["red", "red"])
    drawn([prompts(), prompts()], [PROMPT, "a person in a street"], (0, 1), negative_prompt=["red", "red"])
    tiny = next(one for one in PIPELINES if one.name == "kandinsky5")
    pipe = tiny.make()
    attach(pipe, regional=RegionalAdapter.for_denoiser(pipe.transformer))
    for given, error in ((RegionalPrompt("blue"), "joined_prompts"), (RegionalPrompt(tokens=(5, 7)), "")):
        with conditions(pipe, {"regional": given}):
            if not error:
                run_tiny(pipe, tiny.arguments())
                continue
            with pytest.raises(ValueError, match=error):
                run_tiny(pipe, tiny.arguments())
            with pytest.raises(ValueError, match="takes no prompt_embeds; pass RegionalPrompt"):
                pipe.encode_prompt("a person")


def test_a_fixed_number_of_tokens() -> None:
    tiny = next(one for one in PIPELINES if one.name == "cogvideox")
    pipe = tiny.make()
    pipe.register_modules(text_encoder=t5(8), tokenizer=tiny_tokenizer())
    attach(pipe, regional=RegionalAdapter.for_denoiser(pipe.transformer))
    call = {**tiny.size, "max_sequence_length": 8, "prompt": PROMPT, "num_inference_steps": 1, "output_type": "latent"}
    with (
        conditions(pipe, {"regional": RegionalPrompt("blue")}),
        pytest.raises(ValueError, match=r"16 tokens with the prompt, expected at most 8 .*; shorten them, or pass"),
    ):
        run_tiny(pipe, call)
    with conditions(pipe, {"regional": RegionalPrompt(tokens=(1, 3))}):
        run_tiny(pipe, call)
