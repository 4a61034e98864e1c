"""The modules of LOTS against recorded outputs of the authors' own, and what weftwork adds: pairs that do not touch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from weftwork.attention_processors.paired.pair_former import (
    FUSIONS,
    ISOLATIONS,
    MASKINGS,
    GlobalSketchAttention,
    ImageProjector,
    PairFormer,
    TextProjector,
    null_tokens,
)
from weftwork.scripts.converters.command import lots_to_adapter

FIXTURE = Path(__file__).parents[2] / "data" / "lots_reference.safetensors"
TOLERANCE = 1e-5  # float32 on both sides, other kernels and another order of sums; measured at most 4.1e-6
DIM, READOUTS, IMAGE, TEXT = 64, 6, 10, 4


class Reference:
    """The authors' outputs on tiny random weights, and our modules with the same weights."""

    def __init__(self) -> None:
        with safe_open(FIXTURE, framework="pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            names = json.loads(file.metadata()["attention_layers"])
        groups: dict[str, dict[str, Tensor]] = {}
        for name in self.tensors:
            if name.startswith("ckpt/"):
                _, group, key = name.split("/", 2)
                groups.setdefault(group, {})[key] = self.tensors[name]
        layers = [name.removesuffix(".processor") for name in names if "attn2" in name]
        widths = {n: 64 if n.startswith(("down_blocks.1", "up_blocks.1")) else 96 for n in layers}
        self.state = lots_to_adapter(groups, widths)[1]
        self.image_projector = self.filled(ImageProjector(24, DIM), "image_projector")
        self.text_projector = self.filled(TextProjector(40, DIM, TEXT), "text_projector")
        self.global_sketch = self.filled(GlobalSketchAttention(24, DIM, 8), "whole")
        self.images, self.texts = self["out/image_tokens"], self["out/text_tokens"]
        self.pair_mask = self["in/pair_mask"]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def filled(self, module: Any, prefix: str) -> Any:
        own = module.state_dict()
        module.load_state_dict({name: self.state[f"{prefix}.{name}"] for name in own})
        return module.eval().requires_grad_(False)

    def pair_former(self, **options: Any) -> PairFormer:
        options = {"num_readout_tokens": READOUTS, "isolation": "shared_norm", **options}
        return self.filled(PairFormer(DIM, **options), "pair_former")


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def assert_near(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE)


# -- parity --------------------------------------------------------------------------------------------------


def test_projectors_equal_the_authors(reference: Reference) -> None:
    assert_near(reference.image_projector(reference["in/image_embeds"]), reference["out/image_tokens"])
    assert_near(reference.text_projector(reference["in/local_text_embeds"]), reference["out/text_tokens"])


def test_every_stage_of_the_pair_former_equals_the_authors(reference: Reference) -> None:
    module, stages = reference.pair_former(), []
    for part in (module.norm, *module.blocks):
        part.register_forward_hook(lambda _module, _inputs, output: stages.append(output))
    tokens = module(reference.images, reference.texts, reference.pair_mask)
    normal, *blocks = stages
    assert_near(normal.transpose(1, 2), reference["out/pair_former_groupnorm"])
    assert len(blocks) == 2
    for i, block in enumerate(blocks):
        assert_near(block.unflatten(0, (3, 3)).flatten(1, 2), reference[f"out/pair_former_block{i}"])
    assert_near(tokens.flatten(1, 2), reference["out/pair_tokens"])


def test_rows_of_the_batch_are_the_blocks_of_the_authors_mask(reference: Reference) -> None:
    ours = torch.block_diag(*[torch.ones(READOUTS + IMAGE + TEXT, READOUTS + IMAGE + TEXT)] * 3).bool()
    assert (reference["out/pair_former_attention_mask"] == ours).all()


@pytest.mark.parametrize("masking", ["pair", "modality", "all"])
def test_other_maskings_equal_the_authors(reference: Reference, masking: str) -> None:
    tokens = reference.pair_former(masking=masking)(reference.images, reference.texts, reference.pair_mask)
    assert_near(tokens.flatten(1, 2), reference[f"out/pair_tokens_masking_{masking}"])


def test_mean_fusion_equals_the_authors(reference: Reference) -> None:
    tokens = reference.pair_former(fusion="mean")(reference.images, reference.texts, reference.pair_mask)
    assert_near(tokens[:, 0], reference["out/pair_tokens_fusion_mean"])


def test_inference_without_padding_equals_the_authors(reference: Reference) -> None:
    images, texts = reference.images[2:, :2], reference.texts[2:, :2]
    tokens = reference.pair_former()(images, texts, torch.ones(1, 2, dtype=torch.bool))
    assert_near(tokens.flatten(1, 2), reference["out/infer_pair_tokens_cond"])


@pytest.mark.parametrize("pairs", [0, 3])
def test_one_null_pair_stands_for_any_number_of_the_authors(reference: Reference, pairs: int) -> None:
    parts = (reference.pair_former(), reference.image_projector, reference.text_projector)
    features = reference["in/image_embeds"][:, :pairs], reference["in/local_text_embeds"][:, :pairs]
    null = null_tokens(*parts, *features)
    assert null.shape == (1, 1, READOUTS, DIM)
    assert_near(null.expand(1, 2, -1, -1).flatten(1, 2), reference["out/infer_pair_tokens_uncond"])


def test_global_sketch_equals_the_authors(reference: Reference) -> None:
    tokens = reference.global_sketch(reference["in/global_sketch_embeds"], reference["out/pair_tokens"])
    assert_near(tokens, reference["ext/tokens"])
    every = torch.ones(3, IMAGE, dtype=torch.bool)
    assert torch.equal(torch.cat([every, reference["out/unet_encoder_attention_mask"]], 1), reference["ext/mask"])


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_token_mask_is_the_denoisers_mask(reference: Reference, isolation: str) -> None:
    mask = reference.pair_former(isolation=isolation).token_mask(reference.images, reference.texts, reference.pair_mask)
    assert torch.equal(mask.flatten(1), reference["out/unet_encoder_attention_mask"])


# -- isolation -----------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """Projectors and pair-former of odd sizes, from features of pairs to tokens."""

    def __init__(self, masking: str, dim: int = 96, **options: Any) -> None:
        super().__init__()
        self.image, self.text = ImageProjector(30, dim), TextProjector(50, dim, 3)
        self.pair_former = PairFormer(dim, num_readout_tokens=5, masking=masking, **options)

    def forward(self, images: Tensor, texts: Tensor, pair_mask: Tensor | None = None) -> Tensor:
        real = torch.ones(images.shape[:2], dtype=torch.bool) if pair_mask is None else pair_mask
        return self.pair_former(self.image(images), self.text(texts), real)


def features(pairs: int, designs: int = 1) -> tuple[Tensor, Tensor]:
    return torch.randn(designs, pairs, 11, 30), torch.randn(designs, pairs, 50)


def check_isolation(encoder: Encoder, pairs: int) -> None:
    """Each of the pairs as if it were alone; all of them whatever follows."""
    images, texts = features(pairs)
    alone = [encoder(images[:, i : i + 1], texts[:, i : i + 1]) for i in range(pairs)]
    more = [torch.cat(both, 1) for both in zip((images, texts), features(2), strict=True)]
    for count in range(1, pairs + 1):
        assert torch.equal(encoder(images[:, :count], texts[:, :count]), torch.cat(alone[:count], 1))
    assert torch.equal(encoder(*more)[:, :pairs], torch.cat(alone, 1))
    assert not torch.equal(alone[0], alone[-1])


@pytest.mark.parametrize("dim", [64, 96, 128])
@pytest.mark.parametrize("masking", ["compression", "pair"])
@torch.no_grad()
def test_no_neighbour_changes_a_bit(masking: str, dim: int) -> None:
    check_isolation(Encoder(masking, dim), pairs=4)


@pytest.mark.usefixtures("two_threads")
@torch.no_grad()
def test_no_neighbour_changes_a_bit_on_two_threads() -> None:
    check_isolation(Encoder("compression", num_layers=1), pairs=2)


@pytest.mark.parametrize("masking", ["compression", "pair"])
def test_neighbours_are_rounding_in_training_and_no_gradient_reaches_them(masking: str) -> None:
    encoder, (images, texts) = Encoder(masking).train(), features(3)
    tokens = encoder(images.requires_grad_(), texts.requires_grad_())
    torch.testing.assert_close(tokens[:, :1], encoder(images[:, :1], texts[:, :1]), rtol=0, atol=TOLERANCE)
    (tokens[:, 1] * torch.randn_like(tokens[:, 1])).sum().backward()
    for given in (images.grad, texts.grad):
        assert given is not None
        assert given[:, 1].any() and not given[:, [0, 2]].any()


@torch.no_grad()
def test_shared_norm_lets_neighbours_in() -> None:
    encoder, (images, texts) = Encoder("compression", isolation="shared_norm"), features(2)
    alone, together = encoder(images[:, :1], texts[:, :1]), encoder(images, texts)
    assert (together[:, 0] - alone[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("masking", ["compression", "pair"])
@torch.no_grad()
def test_padding_changes_no_bit_and_comes_out_as_zeros(masking: str) -> None:
    encoder, (images, texts) = Encoder(masking), features(2)
    padded = torch.cat([images, torch.randn(1, 3, 11, 30)], 1), torch.cat([texts, torch.randn(1, 3, 50)], 1)
    tokens = encoder(*padded, torch.tensor([[True, True, False, False, False]]))
    assert torch.equal(tokens[:, :2], encoder(images, texts))
    assert not tokens[:, 2:].any()


@pytest.mark.parametrize("masking", ["compression", "pair"])
@torch.no_grad()
def test_designs_of_a_batch_are_designs_of_their_own(masking: str) -> None:
    encoder, (images, texts) = Encoder(masking), features(3, designs=3)
    mask = torch.tensor([[True, False, False], [True, True, True], [False, False, False]])
    tokens = encoder(images, texts, mask)
    for i in range(3):
        assert torch.equal(tokens[i : i + 1], encoder(images[i : i + 1], texts[i : i + 1], mask[i : i + 1]))


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("masking", MASKINGS)
@torch.no_grad()
def test_permuted_pairs_give_permuted_tokens(masking: str, isolation: str) -> None:
    encoder, (images, texts) = Encoder(masking, isolation=isolation), features(4)
    order = torch.tensor([2, 0, 3, 1])
    got, wanted = encoder(images[:, order], texts[:, order]), encoder(images, texts)[:, order]
    exact = isolation == "per_pair" and masking in ("compression", "pair")
    torch.testing.assert_close(got, wanted, rtol=0, atol=0 if exact else TOLERANCE)


# -- no pairs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("masking", MASKINGS)
@torch.no_grad()
def test_a_design_of_nothing_but_padding_stays_finite(masking: str, isolation: str) -> None:
    encoder, (images, texts) = Encoder(masking, isolation=isolation, fusion="mean"), features(2, designs=2)
    tokens = encoder(images, texts, torch.tensor([[True, True], [False, False]]))
    assert tokens.isfinite().all()
    assert not tokens[1].any()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("masking", MASKINGS)
def test_without_pairs_there_are_no_tokens(masking: str, fusion: str) -> None:
    encoder, (images, texts) = Encoder(masking, fusion=fusion), features(0, designs=2)
    tokens = encoder(images, texts)
    mask = encoder.pair_former.token_mask(
        encoder.image(images), encoder.text(texts), torch.ones(2, 0, dtype=torch.bool)
    )
    assert tokens.shape == (2, 0, 5 if masking in ("compression", "all") else 14, 96)
    assert mask.shape == tokens.shape[:3]


@torch.no_grad()
def test_mean_is_that_of_the_real_pairs() -> None:
    encoder, (images, texts) = Encoder("compression"), features(3)
    mask = torch.tensor([[True, False, True]])
    each = encoder(images, texts, mask)
    encoder.pair_former.fusion = "mean"
    torch.testing.assert_close(encoder(images, texts, mask)[:, 0], each[:, [0, 2]].mean(1))
    read = encoder.pair_former.token_mask(encoder.image(images), encoder.text(texts), mask)
    assert read.shape == (1, 1, 5) and read.all()


# -- training, dtypes, errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("masking", MASKINGS)
def test_gradients_reach_every_parameter(masking: str) -> None:
    encoder, whole = Encoder(masking), GlobalSketchAttention(30, 96, 8)
    images, texts = features(3)
    tokens = encoder(images, texts, torch.tensor([[True, True, False]])).flatten(1, 2)
    whole(torch.randn(1, 7, 30), tokens).square().mean().backward()
    for name, parameter in [*encoder.named_parameters(), *whole.named_parameters()]:
        assert parameter.grad is not None, name
        if not name.endswith("key.bias"):  # adds the same to every score of a query
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("masking", MASKINGS)
@torch.no_grad()
def test_half_precision_is_near(masking: str) -> None:
    encoder, (images, texts) = Encoder(masking), features(3)
    mask = torch.tensor([[True, True, False]])
    wanted = encoder(images, texts, mask)[:, :2]
    got = encoder.bfloat16()(images.bfloat16(), texts.bfloat16(), mask)[:, :2]
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted, rtol=0.05, atol=0.1)  # 8 bits of mantissa through two blocks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masking": "diagonal"}, "masking: got 'diagonal', expected one of compression, pair, modality, all"),
        ({"fusion": "sum"}, "fusion: got 'sum', expected one of deferred, mean"),
        ({"isolation": "none"}, "isolation: got 'none', expected one of shared_norm, per_pair"),
        ({"num_heads": 7}, "num_heads: got 7 for a width of 64, expected a divisor"),
        ({"norm_groups": 0}, "norm_groups: got 0 for a width of 64, expected a divisor"),
        ({"num_readout_tokens": 0}, "num_readout_tokens: got 0, expected at least 1"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairFormer(DIM, **options)


def test_counts_and_widths_that_differ_are_refused(reference: Reference) -> None:
    module, images, texts = reference.pair_former(), reference.images, reference.texts
    with pytest.raises(ValueError, match=r"pairs: got image_tokens for \(3, 3\) .* text_tokens for \(3, 2\)"):
        module(images, texts[:, :2], reference.pair_mask)
    with pytest.raises(ValueError, match=r"a pair_mask of \(3, 2\); pass one of each per pair"):
        module(images, texts, reference.pair_mask[:, :2])
    with pytest.raises(ValueError, match=r"tokens: got widths 24 \(image\) and 64 \(text\), expected 64"):
        module(reference["in/image_embeds"], texts, reference.pair_mask)
