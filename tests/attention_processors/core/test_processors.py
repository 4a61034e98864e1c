"""The behaviour table: what must hold for every method, on a tiny real Stable Diffusion."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers.callbacks import SDCFGCutoffCallback
from diffusers.models.attention_processor import AttnProcessor2_0
from tiny import Method, raw_adapter, raw_conditions, tiny_pipe, tiny_unet

from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.processor import conditioned
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.core.wrapper import wrapped_class
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline

PROMPT = "a person"


def run(pipe: Any, **options: Any) -> np.ndarray:
    settings: dict[str, Any] = dict(
        prompt=PROMPT,
        num_inference_steps=2,
        output_type="latent",
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
    )
    return pipe(**{**settings, **options}).images.float().numpy()


def build(method: Method) -> Any:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(it=method.adapter(pipe.unet))
    return pipe


@pytest.fixture(scope="module")
def stock() -> np.ndarray:
    return run(tiny_pipe(StableDiffusionPipeline))


@pytest.fixture(scope="module")
def unguided() -> np.ndarray:
    return run(tiny_pipe(StableDiffusionPipeline), guidance_scale=1.0)


def test_no_condition_is_the_stock_pipeline(method: Method, stock: np.ndarray) -> None:
    pipe = build(method)
    assert np.array_equal(run(pipe), stock)
    assert np.array_equal(run(pipe, conditions={}), stock)
    assert np.array_equal(run(pipe, conditions={"it": []}), stock)
    assert np.array_equal(run(pipe, conditions={"it": [None]}), stock)


def test_weight_zero_is_the_stock_pipeline(method: Method, stock: np.ndarray) -> None:
    pipe = build(method)
    assert np.array_equal(run(pipe, conditions={"it": method.conditions(weight=0.0)}), stock)
    pipe.set_weights(it=0.0)
    assert np.array_equal(run(pipe, conditions={"it": method.conditions()}), stock)


def test_conditions_act_and_differ(method: Method, stock: np.ndarray) -> None:
    pipe = build(method)
    first, second = (run(pipe, conditions={"it": method.conditions(seed)}) for seed in (0, 2))
    assert np.abs(first - stock).max() > 1e-4
    assert np.abs(first - second).max() > 1e-5


def test_detach_restores_the_very_objects(method: Method, stock: np.ndarray) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    before, text, keys = dict(pipe.unet.attn_processors), repr(pipe.unet), list(pipe.unet.state_dict())
    pipe.attach(it=method.adapter(pipe.unet))
    assert list(pipe.unet.state_dict()) == keys
    run(pipe, conditions={"it": method.conditions()})
    with pytest.raises(RuntimeError, match="stop here"):
        run(pipe, conditions={"it": method.conditions()}, callback_on_step_end=_raising)
    assert np.array_equal(run(pipe), stock)
    pipe.detach("it")
    after = pipe.unet.attn_processors
    assert all(after[name] is processor for name, processor in before.items())
    assert repr(pipe.unet) == text
    assert list(pipe.unet.state_dict()) == keys
    assert pipe.adapters is None
    assert np.array_equal(run(pipe), stock)


def _raising(*_: Any) -> dict[str, Any]:
    raise RuntimeError("stop here")


def test_batch_equals_single_runs(method: Method) -> None:
    """Two prompts with different designs, two images each, against single runs of the first three."""
    pipe = build(method)
    designs = [method.conditions(0), method.conditions(2)]
    if method.name != "paired_shared_norm":  # whose statistics, as published, run over padding too
        designs[1] = designs[1][:1]
    seeds = [torch.Generator().manual_seed(i) for i in range(4)]
    batch = run(pipe, prompt=[PROMPT, "a b"], conditions={"it": designs}, num_images_per_prompt=2, generator=seeds)
    for i, prompt, design in ((0, PROMPT, 0), (1, PROMPT, 0), (2, "a b", 1)):
        single = run(
            pipe, prompt=prompt, conditions={"it": designs[design]}, generator=torch.Generator().manual_seed(i)
        )
        np.testing.assert_allclose(batch[i], single[0], atol=1e-4)


def test_a_prompt_without_conditions_in_a_batch_is_stock(method: Method, stock: np.ndarray) -> None:
    pipe = build(method)
    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    batch = run(pipe, prompt=[PROMPT, PROMPT], conditions={"it": [method.conditions(), None]}, generator=seeds)
    np.testing.assert_allclose(batch[1], stock[0], atol=1e-5)
    assert np.abs(batch[0] - stock[0]).max() > 1e-4


def test_without_guidance(method: Method, unguided: np.ndarray) -> None:
    pipe = build(method)
    assert np.array_equal(run(pipe, guidance_scale=1.0), unguided)
    assert np.abs(run(pipe, guidance_scale=1.0, conditions={"it": method.conditions()}) - unguided).max() > 1e-4


def test_other_schedulers_and_guidance_that_is_cut_off(method: Method) -> None:
    pipe = build(method)
    config, cut = pipe.scheduler.config, SDCFGCutoffCallback(cutoff_step_ratio=0.4)
    for scheduler, callback in ((DPMSolverMultistepScheduler, None), (EulerDiscreteScheduler, cut)):
        pipe.scheduler = scheduler.from_config(config)
        latents = run(pipe, conditions={"it": method.conditions()}, callback_on_step_end=callback)
        assert np.isfinite(latents).all()


def test_schedule_covers_the_steps_it_names(method: Method, stock: np.ndarray) -> None:
    pipe = build(method)
    always = run(pipe, conditions={"it": method.conditions(start=0.0, end=1.0)})
    assert np.array_equal(run(pipe, conditions={"it": method.conditions(start=0.0, end=0.0)}), stock)
    early = run(pipe, conditions={"it": method.conditions(end=0.4)})
    late = run(pipe, conditions={"it": method.conditions(start=0.4)})
    assert all(np.abs(a - b).max() > 1e-5 for a, b in ((early, late), (early, always), (late, stock)))


def test_a_stock_pipeline_of_a_conditioned_denoiser(method: Method) -> None:
    """No subclass."""
    if method.name == "attention_control":
        pytest.skip("changes the latents of the pipeline's scheduler, too")
    pipe = build(method)
    mine = run(pipe, conditions={"it": method.conditions(end=0.5)})
    conditioning = pipe.encode_conditions({"it": method.conditions(end=0.5)})
    stock = StableDiffusionPipeline(
        **{n: getattr(pipe, n) for n in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")},
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    stock.set_progress_bar_config(disable=True)
    with conditioned(stock.unet, conditioning):
        theirs = run(stock, callback_on_step_end=conditioning.callback)
    assert np.array_equal(theirs, mine)


def test_encoded_conditions_serve_several_seeds(method: Method) -> None:
    pipe = build(method)
    encoded = pipe.encode_conditions({"it": method.conditions(end=0.5)})
    first = run(pipe, conditioning=encoded)
    mine = run(pipe, conditions={"it": method.conditions(end=0.5)}, generator=torch.Generator().manual_seed(1))
    again = run(pipe, conditioning=encoded, generator=torch.Generator().manual_seed(1))
    assert np.array_equal(again, mine) and np.abs(again - first).max() > 1e-3


def test_two_adapters_add_up_in_any_order(method: Method) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    other = raw_adapter(pipe.unet)
    conditions = {"it": method.conditions(), "other": raw_conditions(5)}
    pipe.attach(it=method.adapter(pipe.unet))
    alone = run(pipe, conditions={"it": method.conditions()})
    pipe.attach(other=other)
    both = run(pipe, conditions=conditions)
    assert np.abs(both - alone).max() > 1e-4
    mine = pipe.adapters["it"]
    pipe.detach()
    pipe.attach(other=other)
    pipe.attach(it=mine)
    np.testing.assert_allclose(run(pipe, conditions=conditions), both, atol=1e-5)
    pipe.detach("other")
    assert np.array_equal(run(pipe, conditions={"it": method.conditions()}), alone)


def test_gradients_reach_the_adapter_and_nothing_else(trained: Method) -> None:
    """With gradient checkpointing on and off: the same bits, in every parameter, and none in the denoiser."""
    pipe = build(trained)
    unet, adapter = pipe.unet, pipe.adapters["it"]
    gradients = []
    for checkpointing in (False, True):
        unet.train()
        (unet.enable_gradient_checkpointing if checkpointing else unet.disable_gradient_checkpointing)()
        adapter.zero_grad()
        _training_loss(pipe, adapter, trained).backward()
        gradients.append({n: None if p.grad is None else p.grad.clone() for n, p in adapter.named_parameters()})
    assert all(p.grad is None for p in unet.parameters())
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.abs().max() > 0, name
        assert torch.equal(gradient, gradients[1][name]), name


def _training_loss(pipe: Any, adapter: Any, method: Method) -> torch.Tensor:
    from weftwork.attention_processors.encoders import TextEncoders

    raw = adapter.collate([method.conditions(0), method.conditions(2)])
    encoded = adapter(adapter.features(raw, {"text": TextEncoders.of(pipe)}))
    conditioning = Conditioning.of({"it": encoded}, Layout(layer_levels(pipe.unet), (8, 8)))
    generator = torch.Generator().manual_seed(0)
    noisy, context = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 32, generator=generator)
    with conditioned(pipe.unet, conditioning):
        return pipe.unet(noisy, torch.tensor([3, 700]), context).sample.square().mean()


def test_bfloat16_with_its_own_conditions_and_with_those_of_float32(method: Method) -> None:
    pipe = build(method)
    encoded = pipe.encode_conditions({"it": method.conditions()})
    pipe.to(torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 for p in pipe.adapters["it"].parameters())
    assert np.isfinite(run(pipe, conditions={"it": method.conditions()})).all()
    assert np.isfinite(run(pipe, conditioning=encoded)).all()


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    """Up to last bits: on some processors those of a convolution depend on where in memory its weights lie."""
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)


def test_adapter_round_trip(method: Method, tmp_path: Any) -> None:
    pipe = build(method)
    adapter = pipe.adapters["it"]
    adapter.save_pretrained(tmp_path / "a")
    loaded = type(adapter).from_pretrained(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "b")
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["config.json", "diffusion_pytorch_model.safetensors"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert str(tmp_path) not in (tmp_path / "b" / "config.json").read_text()
    mine = run(pipe, conditions={"it": method.conditions()})
    pipe.detach("it")
    pipe.attach(it=loaded)
    assert_same(run(pipe, conditions={"it": method.conditions()}), mine)


def test_pipeline_round_trip(method: Method, tmp_path: Any) -> None:
    pipe = build(method)
    pipe.set_weights(it=0.7)
    mine = run(pipe, conditions={"it": method.conditions()})
    pipe.save_pretrained(tmp_path)
    loaded = ConditionedStableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    loaded.set_progress_bar_config(disable=True)
    assert all(torch.equal(v, loaded.adapters.state_dict()[n]) for n, v in pipe.adapters.state_dict().items())
    assert_same(run(loaded, conditions={"it": method.conditions()}), mine)


def test_nothing_of_a_condition_is_recomputed_per_step(trained: Method) -> None:
    pipe = build(trained)
    counts: dict[str, int] = {}
    for name, module in pipe.adapters["it"].named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: counts.__setitem__(name, counts.get(name, 0) + 1))
    once = dict(counts)
    run(pipe, conditions={"it": trained.conditions()}, num_inference_steps=1)
    once, _ = dict(counts), counts.clear()
    run(pipe, conditions={"it": trained.conditions()}, num_inference_steps=3)
    assert counts == once and counts


def test_pass_through_without_arguments() -> None:
    unet = tiny_unet()
    sample, context = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 32)
    before = unet(sample, 3, context).sample
    unet.set_attn_processor({name: wrapped_class(AttnProcessor2_0)() for name in unet.attn_processors})
    assert torch.equal(unet(sample, 3, context).sample, before)
    mask = torch.tensor([[True, True, True, False, False]])
    masked = unet(sample, 3, context, encoder_attention_mask=mask).sample
    unet.set_default_attn_processor = None
    fresh = tiny_unet()
    assert torch.equal(fresh(sample, 3, context, encoder_attention_mask=mask).sample, masked)


def test_a_conditioning_moves_and_casts_its_keys(method: Method) -> None:
    pipe = build(method)
    encoded = pipe.encode_conditions({"it": method.conditions(end=0.5)})
    same, half = encoded.to("cpu"), encoded.to(dtype=torch.bfloat16)
    wanted = run(pipe, conditioning=encoded)
    assert np.array_equal(run(pipe, conditioning=same), wanted)
    for layer, branches in half.branches.items():
        for branch, original in zip(branches, encoded.branches[layer], strict=True):
            assert branch.key.dtype == branch.value.dtype == torch.bfloat16  # pyright: ignore
            assert branch.gain.dtype == original.gain.dtype == torch.float32  # pyright: ignore
    np.testing.assert_allclose(run(pipe, conditioning=half), wanted, atol=0.1)
