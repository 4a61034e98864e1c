"""Expressions of people: tokens of a prior, read from a bank, beside the text (DICE-Talk's emotion module).

    y = softmax(Q K_t^T / sqrt(d)) V_t + a(x) softmax(Q K_e^T / sqrt(d)) V_e,   K_e = E W_k, V_e = E W_v

with E the tokens of `bank.ExpressionTokens`, W_k and W_v trained, and a(x) weight, layer factor, schedule and region.
The null condition is E of a prior of zeros. `Expression(guidance=…)` gives the expression a guidance scale of its own
(`guidance.StreamGuidance`).

Source: toto222/DICE-Talk@a8a92b1 (src/models/emotion_adapter/emo.py, src/models/base/attention_processor.py),
arXiv 2504.18087.
Differs: the denoiser is frozen, where the authors publish a U-Net of their own; the branch of audio is left to other
adapters, which attach beside this one; tokens are computed once per generation; masks are means over a layer's grid
instead of bicubic samples; several expressions of one prompt are one softmax; named expressions, whose priors are
trained, and mixtures of these; the embedder (see `embedder`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter import Encoders, KeyValueAdapter
from weftwork.attention_processors.core.adapter_files import FORMAT_VERSION
from weftwork.attention_processors.core.batch import Batch, padded
from weftwork.attention_processors.core.shares import share_row
from weftwork.attention_processors.encoders.image import unit_tensor
from weftwork.attention_processors.expressions.bank import ExpressionTokens
from weftwork.attention_processors.expressions.conditions import Expression
from weftwork.attention_processors.expressions.embedder import GaussianEmbedder
from weftwork.attention_processors.expressions.guidance import GuidedTokens
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import center_crop

ABSENT = Expression(weight=0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class ExpressionBatch(Batch):
    """Expressions as shares of the named priors, and priors that are given.

    Args:
        prior: zeros where none is given.
        guidance: factor on the pipeline's guidance scale.
    """

    shares: Float[Tensor, "design part expression"]
    prior: Float[Tensor, "design part dim"]
    guidance: Float[Tensor, " design"]


class ExpressionAdapter(KeyValueAdapter[ExpressionBatch, ExpressionBatch]):
    """DICE-Talk's emotion module with keys and values in each layer.

    Args:
        layers: inner width by layer name; `ExpressionAdapter.for_denoiser` fills it in.
        base: description of the base model.
        expressions: names, in the order of their priors.
        token_dim: width of tokens: the text width of the backbone, so that K and V can start as copies.
        prior_dim, hidden_dim, num_tokens, num_codes, num_heads: sizes of `ExpressionTokens`.
        bank: one of `bank.BANKS`. Those with codes have the same weights, so `from_pretrained(folder, bank="all")` may
            change it.
        embedder_size: side in pixels of the images that the embedder reads; 0 for no embedder.
        training: origin of the weights, recorded in `config.json`.

    Raises:
        ValueError: a name given twice, or an unknown bank.
    """

    condition_type = (Expression,)

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the config)
        self,
        layers: dict[str, int],
        base: dict[str, object] | None = None,
        expressions: Sequence[str] = (),
        token_dim: int = 1024,
        prior_dim: int = 256,
        hidden_dim: int = 1024,
        num_tokens: int = 32,
        num_codes: int = 64,
        num_heads: int = 8,
        bank: str = "nearest",
        embedder_size: int = 0,
        training: dict[str, object] | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        if len(set(expressions)) != len(expressions):
            raise UserError(f"expressions: got {list(expressions)}, expected each name once; rename or drop one")
        self.tokens = ExpressionTokens(prior_dim, hidden_dim, token_dim, num_tokens, num_codes, num_heads, bank)
        self.priors = nn.Parameter(torch.randn(len(expressions), prior_dim)) if expressions else None
        self.embedder = GaussianEmbedder(prior_dim) if embedder_size else None
        self.make_projections(layers, token_dim)

    def collate(self, conditions: Sequence[Sequence[Expression]]) -> ExpressionBatch:
        """Returns padded tensors, one row per design; designs may differ in their number of expressions, also 0.

        Raises:
            ValueError: an unknown expression, priors of another width than `prior_dim`, or several values of guidance
                in one design.
        """
        rows, width = padded(conditions, ABSENT), (self.config["prior_dim"],)
        for one in (one for row in rows for one in row):
            if one.prior is not None and tuple(one.prior.shape) != width:
                raise UserError(
                    f"prior: got shape {tuple(one.prior.shape)}, expected {width}; make it with this adapter's prior()"
                )
        names, zeros = self.config["expressions"], torch.zeros(width)
        priors = [[zeros if one.prior is None else one.prior.detach().cpu().float() for one in row] for row in rows]
        return ExpressionBatch.of(
            rows,
            self.config,
            shares=torch.tensor([[share_row("expression", one.shares, names) for one in row] for row in rows]),
            prior=torch.stack([torch.stack(row) for row in priors]),
            guidance=torch.tensor([_guidance(row) for row in rows]),
        )

    def features(self, batch: ExpressionBatch, encoders: Encoders) -> ExpressionBatch:
        return batch

    @torch.no_grad()
    def prior(self, image: Any) -> Float[Tensor, " dim"]:
        """Returns the mean prior of the expression in the image of a person, for `Expression(prior=…)`.

        Raises:
            ValueError: an adapter without an embedder.
        """
        return self.density([image])[0][0]

    def density(self, images: Sequence[Any]) -> tuple[Float[Tensor, "image dim"], Float[Tensor, "image dim"]]:
        """Returns mean and log variance of the priors of images.

        Raises:
            ValueError: an adapter without an embedder.
        """
        if self.embedder is None:
            raise UserError("embedder_size: got 0, an adapter that reads no images; pass names or priors")
        size, some = self.config["embedder_size"], next(self.embedder.parameters())
        pixels = torch.stack([unit_tensor(center_crop(image, size, size)) for image in images])
        return self.embedder(pixels.to(some))

    def mixed(self, features: ExpressionBatch) -> Float[Tensor, "design part dim"]:
        """Returns the priors of a batch: given ones, and mixtures of those that have names."""
        some = next(self.parameters())
        given = features.prior.to(some)
        return given if self.priors is None else given + features.shares.to(some) @ self.priors

    def forward(self, features: ExpressionBatch) -> GuidedTokens:
        """Returns keys and values of all expressions, with those of the null beside them."""
        return self.encoded(features, self.mixed(features))[0]

    def encoded(
        self, features: ExpressionBatch, prior: Float[Tensor, "design part dim"]
    ) -> tuple[GuidedTokens, Float[Tensor, ""]]:
        """Returns keys and values for priors, and the loss of vector quantization."""
        designs, parts, width = prior.shape
        tokens, loss = self.tokens(prior.reshape(-1, width))
        null, _ = self.tokens(prior.new_zeros(1, width))
        count = tokens.shape[1]
        nothing = {
            name: (key.repeat(1, parts, 1), value.repeat(1, parts, 1))
            for name, (key, value) in self.project(null[None]).items()
        }
        made = GuidedTokens(
            self.project(tokens.unflatten(0, (designs, parts))),
            nothing,
            torch.ones(designs, parts * count, dtype=torch.bool, device=prior.device),
            torch.arange(parts, device=prior.device).repeat_interleave(count),
            **features.strengths(list(self.config["layers"]), prior.device),
            guidance=features.guidance.to(prior.device),
        )
        return made, loss


def _guidance(row: Sequence[Expression]) -> float:
    found = sorted({float(one.guidance) for one in row if one.weight > 0}) or [1.0]
    if len(found) > 1:
        raise UserError(
            f"guidance: got {', '.join(map(str, found))} in one prompt, expected one value; give all its expressions "
            "the same, or differ in weight"
        )
    return found[0]
