"""Subjects shown as images and named in the prompt (FastComposer)."""

from typing import Final

from weftwork.attention_processors.core.method import Method

FOLDER: Final = "weftwork.attention_processors.subjects"

METHOD = Method(
    name="subjects",
    summary="subjects shown as images, by their words in the prompt",
    adapters=(f"{FOLDER}.adapter:SubjectAdapter",),
    conditions=(f"{FOLDER}.conditions:Subject",),
    modalities=("image", "video"),
    acts_on="prompt",
    example=f"{FOLDER}.example:example",
    trainer="weftwork.training.trainers.subjects:SubjectTrainer",
    evaluation="weftwork.evaluation.measurements.subjects:MEASUREMENT",
    usage=(
        "from weftwork.attention_processors import Subject",
        "from weftwork.attention_processors.encoders import ImageEncoder",
        'encoder = ImageEncoder.from_pretrained("image-encoder")  # the one of the training',
        "pipe.set_encoders(image=encoder)",
        'subjects = [Subject("fox.png", text="fox"), Subject("car.png", text="car")]',
        'image = pipe("a fox beside a car", conditions={"subjects": subjects}, num_inference_steps=20).images[0]',
    ),
)
