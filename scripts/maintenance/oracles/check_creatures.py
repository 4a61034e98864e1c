"""Check the oracle of creatures: scores on held-out renders, unchanged, blurred, resampled and noisy.

The neutral style is in the train split only; the shipped oracle was not trained on its renders of seed 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from weftwork.datasets.synthetic.creatures import NEUTRAL, STYLES, CreatureSample, sample
from weftwork.evaluation.oracles.creatures import CreatureOracle, CreatureReading, pretrained_creature_oracle
from weftwork.evaluation.scores.creatures import CreatureScores, overlap, score_creatures
from weftwork.scripts.maintenance.oracles.check_outfits import changed_images, make_parser, print_scores


@dataclass(frozen=True)
class CheckedScores(CreatureScores):
    """Scores of an oracle on renders, with those that need exact ground truth."""

    accessory_accuracy: float
    mask_iou: float


def check_creature_oracle(
    oracle: CreatureOracle, split: str, count: int, *, style: str | None = None, seed: int = 0
) -> dict[str, CheckedScores]:
    """Returns the scores of the oracle on renders of a split, by degradation of the images."""
    creatures = [sample(split, index, seed=seed, style=style) for index in range(count)]
    return {name: _scores(creatures, oracle.read(images)) for name, images in changed_images(creatures)}


def _scores(creatures: Sequence[CreatureSample], readings: Sequence[CreatureReading]) -> CheckedScores:
    pairs = list(zip(creatures, readings, strict=True))
    return CheckedScores(
        **asdict(score_creatures(creatures, readings)),
        accessory_accuracy=float(np.mean([seen.accessory == shown.creature.accessory for shown, seen in pairs])),
        mask_iou=float(np.mean([overlap(torch.from_numpy(shown.mask), seen.mask) for shown, seen in pairs])),
    )


def main() -> None:
    """Runs the command line."""
    parser = make_parser(__doc__, 800)
    parser.add_argument("--style", default=None, choices=(NEUTRAL, *STYLES), help="use one style instead of all eight")
    arguments = parser.parse_args()
    folder = arguments.oracle
    oracle = CreatureOracle.from_pretrained(folder).eval() if folder else pretrained_creature_oracle()
    options = {"style": arguments.style, "seed": arguments.seed}
    print_scores(check_creature_oracle(oracle, arguments.split, arguments.count, **options))


if __name__ == "__main__":
    main()
