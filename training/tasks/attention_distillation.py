"""Attention distillation: losses between attention maps of a frozen teacher and of a student.

Unlike with `views.instillation`, the student does not need the teacher afterwards.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from weftwork.attention_processors.views.instillation import Recorded, attention_scores
from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.training.trainers.views import DISTILLATIONS

QUERIES = 256
"""Queries per chunk; attention maps are computed chunk by chunk, and again in the backward pass, to save memory."""


def attention_distillation_loss(
    teacher: Mapping[str, Recorded], student: Mapping[str, Recorded], kind: str = "kl", *, queries: int = QUERIES
) -> Float[Tensor, ""]:
    """Distance between attention maps, averaged over layers; gradients reach the student only.

    Args:
        teacher, student: attention recorded by `Instillation.record`, by layer.
        kind: "kl", the divergence of the student's maps from the teacher's, per query; "mse" of the probabilities;
            "logits", the squared error of Q K^T / sqrt(d), per query and key.
        queries: queries per chunk; affects memory, not the result.

    Raises:
        ValueError: an unknown kind, no layers, different layers in teacher and student, or maps of different shapes.
    """
    check_choice("kind", kind, DISTILLATIONS)
    if not teacher or set(teacher) != set(student):
        odd = sorted(set(teacher) ^ set(student)) or ["nothing"]
        raise UserError(f"layers: got {odd[0]} from one of teacher and student only; record the same layers of both")
    return torch.stack([_layer(name, kept, student[name], kind, queries) for name, kept in teacher.items()]).mean()


def _layer(name: str, teacher: Recorded, student: Recorded, kind: str, queries: int) -> Float[Tensor, ""]:
    shapes = [(*one.query.shape[:3], one.key.shape[1]) for one in (teacher, student)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{name}: got maps [row, query, head, key] of {shapes[0]} and {shapes[1]}, expected equal ones; choose "
            "layers that agree, and the same references"
        )
    target = teacher.query.detach(), teacher.key.detach()
    parts = [
        checkpoint(
            _distance, target[0][:, rows], target[1], student.query[:, rows], student.key, kind, use_reentrant=False
        )
        for rows in (slice(start, start + queries) for start in range(0, shapes[0][1], queries))
    ]
    rows, count, heads, _ = shapes[0]
    return torch.stack(parts).sum() / (rows * count * heads)


def _distance(query: Tensor, key: Tensor, own_query: Tensor, own_key: Tensor, kind: str) -> Float[Tensor, ""]:
    """Returns the distance, summed over rows, heads and queries."""
    target, own = (attention_scores(*pair) for pair in ((query, key), (own_query, own_key)))
    if kind == "kl":
        return F.kl_div(own.log_softmax(-1), target.log_softmax(-1), reduction="sum", log_target=True)
    if kind == "mse":
        return (own.softmax(-1) - target.softmax(-1)).square().mean(-1).sum()
    return (own - target).square().mean(-1).sum()
