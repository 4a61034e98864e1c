"""Published IP-Adapters of transformers: equal to diffusers' own, or to plain torch, on the same random weights."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from safetensors.torch import save_file
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from weftwork.attention_processors.core.attached import adapter_class
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import call_layout
from weftwork.attention_processors.core.processor import conditioned, install
from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.reference.conditions import Reference
from weftwork.scripts.benchmarks.backbones.tiny import FLUX, flux, parts, run, sd3
from weftwork.scripts.cli import main
from weftwork.scripts.convert import TRANSFORMERS
from weftwork.scripts.converters.command import convert_published, restore_published
from weftwork.scripts.converters.transformers import FORMATS, adapter_to_published, published_to_adapter

DIM, TOKEN_DIM, IMAGE_DIM, TOKENS, STATES = 32, 32, 12, 4, 9
TOLERANCE = 1e-5


def noise(*shape: int, seed: int = 0, scale: float = 0.3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def checkpoint(kind: str) -> dict[str, Tensor]:
    """Random tensors under the keys of the published files."""
    shapes: dict[str, tuple[int, ...]] = {}
    if kind == "xlabs-flux":
        for i, part in itertools.product(range(2), "kv"):
            path = f"double_blocks.{i}.processor.ip_adapter_double_stream_{part}_proj"
            shapes |= {f"{path}.weight": (DIM, TOKEN_DIM), f"{path}.bias": (DIM,)}
        shapes |= {"ip_adapter_proj_model.proj.weight": (TOKENS * TOKEN_DIM, IMAGE_DIM)}
        shapes |= {"ip_adapter_proj_model.proj.bias": (TOKENS * TOKEN_DIM,)}
        shapes |= {f"ip_adapter_proj_model.norm.{x}": (TOKEN_DIM,) for x in ("weight", "bias")}
    elif kind == "instantx-flux":
        shapes |= {f"ip_adapter.{i}.to_{x}_ip.weight": (DIM, TOKEN_DIM) for i in range(4) for x in "kv"}
        shapes |= {"image_proj.proj.0.weight": (2 * IMAGE_DIM, IMAGE_DIM), "image_proj.proj.0.bias": (2 * IMAGE_DIM,)}
        shapes |= {"image_proj.proj.2.weight": (TOKENS * TOKEN_DIM, 2 * IMAGE_DIM)}
        shapes |= {"image_proj.proj.2.bias": (TOKENS * TOKEN_DIM,)}
        shapes |= {f"image_proj.norm.{x}": (TOKEN_DIM,) for x in ("weight", "bias")}
    else:
        shapes |= sd3_shapes()
    return {key: noise(*shape, seed=i) for i, (key, shape) in enumerate(shapes.items())}


def sd3_shapes(hidden: int = 64, layers: int = 3) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"image_proj.latents": (1, TOKENS, hidden)}
    linear = {"proj_in": (hidden, IMAGE_DIM), "proj_out": (DIM, hidden), "time_embedding.linear_1": (hidden, 320)}
    linear |= {"time_embedding.linear_2": (hidden, hidden), "layers.0.2.1": (4 * hidden, hidden)}
    for name, shape in linear.items():
        shapes |= {f"image_proj.{name}.weight": shape, f"image_proj.{name}.bias": shape[:1]}
    for name, width in {"norm_out": DIM, "layers.0.0.norm1": hidden, "layers.0.0.norm2": hidden}.items():
        shapes |= {f"image_proj.{name}.{x}": (width,) for x in ("weight", "bias")}
    shapes |= {f"image_proj.layers.0.1.0.{x}": (hidden,) for x in ("weight", "bias")}
    for name, shape in {"0.to_q": (1, 1), "0.to_kv": (2, 1), "0.to_out": (1, 1), "1.1": (4, 1), "1.3": (1, 4)}.items():
        shapes[f"image_proj.layers.0.{name}.weight"] = (shape[0] * hidden, shape[1] * hidden)
    for i in range(layers):
        shapes |= {f"ip_adapter.{i}.{x}.weight": (DIM, DIM) for x in ("to_k_ip", "to_v_ip")}
        shapes |= {f"ip_adapter.{i}.norm_ip.linear.weight": (2 * DIM, hidden)}
        shapes |= {f"ip_adapter.{i}.norm_ip.linear.bias": (2 * DIM,)}
        shapes |= {f"ip_adapter.{i}.{x}.weight": (8,) for x in ("norm_q", "norm_k", "norm_ip_k")}
    return shapes


def groups(flat: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The groups that diffusers' loaders make of a file."""
    made: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in flat.items():
        group = "image_proj" if key.startswith(("ip_adapter_proj_model.", "image_proj.")) else "ip_adapter"
        name = key.partition(".")[2].replace("processor.", "")
        for part in "kv":
            name = name.replace(f"ip_adapter_double_stream_{part}_proj", f"to_{part}_ip")
        made[group][name] = tensor
    return made


