"""Train one ControlNet on whole images and on a small part of them (AttentionHand; docs/parts.md)."""

from dataclasses import dataclass

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.config import ObjectiveConfig, option
from weftwork.training.core.trainer import Trainer


@dataclass(frozen=True)
class PartConfig(ObjectiveConfig):
    """Weight of the local view, of which one half is AttentionHand's, and gates of residuals."""

    caption_dropout: float = option(0.1, "share of empty prompts")
    local_weight: float = option(0.5, "weight of the local view's loss; 0 trains on whole images alone")
    cross_gates: bool = option(False, "join residuals with the U-Net's features by cross-gating (MAXIM)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.local_weight <= 1:
            raise UserError(f"local_weight: got {self.local_weight}, expected a share in [0, 1]; correct it")


class PartTrainer(Trainer):
    """Trains on hands whose render is the control image."""

    options = PartConfig
    options_title = "objective, dropout, views and gates"
    preparation = "weftwork.training.tasks.parts:prepare"
    synthetic_datasets = ("hands",)
    sources = ("synthetic",)
    samples = 6_000
    without_effect = ("class_designs", "validation_prompt")
