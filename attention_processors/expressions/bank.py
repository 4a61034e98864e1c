"""DICE-Talk's emotion module: a query from a prior, which attends to the tokens of a bank of codes.

    Q = MLP_q(prior),  z = W prior + b,  T = MLP_kv(codes),  E = softmax(Q W_q (T W_k)^T / sqrt(d)) T W_v

where the codes are, by `bank`, the code nearest to z ("nearest", the authors' retrieval), all codes ("all", the
authors' released configuration) or z itself ("none", without a bank).

Source: toto222/DICE-Talk@a8a92b1 (src/models/emotion_adapter/emo.py, src/models/audio_adapter/audio_proj.py),
arXiv 2504.18087; equal to it on the same weights. "none" is ours.
"""

from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.batch_invariant import BatchInvariantLinear
from weftwork.attention_processors.expressions import BANKS
from weftwork.datasets.readers.errors import check_choice

COMMITMENT: Final = 0.25
"""Weight of the term of the loss that draws priors to codes; that of the term that draws codes to priors is 1."""


class TokenProjection(nn.Module):
    """Three linear layers from a vector to tokens, with ReLU between them and a norm behind them."""

    def __init__(self, in_dim: int, hidden_dim: int, token_dim: int, num_tokens: int) -> None:
        super().__init__()
        self.proj1 = BatchInvariantLinear(in_dim, hidden_dim)
        self.proj2 = BatchInvariantLinear(hidden_dim, hidden_dim)
        self.proj3 = BatchInvariantLinear(hidden_dim, num_tokens * token_dim)
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, vectors: Float[Tensor, "item dim"]) -> Float[Tensor, "item token token_dim"]:
        hidden = torch.relu(self.proj2(torch.relu(self.proj1(vectors[:, None]))))
        return self.norm(self.proj3(hidden).view(len(vectors), -1, *self.norm.normalized_shape))


class ExpressionTokens(nn.Module):
    """Tokens of an expression from its prior.

    Args:
        prior_dim, hidden_dim, token_dim, num_tokens, num_codes, num_heads: sizes.
        bank: one of `BANKS`.

    Raises:
        ValueError: an unknown `bank`.
    """

    def __init__(
        self,
        prior_dim: int,
        hidden_dim: int,
        token_dim: int,
        num_tokens: int,
        num_codes: int,
        num_heads: int,
        bank: str,
    ) -> None:
        super().__init__()
        check_choice("bank", bank, BANKS)
        self.bank, self.num_heads = bank, num_heads
        self.query_tokens = TokenProjection(prior_dim, hidden_dim, token_dim, num_tokens)
        self.code_tokens = TokenProjection(token_dim, hidden_dim, token_dim, num_tokens)
        self.to_code = BatchInvariantLinear(prior_dim, token_dim)
        self.codes = None if bank == "none" else nn.Parameter(torch.empty(num_codes, token_dim))
        if self.codes is not None:
            nn.init.uniform_(self.codes, -1 / num_codes, 1 / num_codes)
        self.query, self.key, self.value = (BatchInvariantLinear(token_dim, token_dim) for _ in range(3))

    def forward(
        self, prior: Float[Tensor, "item prior_dim"]
    ) -> tuple[Float[Tensor, "item token token_dim"], Float[Tensor, ""]]:
        """Returns the tokens, and the loss of vector quantization, which is 0 but for "nearest"."""
        codes, loss = self._codes(prior)
        read = self.code_tokens(codes)
        if self.bank == "all":
            read = read.flatten(0, 1).expand(len(prior), -1, -1)
        projected = self.query(self.query_tokens(prior)), self.key(read), self.value(read)
        heads = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in projected)
        return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2), loss

    def _codes(self, prior: Float[Tensor, "item prior_dim"]) -> tuple[Float[Tensor, "code dim"], Float[Tensor, ""]]:
        if self.bank == "all":
            assert self.codes is not None
            return self.codes, prior.new_zeros(())
        vector = self.to_code(prior[:, None])[:, 0]
        if self.codes is None:
            return vector, prior.new_zeros(())
        chosen = self.codes[self.nearest(vector)]
        loss = F.mse_loss(chosen, vector.detach()) + COMMITMENT * F.mse_loss(chosen.detach(), vector)
        return vector + (chosen - vector).detach(), loss

    @torch.no_grad()
    def nearest(self, vectors: Float[Tensor, "item token_dim"]) -> Tensor:
        """Returns the index of the code nearest to each vector."""
        assert self.codes is not None
        squares = vectors.square().sum(1, keepdim=True) + self.codes.square().sum(1)
        return (squares - 2 * vectors @ self.codes.T).argmin(1)
