"""Train subjects shown as images, which words of the caption stand for (FastComposer; docs/subjects.md)."""

from dataclasses import dataclass

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.config import ObjectiveConfig, option
from weftwork.training.core.trainer import Trainer


@dataclass(frozen=True)
class SubjectConfig(ObjectiveConfig):
    """Dropout and localization of the subject task; the shares are FastComposer's."""

    caption_dropout: float = option(0.0, "has no effect here, see --joint_dropout")
    joint_dropout: float = option(0.1, "share of images with the empty prompt and without subjects")
    subject_dropout: float = option(0.1, "share of subjects that are left to the text")
    localization_weight: float = option(1e-3, "weight of the localization loss")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.caption_dropout:
            raise UserError("caption_dropout: has no effect with subjects, which need their words; use joint_dropout")


@dataclass(frozen=True)
class SubjectModel:
    """Options of the image encoder."""

    image_encoder: str | None = option(None, "folder or Hub id of the frozen encoder, a CLIP vision model")


class SubjectTrainer(Trainer):
    """Trains the post-fuse module on scenes whose subjects are shown alone."""

    options = SubjectConfig
    options_title = "objective, dropout and localization"
    model_options = SubjectModel
    also_with_init_from = ("image_encoder",)
    preparation = "weftwork.training.tasks.subjects:prepare"
    synthetic_datasets = ("drawings",)
    sources = ("synthetic",)
    samples = 12_000
    without_effect = ("resolution", "validation_prompt")
