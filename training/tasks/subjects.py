"""Training of subjects: the denoising loss with fused tokens, and the localization loss on attention maps.

After FastComposer (arXiv 2305.10431). Differs: the denoiser and the image encoder are frozen, and the denoising loss is
that of the whole image at all times, where the authors mask it by the subjects at half of the steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import call_layout, family_of
from weftwork.attention_processors.core.processor import conditioned
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.core.text_maps import KeepTextMap
from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.encoders.words import PromptWords
from weftwork.attention_processors.subjects.adapter import SubjectAdapter, SubjectBatch
from weftwork.attention_processors.subjects.conditions import Subject
from weftwork.attention_processors.subjects.fused_tokens import EncodedSubjects
from weftwork.attention_processors.subjects.localization import localization_loss, localized_layers
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pretrained import model_name
from weftwork.training.core.denoisers import Embeds, denoiser_of
from weftwork.training.core.trainer import Prepared
from weftwork.training.data.drawings import SceneImages
from weftwork.training.data.feature_cache import encoder_key, feature_cache, tensor_bytes
from weftwork.training.data.image_cache import cached_latents
from weftwork.training.data.prompts import PromptTokens
from weftwork.training.data.subjects import SubjectRecord, SubjectScenes
from weftwork.training.tasks.adapter import AdapterTask, TrainingBatch
from weftwork.training.trainers.subjects import SubjectConfig, SubjectTrainer

READ_AT_ONCE = 32
SHOWN = 4


def prepare(trainer: SubjectTrainer, pipe: ConditionedPipelineMixin) -> Prepared:
    """Returns the task and the data of a trainer's options."""
    arguments, denoiser = trainer.arguments, denoiser_of(pipe)
    made = SubjectAdapter.from_pretrained(arguments.init_from) if arguments.init_from else None
    name = str(arguments.image_encoder or (made and made.config["image_encoder"]))
    encoder = ImageEncoder.from_pretrained(name)
    nn.Module.to(encoder.model, pipe.device)
    pipe.set_encoders(image=encoder)
    sizes = {"image_dim": encoder.model.config.projection_dim, "image_size": encoder.model.config.image_size}
    adapter = made or SubjectAdapter.for_denoiser(denoiser, image_encoder=model_name(name), **sizes)
    images = SceneImages(arguments.cache_dir, trainer.rendered(), "train", arguments.samples)
    count = PromptTokens.of(pipe, arguments.max_sequence_length)
    cache = feature_cache(
        arguments.cache_dir / "features", encoder_key("image basic", encoder.model), dry=arguments.dry_run
    )

    def encode(some: Sequence[Image.Image]) -> list[Tensor]:
        found: list[Tensor] = []
        for start in range(0, len(some), READ_AT_ONCE):
            pixels = [adapter.pixels(image) for image in some[start : start + READ_AT_ONCE]]
            rows = cache.rows(pixels, tensor_bytes, lambda missing: {"embeds": encoder.pooled(torch.stack(missing))})
            found += rows["embeds"]
        return found

    scenes = SubjectScenes(
        images,
        cached_latents(arguments.cache_dir, pipe.vae, images),
        lambda caption: count.count(caption) <= count.longest,
        encode,
    )
    if not scenes:
        raise UserError(f"samples: got {arguments.samples} scenes, of which none has two subjects; draw more")
    task = SubjectTask(adapter, pipe, trainer.read(SubjectConfig), scenes)
    return Prepared(task, scenes, {"data": trainer.data_name})


@dataclass(frozen=True, eq=False)
class SubjectTrainingBatch(TrainingBatch[SubjectBatch]):
    """Latents, captions and subjects of scenes.

    Args:
        masks: where each subject is seen; zeros for absent ones.
    """

    masks: Float[Tensor, "design part side side"]


