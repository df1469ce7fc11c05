"""Samples are where the data is, whatever a volume's size, and cost a bounded number of reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mirrortool.files import open_file
from mirrortool.operation import BatchBuilder
from mirrortool.store.flat import FlatStore
from mirrortool.store.pagesums import PageSums
from mirrortool.store.sampling import PageSample, first_changed, sample_pages
from mirrortool.volume import place
from tests.fakes.volumes import fast_directory, write_file

PAGE = 4096
PAGES = 1 << 20


@pytest.fixture
def made() -> Iterator[tuple[FlatStore, PageSums]]:
    """Two sparse volumes of 4 GiB without anything in them."""
    with fast_directory() as directory:
        volumes = place([("a", PAGES * PAGE), ("b", PAGES * PAGE)], PAGE)
        opened = {}
        for volume in volumes:
            write_file(f"{directory}/{volume.name}", volume.size)
            opened[volume.name] = open_file(f"{directory}/{volume.name}", write=True)
        store, sums = FlatStore(volumes, opened), PageSums(directory, volumes, 0, write=True)
        yield store, sums
        store.close()
        sums.close()


def write(made: tuple[FlatStore, PageSums], pages: list[int], value: int = 1) -> None:
    """Into the table; the store has zeros there."""
    made[1].apply(dict.fromkeys(pages, value))


def test_little_in_a_large_volume_is_looked_at_whole(made: tuple[FlatStore, PageSums]) -> None:
    """As mkfs leaves it: most at the beginning, and a page here and there, which a file system changes always."""
    dense, sparse = list(range(3, 60)), [PAGES * i // 8 + 5 for i in range(1, 8)]
    write(made, dense + sparse)
    changed = {sample.page for sample in sample_pages(*made) if not sample.was_zero}
    assert changed == {*dense, *sparse}


def test_samples_are_bounded_and_spread(made: tuple[FlatStore, PageSums]) -> None:
    for start in range(0, PAGES, PAGES // 16):
        write(made, list(range(start, start + 2000)))
    samples = sample_pages(*made, names=["a"])
    assert len(samples) < 400
    assert {sample.page * 16 // PAGES for sample in samples if not sample.was_zero} == set(range(16))
    assert len(sample_pages(*made)) < 2 * 400


def test_only_the_volumes_asked_for_are_looked_at(made: tuple[FlatStore, PageSums]) -> None:
    second = made[1].volumes.first_page(made[1].volumes["b"])
    assert {sample.page >= second for sample in sample_pages(*made, names=["b"])} == {True}


def test_what_is_in_flight_may_be_there_or_not(made: tuple[FlatStore, PageSums]) -> None:
    write(made, [0, 1])
    builder = BatchBuilder(PAGE)
    builder.zero(0, 1)
    zeroed, other = (sample for sample in sample_pages(*made, [builder.build()]) if sample.page < 2)
    assert (zeroed.is_right, other.is_right) == (True, False)


def sample(page: int, found: bytes, *since: bytes) -> PageSample:
    return PageSample(page, b"old", found, since)


@pytest.mark.parametrize(
    ("samples", "page"),
    [
        ([], None),
        ([sample(1, b"old"), sample(2, b"new", b"new")], None),
        ([sample(1, b"old"), sample(2, b"torn", b"new")], None),  # a few may be
        ([sample(1, b"torn", b"new")], 1),
        ([sample(1, b"old"), sample(2, b"foreign")], 2),
    ],
)
def test_a_foreign_write_is_what_nothing_else_explains(samples: list[PageSample], page: int | None) -> None:
    assert first_changed(samples) == page
