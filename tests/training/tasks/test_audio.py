"""Training of spatial audio: synthetic walks, user audio, audio prompts, saved folders."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_audio import CONTEXT, tiny_audio_pipe, tiny_oobleck
from transformers import (
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    ClapFeatureExtractor,
    T5EncoderModel,
    T5Tokenizer,
)

from weftwork.attention_processors.audio import METHOD
from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, Envelope
from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.attention_processors.encoders.audio import ClapEncoder
from weftwork.attention_processors.encoders.audio_statistics import AudioStatistics
from weftwork.datasets.readers.audio_folder import AudioFolder
from weftwork.datasets.synthetic.walks import PROMPT, SECONDS, sample
from weftwork.evaluation.methods.audio import SpatialAudioEvaluation, validate
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pretrained import shipped
from weftwork.scripts.cli import main
from weftwork.scripts.train import _evaluate
from weftwork.training.data.audio import VERSIONS, SpatialPieces, SpatialWalks, WalkSounds, cached_audio_latents
from weftwork.training.tasks.audio import SpatialConfig

FOOTSTEPS = Path(__file__).parents[3] / "examples/footsteps"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Audio folder with a text encoder."""
    pipe = tiny_audio_pipe(VideoToAudioPipeline)
    torch.manual_seed(5)
    tokenizer = T5Tokenizer.from_pretrained(shipped("tiny-audio"), subfolder="tokenizer")
    encoder = T5EncoderModel.from_pretrained(shipped("tiny-audio"), subfolder="text_encoder")
    pipe.projection_model = type(pipe.projection_model)(encoder.config.d_model, CONTEXT, 0, 4)
    pipe.register_modules(text_encoder=encoder, tokenizer=tokenizer)
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_drawn_walks_are_the_walks_and_mirrors_match(cache: Path) -> None:
    vae = tiny_oobleck()
    sounds = WalkSounds(cache, "train", 3)
    clip = sample("train", 1)
    np.testing.assert_allclose(sounds.sounds[1] / 32767, clip.audio, atol=2e-5)
    assert sounds.surfaces[1] == clip.surface
    latents = cached_audio_latents(cache, vae, sounds)
    assert latents.shape == (3, len(VERSIONS), 8, 128)
    loud = torch.from_numpy(Envelope.from_audio(clip.audio, clip.sample_rate).signal(clip.audio.shape[1], 16_000))
    expected = vae.encode(loud[None]).latent_dist.mode()[0]
    data = SpatialWalks(sounds, latents)
    assert len(data) == 6
    straight, turned = data[2], data[3]
    torch.testing.assert_close(straight.envelope, expected, atol=5e-3, rtol=5e-3)
    assert torch.equal(straight.envelope, turned.envelope)
    mirrored = vae.encode(torch.from_numpy(clip.audio[::-1].copy())[None]).latent_dist.mode()[0]
    torch.testing.assert_close(turned.latents, mirrored, atol=5e-3, rtol=5e-3)
    by_kind = [{type(c): c for c in record.conditions} for record in (straight, turned)]
    np.testing.assert_allclose(by_kind[0][BoxTrack].mirrored().boxes, by_kind[1][BoxTrack].boxes, atol=1e-9)
    np.testing.assert_allclose(by_kind[0][BoxTrack].boxes, clip.boxes)
    assert {one[DepthClip].metric for one in by_kind} <= {True, False}
    prompts = {tuple(one[AudioPrompt].embeds) for one in by_kind}
    assert all(any(np.allclose(p, row, atol=1e-3) for row in data.prompts) for p in prompts)


def test_walks_are_drawn_at_the_rate_of_the_autoencoder(cache: Path) -> None:
    sounds = WalkSounds(cache, "train", 2, sample_rate=8_000)
    assert sounds.sounds.shape == (2, 2, round(SECONDS * 8_000))
    np.testing.assert_allclose(sounds.sounds[1] / 32767, sample("train", 1, sample_rate=8_000).audio, atol=2e-5)
    evaluation = SpatialAudioEvaluation(pipe=tiny_audio_pipe(VideoToAudioPipeline), modules={}, count=1)
    evaluation.pipe.vae.register_to_config(sampling_rate=8_000)
    assert evaluation.clips[0].sample_rate == 8_000


def test_prompts_do_not_encode_the_side() -> None:
    read = AudioStatistics(tiny_oobleck())
    clip = sample("train", 0)
    one, other = read(clip.audio, 16_000), read(clip.audio[::-1].copy(), 16_000)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert one.shape == (16,) and not torch.allclose(one, read(sample("train", 1).audio, 16_000), atol=1e-4)