def embeds(kind: str, row: int = 0) -> Tensor:
    shape = (IMAGE_DIM,) if kind.endswith("flux") else (STATES, IMAGE_DIM)
    return noise(*shape, seed=50 + row, scale=1.0)


def ours(kind: str, model: Any, inputs: Any, *references: list[Reference]) -> Conditioning:
    """Conditioning of one list of references per row."""
    config, state = published_to_adapter(kind, checkpoint(kind), model)
    adapter = FORMATS[kind].adapter(**config)
    adapter.load_state_dict(state)
    encoded = adapter.eval()(adapter.features(adapter.collate(references), {}))
    return Conditioning.of({"it": encoded}, call_layout(model, inputs))


def output(kind: str, model: Any, inputs: Any, **options: Any) -> Tensor:
    rows = [[Reference(embeds=embeds(kind, row), **options)] for row in range(2)]
    with conditioned(model, ours(kind, model, inputs, *rows)):
        return run(model, inputs)


def diffusers_flux(model: Any, inputs: Any, scale: float) -> Tensor:
    theirs = copy.deepcopy(model)
    theirs._load_ip_adapter_weights([groups(checkpoint("xlabs-flux"))], low_cpu_mem_usage=False)
    for processor in theirs.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [scale]
    given = torch.stack([embeds("xlabs-flux", row) for row in range(2)])[:, None]
    return run(theirs, {**inputs, "joint_attention_kwargs": {"ip_adapter_image_embeds": [given]}})


def diffusers_sd3(model: Any, inputs: Any, scale: float) -> Tensor:
    theirs = copy.deepcopy(model)
    given, projection = groups(checkpoint("instantx-sd3")), "_convert_ip_adapter_image_proj_to_diffusers"
    assert hasattr(theirs, projection)
    theirs.set_attn_processor(theirs._convert_ip_adapter_attn_to_diffusers(given["ip_adapter"], False))
    theirs.image_proj = sd3_projection(given["image_proj"])
    for processor in theirs.attn_processors.values():
        processor.scale = scale
    states = torch.stack([embeds("instantx-sd3", row) for row in range(2)])
    return run(theirs.eval(), {**inputs, "joint_attention_kwargs": {"ip_adapter_image_embeds": states}})


def sd3_projection(tensors: dict[str, Tensor]) -> Any:
    """diffusers' loader takes a depth of 4 for granted; its class does not."""
    from diffusers.models.embeddings import IPAdapterTimeImageProjection

    names = {"0.norm1": "ln0", "0.norm2": "ln1", "0.to_q": "attn.to_q", "0.to_kv": "attn.to_kv", "1.0": "adaln_norm"}
    names |= {"0.to_out": "attn.to_out.0", "1.1": "ff.net.0.proj", "1.3": "ff.net.2", "2.1": "adaln_proj"}
    made = IPAdapterTimeImageProjection(
        embed_dim=IMAGE_DIM, output_dim=DIM, hidden_dim=64, depth=1, heads=1, num_queries=TOKENS
    )

    def renamed(key: str) -> str:
        for theirs, own in names.items():
            key = key.replace(f"layers.0.{theirs}.", f"layers.0.{own}.")
        return key

    made.load_state_dict({renamed(key): tensor for key, tensor in tensors.items()})
    return made


def deep_flux() -> Any:
    """Two blocks of each kind: what a layer does to the text's tokens shows in the next."""
    _, inputs = flux()
    sizes: dict[str, Any] = {"in_channels": 4, "joint_attention_dim": 32, "pooled_projection_dim": 32}
    sizes |= {**FLUX, "axes_dims_rope": (4, 4, 8), "num_layers": 2, "num_single_layers": 2}
    return FluxTransformer2DModel(**sizes), inputs


