"""Training on recorded footsteps: prompts with surfaces, and audio in the middle where boxes are left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_audio import CONTEXT, DEPTH, TRACK, prompt_embeds, spatial_adapter, tiny_audio_pipe, tiny_oobleck
from transformers import T5EncoderModel, T5Tokenizer

from weftwork.attention_processors.audio.adapter import NO_BOXES, SpatialAudioAdapter
from weftwork.attention_processors.audio.conditions import BoxTrack
from weftwork.datasets.synthetic.walks import PROMPT, SAMPLE_RATE, sound
from weftwork.datasets.synthetic.walks.prompts import GENERIC, words
from weftwork.datasets.synthetic.walks.recordings import steps_in
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.pretrained import shipped
from weftwork.scripts.cli import main
from weftwork.training.data.audio import CENTRED, SpatialWalks, WalkSounds, cached_audio_latents
from weftwork.training.tasks.audio import SpatialAudioTask, SpatialModules
from weftwork.training.trainers.audio import SpatialConfig

FOOTSTEPS = Path(__file__).parents[3] / "examples/footsteps"
SURFACES = steps_in(FOOTSTEPS, "train").surfaces


def walks(cache: Path, *, centred: bool) -> WalkSounds:
    return WalkSounds(cache, "train", 4, footsteps=FOOTSTEPS, centred=centred)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SpatialWalks:
    cache, vae = tmp_path_factory.mktemp("cache"), tiny_oobleck()
    heard, middle = (walks(cache, centred=centred) for centred in (False, True))
    middles = cached_audio_latents(cache, vae, middle, CENTRED)
    return SpatialWalks(heard, cached_audio_latents(cache, vae, heard), middles, worded=True)


def test_centred_walks_are_the_same_steps_in_the_middle(data: SpatialWalks, tmp_path: Path) -> None:
    walk, steps = data.sounds.walk(1), steps_in(FOOTSTEPS, "train")
    expected = sound(walk, SAMPLE_RATE, pan=False, delay=False, distance=False, steps=steps)
    np.testing.assert_allclose(walks(tmp_path, centred=True).sounds[1] / 32767, expected, atol=2e-5)
    record = data[2]
    assert record.centred is not None
    latents = tiny_oobleck().encode(torch.from_numpy(expected)[None]).latent_dist.mode()[0]
    torch.testing.assert_close(record.centred[0], latents, atol=5e-3, rtol=5e-3)
    assert not torch.allclose(record.centred[0], record.latents, atol=1e-2)


def test_prompts_name_the_surface_in_varied_words(data: SpatialWalks) -> None:
    assert data.sounds.surfaces[0] in SURFACES
    rng = np.random.default_rng(0)
    texts = [data.text(0, rng) for _ in range(200)]
    named = [text for text in texts if text is not None and text not in GENERIC]
    assert all(data.sounds.surfaces[0] in text for text in named) and 130 < len(named) < 170
    assert len(set(named)) > 5
    known = {*words(), *SURFACES}
    assert all(word in known for text in named for word in text.replace(",", "").split())


def test_boxes_are_left_out_together_with_the_side(data: SpatialWalks) -> None:
    pipe = tiny_audio_pipe(VideoToAudioPipeline)
    adapter = spatial_adapter(pipe.transformer, audio_dim=data.prompts.shape[1], null_boxes=True)
    module: Any = SpatialModules(adapter, _controlnet(pipe))
    task = object.__new__(SpatialAudioTask)
    task.module, task.config = module, SpatialConfig(box_dropout=0.5)
    batch = task.collate([data[i] for i in range(4)])
    track = next(i for i, part in enumerate(batch.conditions.parts) if adapter.readers[part.reader].kind is BoxTrack)
    dropped = torch.zeros(4, len(batch.conditions.parts), dtype=torch.bool)
    dropped[1:, track] = True
    heard = task._heard(batch, dropped, torch.tensor([False, False, True, False]))
    assert batch.centred is not None
    for row, middle in enumerate((False, True, False, True)):
        latents, envelope = batch.centred[row] if middle else (batch.latents[row], batch.envelope[row])
        assert torch.equal(heard.latents[row], latents) and torch.equal(heard.envelope[row], envelope)


def _controlnet(pipe: Any) -> Any:
    from weftwork.attention_processors.audio.controlnet import StableAudioControlNetModel

    return StableAudioControlNetModel.from_transformer(pipe.transformer, 1, pipe.transformer.config["in_channels"])


def test_designs_without_boxes_read_the_null_token() -> None:
    plain, with_null = (spatial_adapter(null_boxes=null) for null in (False, True))
    assert plain.collate([[DEPTH], [TRACK]]).null is None
    batch = with_null.collate([[DEPTH], [TRACK]])
    assert batch.null is not None and batch.null.sum(1).tolist() == [1, 0]
    assert NO_BOXES.weight == 1 and batch.weight[0][batch.null[0]].item() == 1
    assert with_null.collate([[BoxTrack(TRACK.times, TRACK.boxes, weight=0.0)]]).null is None

    def generated(adapter: Any) -> np.ndarray:
        pipe = tiny_audio_pipe(VideoToAudioPipeline)
        if adapter is not None:
            pipe.attach(spatial=adapter)
        generator = torch.Generator().manual_seed(0)
        return pipe(prompt_embeds=prompt_embeds(), num_inference_steps=2, seconds=1.0, generator=generator).audio

    stock = generated(None)
    np.testing.assert_array_equal(generated(plain), stock)
    assert not np.allclose(generated(with_null), stock, atol=1e-5)


@pytest.mark.slow
def test_the_command_trains_on_recorded_footsteps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tiny_audio_pipe(VideoToAudioPipeline)
    tokenizer = T5Tokenizer.from_pretrained(shipped("tiny-audio"), subfolder="tokenizer")
    encoder = T5EncoderModel.from_pretrained(shipped("tiny-audio"), subfolder="text_encoder")
    pipe.projection_model = type(pipe.projection_model)(encoder.config.d_model, CONTEXT, 0, 4)
    pipe.register_modules(text_encoder=encoder, tokenizer=tokenizer)
    pipe.save_pretrained(tmp_path / "model")
    command = ["train", "spatial-audio", "--footsteps", str(FOOTSTEPS), "--samples", "4", "--box_dropout", "0.5",
               "--cache_dir", str(tmp_path / "cache"), "--control", "boxes", "--max_train_steps", "2",
               "--pretrained_model_name_or_path", str(tmp_path / "model"), "--output_dir", str(tmp_path / "run"),
               "--train_batch_size", "2", "--checkpointing_steps", "0", "--validation_steps", "0"]  # fmt: skip
    assert main([*command, "--train_data_dir", str(FOOTSTEPS)]) != 0
    assert "footsteps: has no effect with own data" in capsys.readouterr().err
    assert main([*command, "--synthetic", "walks", "--footsteps", str(tmp_path / "model")]) != 0
    assert "got no footsteps" in capsys.readouterr().err
    assert main([*command, "--synthetic", "walks"]) == 0
    dry = [*command, "--synthetic", "walks", "--box_dropout", "0", "--dry_run", "--cache_dir", str(tmp_path / "dry")]
    assert main(dry) == 0
    assert [len(list((tmp_path / name).glob("*walks-*.npy"))) for name in ("cache", "dry")] == [4, 2]
    pipe.load_adapter(tmp_path / "run/final", "spatial")
    assert pipe.spatial.config["null_boxes"] is True and PROMPT in GENERIC
    pipe.spatial.register_to_config(null_boxes=False)
    pipe.spatial.save_pretrained(tmp_path / "run/final/adapter")
    place = command.index("--control")  # an option of new modules
    start = ["--init_from", str(tmp_path / "run/final"), "--output_dir", str(tmp_path / "second")]
    assert main([*command[:place], *command[place + 2 :], *start, "--synthetic", "walks"]) == 0
    assert SpatialAudioAdapter.from_pretrained(tmp_path / "second/final/adapter").config["null_boxes"] is True
