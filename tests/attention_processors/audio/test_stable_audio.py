"""Stable Audio's transformer with conditions: without any the stock model's bits, and exact with them."""

import copy
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers import StableAudioDiTModel
from peft import LoraConfig
from tiny_audio import CHANNELS, LATENTS, tiny_transformer, transformer_inputs

from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
from weftwork.attention_processors.audio.stable_audio import ConditionedStableAudioDiTModel
from weftwork.attention_processors.core.conditioning import Branch, Conditioning, DecoupledBranch
from weftwork.attention_processors.core.processor import install, restore
from weftwork.attention_processors.style.fusions import JointBranch
from weftwork.pipelines.audio.cosine_scheduler import CosineScheduler, at_time

WIDTH, DIM = 32, 64  # keys, tokens


def conditioned() -> Any:
    return ConditionedStableAudioDiTModel.from_transformer(tiny_transformer())


def branch(kind: Any = DecoupledBranch, *, gain: float = 1.0, rows: int = 2, tokens: int = 4) -> Branch:
    noise = torch.Generator().manual_seed(3)
    key, value = (torch.randn(rows, tokens, WIDTH, generator=noise) for _ in range(2))
    return kind(key, value, torch.full((rows, 1, 1, 1), gain))


def conditioning(made: Branch, blocks: int = 3) -> Conditioning:
    return Conditioning({f"transformer_blocks.{i}.attn2": (made,) for i in range(blocks)})


def test_without_conditions_it_is_the_stock_model() -> None:
    stock, inputs = tiny_transformer(), transformer_inputs()
    model: Any = ConditionedStableAudioDiTModel.from_transformer(stock)
    assert all(
        a is b or a.data_ptr() == b.data_ptr() for a, b in zip(stock.parameters(), model.parameters(), strict=True)
    )
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[0, 3:] = False
    for more in ({}, {"attention_mask": torch.ones(2, LATENTS, dtype=torch.bool)}, {"encoder_attention_mask": mask}):
        expected = stock(**inputs, **more).sample
        assert torch.equal(model(**inputs, **more).sample, expected)
        found = install(model)
        assert torch.equal(model(**inputs, **more).sample, expected)
        assert torch.equal(model(**inputs, **more, conditioning=Conditioning({})).sample, expected)
        off = conditioning(branch(gain=0.0))
        assert torch.equal(model(**inputs, **more, conditioning=off).sample, expected)
        assert not torch.equal(model(**inputs, **more, conditioning=conditioning(branch())).sample, expected)
        restore(model, found)
    zeros = [torch.zeros(2, LATENTS + 1, DIM)] * 2
    assert torch.equal(model(**inputs, control=zeros).sample, stock(**inputs).sample)


def test_a_stock_folder_opens_and_the_saved_one_is_stock(tmp_path: Path) -> None:
    stock, inputs = tiny_transformer(), transformer_inputs()
    stock.save_pretrained(tmp_path / "stock")
    model: Any = ConditionedStableAudioDiTModel.from_pretrained(tmp_path / "stock")
    assert torch.equal(model.eval()(**inputs).sample, stock(**inputs).sample)
    model.save_pretrained(tmp_path / "ours")
    assert json.loads((tmp_path / "ours/config.json").read_text())["_class_name"] == "StableAudioDiTModel"
    again = StableAudioDiTModel.from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(again(**inputs).sample, stock(**inputs).sample)


def test_a_joined_token_is_a_token_of_the_text() -> None:
    model, inputs = conditioned(), transformer_inputs()
    install(model)
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
    torch.testing.assert_close(
        model(**inputs, conditioning=joined).sample, model(**longer).sample, atol=1e-5, rtol=1e-5
    )


def test_control_is_added_before_its_block() -> None:
    model, inputs = conditioned(), transformer_inputs()
    added = torch.randn(2, LATENTS + 1, DIM, generator=torch.Generator().manual_seed(1))
    expected = model(**inputs).sample
    for at in range(3):
        moved: Any = []
        hook = model.transformer_blocks[at].norm1.register_forward_pre_hook(
            lambda _, given, to=moved: to.append(given[0])
        )
        control = [*[torch.zeros_like(added)] * at, added]
        assert not torch.equal(model(**inputs, control=control).sample, expected)
        hook.remove()
        hook = model.transformer_blocks[at].norm1.register_forward_pre_hook(
            lambda _, given, to=moved: to.append(given[0])
        )
        model(**inputs)
        hook.remove()
        torch.testing.assert_close(moved[0] - moved[1], added, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="control: got 4 residuals for 3 blocks"):
        model(**inputs, control=[added] * 4)