class PlainInstantX:
    """InstantX's attention for FLUX.1 in plain torch, as its authors write it."""

    def __init__(self, key: Tensor, value: Tensor, tokens: Tensor, scale: float) -> None:
        self.key, self.value, self.tokens, self.scale = key, value, tokens, scale

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, attention_mask: Any = None,
        image_rotary_emb: Any = None,
    ) -> Any:  # fmt: skip
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
            return (weights @ value).transpose(1, 2).flatten(2)

        query, key = attn.norm_q(heads(attn.to_q(hidden_states))), attn.norm_k(heads(attn.to_k(hidden_states)))
        value, given = heads(attn.to_v(hidden_states)), heads(self.tokens @ self.key.T)
        given = given * torch.rsqrt(given.square().mean(-1, keepdim=True) + 1e-5)
        added = self.scale * attend(query, given, heads(self.tokens @ self.value.T))
        if encoder_hidden_states is not None:
            text = encoder_hidden_states
            query = torch.cat([attn.norm_added_q(heads(attn.add_q_proj(text))), query], 2)
            key = torch.cat([attn.norm_added_k(heads(attn.add_k_proj(text))), key], 2)
            value = torch.cat([heads(attn.add_v_proj(text)), value], 2)
        query, key = (apply_rotary_emb(x, image_rotary_emb) for x in (query, key))
        out = attend(query, key, value)
        if encoder_hidden_states is None:
            return out + added
        text, image = out.split([encoder_hidden_states.shape[1], hidden_states.shape[1]], 1)
        return attn.to_out[0](image + added), attn.to_add_out(text)


def plain_flux(model: Any, inputs: Any, scale: float) -> Tensor:
    given, theirs = checkpoint("instantx-flux"), copy.deepcopy(model)
    tokens = torch.stack([embeds("instantx-flux", row) for row in range(2)])
    tokens = F.gelu(tokens @ given["image_proj.proj.0.weight"].T + given["image_proj.proj.0.bias"])
    tokens = tokens @ given["image_proj.proj.2.weight"].T + given["image_proj.proj.2.bias"]
    norm = [given[f"image_proj.norm.{x}"] for x in ("weight", "bias")]
    tokens = F.layer_norm(tokens.unflatten(1, (TOKENS, -1)), (TOKEN_DIM,), *norm)
    for i, name in enumerate(f"{kind}transformer_blocks.{n}.attn" for kind in ("", "single_") for n in range(2)):
        key, value = (given[f"ip_adapter.{i}.to_{x}_ip.weight"] for x in "kv")
        theirs.get_submodule(name).set_processor(PlainInstantX(key, value, tokens, scale))
    return run(theirs, inputs)


EXPECTED: dict[str, tuple[Callable[..., Any], Callable[..., Tensor]]] = {
    "xlabs-flux": (deep_flux, diffusers_flux),
    "instantx-flux": (deep_flux, plain_flux),
    "instantx-sd3": (sd3, diffusers_sd3),
}
every = pytest.mark.parametrize("kind", EXPECTED)


@every
@torch.no_grad()
def test_outputs_are_those_of_the_published_attention(kind: str) -> None:
    backbone, expected = EXPECTED[kind]
    model, inputs = parts(backbone)
    stock, wanted = run(model, inputs), expected(model, inputs, 0.7)
    install(model)
    torch.testing.assert_close(output(kind, model, inputs, weight=0.7), wanted, atol=TOLERANCE, rtol=0)
    assert (wanted - stock).abs().max() > 1e-2
    assert torch.equal(output(kind, model, inputs, weight=0.0), stock)


@torch.no_grad()
def test_keys_follow_the_timestep() -> None:
    """One conditioning serves all timesteps of a run."""
    model, inputs = parts(sd3)
    rows = [[Reference(embeds=embeds("instantx-sd3", row), weight=0.6)] for row in range(2)]
    wanted = {}
    for time in (500.0, 100.0):
        wanted[time] = diffusers_sd3(model, {**inputs, "timestep": torch.full((2,), time)}, 0.6)
    install(model)
    conditioning = ours("instantx-sd3", model, inputs, *rows)
    with conditioned(model, conditioning):
        for time, expected in wanted.items():
            got = run(model, {**inputs, "timestep": torch.full((2,), time)})
            torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
        with pytest.raises(ValueError, match="timestep: got several in one batch"):
            run(model, {**inputs, "timestep": torch.tensor([500.0, 100.0])})


@every
@torch.no_grad()
def test_a_region_of_everything_is_none_on_the_image(kind: str) -> None:
    """InstantX's for FLUX.1 acts on the text too without a region, in layers of one stream."""
    model, inputs = parts(EXPECTED[kind][0])
    stock = run(model, inputs)
    install(model)
    everywhere, half, none = (
        output(kind, model, inputs, region=region) for region in ((0, 0, 1, 1), (0, 0, 0.5, 1), None)
    )
    assert torch.allclose(everywhere, none, atol=TOLERANCE) == (kind != "instantx-flux")
    assert (half - stock).abs().max() > 1e-3 and (half - everywhere).abs().max() > 1e-3


