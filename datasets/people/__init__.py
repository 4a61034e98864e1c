"""People with expressions: drawings of one designer, assembled from named parts."""

from weftwork.datasets.people.dataset import SPLITS as SPLITS
from weftwork.datasets.people.dataset import PersonSample as PersonSample
from weftwork.datasets.people.dataset import sample as sample
from weftwork.datasets.people.dataset import split_of as split_of
from weftwork.datasets.people.parts import EXPRESSIONS as EXPRESSIONS
from weftwork.datasets.people.parts import Person as Person
from weftwork.datasets.people.parts import open_parts as open_parts
