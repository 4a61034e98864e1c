"""Attention control without training: latents are updated so that each named subject is attended to somewhere.

With A the mean over layers and heads of the attention of image places to the text's tokens (`core.text_maps`), S its
softmax(100 A) over tokens, G a 3 x 3 smoothing, and p the subjects, before each denoising step

    v_p = max_x region_p(x) G(mean of S over the tokens of p)(x),   L = max_p weight_p schedule_p (1 - v_p)
    z <- z - step_size sqrt(s) dL/dz,   s from 1 to 0.5 over the run

and at the steps of `thresholds` again until every v_p has reached one. No weights are trained; the denoiser stays as it
is, and its gradient is that of the latents alone.

Source: Attend-and-Excite (arXiv 2301.13826) as in diffusers' pipeline of that name, to which it is equal on one token
per subject with DDIM. AttentionHand (arXiv 2407.18034) uses it for the words of hands.
Differs: positions of words come from the tokenizer's offsets (AttentionHand's are one token too early); phrases,
weights, regions and schedules; batches; all backbones, whose text keys alone are in the softmax; the update is one of
the latents as the denoiser reads them, so it does not depend on the scale of a scheduler; thresholds are at shares of
the steps, not at their numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

from diffusers.configuration_utils import register_to_config
from torch import nn

from weftwork.attention_processors.attention_control.conditions import Attend
from weftwork.attention_processors.attention_control.updates import Descent, LatentUpdates, Shift
from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.adapter_files import FORMAT_VERSION
from weftwork.attention_processors.core.batch import Batch, Strengths, padded
from weftwork.attention_processors.core.branch import Branch
from weftwork.attention_processors.core.conditioning import Encoded, check_layout
from weftwork.attention_processors.core.families import UNET, family_of, layer_levels
from weftwork.attention_processors.core.spans import Span, members_of
from weftwork.attention_processors.core.strength import Layout, Strength
from weftwork.attention_processors.encoders.words import NO_WORDS, PromptWords

ABSENT: Final = Attend(tokens=(0, 1), weight=0)
THRESHOLDS: Final = ((0.0, 0.05), (0.2, 0.5), (0.4, 0.8))
"""Share of the steps and least attendance: steps 0, 10 and 20 of 50."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AttendBatch(Batch):
    """Subjects by design: their words, or spans of tokens; `text` are the tokens of the pipeline's prompts."""

    subjects: tuple[tuple[Attend, ...], ...]
    text: PromptWords = NO_WORDS


@dataclass(frozen=True)
class EncodedSubjects(Encoded):
    """Subjects whose positions are known when the denoiser is called."""

    descent: Descent
    strengths: Strengths
    subjects: tuple[tuple[Attend, ...], ...]
    text: PromptWords
    shift: Shift = field(default_factory=Shift)

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        given = self.strengths
        check_layout(self.descent.layers, given["region"], given["region_aspect"], layout)
        if not bool(given["weight"].any()):
            return {}, ()
        spans = [[self._spans(one, design, layout.prompts) for one in row] for design, row in enumerate(self.subjects)]
        members = members_of(spans).to(given["weight"])
        rows = replace(layout, halves=("conditional",))
        weight, members = rows.expand(given["weight"].float()), rows.expand(members)
        schedules = [row for row in given["schedules"] for _ in range(layout.repeat)]
        region = None if given["region"] is None else rows.expand(given["region"].float())
        return {}, (LatentUpdates(self.descent, layout, weight, schedules, members, region, self.shift),)

    def _spans(self, subject: Attend, design: int, prompts: Sequence[str]) -> Sequence[Span]:
        if subject.words is None:
            return subject.spans
        return self.text.spans(prompts[design % len(prompts)] if prompts else None, subject.words)


class AttentionControlAdapter(Adapter[AttendBatch, AttendBatch]):
    """Subjects that the image has to show; there is nothing to train.

    Args:
        layers: key width by layer name; `for_denoiser` fills it in.
        base: description of the base model.
        step_size, thresholds, max_refinements: see `Descent`.
    """

    condition_type = (Attend,)

    @register_to_config
    def __init__(
        self,
        layers: dict[str, int],
        base: dict[str, object] | None = None,
        step_size: float = 20.0,
        thresholds: Sequence[Sequence[float]] = THRESHOLDS,
        max_refinements: int = 20,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()

    @classmethod
    def for_denoiser(cls, denoiser: nn.Module, *, layers: str | Sequence[str] | None = None, **config: object) -> Self:
        """Makes an adapter for a denoiser.

        Args:
            layers: whose maps are averaged; by default of U-Nets those of the coarsest level with attention, middle
                excluded if it is coarser (16 x 16 of Stable Diffusion 1.5 at 512 pixels), of transformers all that read
                the text.

        Raises:
            ValueError: as for `Adapter`.
        """
        if layers is None:
            layers = _coarse(denoiser) if family_of(denoiser) is UNET else "all"
        return super().for_denoiser(denoiser, layers=layers, **config)

    def collate(self, conditions: Sequence[Sequence[Attend]]) -> AttendBatch:
        rows = padded(conditions, ABSENT)
        return AttendBatch.of(rows, self.config, subjects=tuple(map(tuple, rows)))

    def features(self, batch: AttendBatch, encoders: Mapping[str, object]) -> AttendBatch:
        return replace(batch, text=encoders.get("words", NO_WORDS))

    def forward(self, features: AttendBatch) -> EncodedSubjects:
        config, layers, text = self.config, list(self.config["layers"]), features.text
        thresholds = [(float(share), float(least)) for share, least in config["thresholds"]]
        descent = Descent(layers, config["step_size"], thresholds, config["max_refinements"], text.begins)
        strengths = features.strengths(layers, features.weight.device)
        return EncodedSubjects(descent, strengths, features.subjects, text)


def _coarse(denoiser: nn.Module) -> list[str]:
    """Returns the layers of a U-Net that read the text at the coarsest level of its down blocks that has such ones."""
    levels = {name: level for name, level in layer_levels(denoiser).items() if name.endswith(".attn2")}
    coarsest = max(level for name, level in levels.items() if name.startswith("down_blocks"))
    return [name for name, level in levels.items() if level == coarsest]
