"""How good new views of unseen rooms are, in picture and geometry, and how well both agree.

Every room is seen from two reference cameras; targets are by turns between them and beyond. References bring their
exact depth. What is compared is how the geometry role is told what the picture role does; in rows of their own the
trained modules with instillation are used in other layers, or halfway, without further training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.instillation import Instillation
from weftwork.datasets.synthetic.rooms import REFERENCES, TARGETS, View, sample
from weftwork.evaluation.core.images import reconstructed
from weftwork.evaluation.core.runner import Drawn, Evaluation
from weftwork.evaluation.scores.views import score_views
from weftwork.pipelines.views.point_maps import PointRange, depth_along_rays
from weftwork.pipelines.views.warping import ReferenceView, WarpedView, warp_mesh

VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "instillation_decoder": {"layers": r"up_blocks\..*\.attn1"},
    "instillation_deepest": {"layers": r"mid_block\..*\.attn1"},
    "instillation_half": {"strength": 0.5},
}
"""Rows that use what was trained with instillation otherwise."""
TRAINED: Final = "instillation"
PLACES: Final = ("between", "beyond")
"""Of targets, by turns, in the order of `TARGETS`."""


@dataclass(frozen=True, eq=False)
class Case:
    """A room to be drawn: its references, what is to come out, and what the target camera sees of the references."""

    references: tuple[ReferenceView, ...]
    truth: View
    warped: WarpedView


@dataclass(frozen=True, kw_only=True)
class AlignedViewsEvaluation(Evaluation):
    """Rooms: one target each.

    Args:
        pipe: an `AlignedViewsPipeline`.
        views: by row the trained modules, on the pipeline's denoiser; of several, trained alike from other seeds, every
            seed of the evaluation takes the next.
        size: side of the pictures, as the pipeline's denoiser draws them.
        seed: of the noise, and which of the trained modules; rooms are the same for every seed.
    """

    name: ClassVar[str] = "aligned-views"

    views: Mapping[str, Sequence[AlignedViews]]
    size: int = 128
    guidance_scale: float = 1.0

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        rows: dict[str, Callable[[], Drawn]] = {
            "real": lambda: self._scored(self._true, self._depths),
            "shuffled": lambda: self._scored(self._true, np.roll(self._depths, 1, 0)),
            "reconstruction": lambda: self._scored(*self._reconstructed),
            "shuffled_reconstruction": lambda: self._scored(
                self._reconstructed[0], np.roll(self._reconstructed[1], 1, 0)
            ),
            "warp": self._warp,
        }
        rows |= {name: lambda name=name: self._drawn(name, self._modules(name)) for name in self.views}
        if TRAINED in self.views:
            for name, options in VARIANTS.items():
                rows[name] = lambda name=name, options=options: self._changed(name, options)
        return rows

    @cached_property
    def cases(self) -> list[Case]:
        """Rooms of the split, targets by turns between the references and beyond."""
        return _cases(self.split, self.count, self.size)

    @cached_property
    def _reconstructed(self) -> tuple[Tensor, np.ndarray[Any, Any]]:
        """The true pictures and depths as the autoencoder keeps them, point maps as generated ones are read."""
        depths = []
        for case in tqdm(self.cases, desc="reconstruction"):
            span = PointRange.over(case.references, case.truth.camera)
            values = torch.from_numpy(span.scaled(case.truth.points)).movedim(-1, 0)[None]
            kept = reconstructed(self.pipe, (values.float() + 1) / 2)[0].movedim(0, -1).numpy()
            depths.append(depth_along_rays(span.restored(kept * 2 - 1), case.truth.camera))
        return reconstructed(self.pipe, self._true), np.stack(depths)

    @cached_property
    def _true(self) -> Tensor:
        pictures = np.stack([np.moveaxis(case.truth.image, -1, 0) for case in self.cases])
        return torch.from_numpy(pictures).float() / 255

    @cached_property
    def _depths(self) -> np.ndarray[Any, Any]:
        return np.stack([case.truth.depth for case in self.cases])

    def _modules(self, name: str) -> AlignedViews:
        several = self.views[name]
        return several[self.seed % len(several)]

    def _warp(self) -> Drawn:
        """What is seen as it is; the rest in the mean colour and depth of it."""
        pictures, depths = [], []
        for case in self.cases:
            seen = case.warped.seen
            pictures.append(np.where(seen[..., None], case.warped.image, case.warped.image[seen].mean(0)))
            depths.append(np.where(seen, case.warped.depth, case.warped.depth[seen].mean()))
        return self._scored(torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float(), np.stack(depths))

    def _drawn(self, name: str, views: AlignedViews) -> Drawn:
        self.pipe.load_views(views)
        self.pipe.set_progress_bar_config(disable=True)
        pictures, depths = [], []
        for index, case in enumerate(tqdm(self.cases, desc=name)):
            generator = torch.Generator().manual_seed((self.seed << 20) + index)
            options = {"generator": generator, "output_type": "np", **self.settings}
            out = self.pipe(case.references, case.truth.camera, **options)
            pictures.append(out.images[0])
            depths.append(out.depth)
        return self._scored(torch.from_numpy(np.stack(pictures)).movedim(-1, 1), np.stack(depths))

    def _changed(self, name: str, options: Mapping[str, Any]) -> Drawn:
        views = self._modules(TRAINED)
        with _linked(views, Instillation(**options)):
            return self._drawn(name, views)

    def _scored(self, pictures: Tensor, depths: np.ndarray[Any, Any]) -> Drawn:
        drawn, true = (list(images.movedim(1, -1).numpy()) for images in (pictures, self._true))
        columns = drawn, list(depths), true, list(self._depths), [case.warped.seen for case in self.cases]
        scores = asdict(score_views(*columns))
        for start, place in enumerate(PLACES[: self.count]):
            part = asdict(score_views(*(column[start :: len(PLACES)] for column in columns)))
            scores |= {f"{name}_{place}": part[name] for name in ("psnr", "depth_error_unseen")}
        return pictures, scores


def validate(pipe: Any, module: AlignedViews, count: int) -> tuple[AlignedViewsEvaluation, str]:
    """Returns the evaluation of the modules on validation cases, and its row."""
    size, views = pipe.unet.config.sample_size * pipe.vae_scale_factor, {"views": [module]}
    return AlignedViewsEvaluation(pipe=pipe, views=views, size=size, split="validation", count=count), "views"


@lru_cache(maxsize=1)
def _cases(split: str, count: int, size: int) -> list[Case]:
    cases = []
    for index in tqdm(range(count), desc="rooms"):
        target = TARGETS[index % 2]
        views = sample(split, index, size=size, views=(*REFERENCES, target)).views
        references = tuple(ReferenceView.of_view(views[name]) for name in REFERENCES)
        cases.append(Case(references, views[target], warp_mesh(references, views[target].camera, (size, size))))
    return cases


@contextmanager
def _linked(views: AlignedViews, link: Instillation) -> Iterator[None]:
    """The modules with another link, within the block."""
    kept, views.link = views.link, link
    try:
        yield
    finally:
        views.link = kept
