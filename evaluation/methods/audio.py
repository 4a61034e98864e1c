"""Evaluation of spatial audio on unseen walks, with upper and lower bounds.

Every clip provides boxes, depth, a prompt (another clip on the same surface) and the peak-normalised mono envelope of
its true audio: the times of steps are given, their direction and loudness are not. Rows that lack one of these
conditions, are mono, or have the channels swapped put the scores into context. With recorded footsteps, clips have
those of the evaluation's split, which training has not heard.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
from tqdm.auto import tqdm

from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter
from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, Envelope, OverTime
from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel
from weftwork.attention_processors.encoders.audio_statistics import AudioStatistics
from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.datasets.synthetic.walks import PROMPT, WalkSample, mirrored, render, sample
from weftwork.datasets.synthetic.walks.recordings import steps_in
from weftwork.datasets.synthetic.walks.sounds import StepSounds
from weftwork.evaluation.core.runner import Drawn, Evaluation
from weftwork.evaluation.oracles.instruments import if_installed, spectral_distance
from weftwork.evaluation.scores.audio import level_change, score_audio, signal_to_noise
from weftwork.evaluation.scores.footsteps import classifier_of, score_footsteps
from weftwork.pipelines.audio.events import Audio
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pipelines.audio.plots import spectrogram
from weftwork.pipelines.audio.voices import balanced

BATCH: Final = 16
LEFT_OUT: Final[Mapping[str, type]] = {
    "no_boxes": BoxTrack,
    "no_depth": DepthClip,
    "no_prompt": AudioPrompt,
    "no_envelope": Envelope,
}
"""The omitted condition, by row."""
TRAINED: Final = "spatial"
SURFACE_PROMPT: Final = "footsteps on {}"
FARTHER: Final = 1.5
"""Factor of all depths in the counterfactual of distance."""
FARTHEST_START: Final = 7.0
"""In metres; only clips whose walker stays within can be moved by `FARTHER`."""
Modules = Path | tuple[SpatialAudioAdapter, StableAudioControlNetModel]
"""The folder of an adapter and its ControlNet, or both."""


@dataclass(frozen=True, kw_only=True)
class SpatialAudioEvaluation(Evaluation[VideoToAudioPipeline]):
    """Evaluation on synthetic walks.

    Args:
        pipe: a pipeline whose audio encoder is set.
        modules: trained modules by row.
        prompt: text prompt of the backbone.
        footsteps: folder of recorded footsteps; synthetic ones if None.
    """

    name: ClassVar[str] = "spatial-audio"

    modules: Mapping[str, Modules]
    prompt: str = PROMPT
    footsteps: Path | None = None
    num_inference_steps: int = 50
    guidance_scale: float = 2.0

    @classmethod
    def open(cls, pipe: VideoToAudioPipeline, folders: Mapping[str, Sequence[Path]]) -> Self:
        pipe.set_encoders(audio=AudioStatistics(pipe.vae))
        modules = {name: several[0] for name, several in folders.items()}
        return cls(pipe=pipe, footsteps=modules.pop("footsteps", None), modules=modules)

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        true = [clip.audio for clip in self.clips]
        rows: dict[str, Callable[[], Drawn]] = {
            "truth": lambda: self._scored(true, [clip.audio[::-1] for clip in self.clips]),
            "reconstruction": self._reconstructed,
            "mono": lambda: self._scored([_mono(audio) for audio in true]),
            "swapped": lambda: self._scored([audio[::-1] for audio in true]),
            "no_condition": lambda: self._scored(self._drawn("no_condition", [[] for _ in self.clips], None)),
        }
        rows |= {name: partial(self._main, name) for name in self.modules}
        if TRAINED in self.modules:
            rows |= {name: partial(self._without, name, kind) for name, kind in LEFT_OUT.items()}
            rows["stereo_envelope"] = self._leaking
            if self.footsteps is not None:
                rows["by_words"] = self._by_words
            rows["spatial_mono"] = lambda: self._scored([_mono(audio) for audio in self._spatial])
            rows["spatial_balanced"] = self._balanced
            rows["spatial_swapped"] = lambda: self._scored([audio[::-1] for audio in self._spatial])
        return rows

    @cached_property
    def clips(self) -> list[WalkSample]:
        rate, indices = self.pipe.vae.config.sampling_rate, range(self.count)
        return [sample(self.split, i, seed=self.seed, sample_rate=rate, steps=self._steps) for i in indices]

    @property
    def _steps(self) -> StepSounds:
        return steps_in(self.footsteps, self.split)

    def conditions(self, clip: WalkSample, *, stereo: bool = False) -> list[OverTime]:
        """Returns all conditions of a clip; a stereo envelope reveals the panning."""
        others = [one for one in self.clips if one.surface == clip.surface and one.walk.key != clip.walk.key]
        return [
            AudioPrompt(audio=(others or [clip])[0].audio, sample_rate=clip.sample_rate),
            DepthClip(clip.depth_times, clip.depth),
            BoxTrack(clip.box_times, clip.boxes),
            Envelope.from_audio(clip.audio, clip.sample_rate, stereo=stereo),
        ]

    @cached_property
    def _given(self) -> list[list[OverTime]]:
        return [self.conditions(clip) for clip in self.clips]

    @cached_property
    def _spatial(self) -> list[Audio]:
        return self._drawn(TRAINED, self._given, TRAINED)

    def _main(self, name: str) -> Drawn:
        """Scores a trained row, with the counterfactuals of mirrored video and larger distance."""
        audio = self._spatial if name == TRAINED else self._drawn(name, self._given, name)
        turned = self._drawn(f"{name}, mirrored", [self.conditions(mirrored(clip)) for clip in self.clips], name)
        images, scores = self._scored(audio, turned)
        near = [i for i, clip in enumerate(self.clips) if clip.walk.knots[:, 1].max() <= FARTHEST_START]
        moved = [render(self.clips[i].walk.farther(FARTHER), self.clips[i].sample_rate, self._steps) for i in near]
        given = [[*self.conditions(clip)[:3], self._given[i][3]] for i, clip in zip(near, moved, strict=True)]
        far = self._drawn(f"{name}, farther", given, name)
        change = level_change([audio[i] for i in near], far, [self.clips[i] for i in near]) if near else float("nan")
        return images, {**scores, "level_change": change}

    def _without(self, name: str, kind: type) -> Drawn:
        given = [[one for one in row if not isinstance(one, kind)] for row in self._given]
        return self._scored(self._drawn(name, given, TRAINED))

    def _by_words(self) -> Drawn:
        """Scores audio whose surface the text prompt names, in place of an audio prompt."""
        given = [[one for one in row if not isinstance(one, AudioPrompt)] for row in self._given]
        texts = [SURFACE_PROMPT.format(clip.surface) for clip in self.clips]
        return self._scored(self._drawn("by_words", given, TRAINED, texts))

    def _balanced(self) -> Drawn:
        """Scores the audio of `TRAINED`, placed by gains; its scores of sides are those of the gains."""
        tracks = [BoxTrack(clip.box_times, clip.boxes) for clip in self.clips]
        rate = self.clips[0].sample_rate
        return self._scored([balanced(one, rate, track) for one, track in zip(self._spatial, tracks, strict=True)])

    def _leaking(self) -> Drawn:
        given = [self.conditions(clip, stereo=True) for clip in self.clips]
        return self._scored(self._drawn("stereo_envelope", given, TRAINED))

    def _reconstructed(self) -> Drawn:
        vae, outputs = self.pipe.vae, []
        with torch.no_grad():
            for clip in tqdm(self.clips, desc="reconstruction"):
                latents = encode_latents(vae, torch.from_numpy(clip.audio)[None])
                outputs.append(vae.decode(latents).sample[0].cpu().numpy())
        images, scores = self._scored(outputs)
        return images, {**scores, "snr": signal_to_noise(outputs, [clip.audio for clip in self.clips])}

    def _drawn(
        self, desc: str, given: Sequence[Sequence[OverTime]], modules: str | None, texts: Sequence[str] = ()
    ) -> list[Audio]:
        """Generates audio for each clip from its own noise, with these modules or the backbone alone.

        Args:
            texts: by clip its prompt; that of all if empty.
        """
        if modules is not None:
            self.pipe.detach()
            match self.modules[modules]:
                case Path() as folder:
                    self.pipe.load_adapter(folder, TRAINED)
                case adapter, controlnet:
                    self.pipe.attach(spatial=adapter, controlnet=controlnet)
        self.pipe.set_progress_bar_config(disable=True)
        outputs: dict[int, Audio] = {}
        by_text: dict[str, list[int]] = {}
        for index in range(len(given)):
            by_text.setdefault(texts[index] if texts else self.prompt, []).append(index)
        batches = [(text, some[i : i + BATCH]) for text, some in by_text.items() for i in range(0, len(some), BATCH)]
        for text, batch in tqdm(batches, desc=desc):
            seeds = [(self.seed << 20) + index for index in batch]
            out = self.pipe(
                [list(given[index]) for index in batch],
                text,
                seconds=self.clips[0].walk.seconds,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
            )
            outputs |= dict(zip(batch, out.voices, strict=True))
        return [outputs[index] for index in range(len(given))]

    def _scored(self, outputs: Sequence[Audio], turned: Sequence[Audio] | None = None) -> Drawn:
        outputs = [np.ascontiguousarray(one) for one in outputs]
        scores = asdict(score_audio(outputs, self.clips, mirrored=turned))
        classifier = classifier_of(self.footsteps, self.clips[0].sample_rate)
        scores |= score_footsteps(outputs, self.clips, classifier)
        if (distance := if_installed("spectral_distance", spectral_distance)) is not None:
            pairs = zip(outputs, self.clips, strict=True)
            scores["spectral_distance"] = float(np.mean([distance(one, clip.audio) for one, clip in pairs]))
        shown = np.stack([spectrogram(one, clip.sample_rate) for one, clip in zip(outputs, self.clips, strict=True)])
        return torch.from_numpy(shown).float(), scores


def validate(
    pipe: VideoToAudioPipeline, module: Any, footsteps: Path | None, prompt: str | None
) -> SpatialAudioEvaluation:
    """Returns the evaluation of the modules on validation cases, with the footsteps and the prompt of training.

    Its row is not `TRAINED`, whose audio is cached, because these modules are still being trained.
    """
    pipe.set_encoders(audio=AudioStatistics(pipe.vae))
    modules = {"modules": (module.adapter, module.controlnet)}
    said = prompt or PROMPT
    return SpatialAudioEvaluation(pipe=pipe, modules=modules, footsteps=footsteps, prompt=said, split="validation")


def _mono(audio: Audio) -> Audio:
    return np.repeat(audio.mean(0, keepdims=True), 2, 0)