def validated_in_few_steps(*given: Any) -> SpatialAudioEvaluation:
    return replace(validate(*given), num_inference_steps=2)


@pytest.mark.parametrize(
    ("projections", "control", "dtype"),
    [
        pytest.param("frozen", "envelope", "bfloat16", marks=pytest.mark.slow),
        pytest.param("own", "boxes", "float32", marks=pytest.mark.slow),
        ("frozen", "boxes", "float32"),
    ],
)
def test_spatial_modules_are_trained_and_measured(
    projections: str,
    control: str,
    dtype: str,
    model: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = state_sha256(VideoToAudioPipeline.from_pretrained(model).transformer)
    monkeypatch.setattr("weftwork.training.tasks.audio.SHOWN", 0)
    monkeypatch.setattr("weftwork.evaluation.methods.audio.validate", validated_in_few_steps)
    command = ["train", "spatial-audio", "--synthetic", "walks", "--samples", "4", "--cache_dir", str(cache),
               "--pretrained_model_name_or_path", str(model), "--output_dir", str(tmp_path), "--max_train_steps", "2",
               "--train_batch_size", "2", "--projections", projections, "--control", control, "--learning_rate", "0.01",
               "--lr_warmup_steps", "0", "--validation_steps", "2", "--validation_cases", "2",
               "--checkpointing_steps", "0", "--frozen_dtype", dtype]  # fmt: skip
    assert main(command) == 0
    first, _, last = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"pan_correlation", "onset_f1", "mirror"} <= set(last)
    assert first["envelope_l1"] != last["envelope_l1"]  # of the modules as they are, not as they were
    assert (tmp_path / "validation/000002-cases.png").is_file()
    pipe: Any = VideoToAudioPipeline.from_pretrained(model)
    pipe.load_adapter(tmp_path / "final", "spatial")
    assert state_sha256(pipe.transformer) == before
    assert pipe.spatial.config["training"]["parameters"]["controlnet"] > 1000
    assert pipe.controlnet.control_out[0].weight.abs().sum() > 0
    pipe.set_encoders(audio=AudioStatistics(pipe.vae))
    evaluation = SpatialAudioEvaluation(
        pipe=pipe, modules={"spatial": tmp_path / "final"}, count=2, num_inference_steps=2
    )
    report = evaluation.run(tmp_path / "report", ["truth", "mono", "swapped", "spatial", "no_boxes", "stereo_envelope"])
    rows = {row.name: row.scores for row in report.rows}
    assert rows["truth"]["pan_correlation"] > 0.99 and rows["truth"]["mirror"] > 0.99
    assert rows["swapped"]["pan_correlation"] < -0.99 and abs(rows["mono"]["pan_correlation"]) < 0.5
    assert rows["spatial"]["envelope_l1"] != rows["no_boxes"]["envelope_l1"] != rows["stereo_envelope"]["envelope_l1"]
    assert (tmp_path / "report/spatial-audio.png").is_file()


def test_cases_have_the_footsteps_and_the_prompt_of_training(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SpatialAudioEvaluation] = []
    monkeypatch.setattr(
        "weftwork.evaluation.methods.audio.validate", lambda *given: made.append(validate(*given)) or made[-1]
    )
    pipe, modules = VideoToAudioPipeline.from_pretrained(model), SimpleNamespace(adapter=None, controlnet=None)
    for footsteps, prompt in ((FOOTSTEPS, "boots on snow"), (None, None)):
        options = {"synthetic": "walks", "validation_cases": 2, "footsteps": footsteps, "prompt": prompt}
        trainer: Any = SimpleNamespace(arguments=Namespace(**options))
        module: Any = modules
        assert _evaluate(trainer, METHOD, module, pipe) is not None
    assert [(one.footsteps, one.prompt) for one in made] == [(FOOTSTEPS, "boots on snow"), (None, PROMPT)]
    assert "snow" in {clip.surface for clip in replace(made[0], count=40).clips}


def test_shares_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"box_dropout: got 1\.5, expected a share in"):
        SpatialConfig(box_dropout=1.5)