class SubjectTask(AdapterTask[SubjectAdapter, SubjectRecord, SubjectTrainingBatch]):
    """Trains image latents with captions and with images of their subjects.

    Args:
        scenes: of the training data, some of which validation images show again.
    """

    def __init__(
        self, module: SubjectAdapter, pipe: ConditionedPipelineMixin, config: SubjectConfig, scenes: SubjectScenes
    ) -> None:
        super().__init__(module, pipe, "subjects", config)
        self.config, self.scenes, self.layers = config, scenes, localized_layers(self.frozen)
        self.encoders = {**self.encoders, "words": PromptWords.of(pipe, family_of(self.frozen).text)}

    def collate(self, samples: list[SubjectRecord]) -> SubjectTrainingBatch:
        subjects = [
            [Subject(embeds=embeds, text=words) for embeds, words in zip(one.embeds, one.words, strict=True)]
            for one in samples
        ]
        most = max(len(one.masks) for one in samples)
        masks = torch.stack([F.pad(one.masks, (0, 0, 0, 0, 0, most - len(one.masks))) for one in samples])
        return SubjectTrainingBatch.of(samples, conditions=self.module.collate(subjects), masks=masks)

    def loss(self, batch: SubjectTrainingBatch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        given = batch.conditions
        draws = torch.rand(len(batch.captions), 1 + given.weight.shape[1], generator=generator)
        nothing = draws[:, 0] < self.config.joint_dropout
        kept = ~nothing[:, None] & (draws[:, 1:] >= self.config.subject_dropout)
        prompts = ["" if none else row[0] for none, row in zip(nothing.tolist(), batch.captions, strict=True)]
        acting = replace(given, weight=given.weight * kept.to(given.weight))
        encoded = self.module(self.module.features(acting, self.encoders))
        maps: dict[str, Tensor] = {}
        layouts: list[Layout] = []
        denoise = self._with_maps(encoded, tuple(prompts), maps, layouts)
        captions = [(prompt,) for prompt in prompts]
        loss = self.denoising_loss(denoise, batch.latents, captions, generator)
        if not maps:
            return loss
        tokens = encoded.tokens(layouts[0].prompts)
        masks = batch.masks.repeat_interleave(tokens.shape[2], 1)
        grids = {layer: layouts[0].grid(layer) for layer in maps}
        return loss + self.config.localization_weight * localization_loss(maps, grids, masks, tokens.flatten(1))

    def _with_maps(
        self, encoded: EncodedSubjects, prompts: tuple[str, ...], maps: dict[str, Tensor], layouts: list[Layout]
    ) -> Callable[[Tensor, Tensor, Embeds], Tensor]:
        """Returns the frozen denoiser with subjects, which keeps the maps of a call where their loss counts."""
        layers = self.layers if self.config.localization_weight else ()

        def denoise(noisy: Tensor, timesteps: Tensor, embeds: Embeds) -> Tensor:
            arguments = self.call.arguments(self.frozen, noisy, timesteps, embeds, self.objective.guidance_scale)
            layout = replace(call_layout(self.frozen, arguments), prompts=prompts)
            layouts.append(layout)
            made = Conditioning.of({self.name: encoded}, layout)
            made = replace(made, branches={layer: (KeepTextMap(layer, maps, layout.tokens),) for layer in layers})
            with conditioned(self.frozen, made):
                return self.call.prediction(self.frozen(**arguments)[0], noisy)

        return denoise

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Writes images of captions of the training data, each below its subjects and its target, as one PNG."""
        indices = self.scenes.indices[:SHOWN]
        shown = [self.scenes.subjects[index] for index in indices]
        targets = [Image.fromarray(self.scenes.scenes.image(index)) for index in indices]
        alone = [[self.scenes.alone(row) for row in one.rows] for one in shown]
        above = [_side_by_side(row) for row in alone]
        subjects = [
            [Subject(image, text=words) for image, words in zip(row, one.words, strict=True)]
            for row, one in zip(alone, shown, strict=True)
        ]
        self.sheet(folder / f"{step:06d}.png", [one.caption for one in shown], subjects, above, targets)
        return {}


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Returns up to four images in the quarters of one."""
    side = images[0].width
    sheet = Image.new("RGB", (2 * side, 2 * side), "white")
    for place, image in enumerate(images):
        sheet.paste(image.resize((side, side)), (place % 2 * side, place // 2 * side))
    return sheet
