"""Prior preservation: class images of given designs, and their term of the loss."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import drawn_sketch
from tiny_training import Records, make_task

from weftwork.attention_processors.paired.adapter import SketchTextPair
from weftwork.attention_processors.style.adapter import Style
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.files import stored_in, write_images
from weftwork.pipelines.designs.run import stored
from weftwork.training.tasks.prior import Prior, class_images, repeated

DESIGN = Design("a cat", conditions={"paired": (SketchTextPair(drawn_sketch(), "a thing"),)}, num_inference_steps=1)


def test_the_loss_has_a_term_of_class_images() -> None:
    task = make_task()
    batch = task.collate([Records(task.module)[0]])
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def loss(prior: Prior | None) -> float:
        task.prior = prior
        return task.training_loss(batch, torch.Generator().manual_seed(0), 0).item()

    def prior(scale: float, weight: float) -> Prior:
        return Prior(scale * latents, ["a", "b", "c"], [DESIGN.conditions["paired"]] * 3, 2, weight)

    alone = task.loss(batch, torch.Generator().manual_seed(0), 0).item()
    assert loss(None) == loss(prior(1, 0.0)) == alone
    one, two = loss(prior(1, 1.0)), loss(prior(1, 2.0))
    assert one > alone and two - alone == pytest.approx(2 * (one - alone), rel=1e-4)
    assert loss(prior(3, 1.0)) != one
    assert task.loss(batch, torch.Generator().manual_seed(0), 0).item() == alone, "a validation loss is without it"


def test_designs_are_repeated_with_other_seeds() -> None:
    seeded = Design("a dog", conditions=DESIGN.conditions, seed=7)
    made = repeated([DESIGN, seeded], "paired", 5)
    assert [(one.prompt, one.seed) for one in made] == [
        ("a cat", 0), ("a dog", 7), ("a cat", 1), ("a dog", 8), ("a cat", 2)
    ]  # fmt: skip
    for wrong in (Design("a cat"), Design("a cat", conditions={**DESIGN.conditions, "style": (Style("ink"),)})):
        with pytest.raises(ValueError, match=r"class_designs: design 2 has .* for paired alone"):
            repeated([DESIGN, wrong], "paired", 2)
    named = replace(DESIGN, model="tiny-rooms")
    assert [one.model for one in repeated([DESIGN, named], "paired", 2, "tiny-rooms")] == ["tiny-rooms"] * 2
    for backbone in (None, "tiny-diffusion"):
        with pytest.raises(ValueError, match=r"got design 2 for tiny-rooms, expected .*; remove its model, or pass"):
            repeated([DESIGN, named], "paired", 2, backbone)


def test_class_images_of_a_resumed_run_are_read_again(tmp_path: Path) -> None:
    task = make_task()
    designs = repeated([DESIGN], "paired", 2)

    def pixels(some: list[Design], *, reuse: bool) -> list[bytes]:
        return [one.tobytes() for one in class_images(task.pipe, some, tmp_path, reuse=reuse)]

    made = pixels(designs, reuse=False)
    first, second = sorted(tmp_path.iterdir())
    assert (first.name, second.name) == ("00000.png", "00001.png") and made[0] != made[1]
    record = stored_in(second)
    assert record is not None and (record["design"]["seed"], record["seed"]) == (1, 1)
    red = Image.new("RGB", (64, 64), "red")
    write_images({first: (red, stored(designs[0]))})
    assert pixels(designs, reuse=True) == [red.tobytes(), made[1]]
    other = repeated([replace(DESIGN, seed=3)], "paired", 1)
    assert pixels(other, reuse=True) not in ([red.tobytes()], made[:1]), "another design is drawn again"
    assert pixels(designs, reuse=False) == made