def test_audio_is_generated_from_files(
    model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import soundfile
    from tiny_video import write_video

    clip = sample("validation", 0)
    modules = tmp_path / "trained"
    assert main(["train", "spatial-audio", "--synthetic", "walks", "--samples", "4", "--cache_dir", str(cache),
                 "--pretrained_model_name_or_path", str(model), "--output_dir", str(modules), "--max_train_steps", "1",
                 "--train_batch_size", "2", "--validation_steps", "0", "--checkpointing_steps", "0"]) == 0  # fmt: skip
    np.savez(tmp_path / "a.boxes.npz", times=clip.box_times, boxes=np.stack([clip.boxes, clip.boxes]))
    np.savez(tmp_path / "a.depth.npz", times=clip.depth_times, depth=clip.depth, metric=True)
    soundfile.write(tmp_path / "steps.wav", clip.audio.T, clip.sample_rate)
    video = write_video(tmp_path / "a.mp4", np.arange(62) / 30)
    command = ["sound", str(video), "--boxes", str(tmp_path / "a.boxes.npz"), "--depth", str(tmp_path / "a.depth.npz"),
               "--loudness", str(tmp_path / "steps.wav"), "--like", str(tmp_path / "steps.wav"), "--apart",
               "--model", str(model), "--spatial", str(modules / "final"), "--num_inference_steps", "2"]  # fmt: skip
    assert main([*command, "--output", str(tmp_path / "out/walk")]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"walk.wav", "walk.mp4", "walk.png"}
    audio, rate = soundfile.read(tmp_path / "out/walk.wav")
    assert rate == 16_000 and abs(len(audio) / rate - 62 / 30) < 0.01
    short = write_video(tmp_path / "short.mp4", np.arange(10) / 30)
    command[1] = str(short)
    assert main([*command, "--output", str(tmp_path / "other/walk")]) == 2
    assert "times: got a " in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Folder of two audio files of 2.5 seconds, one with boxes and depth."""
    import soundfile

    folder = tmp_path / "sounds"
    folder.mkdir()
    clip = sample("train", 0)
    for name in ("a", "b"):
        soundfile.write(folder / f"{name}.wav", np.tile(clip.audio, 2)[:, :40_000].T, clip.sample_rate)
    np.savez(folder / "a.boxes.npz", times=clip.box_times, boxes=clip.boxes)
    np.savez(folder / "a.depth.npz", times=clip.depth_times, depth=clip.depth, metric=False)
    return folder


def test_user_audio_is_cut_and_mirrored(own: Path, cache: Path) -> None:
    pieces = AudioFolder(own, 1.0)
    assert [(piece.path.name, piece.start) for piece in pieces] == [
        ("a.wav", 0),
        ("a.wav", 1),
        ("b.wav", 0),
        ("b.wav", 1),
    ]
    vae = tiny_oobleck()
    data = SpatialPieces(pieces, vae, cache / "features")
    straight, turned, bare = data[2], data[3], data[4]
    heard = torch.from_numpy(pieces[1].audio(16_000)[None])
    expected = [vae.encode(one).latent_dist.mode()[0] for one in (heard, heard.flip(1))]
    for record, latents in zip((straight, turned), expected, strict=True):
        torch.testing.assert_close(record.latents, latents, atol=5e-3, rtol=5e-3)
    by_kind = [{type(c): c for c in record.conditions} for record in (straight, turned, bare)]
    clip = sample("train", 0)
    here = (clip.box_times >= 1) & (clip.box_times < 2 - 1e-9)
    np.testing.assert_allclose(by_kind[0][BoxTrack].times, clip.box_times[here] - 1, atol=1e-9)
    np.testing.assert_allclose(by_kind[1][BoxTrack].boxes, by_kind[0][BoxTrack].mirrored().boxes)
    np.testing.assert_allclose(by_kind[0][DepthClip].depth, by_kind[1][DepthClip].mirrored().depth)
    assert not by_kind[0][DepthClip].metric and set(by_kind[2]) == {AudioPrompt}
    np.testing.assert_allclose(by_kind[0][AudioPrompt].embeds, data.prompts[0])  # of the other piece of its file
    vae.encode = None  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.equal(SpatialPieces(pieces, vae, cache / "features")[2].latents, straight.latents)  # from the cache


def test_user_audio_is_trained_on(own: Path, model: Path, cache: Path, tmp_path: Path) -> None:
    command = ["train", "spatial-audio", "--train_data_dir", str(own), "--seconds", "0.512", "--cache_dir", str(cache),
               "--prompt", "a person walks", "--pretrained_model_name_or_path", str(model), "--output_dir",
               str(tmp_path / "out"), "--max_train_steps", "2", "--train_batch_size", "2", "--validation_steps", "2",
               "--checkpointing_steps", "0"]  # fmt: skip
    assert main(command) == 0
    pipe: Any = VideoToAudioPipeline.from_pretrained(model)
    pipe.load_adapter(tmp_path / "out/final", "spatial")
    assert pipe.spatial.config["seconds"] == 0.512 and pipe.spatial.config["training"]["data"] == "sounds"
    assert pipe.spatial.config["training"]["samples"] == 16
    found = {path.name for path in (tmp_path / "out/validation").iterdir()}
    assert found == {
        f"{step}-{index}.{kind}" for step in ("000000", "000002") for index in (0, 1) for kind in ("wav", "png")
    }


@pytest.fixture
def clap(tmp_path: Path) -> str:
    """A tiny, untrained CLAP audio encoder."""
    torch.manual_seed(0)
    config = ClapAudioConfig(
        hidden_size=32, patch_embeds_hidden_size=4, depths=(1, 1, 1, 1), num_attention_heads=(1, 1, 1, 1),
        projection_dim=24,
    )  # fmt: skip
    ClapAudioModelWithProjection(config).save_pretrained(tmp_path / "clap")
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(tmp_path / "clap")
    return str(tmp_path / "clap")


def test_clap_does_not_depend_on_sides(clap: str) -> None:
    encoder, audio = ClapEncoder.from_pretrained(clap), sample("train", 0).audio
    embedding = encoder(audio, 16_000)
    assert embedding.shape == (encoder.dim,) and embedding.norm().item() == pytest.approx(1)
    assert torch.equal(encoder(audio[::-1].copy(), 16_000), embedding)
    long = np.tile(audio, 8)  # longer than it reads at once
    assert torch.equal(encoder(long, 16_000), encoder(long, 16_000))
    assert not torch.equal(encoder(long, 16_000), encoder(long[:, : 10 * 16_000], 16_000))  # to its end
    with pytest.raises(ValueError, match="audio: got shape"):
        encoder(audio[:, :0], 16_000)
    assert not torch.allclose(encoder(sample("train", 1).audio, 16_000), embedding, atol=1e-4)


@pytest.mark.slow
def test_user_audio_is_a_prompt_by_clap(
    own: Path,
    clap: str,
    model: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    command = ["train", "spatial-audio", "--train_data_dir", str(own), "--seconds", "0.512", "--cache_dir", str(cache),
               "--pretrained_model_name_or_path", str(model), "--output_dir", str(tmp_path / "out"), "--prompt", "a",
               "--max_train_steps", "1", "--train_batch_size", "2", "--validation_steps", "0", "--audio_encoder", clap,
               "--report_to", "none"]  # fmt: skip
    assert main([*command, "--dry_run", "--cache_dir", str(tmp_path / "dry")]) == 0
    assert not (tmp_path / "dry").exists()
    assert main(command) == 0
    spatial, like = str(tmp_path / "out/final"), str(own / "a.wav")
    sound = ["sound", "--model", str(model), "--spatial", spatial, "--like", like, "--seconds", "0.5", "--prompt", "a",
             "--num_inference_steps", "2", "--output", str(tmp_path / "sound")]  # fmt: skip
    assert main(sound) == 2  # statistics are of another width
    assert "audio_encoder: the modules were trained with clap" in caplog.text
    caplog.clear()
    assert main([*sound, "--audio_encoder", clap]) == 0 and "audio_encoder" not in caplog.text
    monkeypatch.setattr(ClapEncoder, "__call__", None)
    assert main([*command, "--output_dir", str(tmp_path / "again")]) == 0  # from the cache


def test_unusable_user_audio_is_listed(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "c.wav").write_bytes(b"RIFF")
    (own / "b.boxes.json").write_text(json.dumps({"times": [0, 1], "boxes": [[0.5, 0, 0.2, 1], [0, 0, 1, 1]]}))
    with pytest.raises(
        ValueError, match=r"2 files cannot be used\n.*b\.boxes\.json: got the box(.|\n)*c\.wav: got a file that"
    ):
        AudioFolder(own, 1.0)
    with pytest.raises(ValueError, match=r"got no audio files, expected names that end in \.wav"):
        AudioFolder(tmp_path / "none", 1.0)
    (own / "c.wav").unlink()
    (own / "b.boxes.json").unlink()
    with pytest.raises(ValueError, match=r"seconds: got 9\.0, expected at most the longest audio file"):
        AudioFolder(own, 9.0)
    both = ["--synthetic", "walks", "--train_data_dir", str(own)]
    for more, sources in (([], "none"), (both, "--train_data_dir and --synthetic")):
        assert main(["train", "spatial-audio", *more, "--output_dir", str(tmp_path / "out")]) == 2
        assert f"data: got {sources}; pass exactly one of --train_data_dir, --synthetic" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
