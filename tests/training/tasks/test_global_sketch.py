"""Training of the global-sketch module, on sketches of the data or composed of the pairs' sketches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import drawn_sketch, paired_adapter, tiny_pipe
from tiny_training import Records, config

from weftwork.attention_processors import GlobalSketch, PairedAdapter, SketchTextPair
from weftwork.datasets.readers.images import compose_sketches
from weftwork.datasets.readers.pair_folder import PairSample
from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.training.core.loop import train
from weftwork.training.data.image_latents import Sizes
from weftwork.training.data.pairs import PairRecord, SamplePairs
from weftwork.training.tasks.paired import PairedConfig, PairedTask


def make_task(**changes: Any) -> PairedTask:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    shown = ("a b", [SketchTextPair(drawn_sketch(0), "thing 0")])
    return PairedTask(paired_adapter(pipe.unet, global_sketch=True), pipe, PairedConfig(**changes), [shown])


def whole_state(adapter: PairedAdapter) -> dict[str, torch.Tensor]:
    assert adapter.whole is not None
    return {name: tensor.clone() for name, tensor in adapter.whole.state_dict().items()}


def test_two_steps_change_the_module_and_validation_draws_with_it(tmp_path: Path) -> None:
    task = make_task()
    before = whole_state(task.module)
    settings = config(tmp_path, max_train_steps=2, gradient_accumulation_steps=1, lr_warmup_steps=0, validation_steps=2)
    folder = train(task, Records(task.module), settings)
    after = whole_state(PairedAdapter.from_pretrained(folder))
    assert all(not torch.equal(before[name], after[name]) for name in before), "every weight of the module moves"
    assert (tmp_path / "validation" / "000002.png").is_file()


def test_sketches_of_pairs_are_composed_where_there_is_no_other() -> None:
    task = make_task()
    sketches = [drawn_sketch(0), drawn_sketch(2)]
    pairs = [task.module.prepare(SketchTextPair(one, f"thing {i}")) for i, one in enumerate(sketches)]
    latents = torch.zeros(4, 8, 8)
    own = task.module.prepare_whole(GlobalSketch(drawn_sketch(1)))
    records = [PairRecord(latents, tuple(pairs), ("a",)), PairRecord(latents, tuple(pairs), ("a",), own)]
    none = PairRecord(latents, (task.module.prepare(SketchTextPair(text="a thing")),), ("a",))
    batch = task.collate([*records, none]).conditions
    assert batch.whole is not None and batch.whole_mask is not None
    assert batch.whole_mask.tolist() == [True, True, False]
    composed = task.module.pixels(compose_sketches(sketches))
    ink, hull = (batch.whole[0] - composed).abs().mean((1, 2))
    assert ink < 0.005 and hull < 0.02, "but for the order of composing and resizing"
    assert (batch.whole[0] - pairs[0].pixels).abs().mean() > 0.05  # pyright: ignore[reportOperatorIssue]
    assert own.pixels is not None and torch.equal(batch.whole[1], own.pixels) and not batch.whole[2].any()
    assert batch.weight[:, -1].tolist() == [1, 1, 0]


def test_dropped_sketches_are_absent_and_null_designs_are_null() -> None:
    task = make_task(global_sketch_dropout=1)
    records = [Records(task.module)[i] for i in range(2)]
    batch = task._dropped(task.collate(records).conditions, torch.Generator().manual_seed(0))
    assert batch.whole_mask is not None and not batch.whole_mask.any() and not batch.weight[:, -1].any()
    task = make_task(global_sketch_dropout=0, null_dropout=1, pair_dropout=0)
    batch = task._dropped(task.collate(records).conditions, torch.Generator().manual_seed(0))
    assert batch.whole_mask is not None and batch.whole_mask.all() and batch.weight[:, -1].all()
    assert batch.has_whole is not None and not batch.has_whole.any()
    with torch.no_grad():
        encoded = task.module(task.module.features(batch, task.encoders))
    assert encoded.null is not None
    for layer, (key, value) in encoded.key_value.items():
        kept = encoded.token_mask
        for ours, null in ((key, encoded.null[layer][0]), (value, encoded.null[layer][1])):
            torch.testing.assert_close(ours[kept], null.expand_as(ours)[kept], atol=1e-5, rtol=1e-5)


def test_sketches_of_the_data_are_read(tmp_path: Path) -> None:
    task = make_task()
    drawn = drawn_sketch(1)
    own: Any = [PairSample(Image.new("RGB", (64, 64)), (drawn_sketch(),), ("a thing",), "", drawn, "1")]
    record = SamplePairs(own, task.module, task.pipe.vae, tmp_path, Sizes(64, 16))[0]
    assert record.whole is not None and record.whole.pixels is not None
    assert torch.equal(record.whole.pixels, task.module.pixels(GlobalSketch(drawn).sketch))


def test_shares_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"global_sketch_dropout: got 1.5, expected a share in"):
        PairedConfig(global_sketch_dropout=1.5)
