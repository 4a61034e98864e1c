"""Forms for methods without a page of their own, made from the record fields of their conditions."""

import dataclasses
import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Self

import gradio as gr
from gradio.components import Component
from PIL import Image

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.method import Method, load
from weftwork.attention_processors.core.records import (
    ChoiceKind,
    ImageKind,
    Kind,
    NumberKind,
    PathKind,
    Recorded,
    RecordField,
    RegionKind,
    SharesKind,
    TextKind,
    WholeKind,
)
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import as_image
from weftwork.datasets.readers.inline_images import as_text
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionControlNetPipeline
from weftwork.pipelines.core.opening import open_controlnet
from weftwork.pipelines.designs.design import Control
from weftwork.scripts.demo.pages import AdapterPage, Context
from weftwork.scripts.demo.studio import REFUSED_KEYS, ImageStudio
from weftwork.scripts.demo.widgets import (
    BOX,
    ImagePanel,
    ImageRequest,
    Record,
    RunSettings,
    image_upload,
    parsed_box,
    run_settings,
)


class FormPage(AdapterPage):
    """A prompt and the conditions of a method, with a widget per field."""

    def __init__(self, method: Method, studio: ImageStudio, adapter: str) -> None:
        super().__init__(method, studio, adapter)
        self.title = method.name.replace("-", " ").capitalize()

    @classmethod
    def open(cls, method: Method, context: Context) -> Self | None:
        """Returns the page, or None where no adapter is attached or records cannot describe the conditions."""
        return super().open(method, context) if _condition_classes(method) else None

    @property
    def kinds(self) -> Sequence[type[Recorded]]:
        """Classes whose fields the form has."""
        return _condition_classes(self.method)

    def design(self, prompt: str, records: Sequence[Record]) -> Record:
        """Returns the design of what is filled in."""
        return {"prompt": prompt, "conditions": {self.adapter: records}}

    def build(self) -> None:
        name = self.method.name
        gr.Markdown(f"{self.method.summary[:1].upper()}{self.method.summary[1:]}.")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                prompt = gr.Textbox("", label="Prompt", elem_id=f"{name}-prompt")
                forms = [RecordForm(one) for one in self.kinds]
            with gr.Column(scale=2, min_width=320):
                settings = run_settings(maps=any(issubclass(one, Condition) and one.has_maps for one in self.kinds))
                panel = ImagePanel(self.studio)

        def request(text: str, *values: object) -> ImageRequest:
            given = iter(values)
            records = [record for form in forms if (record := form.record(given)) is not None]
            if not records:
                needs = ", ".join(key for form in forms for key in form.needs)
                raise UserError(f"{needs}: got none, expected at least one; fill it in")
            return RunSettings.of(list(given)).request(self.design(text, records))

        inputs: dict[str, Component] = {"prompt": prompt}
        for form in forms:
            for one in form.inputs:
                inputs |= one.named(inputs)
        panel.connect(request, {**inputs, **settings}, api_name=name, triggers=[prompt.submit])


class ControlPage(FormPage):
    """The form of a method whose trained module is a ControlNet: a prompt, and the fields of the ControlNet."""

    @classmethod
    def open(cls, method: Method, context: Context) -> Self | None:
        """Returns the page for the demo's pipeline with the ControlNet, or None where there is none."""
        models, demo = context.models(method), context.studio
        if models is None:
            return None
        net = open_controlnet(models[1], demo.pipe)
        pipe = ConditionedStableDiffusionControlNetPipeline.from_pipe(demo.pipe, controlnet=[net])
        studio = ImageStudio(pipe, demo.model, demo.queue, {method.name: Path(models[1])})
        return cls(method, studio, method.name)

    @property
    def kinds(self) -> Sequence[type[Recorded]]:
        return [Control]

    def design(self, prompt: str, records: Sequence[Record]) -> Record:
        return {"prompt": prompt, "controlnets": [{"controlnet": self.adapter, **one} for one in records]}


def _condition_classes(method: Method) -> list[type[Condition]]:
    return [condition for path in method.conditions if (condition := load(path)).needs]


