"""Expressions: names, mixtures and priors, three streams of guidance, the embedder, and errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from remedies import check_call
from safetensors.torch import load_file
from tiny import expression_adapter, raw_adapter, raw_conditions, tiny_pipe, tiny_unet
from tiny_transformers import tiny_transformer_pipe
from torch import Tensor

from weftwork.attention_processors import Expression, ExpressionAdapter
from weftwork.attention_processors.expressions.embedder import divergence
from weftwork.attention_processors.expressions.guidance import GuidedTokens
from weftwork.pipelines import ConditionedStableDiffusionPipeline, attach, conditions

REFERENCE = Path(__file__).parents[2] / "data" / "dice_reference.safetensors"
PRIOR = torch.randn(8, generator=torch.Generator().manual_seed(7))


def built(**options: Any) -> Any:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(it=expression_adapter(pipe.unet, **options))
    return pipe


def latents(pipe: Any, given: Any, prompt: Any = "a person", **options: Any) -> Tensor:
    settings = {"num_inference_steps": 3, "output_type": "latent", "guidance_scale": 3.0, **options}
    return pipe(prompt, conditions=given, generator=torch.Generator().manual_seed(0), **settings).images


def outputs(pipe: Any, given: Any, **options: Any) -> list[Tensor]:
    """Returns the guided prediction that the scheduler gets."""
    seen: list[Tensor] = []
    step = pipe.scheduler.step
    pipe.scheduler.step = lambda prediction, *args, **kwargs: (
        seen.append(prediction) or step(prediction, *args, **kwargs)
    )
    latents(pipe, given, num_inference_steps=1, **options)
    del pipe.scheduler.step
    return seen


def test_mixtures_are_those_of_priors() -> None:
    pipe = built()
    priors = pipe.adapters["it"].priors.detach()
    assert torch.equal(latents(pipe, {"it": Expression("fear")}), latents(pipe, {"it": Expression(prior=priors[1])}))
    mixed = latents(pipe, {"it": Expression({"smile": 1, "rage": 3})})
    (prior,) = torch.tensor([[0.25, 0, 0.75]]) @ priors  # a sum of two products may be rounded differently
    torch.testing.assert_close(prior, priors[0] / 4 + priors[2] * 0.75)
    assert torch.equal(mixed, latents(pipe, {"it": Expression(prior=prior)}))
    assert not torch.equal(mixed, latents(pipe, {"it": Expression("rage")}))


def test_three_streams_are_the_authors_sum() -> None:
    given = load_file(REFERENCE)
    text, expression = given["scales"].tolist()
    pipe, one = built(), Expression("fear")
    whole, null = (outputs(pipe, {"it": e}, guidance_scale=1.0)[0] for e in (one, Expression(prior=torch.zeros(8))))
    pair = outputs(pipe, {"it": one}, guidance_scale=text)[0]
    none = whole - (whole - pair) / (1 - text)  # e_0, of e_0 + s (e_2 - e_0)
    streams = none, null, whole
    wanted = streams[0] + text * (streams[1] - streams[0]) + expression * (streams[2] - streams[1])
    guided = Expression("fear", guidance=expression / text)
    assert (outputs(pipe, {"it": guided}, guidance_scale=text)[0] - wanted).abs().max() <= 1e-4
    assert (wanted - pair).abs().max() > 1e-2
    e_0, e_1, e_2 = given["streams"]
    ours = torch.lerp(e_1, e_2, expression / text)
    assert (torch.lerp(e_0, ours, text) - given["guided"]).abs().max() <= 1e-5


def test_guidance_is_that_of_each_prompt_beside_other_adapters() -> None:
    pipe = built()
    pipe.attach(raw=raw_adapter(pipe.unet))
    prompts, raw = ["a", "b", "c"], [raw_conditions(), [], raw_conditions(1)]
    rows = [[Expression("fear", guidance=2.5)], [Expression("smile")], [Expression("rage", guidance=0.0)]]

    def noise(row: int) -> torch.Generator:
        return torch.Generator().manual_seed(row)

    def run(some: list[int]) -> Tensor:
        own = {"it": [rows[row] for row in some], "raw": [raw[row] for row in some]}
        settings: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent", "guidance_scale": 3.0}
        return pipe(
            [prompts[row] for row in some], conditions=own, generator=[noise(r) for r in some], **settings
        ).images

    together = run([0, 1, 2])
    for row in range(3):
        assert (run([row])[0] - together[row]).abs().max() <= 1e-4


def test_guidance_of_0_leaves_the_null_and_the_frozen_model_without_it() -> None:
    pipe = built()
    options: dict[str, Any] = {"guidance_scale": 1.0}
    null = latents(pipe, {"it": Expression(prior=torch.zeros(8))}, **options)
    assert torch.equal(latents(pipe, {"it": Expression("fear", guidance=0.0)}, **options), null)
    alone = latents(pipe, {"it": Expression("fear", guidance=0.0, cfg="cond_only")}, **options)
    assert torch.equal(alone, latents(pipe, None, **options))
    late = latents(pipe, {"it": Expression("fear", guidance=2.0, start=1.0)}, **options)
    assert torch.equal(late, latents(pipe, None, **options))


@pytest.mark.parametrize("family", ["flux", "sd3", "qwen-image"])
def test_guidance_on_transformers(family: str) -> None:
    pipe = tiny_transformer_pipe(family)
    width = {"token_dim": 16, "prior_dim": 8, "hidden_dim": 16, "num_tokens": 2, "num_codes": 4, "num_heads": 2}
    attach(pipe, it=ExpressionAdapter.for_denoiser(pipe.transformer, expressions=["fear"], **width))
    options: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent", "height": 32, "width": 32}

    def run(*given: Expression) -> Tensor:
        with conditions(pipe, {"it": list(given)}):
            return pipe("a fox", generator=torch.Generator().manual_seed(0), **options).images

    stock, plain, guided = run(), run(Expression("fear")), run(Expression("fear", guidance=3.0))
    assert (plain - stock).abs().max() > 1e-6 and (guided - plain).abs().max() > 1e-6
    assert torch.equal(run(Expression("fear", weight=0.0, guidance=3.0)), stock)


def test_the_embedder_makes_priors_of_images() -> None:
    adapter = expression_adapter(tiny_unet(), embedder_size=32)
    image = Image.effect_noise((48, 64), 50)
    prior = adapter.prior(image)
    mean, log_variance = adapter.density([image, image.rotate(180)])
    torch.testing.assert_close(prior, mean[0].detach())
    assert not torch.allclose(mean[0], mean[1])
    Expression(prior=prior)
    assert float(divergence(mean, torch.zeros_like(mean), mean).detach()) == 0
    assert float(divergence(mean, log_variance, mean + 2).detach()) > 1


def test_all_weights_learn() -> None:
    adapter = expression_adapter(tiny_unet(), embedder_size=32)
    features = adapter.collate([[Expression("fear")], [Expression("smile")]])
    mean, log_variance = adapter.density([Image.effect_noise((32, 32), 50)] * 2)
    encoded, loss = adapter.encoded(features, adapter.mixed(features) + (mean + log_variance)[:, None])
    assert isinstance(encoded, GuidedTokens)
    (loss + sum(key.sum() + value.square().sum() for key, value in encoded.key_value.values())).backward()
    assert not [name for name, one in adapter.named_parameters() if one.grad is None]


WRONG: list[tuple[Callable[[Any], Any], Any, str, Any]] = [
    (lambda e: latents(built(), {"it": e}), Expression("joy"), "did you mean|use one of these", Expression("smile")),
    (
        lambda e: latents(built(), {"it": e}),
        Expression(prior=PRIOR[:5]),
        r"prior: got shape \(5,\), expected \(8,\)",
        Expression(prior=PRIOR),
    ),
    (
        lambda e: latents(built(), {"it": e}),
        [Expression("fear", guidance=2), Expression("rage")],
        "guidance: got 1.0, 2.0 in one prompt",
        [Expression("fear", guidance=2), Expression("rage", guidance=2)],
    ),
    (lambda o: Expression(**o), {}, "got no name and no prior", {"expression": "fear"}),
    (lambda o: Expression(**o), {"expression": "a", "prior": PRIOR}, "both a name and a prior", {"prior": PRIOR}),
    (lambda o: Expression(**o), {"expression": {"a": 0}}, "sum to 0", {"expression": {"a": 1}}),
    (lambda g: Expression("fear", guidance=g), -1, "guidance: got -1", 0),
    (
        lambda names: expression_adapter(tiny_unet(), expressions=names),
        ["a", "a"],
        "expected each name once",
        ["a"],
    ),
    (
        lambda size: expression_adapter(tiny_unet(), embedder_size=size).prior(Image.new("RGB", (8, 8))),
        0,
        "reads no images",
        16,
    ),
]


@pytest.mark.parametrize("row", WRONG, ids=lambda row: row[2])
def test_errors_and_their_remedies(row: Any) -> None:
    check_call(row[0], *row[1:])
