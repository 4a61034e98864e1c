"""Batches: order by seed and epoch, buckets, distribution over processes."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from remedies import check_call
from torch.utils.data import Dataset

from weftwork.training.core.batches import Batches, BatchOrder, Stream

CPU = torch.device("cpu")


class Numbers(Dataset[int]):
    def __init__(self, count: int, buckets: list[int] | None = None) -> None:
        self.count, self.buckets = count, buckets

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class Rotated(Stream[int]):
    """Stream of seven numbers, rotated by the epoch."""

    def place(self, epoch: int, process: int, processes: int) -> None:
        self.numbers = [(i + epoch) % 7 for i in range(7)][process::processes]

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


def batches(dataset: Dataset[int], process: int = 0, processes: int = 1, workers: int = 0) -> Batches:
    return Batches(
        dataset, torch.tensor, batch_size=2, seed=3, process=process, processes=processes, workers=workers
    )  # fmt: skip


def drawn(source: Batches, count: int) -> list[list[int]]:
    return [batch.tolist() for batch in islice(source.to(CPU), count)]


@pytest.mark.parametrize(
    "dataset", [Numbers(7), Numbers(9, [0, 1, 1] * 3), Rotated()], ids=["plain", "buckets", "stream"]
)
def test_batches_resume_anywhere(dataset: Dataset[int]) -> None:
    whole = drawn(batches(dataset), 12)
    assert whole[:3] != whole[3:6]
    for count in range(12):
        begun = batches(dataset)
        drawn(begun, count)
        rest = batches(dataset)
        rest.place(begun.epoch, begun.drawn)
        assert drawn(rest, 12 - count) == whole[count:]


def test_workers_draw_the_same() -> None:
    assert drawn(batches(Numbers(7), workers=1), 8) == drawn(batches(Numbers(7)), 8)


def test_every_sample_is_drawn_once_an_epoch() -> None:
    counts = Counter(index for batch in drawn(batches(Numbers(8)), 8) for index in batch)
    assert counts == dict.fromkeys(range(8), 2)


def test_processes_take_turns_with_the_batches_of_one() -> None:
    alone = drawn(batches(Numbers(8)), 8)
    shares = [drawn(batches(Numbers(8), process, 2), 4) for process in (0, 1)]
    assert [batch for pair in zip(*shares, strict=True) for batch in pair] == alone


def test_batches_are_of_one_bucket() -> None:
    buckets = [0, 1, 1, 0, 2, 1, 0, 1, 0]
    seen: Counter[int] = Counter()
    for epoch in range(4):
        order = BatchOrder(buckets, 2, seed=0)
        order.epoch = epoch
        for batch in order:
            assert len({buckets[index] for index in batch}) == 1
            assert len(batch) == 2 or buckets[batch[0]] == 2
            seen.update(batch)
    assert seen.keys() == set(range(9)) and seen[4] == 4  # the bucket of one sample has a batch of one


def test_the_rest_of_a_bucket_is_in_later_epochs() -> None:
    seen: set[int] = set()
    for epoch in range(8):
        order = BatchOrder([0] * 5, 2, seed=0)
        order.epoch = epoch
        assert len(list(order)) == len(order) == 2
        seen.update(index for batch in order for index in batch)
    assert seen == set(range(5))


def test_less_than_a_batch_per_process_is_refused() -> None:
    with pytest.raises(ValueError, match="dataset: got 3 samples, expected at least one batch of 2 per process"):
        batches(Numbers(3), 0, 2)
    words = "dataset: got less than one batch per process; lower --train_batch_size or add data"
    for right in (1, 3):
        check_call(
            lambda size: drawn(Batches(Rotated(), torch.tensor, batch_size=size, seed=3, processes=2), 1),
            5, words, right,
        )  # fmt: skip
