"""Training of expressions on tiny people: records, losses, what learns, and the command's options."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import expression_adapter, tiny_pipe
from tiny_people import people_folder
from tiny_training import losses_of

from weftwork.attention_processors import ExpressionAdapter
from weftwork.datasets.people import EXPRESSIONS
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.cli import main
from weftwork.training.data.people import ExpressivePeople, PeopleImages
from weftwork.training.tasks.expressions import ExpressionTask
from weftwork.training.trainers.expressions import ExpressionConfig


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExpressivePeople:
    images = PeopleImages(tmp_path / "cache", people_folder(tmp_path, monkeypatch), "train", 24)
    return ExpressivePeople(images, np.random.default_rng(0).normal(size=(24, 4, 8, 8)).astype(np.float16))


def task(people: ExpressivePeople, **options: float) -> ExpressionTask:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    adapter = expression_adapter(pipe.unet, expressions=list(EXPRESSIONS), embedder_size=32)
    return ExpressionTask(adapter, pipe, ExpressionConfig(**options), people.images)


def test_records_have_another_person_with_the_same_expression(people: ExpressivePeople) -> None:
    pictures = [np.asarray(one).transpose(2, 0, 1) / 255 for one in people.images.images]
    for index in range(len(people)):
        record = people[index]
        shown = [i for i, one in enumerate(pictures) if np.abs(one - record.other.numpy()).max() < 1e-6]
        assert all(people.images.expressions[i] == record.expression for i in shown)
        assert index not in shown or people.alike[record.expression] == [index]
        assert record.expression not in record.captions[0]


def test_gradients_of_all_losses_reach_the_adapter_alone(people: ExpressivePeople) -> None:
    one = task(people, image_share=0.5, style_dropout=0.0, joint_dropout=0.0)
    batch = one.collate([people[i] for i in range(8)])
    assert batch.others.shape == (8, 3, 32, 32)
    one.loss(batch, torch.Generator().manual_seed(0), 0).backward()
    assert all(p.grad is None for p in one.pipe.unet.parameters())
    assert not [name for name, p in one.module.named_parameters() if p.grad is None]


def test_dropped_expressions_are_the_null(people: ExpressivePeople) -> None:
    options = {"quantization_weight": 0.0, "divergence_weight": 0.0}
    one = task(people, style_dropout=1.0, **options)
    samples = [people[0], people[1]]
    losses = [one.loss(one.collate(some), torch.Generator().manual_seed(0), 0) for some in (samples, samples)]
    torch.testing.assert_close(losses[0], losses[1])
    changed = one.collate(samples)
    changed.conditions.shares.copy_(changed.conditions.shares.roll(1, -1))
    torch.testing.assert_close(one.loss(changed, torch.Generator().manual_seed(0), 0), losses[0])
    kept = task(people, style_dropout=0.0, joint_dropout=0.0, **options)
    assert not torch.allclose(kept.loss(changed, torch.Generator().manual_seed(0), 0), losses[0])


def test_the_loss_falls(people: ExpressivePeople) -> None:
    one = task(people, style_dropout=0.0, joint_dropout=0.0)
    losses = losses_of(one, one.collate([people[0], people[1]]), 1e-2, 12)
    assert losses[-1] < losses[0]


def test_the_command_trains_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path / "model")
    options = {"people": people_folder(tmp_path, monkeypatch), "pretrained_model_name_or_path": tmp_path / "model"}
    options |= {"cache_dir": tmp_path / "cache", "output_dir": tmp_path / "run", "samples": 8, "max_train_steps": 2}
    options |= {"train_batch_size": 2, "embedder_size": 32, "num_codes": 4, "prior_dim": 8, "bank": "all"}
    given = [f"--{name}={value}" for name, value in options.items()]
    assert main(["train", "expressions", "--synthetic=people", *given, "--use_cpu", "--report_to=none"]) == 0
    adapter = ExpressionAdapter.from_pretrained(tmp_path / "run/final")
    assert adapter.config["expressions"] == list(EXPRESSIONS) and adapter.config["bank"] == "all"
    assert adapter.config["training"]["data"] == "people"


def test_adapters_of_other_names_and_wrong_options_are_refused(people: ExpressivePeople) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    with pytest.raises(ValueError, match="without the expression grin"):
        ExpressionTask(expression_adapter(pipe.unet), pipe, ExpressionConfig())
    with pytest.raises(ValueError, match="without an embedder"):
        ExpressionTask(expression_adapter(pipe.unet, expressions=list(EXPRESSIONS)), pipe, ExpressionConfig())
    with pytest.raises(ValueError, match="image_share: got 2"):
        ExpressionConfig(image_share=2)
    with pytest.raises(ValueError, match="divergence_weight: got -1"):
        ExpressionConfig(divergence_weight=-1)
