"""Scores of what footsteps sound like: centroids of tones, and surfaces of recordings that are not trained on."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_audio import tiny_audio_pipe, tiny_oobleck

from weftwork.datasets.synthetic.walks import SURFACES, sample
from weftwork.datasets.synthetic.walks.recordings import steps_in
from weftwork.evaluation.methods.audio import SpatialAudioEvaluation
from weftwork.evaluation.oracles.instruments import if_installed
from weftwork.evaluation.scores import footsteps
from weftwork.evaluation.scores.footsteps import SurfaceClassifier, centroids, mel_features, score_footsteps
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline

FOOTSTEPS = Path(__file__).parents[3] / "examples/footsteps"
RATE = 16_000


def test_the_centroid_of_a_tone_is_its_frequency() -> None:
    audio = np.random.default_rng(0).standard_normal((2, RATE)) * 1e-5
    steps = np.array([0.2, 0.6, 0.95])
    for step, frequency in zip(steps, (500, 3000, 1000), strict=True):
        times = np.arange(RATE) / RATE - step
        audio[1] += 0.1 * np.sin(2 * np.pi * frequency * times) * ((times >= 0) & (times < 0.1))
    found = centroids(audio, RATE, np.append(steps, 0.4))
    np.testing.assert_allclose(found[:3], [500, 3000, 1000], rtol=0.1)
    assert np.isnan(found[3])  # nothing is audible there


def test_features_are_not_of_loudness_or_side() -> None:
    clip = sample("test", 0)
    one = mel_features(clip.audio, RATE, clip.steps)
    np.testing.assert_allclose(mel_features(0.1 * clip.audio[::-1], RATE, clip.steps), one, atol=1e-6)
    assert mel_features(clip.audio, RATE, np.zeros(0)).shape == (0, one.shape[1])


def test_surfaces_of_unseen_recordings_are_recognized() -> None:
    counts = {"train": 40, "test": 20}
    train, test = ([sample(s, i, steps=steps_in(FOOTSTEPS, s)) for i in range(n)] for s, n in counts.items())
    classifier = SurfaceClassifier.fit(train)
    scores = score_footsteps([clip.audio for clip in test], test, classifier)
    assert scores["surface_accuracy"] > 0.6 and scores["centroid_error"] == pytest.approx(0)
    others = [test[(i + 1) % len(test)].audio for i in range(len(test))]
    wrong = score_footsteps(others, test, classifier)
    assert wrong["surface_accuracy"] < 0.4 and wrong["centroid_error"] > 0.5
    silent = score_footsteps([np.zeros_like(clip.audio) for clip in test], test, classifier)
    assert silent["surface_accuracy"] == 0 and np.isnan(silent["centroid_error"])


def test_the_evaluation_hears_unseen_recordings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(footsteps, "CLIPS", 60)
    footsteps.classifier_of.cache_clear()
    pipe = tiny_audio_pipe(VideoToAudioPipeline)
    for split in ("test", "validation"):
        evaluation = SpatialAudioEvaluation(pipe=pipe, modules={}, count=6, split=split, footsteps=FOOTSTEPS)
        expected = sample(split, 2, steps=steps_in(FOOTSTEPS, split)).audio
        np.testing.assert_array_equal(evaluation.clips[2].audio, expected)
    (row,) = evaluation.run(tmp_path, ["truth"]).rows
    assert row.scores["surface_accuracy"] >= 0.5 and row.scores["centroid_error"] == 0
    assert "by_words" not in evaluation.rows()
    plain = SpatialAudioEvaluation(pipe=pipe, modules={"spatial": FOOTSTEPS}, count=2)
    assert plain.clips[0].surface in SURFACES and "by_words" not in plain.rows()
    assert "by_words" in replace(plain, footsteps=FOOTSTEPS).rows()
    footsteps.classifier_of.cache_clear()


class RecordingPipeline:
    """Stands for a pipeline; the audio of a voice is the length of its prompt."""

    vae = tiny_oobleck()

    def __init__(self) -> None:
        self.texts: list[str] = []

    def set_progress_bar_config(self, **options: object) -> None: ...

    def __call__(self, rows: list[object], text: str, **options: object) -> SimpleNamespace:
        self.texts += [text] * len(rows)
        return SimpleNamespace(voices=[np.full((2, 8), len(text)) for _ in rows])


def test_the_spectral_distance_to_true_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("auraloss", reason="of the extra instruments")
    evaluation = SpatialAudioEvaluation(pipe=tiny_audio_pipe(VideoToAudioPipeline), modules={}, count=2)
    true = [clip.audio for clip in evaluation.clips]
    equal, half, silent = (
        evaluation._scored([scale * one for one in true])[1]["spectral_distance"] for scale in (1.0, 0.5, 0.0)
    )
    assert equal == 0 and half == pytest.approx(0.5, abs=0.01) and silent == pytest.approx(1, abs=0.01)
    monkeypatch.setitem(sys.modules, "auraloss.freq", None)
    if_installed.cache_clear()
    assert "spectral_distance" not in evaluation._scored(true)[1]
    if_installed.cache_clear()


def test_gains_place_audio_with_exchanged_channels_at_the_side_of_its_boxes() -> None:
    pipe = tiny_audio_pipe(VideoToAudioPipeline)
    evaluation = SpatialAudioEvaluation(pipe=pipe, modules={"spatial": FOOTSTEPS}, count=4)
    evaluation.__dict__["_spatial"] = [np.ascontiguousarray(clip.audio[::-1]) for clip in evaluation.clips]
    rows = {name: evaluation.rows()[name]()[1] for name in ("spatial_balanced", "spatial_swapped")}
    assert rows["spatial_balanced"]["pan_correlation"] > 0.99 and rows["spatial_balanced"]["pan_error"] < 0.05
    assert rows["spatial_swapped"]["pan_correlation"] > 0.99  # exchanged twice
    assert rows["spatial_balanced"]["onset_f1"] > 0.95


def test_the_prompt_of_each_clip_reaches_it() -> None:
    pipe: Any = RecordingPipeline()
    evaluation = SpatialAudioEvaluation(pipe=pipe, modules={}, count=4, footsteps=FOOTSTEPS)
    texts = ["one", "three", "one", "seven words"]
    made = evaluation._drawn("name", [[]] * 4, None, texts)
    assert [int(one[0, 0]) for one in made] == list(map(len, texts)) and sorted(pipe.texts) == sorted(texts)
