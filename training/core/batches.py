"""Reproducible batches: sample order from seed and epoch, buckets, and distribution over processes."""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence, Sized
from typing import Generic, Protocol, TypeVar, cast

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.task import BatchT, SampleT

SampleT_co = TypeVar("SampleT_co", covariant=True)


class Samples(Protocol[SampleT_co]):
    """Samples by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> SampleT_co: ...


class Stream(IterableDataset[SampleT]):
    """Base of datasets without a length, which distribute their samples themselves."""

    @abstractmethod
    def place(self, epoch: int, process: int, processes: int) -> None:
        """Selects the epoch to read next, and this process's share of it."""


class BatchOrder(Sampler[list[int]]):
    """Batch sampler of one process; the order depends on seed and epoch only.

    All samples of a batch are of one bucket. Samples that do not fill a last batch of their bucket are left out of the
    epoch; a bucket smaller than a batch gives one smaller batch.

    Args:
        buckets: bucket of each sample.
        process, processes: this process takes every `processes`-th batch, from number `process` on.
    """

    def __init__(
        self, buckets: Sequence[Hashable], batch_size: int, seed: int, process: int = 0, processes: int = 1
    ) -> None:
        self.buckets, self.batch_size, self.seed = buckets, batch_size, seed
        self.process, self.processes = process, processes
        self.epoch = self.skip = 0
        self._count = len(self._batches())

    def __len__(self) -> int:
        """Batches per epoch of this process."""
        return self._count // self.processes

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the batches of `epoch` after the first `skip`."""
        batches = self._batches()
        return iter(batches[self.process : len(self) * self.processes : self.processes][self.skip :])

    def _batches(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        members: dict[Hashable, list[int]] = {}
        for index in torch.randperm(len(self.buckets), generator=generator).tolist():
            members.setdefault(self.buckets[index], []).append(index)
        size = self.batch_size
        batches = [row[i : i + size] for row in members.values() for i in range(0, max(1, len(row) - size + 1), size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


class Batches(Generic[SampleT, BatchT]):
    """Endless batches of one process, resumable at any epoch and batch.

    Args:
        dataset: its optional `buckets`, one per sample, limit which samples may share a batch. Of a `Stream`,
            incomplete batches are left out.
        collate: makes a batch of a list of samples.

    Raises:
        ValueError: fewer batches than processes.
    """

    def __init__(
        self,
        dataset: Dataset[SampleT],
        collate: Callable[[list[SampleT]], BatchT],
        *,
        batch_size: int,
        seed: int = 0,
        workers: int = 0,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.epoch = self.drawn = 0
        self._processes = (process, processes)
        self._stream = dataset if isinstance(dataset, Stream) else None
        if self._stream is not None:
            self._loader = DataLoader(dataset, batch_size, drop_last=True, collate_fn=collate)
            return
        assert isinstance(dataset, Sized)
        size = len(dataset)
        buckets = getattr(dataset, "buckets", None) or (0,) * size
        self._order = BatchOrder(buckets, batch_size, seed, process, processes)
        if size < batch_size or not len(self._order):
            raise UserError(
                f"dataset: got {size} samples, expected at least one batch of {batch_size} per process; "
                "lower --train_batch_size or add data"
            )
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._order,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    @property
    def per_epoch(self) -> int | None:
        """Batches of this process per epoch; None for a stream, whose length is unknown."""
        return None if self._stream is not None else len(self._order)

    def place(self, epoch: int, drawn: int) -> None:
        """Continues in `epoch` after its first `drawn` batches."""
        self.epoch, self.drawn = epoch, drawn

    def to(self, device: torch.device) -> Iterator[BatchT]:
        """Yields the following batches, moved to `device`."""
        while True:
            for batch in self._of_epoch():
                self.drawn += 1
                yield cast(BatchT, send_to_device(batch, device))
            if not self.drawn:
                raise UserError("dataset: got less than one batch per process; lower --train_batch_size or add data")
            self.place(self.epoch + 1, 0)

    def _of_epoch(self) -> Iterator[BatchT]:
        if self._stream is None:
            self._order.epoch, self._order.skip = self.epoch, self.drawn
            return iter(self._loader)
        self._stream.place(self.epoch, *self._processes)
        batches = iter(self._loader)
        for _ in range(self.drawn):  # a stream cannot seek: read and discard
            next(batches, None)
        return batches
