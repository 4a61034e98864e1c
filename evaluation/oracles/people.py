"""Classifier of people: expression, hair, skin and clothes; its only input is the image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jaxtyping import Float
from torch import Tensor

from weftwork.datasets.people.parts import ATTRIBUTES, EXPRESSIONS, Person
from weftwork.evaluation.core.images import Images
from weftwork.evaluation.oracles.designers import DesignerOracle
from weftwork.evaluation.oracles.instruments import in_batches

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "expression": tuple(EXPRESSIONS),
    **{name: tuple(values) for name, values in ATTRIBUTES.items()},
}
"""Labels of each group; an image has one of each."""
LABELS: Final = tuple(f"{group}: {label}" for group, labels in GROUPS.items() for label in labels)


@dataclass(frozen=True)
class PersonReading:
    """A person as seen in an image; expressions by falling probability."""

    person: Person
    expressions: tuple[str, ...]


def by_group(logits: Float[Tensor, "image label"]) -> dict[str, Float[Tensor, "image label"]]:
    """Logits of all labels by group."""
    return dict(zip(GROUPS, logits.split([len(labels) for labels in GROUPS.values()], 1), strict=True))


class PersonOracle(DesignerOracle):
    """`DesignerOracle` whose styles are `LABELS`."""

    def read_people(self, images: Images) -> list[PersonReading]:
        """Returns who is seen in each image, and with which expressions."""
        orders = {
            group: [[GROUPS[group][i] for i in row] for row in part.argsort(1, descending=True).tolist()]
            for group, part in by_group(in_batches(self)(images)).items()
        }
        return [
            PersonReading(
                Person(**{name: orders[name][row][0] for name in ATTRIBUTES}), tuple(orders["expression"][row])
            )
            for row in range(len(images))
        ]
