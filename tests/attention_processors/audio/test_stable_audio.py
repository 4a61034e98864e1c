"""Stable Audio's transformer with conditions: without any the stock model's bits, and exact with them."""

import copy
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers import StableAudioPipeline
from peft import LoraConfig, inject_adapter_in_model
from tiny_audio import CHANNELS, LATENTS, spatial_adapter, tiny_audio_pipe, tiny_transformer, transformer_inputs

from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
from weftwork.attention_processors.core.branch import Branch, DecoupledBranch
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.joint_branch import JointBranch
from weftwork.attention_processors.core.processor import conditioned, install, install_inputs, restore
from weftwork.attention_processors.style.adapter import StyleAdapter
from weftwork.pipelines.audio.cosine_scheduler import CosineScheduler, at_time
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pipelines.core.attach import attach

WIDTH, DIM = 32, 64  # keys, tokens


def transformer() -> Any:
    model = tiny_transformer()
    install(model)
    install_inputs(model, [f"transformer_blocks.{i}" for i in range(3)])
    return model


def branch(kind: Any = DecoupledBranch, *, gain: float = 1.0, rows: int = 2, tokens: int = 4) -> Branch:
    noise = torch.Generator().manual_seed(3)
    key, value = (torch.randn(rows, tokens, WIDTH, generator=noise) for _ in range(2))
    return kind(key, value, torch.full((rows, 1, 1, 1), gain))


def conditioning(made: Branch, blocks: int = 3) -> Conditioning:
    return Conditioning({f"transformer_blocks.{i}.attn2": (made,) for i in range(blocks)})


def controlled(*added: torch.Tensor) -> Conditioning:
    return Conditioning({}, inputs={f"transformer_blocks.{i}": one for i, one in enumerate(added)})


def run(model: Any, conditioning: Conditioning, **inputs: Any) -> torch.Tensor:
    with conditioned(model, conditioning):
        return model(**inputs).sample


def test_without_conditions_it_is_the_stock_model() -> None:
    stock, model, inputs = tiny_transformer(), tiny_transformer(), transformer_inputs()
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[0, 3:] = False
    for more in ({}, {"attention_mask": torch.ones(2, LATENTS, dtype=torch.bool)}, {"encoder_attention_mask": mask}):
        expected = stock(**inputs, **more).sample
        assert torch.equal(model(**inputs, **more).sample, expected)
        install(model)
        assert torch.equal(model(**inputs, **more).sample, expected)
        assert torch.equal(run(model, Conditioning({}), **inputs, **more), expected)
        assert torch.equal(run(model, conditioning(branch(gain=0.0)), **inputs, **more), expected)
        assert not torch.equal(run(model, conditioning(branch()), **inputs, **more), expected)
        restore(model)
    model, zeros = transformer(), torch.zeros(2, LATENTS + 1, DIM)
    assert torch.equal(run(model, controlled(zeros, zeros), **inputs), stock(**inputs).sample)
    restore(model)
    assert not any(block._forward_pre_hooks for block in model.transformer_blocks)


def test_a_joined_token_is_a_token_of_the_text() -> None:
    model, inputs = transformer(), transformer_inputs()
    extra = torch.randn(2, 4, 24, generator=torch.Generator().manual_seed(5))
    longer = {**inputs, "encoder_hidden_states": torch.cat([inputs["encoder_hidden_states"], extra], 1)}
    projected = model.cross_attention_proj(extra)
    joined = Conditioning(
        {
            f"transformer_blocks.{i}.attn2": (
                JointBranch(block.attn2.to_k(projected), block.attn2.to_v(projected), torch.ones(2, 1, 1, 1)),
            )
            for i, block in enumerate(model.transformer_blocks)
        }
    )
    torch.testing.assert_close(run(model, joined, **inputs), model(**longer).sample, atol=1e-5, rtol=1e-5)