def test_checkpointed_gradients_are_the_same_bits() -> None:
    gradients = []
    for checkpointed in (False, True):
        model, inputs = conditioned().train(), transformer_inputs()
        install(model)
        if checkpointed:
            model.enable_gradient_checkpointing()
        key = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(3)).requires_grad_()
        control = torch.randn(2, LATENTS + 1, DIM, generator=torch.Generator().manual_seed(4)).requires_grad_()
        made = DecoupledBranch(key, key * 2, torch.ones(2, 1, 1, 1))
        model(**inputs, conditioning=conditioning(made), control=[control]).sample.square().sum().backward()
        gradients.append((key.grad, control.grad))
    for one, other in zip(*gradients, strict=True):
        assert one.abs().sum() > 0 and torch.equal(one, other)


def test_time_is_told_apart_in_half_precision() -> None:
    model, stock = conditioned().to(torch.bfloat16), tiny_transformer().to(torch.bfloat16)
    inputs = {k: v.bfloat16() if isinstance(v, torch.Tensor) else v for k, v in transformer_inputs().items()}
    outputs = {}
    for name, one in (("stock", stock), ("ours", model)):
        inputs["timestep"] = torch.tensor([0.9985, 0.9991])  # both are 1 in bfloat16
        rows = [x[:1].expand(2, *x.shape[1:]) for x in (inputs[n] for n in ("hidden_states", "encoder_hidden_states"))]
        same = {**inputs, "hidden_states": rows[0], "encoder_hidden_states": rows[1]}
        same["global_hidden_states"] = inputs["global_hidden_states"][:1].expand(2, -1, -1)
        outputs[name] = one(**same).sample
    assert torch.equal(outputs["stock"][0], outputs["stock"][1])
    assert not torch.equal(outputs["ours"][0], outputs["ours"][1])
    assert outputs["ours"].dtype == torch.bfloat16


def test_lora_trains_on_it() -> None:
    model, inputs = conditioned(), transformer_inputs()
    expected = model(**inputs).sample
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"]))
    assert torch.equal(model(**inputs).sample, expected)
    model(**inputs).sample.square().sum().backward()
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained and all("lora" in name for name in trained)


# ControlNet


def test_a_new_controlnet_changes_nothing_and_learns() -> None:
    model, inputs = conditioned(), transformer_inputs()
    net = StableAudioControlNetModel.from_transformer(model, 2, CHANNELS + 5)
    control = torch.randn(2, CHANNELS + 5, LATENTS, generator=torch.Generator().manual_seed(6))
    residuals = net(**inputs, control=control)
    assert len(residuals) == 2 and all(r.shape == (2, LATENTS + 1, DIM) and not r.any() for r in residuals)
    assert torch.equal(model(**inputs, control=residuals).sample, model(**inputs).sample)
    blocks = copy.deepcopy(net.transformer_blocks.state_dict())
    assert all(torch.equal(t, model.state_dict()[f"transformer_blocks.{n}"]) for n, t in blocks.items())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(**inputs, control=net(**inputs, control=control)).sample.square().mean().backward()
        optimizer.step()
    assert net.control_out[0].weight.any() and net.control_in.weight.any()
    assert not all(torch.equal(t, blocks[n]) for n, t in net.transformer_blocks.state_dict().items())
    off = net(**inputs, control=control, conditioning_scale=0.0)
    assert torch.equal(model(**inputs, control=off).sample, model(**inputs).sample)


def test_a_controlnet_reads_conditions_too() -> None:
    net, inputs = StableAudioControlNetModel.from_transformer(conditioned(), 1), transformer_inputs()
    torch.nn.init.eye_(net.control_out[0].weight)
    control = torch.zeros(2, CHANNELS, LATENTS)
    plain = net(**inputs, control=control)
    assert not torch.equal(plain[0], net(**inputs, control=control, conditioning=conditioning(branch()))[0])
    assert torch.equal(plain[0], net(**inputs, control=control, conditioning=conditioning(branch(gain=0.0)))[0])


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
