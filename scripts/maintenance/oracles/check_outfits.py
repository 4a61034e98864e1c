"""Check the oracle of outfits: scores on held-out renders, unchanged, blurred, resampled and noisy."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from weftwork.datasets.synthetic.outfits import SPLITS, STYLES, OutfitSample, sample
from weftwork.evaluation.core.images import as_tensor
from weftwork.evaluation.oracles.outfits import Oracle, pretrained_oracle
from weftwork.evaluation.scores.outfits import OutfitScores, score_outfits
from weftwork.scripts.maintenance.oracles.outfit_data import gaussian_blur, resample

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CHANGES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "as rendered": lambda images: images,
    "blur of 0.8 px": lambda images: gaussian_blur(images, 0.8),
    "blur of 1.2 px": lambda images: gaussian_blur(images, 1.2),
    "resampled at 64 px": lambda images: resample(images, 64),
    "noise of 0.05": lambda images: (images + 0.05 * _noise(images)).clamp(0, 1),
}


def check_oracle(
    oracle: Oracle, split: str, count: int, *, seed: int = 0, styled: bool = False
) -> dict[str, OutfitScores]:
    """Returns the oracle's scores on renders, `styled` or not, of a split, by degradation of the images."""
    styles = STYLES if styled else (None,)
    outfits = [sample(split, index, seed=seed, style=styles[index % len(styles)]) for index in range(count)]
    return {name: score_outfits(outfits, oracle.read(images)) for name, images in changed_images(outfits)}


def changed_images(samples: Sequence[OutfitSample]) -> Iterator[tuple[str, Tensor]]:
    """Yields each degradation with the degraded images of all samples, [sample, 3, height, width] in [0, 1]."""
    images = as_tensor([sample.image for sample in samples])
    for name, change in CHANGES.items():
        yield name, change(images)


def make_parser(text: str | None, count: int) -> argparse.ArgumentParser:
    """Returns the parser of a check."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--oracle", default=None, help="folder of an oracle (default: the shipped one)")
    parser.add_argument("--split", default="test", choices=SPLITS, help="split of the samples")
    parser.add_argument("--count", type=int, default=count, help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the renders")
    return parser


def print_scores(scores: Mapping[str, "DataclassInstance"]) -> None:
    """Prints dataclasses of scores by name as JSON."""
    report = {
        name: {score: round(value, 4) for score, value in dataclasses.asdict(scores_of_change).items()}
        for name, scores_of_change in scores.items()
    }
    print(json.dumps(report, indent=2))


def _noise(images: Tensor) -> Tensor:
    return torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def main() -> None:
    """Runs the command line."""
    parser = make_parser(__doc__, 600)
    parser.add_argument("--styled", action="store_true", help="outfits in the eight styles")
    arguments = parser.parse_args()
    styled = arguments.styled
    oracle = Oracle.from_pretrained(arguments.oracle).eval() if arguments.oracle else pretrained_oracle(styled=styled)
    print_scores(check_oracle(oracle, arguments.split, arguments.count, seed=arguments.seed, styled=styled))


if __name__ == "__main__":
    main()