@every
@torch.no_grad()
def test_two_references_of_one_design(kind: str) -> None:
    """The same reference twice is one of it, since both share one softmax; SD3.5's also share it with the image."""
    model, inputs = parts(EXPECTED[kind][0])
    install(model)
    twice = [[Reference(embeds=embeds(kind, row), weight=0.7)] * 2 for row in range(2)]
    with conditioned(model, ours(kind, model, inputs, *twice)):
        got = run(model, inputs)
    once = output(kind, model, inputs, weight=0.7)
    assert torch.allclose(got, once, atol=TOLERANCE) == (kind != "instantx-sd3")
    assert (got - once).abs().max() < 1


@every
def test_files_come_back_with_the_same_tensors(kind: str, tmp_path: Path) -> None:
    model, _ = parts(EXPECTED[kind][0])
    flat = checkpoint(kind)
    save_file(flat, tmp_path / "given.safetensors", metadata={"format": "pt"})
    torch.save(groups(flat), tmp_path / "given.bin")
    convert_published(kind, tmp_path / "given.safetensors", tmp_path / "adapter", model)
    adapter = adapter_class(tmp_path / "adapter").from_pretrained(tmp_path / "adapter")
    assert type(adapter) is FORMATS[kind].adapter
    restore_published(kind, tmp_path / "adapter", tmp_path / "again", model)
    (again,) = (tmp_path / "again").iterdir()
    assert again.read_bytes() == (tmp_path / "given.safetensors").read_bytes()
    if kind != "xlabs-flux":  # published as safetensors alone
        convert_published(kind, tmp_path / "given.bin", tmp_path / "pickled", model)
        assert (tmp_path / "pickled" / "config.json").read_bytes() == (tmp_path / "adapter/config.json").read_bytes()


@every
def test_contents_that_do_not_fit_are_refused(kind: str) -> None:
    model, _ = parts(EXPECTED[kind][0])
    flat = checkpoint(kind)
    lost, changed = next(iter(flat)), list(flat)[-1]
    for spoilt, message in (
        ({k: t for k, t in flat.items() if k != lost}, rf"(first: {lost}|{lost}: got none)".replace(".", r"\.")),
        ({**flat, "more": torch.zeros(1)}, r"1 unexpected \(first: more"),
        ({**flat, changed: torch.zeros(3)}, "got shape|got tokens|asks for"),
    ):
        with pytest.raises(ValueError, match=message):
            published_to_adapter(kind, spoilt, model)
    config, state = published_to_adapter(kind, flat, model)
    with pytest.raises(ValueError, match=r"layers: |keys: "):
        adapter_to_published(kind, {**config, "layers": {}}, state, model)


def test_the_command_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(TRANSFORMERS) == set(FORMATS)
    monkeypatch.setattr("weftwork.scripts.converters.transformers._denoiser", lambda *_: parts(deep_flux)[0])
    save_file(checkpoint("xlabs-flux"), tmp_path / "given.safetensors")
    given, adapter, again = (str(tmp_path / name) for name in ("given.safetensors", "adapter", "again"))
    assert main(["convert", "xlabs-flux", given, adapter]) == 0
    assert main(["convert", "xlabs-flux", adapter, again, "--to", "xlabs-flux"]) == 0
    assert main(["convert", "instantx-flux", given, str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("kind", "layers"), [("xlabs-flux", 19), ("instantx-flux", 57), ("instantx-sd3", 38)])
def test_published_sizes(kind: str, layers: int) -> None:
    """The denoisers of the published checkpoints, without memory for their tensors."""
    from weftwork.attention_processors.core.layers import select_layers

    with torch.device("meta"):
        model = FORMATS[kind].denoiser()
    assert len(select_layers(model, FORMATS[kind].layers)) == layers


def test_siglip_is_an_image_encoder(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    model = SiglipVisionModel(SiglipVisionConfig(**sizes, num_attention_heads=2, image_size=32, patch_size=16)).eval()
    model.save_pretrained(tmp_path / "siglip")
    loaded, pixels = ImageEncoder.from_pretrained(str(tmp_path / "siglip")), torch.rand(2, 3, 32, 32)
    out = model(2 * pixels - 1, output_hidden_states=True)
    torch.testing.assert_close(loaded.pooled(pixels), out.pooler_output)
    torch.testing.assert_close(loaded.states(pixels), out.hidden_states[-2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xlabs-flux", "instantx-flux"])
@torch.no_grad()
def test_compiled_blocks_are_equal(kind: str) -> None:
    model, inputs = parts(deep_flux)
    install(model)
    wanted = output(kind, model, inputs, region=(0, 0, 0.5, 1))
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    assert torch.equal(output(kind, model, inputs, region=(0, 0, 0.5, 1)), wanted)