class RecordForm:
    """Widgets for the fields of a class of records in designs, without those that are paths.

    Args:
        kind: a class of conditions, or `Control`.
    """

    def __init__(self, kind: type[Any]) -> None:
        base, defaults = Condition.record_fields(), {one.name: one.default for one in dataclasses.fields(kind)}
        fields = {
            key: one
            for key, one in kind.record_fields().items()
            if key not in REFUSED_KEYS and not isinstance(one[1].kind, PathKind)
        }
        self.needs = [key for key in kind.needs or kind.required_keys() if key in fields]
        self.inputs = [_add(key, entry, defaults[name]) for key, (name, entry) in fields.items() if key not in base]
        with gr.Accordion("Strength", open=False):
            self.inputs += [_add(key, entry, defaults[name]) for key, (name, entry) in fields.items() if key in base]

    def record(self, values: Iterator[object]) -> Record | None:
        """Takes the values of the widgets and returns the record; None where all it needs is empty.

        Raises:
            ValueError: text that cannot be parsed; begins with the name of the field.
        """
        found = {one.key: one.record_value([next(values) for _ in one.widgets]) for one in self.inputs}
        record = {key: value for key, value in found.items() if value is not None}
        return record if any(key in record for key in self.needs) else None


@dataclass(frozen=True)
class FieldInput:
    """The widgets of one field; those of a region are a box and a mask."""

    key: str
    kind: Kind
    widgets: Sequence[Component]

    def named(self, taken: Container[str]) -> dict[str, Component]:
        """Returns the widgets by names in calls from programs: the key, with a number if it is taken."""
        names = filter(lambda name: name not in taken, chain([self.key], (f"{self.key}_{i}" for i in count(2))))
        return dict(zip(names, self.widgets, strict=False))

    def record_value(self, values: Sequence[object]) -> object:
        """Returns the field's value in a record; None where it is left out."""
        given = [value for value in values if value is not None and not (isinstance(value, str) and not value.strip())]
        if len(given) > 1:
            raise UserError(f"{self.key}: got a box and a mask, expected one of them; clear the other")
        if not given:
            return None
        (value,) = given
        if isinstance(value, Image.Image):
            return as_text(as_image(value, name=self.key))
        match self.kind:
            case RegionKind() if value != "sketch":
                return parsed_box(str(value), self.key)
            case SharesKind(alone) if not (alone and "=" not in str(value)):
                return _parsed_shares(str(value), self.key)
            case TextKind() | ChoiceKind() | NumberKind() | WholeKind() | RegionKind() | SharesKind():
                return value
        try:
            return json.loads(str(value))
        except ValueError:
            raise UserError(f"{self.key}: got {value!r}, expected JSON; quote texts") from None


def _add(key: str, entry: RecordField, default: object) -> FieldInput:
    """Adds the widgets of a field."""
    label = key.replace("_", " ").capitalize()
    text = default if isinstance(default, str) else ""
    number = float(default) if isinstance(default, int | float) else None
    widgets: Sequence[Component]
    match entry.kind:
        case ImageKind():
            widgets = [image_upload(label)]
        case NumberKind(minimum, maximum):
            highest = max(2.0, 2 * (number or 0)) if maximum is None else maximum
            lowest = -highest if minimum is None else minimum
            widgets = [gr.Slider(lowest, highest, number, step=0.05, label=label, info=entry.help)]
        case WholeKind(minimum, maximum):
            widgets = [gr.Number(number, precision=0, minimum=minimum, maximum=maximum, label=label, info=entry.help)]
        case ChoiceKind(options):
            widgets = [gr.Dropdown(list(options), value=text or options[0], label=label, info=entry.help)]
        case RegionKind(sketch):
            also = ', "sketch"' if sketch else ""
            box = gr.Textbox(
                label=label, info=f"Empty (everywhere){also} or a box: left, top, right, bottom", placeholder=BOX
            )
            widgets = [box, image_upload(f"{label}: mask, white where it acts", height=180)]
        case SharesKind(alone):
            example = "name, or name=0.7, other=0.3" if alone else "name=0.7, other=0.3"
            widgets = [gr.Textbox(label=label, info=entry.help, placeholder=example)]
        case kind:
            hint = None if isinstance(kind, TextKind) else "JSON"
            widgets = [gr.Textbox(text, label=label, info=entry.help, placeholder=hint)]
    return FieldInput(key, entry.kind, widgets)


def _parsed_shares(text: str, key: str) -> dict[str, float]:
    """Returns the shares that are written as "name=0.7, other=0.3".

    Raises:
        ValueError: other text.
    """
    shares = {}
    for part in filter(None, map(str.strip, text.replace("\n", ",").split(","))):
        name, _, share = part.partition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise UserError(f"{key}: got {part!r}, expected name=share; separate several by commas") from None
    return shares