def test_control_is_added_before_its_block() -> None:
    model, inputs = transformer(), transformer_inputs()
    added = torch.randn(2, LATENTS + 1, DIM, generator=torch.Generator().manual_seed(1))
    expected = model(**inputs).sample
    for at in range(3):
        seen: list[torch.Tensor] = []
        hook = model.transformer_blocks[at].norm1.register_forward_pre_hook(
            lambda _, given, to=seen: to.append(given[0])
        )
        control = [*[torch.zeros_like(added)] * at, added]
        assert not torch.equal(run(model, controlled(*control), **inputs), expected)
        model(**inputs)
        hook.remove()
        torch.testing.assert_close(seen[0] - seen[1], added, atol=1e-5, rtol=1e-5)
    with pytest.raises(RuntimeError, match=r"inputs: got some for transformer_blocks\.3, which takes none"):
        run(model, controlled(*[added] * 4), **inputs)


def test_checkpointed_gradients_are_the_same_bits() -> None:
    """Also where the backward pass runs in another thread."""
    gradients = []
    for checkpointed, threaded in ((False, False), (True, False), (True, True)):
        model, inputs = transformer().train(), transformer_inputs()
        if checkpointed:
            model.enable_gradient_checkpointing()
        key = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(3)).requires_grad_()
        control = torch.randn(2, LATENTS + 1, DIM, generator=torch.Generator().manual_seed(4)).requires_grad_()
        made = DecoupledBranch(key, key * 2, torch.ones(2, 1, 1, 1))
        loss = run(model, replace(controlled(control), branches=conditioning(made).branches), **inputs).square().sum()
        run(model, conditioning(branch(gain=0.5)), **inputs)  # another pass must not be seen by the recomputation
        if threaded:
            thread = threading.Thread(target=loss.backward)
            thread.start()
            thread.join()
        else:
            loss.backward()
        gradients.append((key.grad, control.grad))
    for one, *others in zip(*gradients, strict=True):
        assert one.abs().sum() > 0 and all(torch.equal(one, other) for other in others)


def test_lora_trains_beside_conditions() -> None:
    model, inputs = transformer(), transformer_inputs()
    expected = model(**inputs).sample
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q", "to_v"]), model)
    assert torch.equal(model(**inputs).sample, expected)
    run(model, conditioning(branch()), **inputs).square().sum().backward()
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained and all("lora" in name for name in trained)


# ControlNet


def test_a_new_controlnet_changes_nothing_and_learns() -> None:
    model, inputs = transformer(), transformer_inputs()
    net = StableAudioControlNetModel.from_transformer(model, 2, CHANNELS + 5)
    control = torch.randn(2, CHANNELS + 5, LATENTS, generator=torch.Generator().manual_seed(6))
    residuals = net(**inputs, control=control)
    assert len(residuals) == len(net.blocks) == 2
    assert all(r.shape == (2, LATENTS + 1, DIM) and not r.any() for r in residuals)
    assert torch.equal(run(model, controlled(*residuals), **inputs), model(**inputs).sample)
    blocks = copy.deepcopy(net.transformer_blocks.state_dict())
    assert all(torch.equal(t, model.state_dict()[f"transformer_blocks.{n}"]) for n, t in blocks.items())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        run(model, controlled(*net(**inputs, control=control)), **inputs).square().mean().backward()
        optimizer.step()
    assert net.control_out[0].weight.any() and net.control_in.weight.any()
    assert not all(torch.equal(t, blocks[n]) for n, t in net.transformer_blocks.state_dict().items())
    off = net(**inputs, control=control, conditioning_scale=0.0)
    assert torch.equal(run(model, controlled(*off), **inputs), model(**inputs).sample)


def test_a_controlnet_reads_conditions_too() -> None:
    net, inputs = StableAudioControlNetModel.from_transformer(tiny_transformer(), 1), transformer_inputs()
    torch.nn.init.eye_(net.control_out[0].weight)
    control = torch.zeros(2, CHANNELS, LATENTS)
    plain = net(**inputs, control=control)[0]
    for gain in (0.0, 1.0):
        with conditioned(net, conditioning(branch(gain=gain))):
            assert torch.equal(plain, net(**inputs, control=control)[0]) == (gain == 0)


