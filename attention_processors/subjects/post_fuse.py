"""FastComposer's post-fuse module: a token's prompt embedding fused with the features of an image."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Norm, linear layer, GELU and linear layer; named as the authors' so that their weights fit."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(inputs)
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "*token inputs"]) -> Float[Tensor, "*token width"]:
        return self.fc2(F.gelu(self.fc1(self.layernorm(x))))


class PostFuse(nn.Module):
    """Fuses prompt embeddings t with image features e: with h = t + MLP1([t, e]), the norm of h + MLP2(h).

    Args:
        text_dim: width of prompt embeddings.
        image_dim: width of image features; the authors' is that of the text.
    """

    def __init__(self, text_dim: int, image_dim: int) -> None:
        super().__init__()
        self.mlp1 = FeedForward(text_dim + image_dim, text_dim)
        self.mlp2 = FeedForward(text_dim, text_dim)
        self.layer_norm = nn.LayerNorm(text_dim)

    def forward(
        self, text: Float[Tensor, "*token text_dim"], image: Float[Tensor, "*token image_dim"]
    ) -> Float[Tensor, "*token text_dim"]:
        text = text + self.mlp1(torch.cat([text, image], -1))
        return self.layer_norm(text + self.mlp2(text))
