"""Walking The Maps is read as its own loaders read it, but as loud as it is, and refused file by file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from weftwork.datasets.readers.sidecar_files import read_boxes
from weftwork.datasets.readers.walking_the_maps import TEXT, MapChunk, WalkingTheMaps
from weftwork.datasets.synthetic.walks import SAMPLE_RATE, frames, sample

Array = np.ndarray[Any, np.dtype[Any]]
RATE = 8000


def write(root: Path, name: str, seconds: float, channels: int = 2, sound_seconds: float | None = None) -> Array:
    """A video of this length: its sound, a ramp that differs by channel."""
    folder = root / name
    (folder / "audio").mkdir(parents=True)
    (folder / "frames_4fps").mkdir()
    length = round((seconds if sound_seconds is None else sound_seconds) * RATE)
    sound = np.linspace(0, 0.2, length)[:, None] * (1 - 0.5 * np.arange(channels))
    soundfile.write(folder / "audio" / f"{name}.wav", sound, RATE, subtype="FLOAT")
    for i in range(int(seconds * 4)):
        Image.new("RGB", (6, 4), (9 * i, 0, 0)).save(folder / "frames_4fps" / f"frame{i}.jpg", quality=100)
    (folder / f"{name}.metadata.json").write_text(json.dumps({"processed": {"video_duration": seconds}}))
    return sound.T


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "one", 5.0)
    write(tmp_path, "two", 2.0)
    write(tmp_path, "short", 1.0)
    (tmp_path / "train.txt").write_text("one\nshort\n\ntwo\n")
    return tmp_path


def chunks(root: Path, **options: Any) -> WalkingTheMaps:
    return WalkingTheMaps(root, root / "train.txt", **options)


def test_chunks_do_not_overlap_and_the_rest_is_left_out(root: Path) -> None:
    read = chunks(root)
    assert [(chunk.name, chunk.start) for chunk in read] == [("one", 0.0), ("one", 2.0), ("two", 0.0)]  # pyright: ignore
    assert len(read) == 3 and len(chunks(root, seconds=1.0)) == 8 and TEXT == "A person walks."
    assert len(chunks(root, seconds=0.1)) == 50 + 10 + 20


def test_sound_is_as_loud_as_in_the_file(root: Path) -> None:
    read = chunks(root)
    whole = np.linspace(0, 0.2, 5 * RATE)
    for chunk, start in ((read[0], 0), (read[1], 2)):
        part = whole[start * RATE :][: 2 * RATE]
        assert chunk.rate == RATE and chunk.audio.dtype == np.float32
        np.testing.assert_allclose(chunk.audio, np.stack([part, part / 2]), atol=1e-7)


def test_sound_comes_at_the_rate_asked_for(root: Path) -> None:
    chunk = chunks(root, sample_rate=11_025)[1]
    assert chunk.audio.shape == (2, 22_050) and chunk.rate == 11_025
    times = np.arange(2000, 20_000) / 11_025 + 2
    np.testing.assert_allclose(chunk.audio[0, 2000:20_000], times / 5 * 0.2, atol=2e-4)


def test_one_channel_is_heard_on_both_sides(root: Path) -> None:
    sound = write(root, "mono", 2.0, channels=1)
    (root / "train.txt").write_text("mono")
    np.testing.assert_allclose(chunks(root)[0].audio, np.repeat(sound, 2, 0), atol=1e-7)


def test_frames_are_in_the_order_of_their_numbers(root: Path) -> None:
    chunk = chunks(root)[1]
    assert [path.name for path in chunk.frame_paths] == [f"frame{i}.jpg" for i in range(8, 16)]
    reds = [np.asarray(frame)[0, 0, 0] for frame in chunk.frames]
    np.testing.assert_allclose(reds, 9 * np.arange(8, 16), atol=2)


def test_boxes_and_depth_are_of_the_chunk_and_may_be_missing(root: Path) -> None:
    assert chunks(root)[0].boxes is None and chunks(root)[0].depth is None
    times = np.arange(20) / 4
    boxes = np.tile([0.1, 0.2, 0.3, 0.4], (2, 20, 1)) + np.arange(20)[:, None] / 100
    boxes[0, 10] = np.nan
    boxes[1, :12] = np.nan
    np.savez(root / "one" / "one.boxes.npz", times=times, boxes=boxes)
    depth = np.ones((20, 3, 5)) + times[:, None, None]
    np.savez(root / "one" / "one.depth.npz", times=times, depth=depth, metric=False)
    first, second = chunks(root)[0], chunks(root)[1]
    assert first.boxes is not None and second.boxes is not None and first.depth is not None and second.depth is not None
    assert [len(track.times) for track in first.boxes] == [8] and [len(t.times) for t in second.boxes] == [7, 4]
    np.testing.assert_allclose(second.boxes[0].times, [0, 0.25, 0.75, 1, 1.25, 1.5, 1.75])
    np.testing.assert_allclose(second.boxes[0].boxes[-1], boxes[0, 15])
    np.testing.assert_allclose(second.depth.times, np.arange(8) / 4)
    np.testing.assert_allclose(second.depth.depth, depth[8:16])
    assert second.depth.metric is False
    np.savez(root / "one" / "one.boxes.npz", times=times, boxes=boxes[0])
    assert len(chunks(root)[0].boxes or ()) == 1
    path = root / "one" / "one.boxes.json"
    path.write_text(json.dumps({"times": times.tolist(), "boxes": boxes[1, 12:13].tolist() * 20}))
    with pytest.raises(ValueError, match=r"one.boxes.npz: got one.boxes.json beside it, expected one of them; remove"):
        _ = chunks(root)[0].boxes
    path.with_suffix(".npz").unlink()
    (track,) = chunks(root)[0].boxes or ()
    np.testing.assert_allclose(track.boxes[0], boxes[1, 12])


def test_boxes_may_be_in_json(tmp_path: Path) -> None:
    times, box = [0.0, 0.5, 1.0], [0.1, 0.2, 0.3, 0.9]
    path = tmp_path / "a.boxes.json"
    path.write_text(json.dumps({"times": times, "boxes": [box, [None] * 4, box]}))
    (track,) = read_boxes(path, 0.0, 2.0)
    np.testing.assert_allclose(track.times, [0.0, 1.0])
    np.testing.assert_allclose(track.boxes, [box, box])
    for content in ("[1]", "{", '{"times": [0], "boxes": [["a"]]}'):
        path.write_text(content)
        with pytest.raises(ValueError, match="got no JSON of arrays by name"):
            read_boxes(path, 0.0, 2.0)


def test_predicted_envelopes_are_found_by_their_frames(root: Path) -> None:
    assert chunks(root)[1].envelope is None
    folder = root / "envelopes"
    folder.mkdir()
    np.save(folder / "one_60_120.npy", np.arange(60.0)[None])
    envelope = chunks(root, envelopes=folder)[1].envelope
    assert envelope is not None and np.array_equal(envelope, np.arange(60))
    with pytest.raises(ValueError, match=r"one_0_60\.npy: got a file that numpy cannot read"):
        _ = chunks(root, envelopes=folder)[0].envelope
    np.save(folder / "one_0_60.npy", np.full(60, np.nan))
    with pytest.raises(ValueError, match=r"one_0_60\.npy: got no array of finite numbers"):
        _ = chunks(root, envelopes=folder)[0].envelope
    np.save(folder / "one_0_60.npy", np.zeros((2, 60)))
    with pytest.raises(ValueError, match=r"one_0_60\.npy: got shape \(2, 60\), expected \[frame\]"):
        _ = chunks(root, envelopes=folder)[0].envelope


def test_a_walk_written_in_this_layout_is_read_back(tmp_path: Path) -> None:
    clip = sample("train", 0, seconds=2.0)
    write(tmp_path, "walk", 2.0)
    folder = tmp_path / "walk"
    soundfile.write(folder / "audio" / "walk.wav", clip.audio.T, SAMPLE_RATE, subtype="FLOAT")
    np.savez(folder / "walk.boxes.npz", times=clip.box_times, boxes=clip.boxes)
    np.savez(folder / "walk.depth.npz", times=clip.depth_times, depth=clip.depth, metric=True)
    for i, picture in enumerate(frames(clip.walk, 32, 4)):
        Image.fromarray(picture).save(folder / "frames_4fps" / f"frame{i}.jpg")
    (tmp_path / "all.txt").write_text("walk")
    chunk = WalkingTheMaps(tmp_path, tmp_path / "all.txt")[0]
    assert chunk.boxes is not None and chunk.depth is not None and len(chunk.frames) == 8
    np.testing.assert_array_equal(chunk.audio, clip.audio)
    np.testing.assert_allclose(chunk.boxes[0].boxes, clip.boxes)
    np.testing.assert_array_equal(chunk.depth.depth, clip.depth)


# Bad input


@pytest.mark.parametrize("text", ["", "\n \n", "one\none\n"])
def test_splits_without_or_with_doubled_names_are_refused(root: Path, text: str) -> None:
    (root / "train.txt").write_text(text)
    with pytest.raises(ValueError, match=r"split: got (no names|a name twice) in .*, expected one on each line"):
        chunks(root)


@pytest.mark.parametrize("name", ["three", "../one", "one/audio", "."])
def test_names_that_are_no_samples_are_refused(root: Path, name: str) -> None:
    (root / "train.txt").write_text(name)
    with pytest.raises(ValueError, match=r"split: got the sample .*, expected a folder of"):
        chunks(root)


def test_missing_files_are_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"split: got .*none\.txt.*expected a text file"):
        WalkingTheMaps(root, root / "none.txt")
    (root / "one" / "frames_4fps" / "frame15.jpg").unlink()
    for i in range(16, 20):
        (root / "one" / "frames_4fps" / f"frame{i}.jpg").unlink()
    with pytest.raises(ValueError, match="frames_4fps: got 15 images, expected 16 or more"):
        _ = chunks(root)[1].frames
    (root / "one" / "audio" / "one.wav").unlink()
    with pytest.raises(ValueError, match=r"one\.wav: got a file that cannot be read"):
        chunks(root)
    (root / "one" / "one.metadata.json").unlink()
    with pytest.raises(ValueError, match=r"one\.metadata\.json: got FileNotFoundError"):
        chunks(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "got JSONDecodeError"),
        ("{}", "got KeyError"),
        ('{"processed": 3}', "got TypeError"),
        ('{"processed": {"video_duration": "long"}}', "video_duration of 'long', expected seconds above 0"),
        ('{"processed": {"video_duration": NaN}}', "video_duration of nan"),
        ('{"processed": {"video_duration": true}}', "video_duration of True"),
        ('{"processed": {"video_duration": 9.5}}', r"got 5 s of audio for 9\.5 s of video"),
    ],
)
def test_bad_metadata_is_refused(root: Path, text: str, message: str) -> None:
    (root / "one" / "one.metadata.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        chunks(root)


def test_sound_that_ends_a_little_early_has_fewer_chunks(root: Path) -> None:
    write(root, "early", 4.0, sound_seconds=3.8)
    (root / "train.txt").write_text("early")
    assert len(chunks(root)) == 1 and chunks(root)[0].audio.shape == (2, 2 * RATE)
    late = MapChunk(root / "early", 2.0, 2.0)
    with pytest.raises(ValueError, match=r"early\.wav: got 1\.8 s of audio from 2 s on, expected 2 s"):
        _ = late.audio
    with pytest.raises(ValueError, match="got 0 s of audio from 9 s on"):
        _ = MapChunk(root / "early", 9.0, 2.0).audio


def test_bad_sound_is_refused(root: Path) -> None:
    (root / "train.txt").write_text("surround")
    write(root, "surround", 2.0, channels=6)
    with pytest.raises(ValueError, match=r"surround\.wav: got 6 channels, expected one or two; mix it down"):
        chunks(root)
    path = root / "surround" / "audio" / "surround.wav"
    soundfile.write(path, np.full((2 * RATE, 2), np.nan), RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"surround\.wav: got NaN or infinite samples"):
        _ = chunks(root)[0].audio
    path.write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"surround\.wav: got a file that cannot be read"):
        chunks(root)


def test_bad_lengths_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"seconds, sample_rate: got 0 and None"):
        chunks(root, seconds=0)
    with pytest.raises(ValueError, match=r"seconds, sample_rate: got 2\.0 and 0"):
        chunks(root, sample_rate=0)
    with pytest.raises(ValueError, match=r"seconds: got 60, expected at most the longest video of"):
        chunks(root, seconds=60)


GOOD = {"times": np.arange(3) / 4, "boxes": np.tile([0.1, 0.1, 0.2, 0.2], (3, 1)), "depth": np.ones((3, 2, 2))}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("boxes", {"times": None}, "got boxes, expected times, boxes; save it with all"),
        ("depth", {"metric": None}, "got times, depth, expected times, depth, metric"),
        ("boxes", {"times": np.zeros(3)}, "times that do not increase"),
        ("boxes", {"times": np.zeros((3, 1))}, "times that do not increase"),
        ("boxes", {"times": np.arange(2)}, r"boxes of shape \(1, 3, 4\) for 2 times"),
        ("boxes", {"boxes": np.ones((3, 5))}, r"boxes of shape \(1, 3, 5\) for 3 times"),
        ("boxes", {"boxes": np.tile([10.0, 20, 30, 40], (3, 1))}, r"the box \[10.0, .* divide pixels by width"),
        ("boxes", {"boxes": np.tile([0.3, 0.1, 0.2, 0.2], (3, 1))}, r"the box \[0.3, 0.1, 0.2, 0.2\]"),
        ("boxes", {"boxes": np.tile([np.nan, 0.1, 0.2, 0.2], (3, 1))}, r"the box \[nan, 0.1"),
        ("boxes", {"boxes": np.array([["a"] * 4] * 3)}, "values that are not numbers"),
        ("depth", {"metric": np.nan}, "or metric neither true nor false"),
        ("depth", {"depth": np.ones((2, 2, 2))}, r"depth of shape \(2, 2, 2\) for 3 times"),
        ("depth", {"depth": np.full((3, 2, 2), np.nan)}, "depth that is not finite"),
        ("depth", {"depth": np.zeros((3, 2, 2))}, "in metres, not above 0"),
    ],
)
def test_bad_boxes_and_depth_are_refused(root: Path, kind: str, change: dict[str, Any], message: str) -> None:
    arrays = {"times": GOOD["times"], kind: GOOD[kind], **({"metric": True} if kind == "depth" else {}), **change}
    path = root / "one" / f"one.{kind}.npz"
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=rf"one\.{kind}\.npz: .*{message}"):
        getattr(chunks(root)[0], kind)


def test_files_that_are_no_arrays_are_refused_and_code_is_never_run(root: Path) -> None:
    path = root / "one" / "one.boxes.npz"
    path.write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"one\.boxes\.npz: got a file that numpy cannot read"):
        _ = chunks(root)[0].boxes
    np.savez(path, times=np.arange(3), boxes=np.array([object()] * 3), allow_pickle=True)
    with pytest.raises(ValueError, match="a file that numpy cannot read"):
        _ = chunks(root)[0].boxes
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="got no names, expected times, boxes"):
        _ = chunks(root)[0].boxes