def test_a_controlnet_comes_and_goes_with_its_adapter() -> None:
    pipe: Any = tiny_audio_pipe(VideoToAudioPipeline)
    pipe.attach(
        spatial=spatial_adapter(pipe.transformer),
        controlnet=StableAudioControlNetModel.from_transformer(pipe.transformer, 1),
    )
    pipe.attach(style=StyleAdapter.for_denoiser(pipe.transformer, styles=("a",)))
    assert pipe.controlnet is not None
    pipe.detach("style")
    assert pipe.controlnet is not None
    pipe.detach("spatial")
    assert pipe.controlnet is None


def test_a_controlnet_has_a_fifth_of_the_blocks_and_comes_back_from_disk(tmp_path: Path) -> None:
    net = StableAudioControlNetModel.from_transformer(tiny_transformer(num_layers=12))
    assert net.config["num_layers"] == 2
    net.save_pretrained(tmp_path)
    again: Any = StableAudioControlNetModel.from_pretrained(tmp_path)
    state = net.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    with pytest.raises(ValueError, match="num_layers: got 4, expected 1 to 3"):
        StableAudioControlNetModel.from_transformer(tiny_transformer(), 4)


# The scheduler


def test_the_scheduler_walks_like_the_stock_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchsde", ModuleType("torchsde"))  # imported there; its noise is replaced below
    from diffusers.schedulers import scheduling_cosine_dpmsolver_multistep as stock_module

    class Noise:  # both get these draws
        def __init__(self, x: torch.Tensor, **_: Any) -> None:
            self.generator, self.shape = torch.Generator().manual_seed(0), x.shape

        def __call__(self, *_: Any) -> torch.Tensor:
            return torch.randn(self.shape, generator=self.generator)

    monkeypatch.setattr(stock_module, "BrownianTreeNoiseSampler", Noise)
    for steps in (10, 25):
        ours, stock = CosineScheduler(), stock_module.CosineDPMSolverMultistepScheduler()
        generator, ends = torch.Generator().manual_seed(0), []
        for scheduler, options in ((ours, {"generator": generator}), (stock, {})):
            scheduler.set_timesteps(steps)
            sample = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(1)) * scheduler.init_noise_sigma
            for time in scheduler.timesteps:
                seen = scheduler.scale_model_input(sample, time)
                sample = scheduler.step(seen.tanh(), time, sample, **options).prev_sample
            ends.append(sample)
        assert torch.equal(ours.timesteps, stock.timesteps) and torch.equal(*ends)
    assert json.loads(ours.to_json_string())["_class_name"] == "CosineDPMSolverMultistepScheduler"


def test_what_is_asked_for_at_a_time_leads_back_to_the_data() -> None:
    noise = torch.Generator().manual_seed(0)
    latents, drawn = (torch.randn(3, 2, 8, generator=noise) for _ in range(2))
    seen, target = at_time(latents, drawn, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(seen[0], latents[0])
    torch.testing.assert_close(seen[2], drawn[2], atol=1e-6, rtol=0)
    angle = torch.tensor([0.0, 0.5, 1.0])[:, None, None] * torch.pi / 2
    torch.testing.assert_close(angle.cos() * seen - angle.sin() * target, latents)
    scheduler = CosineScheduler()
    scheduler.set_timesteps(10)
    sigma, time = scheduler.sigmas[4], scheduler.timesteps[4]
    noisy = latents + sigma * drawn
    torch.testing.assert_close(scheduler.precondition_inputs(noisy, sigma), at_time(latents, drawn, time.expand(3))[0])
    target = at_time(latents, drawn, time.expand(3))[1]
    torch.testing.assert_close(scheduler.precondition_outputs(noisy, target, sigma), latents, atol=1e-4, rtol=1e-4)


def test_a_stock_pipeline_with_an_attached_transformer_and_our_scheduler_is_saved_and_opened(tmp_path: Path) -> None:
    pipe = tiny_audio_pipe(StableAudioPipeline)
    attach(pipe, spatial=spatial_adapter(pipe.transformer))
    pipe.save_pretrained(tmp_path)
    opened = StableAudioPipeline.from_pretrained(tmp_path, text_encoder=None, tokenizer=None)
    assert type(opened) is StableAudioPipeline and type(opened.scheduler) is CosineScheduler
    inputs = transformer_inputs()
    assert torch.equal(opened.transformer(**inputs).sample, pipe.transformer(**inputs).sample)
