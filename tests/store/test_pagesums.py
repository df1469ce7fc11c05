"""The table of sums is a map from page to sum, sparse on disk, with a state sum that is always that of the map."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mirrortool.address import pages_per_segment
from mirrortool.checksum import pack_sums, unpack_sums
from mirrortool.errors import AccessError
from mirrortool.operation import Batch, CommitKind, Kind
from mirrortool.store import pagesums
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import VolumeSet, place
from tests.fakes.volumes import fast_directory

PAGE_SIZES = [512, 4096, 65536]


@dataclass
class Model:
    """A table as a dictionary; knows nothing of segments, files or increments."""

    volumes: VolumeSet
    sums: dict[int, int] = field(default_factory=dict)

    @property
    def state_sum(self) -> int:
        total = self.term(self.sums)
        for volume in self.volumes:
            total ^= xxhash.xxh3_64_intdigest(volume.size.to_bytes(8, "little") + volume.name.encode())
        return total

    def term(self, pages: Iterable[int]) -> int:
        total = 0
        for page in pages:
            if page_sum := self.sums.get(page):
                total ^= xxhash.xxh3_64_intdigest(page_sum.to_bytes(8, "big"), page)
        return total

    def set(self, page: int, page_sum: int) -> None:
        self.sums.pop(page, None)
        if page_sum:
            self.sums[page] = page_sum

    def zero(self, page: int, count: int) -> None:
        self.sums = {key: value for key, value in self.sums.items() if not page <= key < page + count}

    def resize(self, name: str, size: int) -> None:
        volume = self.volumes[name]
        if size < volume.size:
            first = self.volumes.first_page(volume)
            self.zero(first + size // self.volumes.page_size, self.volumes.page_count(volume))
        self.volumes = self.volumes.resized(volume, size)


@contextmanager
def table(directory: str, volumes: VolumeSet) -> Iterator[tuple[PageSums, Model]]:
    model = Model(volumes)
    with closing(PageSums(directory, volumes, model.state_sum, write=True)) as sums:
        yield sums, model


@pytest.fixture
def directory() -> Iterator[str]:
    with fast_directory() as path:
        yield path


def check(sums: PageSums, model: Model) -> None:
    """The table is the model, page by page and in sum."""
    assert sums.volumes == model.volumes
    assert sums.state_sum == model.state_sum
    assert sums.compute_state_sum() == model.state_sum
    for volume in model.volumes:
        first, count = model.volumes.first_page(volume), model.volumes.page_count(volume)
        assert sums.term_of(first, count) == model.term(range(first, first + count))
        covered = [False] * count
        for run, length in sums.nonzero_runs(first, count):
            for page, value in enumerate(unpack_sums(sums.read(run, length)), run):
                covered[page - first] = True
                assert value == model.sums.get(page, 0)
        assert all(covered[page - first] for page in model.sums if first <= page < first + count)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_an_empty_table_is_all_zeros(directory: str, page_size: int) -> None:
    volumes = place([("a", 10 * page_size + 1), ("b", 0), ("c", 1)], page_size)
    with table(directory, volumes) as (sums, model):
        check(sums, model)
        assert sums.read(0, 11) == bytes(88)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_sums_survive_closing(directory: str, page_size: int) -> None:
    volumes = place([("a", 10 * page_size), ("b", 5 * page_size)], page_size)
    base = volumes.first_page(volumes["b"])
    with table(directory, volumes) as (sums, model):
        changes = {3: 7, 4: 8, base: 9, base + 4: 1 << 63}
        sums.apply(changes)
        sums.sync()
        model.sums = changes
        state_sum = sums.state_sum
    with closing(PageSums(directory, volumes, state_sum, write=False)) as again:
        check(again, model)
        assert again.read(3, 2) == pack_sums([7, 8])


def test_a_table_that_is_not_there_is_not_made_for_reading(directory: str) -> None:
    with pytest.raises(AccessError):
        PageSums(directory, place([("a", 512)], 512), 0, write=False)
    assert os.listdir(directory) == []


BATCHES = [
    ("write", b"\1\1", [0, 3], [2, 1], [5, 6, 7], {0: 5, 1: 6, 3: 7}),
    ("a later write wins", b"\1\1", [0, 1], [3, 1], [5, 6, 7, 8], {0: 5, 1: 8, 2: 7}),
    ("zero after write", b"\1\2", [0, 1], [3, 1], [5, 6, 7], {0: 5, 2: 7}),
    ("write after zero", b"\2\1", [0, 1], [9, 1], [5], {1: 5}),
    ("shrink between", b"\1\3\1", [0, 0, 1], [4, 2 * 512, 1], [5, 6, 7, 8, 9], {0: 5, 1: 9}),
    ("shrink mid page", b"\1\3", [0, 0], [4, 512 + 1], [5, 6, 7, 8], {0: 5}),
    ("grow inside the last page", b"\1\3", [8, 0], [1, 8 * 512 + 200], [5], {8: 5}),
    ("the same size", b"\1\3", [8, 0], [1, 8 * 512 + 100], [5], {8: 5}),
    ("to nothing and back", b"\1\3\3\1", [0, 0, 0, 1], [2, 0, 9 * 512, 1], [5, 6, 7], {1: 7}),
    ("with a commit", b"\1\4", [2, CommitKind.SCAN], [1, 0], [5], {2: 5}),
    ("with a sum of zero", b"\1\1", [2, 2], [1, 1], [5, 0], {}),
]


@pytest.mark.parametrize(("kinds", "pages", "counts", "written", "expected"), [case[1:] for case in BATCHES],
                         ids=[case[0] for case in BATCHES])  # fmt: skip
def test_a_batch_is_taken_in_in_order(
    directory: str, kinds: bytes, pages: list[int], counts: list[int], written: list[int], expected: dict[int, int]
) -> None:
    with table(directory, place([("a", 8 * 512 + 100)], 512)) as (sums, model):
        sums.apply_batch(Batch(kinds, pages, counts, pack_sums(written)))
        for kind, count in zip(kinds, counts, strict=True):
            if kind == Kind.RESIZE:
                model.resize("a", count)
        model.sums = expected
        check(sums, model)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_huge_volumes_cost_what_is_allocated(directory: str, page_size: int) -> None:
    size = 1 << 46
    with table(directory, place([("a", size), ("b", size)], page_size)) as (sums, model):
        last = size // page_size - 1
        base = sums.volumes.first_page(sums.volumes["b"])
        spots = [0, 1, last // 2, last, base + last // 3]
        for number, page in enumerate(spots, 1):
            sums.apply({page: number})
            model.set(page, number)
        assert sums.state_sum == sums.compute_state_sum() == model.state_sum
        assert _allocated(directory) < 1 << 20
        sums.rebuild()
        assert sums.state_sum == model.state_sum
        sums.zero(1, last)
        model.zero(1, last)
        sums.resize("b", size - page_size)
        model.resize("b", size - page_size)
        assert sums.state_sum == sums.compute_state_sum() == model.state_sum
        assert sums.term_of(base, last) == model.term([base + last // 3])
        sums.zero(0, 1)
        sums.resize("b", 0)
        assert _allocated(directory) < 1 << 16


def _allocated(directory: str) -> int:
    return sum(os.stat(os.path.join(directory, name)).st_blocks * 512 for name in os.listdir(directory))


def test_zeroing_whole_segments_reads_no_page_sums(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = pages_per_segment(4096)
    with table(directory, place([("a", 5 << 24)], 4096)) as (sums, model):
        sums.apply({page: page + 1 for page in range(5 * step)})
        read: list[int] = []
        real = PageSums._read
        monkeypatch.setattr(PageSums, "_read", lambda self, *args: (read.append(args[2]), real(self, *args))[1])
        sums.zero(step - 1, 3 * step + 2)
        assert sum(read) == 2
        monkeypatch.undo()
        model.sums = {page: page + 1 for page in range(5 * step) if not step - 1 <= page < 4 * step + 1}
        check(sums, model)


@pytest.mark.parametrize("pieces", [1, 7, 1 << 16])
def test_rebuild_makes_segments_of_page_sums(directory: str, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash segments may be anything."""
    monkeypatch.setattr(pagesums, "_REBUILD_PAGES", pieces)
    step = pages_per_segment(65536)
    with table(directory, place([("a", 3 << 24), ("b", 2 << 24)], 65536)) as (sums, model):
        base = sums.volumes.first_page(sums.volumes["b"])
        model.sums = {3: 1, step - 1: 2, step: 3, 2 * step + 9: 4, base + step: 5}
        sums.apply(model.sums)
        for name in ("a", "b"):
            with open(f"{directory}/{name}.segments", "r+b") as file:
                file.write(os.urandom(24))
        sums.state_sum = 0
        sums.rebuild()
        check(sums, model)
        sums.zero(0, 3 * step)
        model.zero(0, 3 * step)
        check(sums, model)


def test_a_flipped_bit_of_the_table_changes_the_computed_state_sum(directory: str) -> None:
    with table(directory, place([("a", 100 * 512)], 512)) as (sums, model):
        sums.apply({7: 70, 50: 500})
        for offset, flip in [(7 * 8 + 3, 1), (50 * 8, 128), (99 * 8 + 7, 2)]:
            with open(f"{directory}/a.sums", "r+b") as file:
                file.seek(offset)
                old = file.read(1) or b"\0"
                file.seek(offset)
                file.write(bytes([old[0] ^ flip]))
            assert sums.compute_state_sum() != sums.state_sum
            with open(f"{directory}/a.sums", "r+b") as file:
                file.seek(offset)
                file.write(old)
        model.sums = {7: 70, 50: 500}
        assert sums.compute_state_sum() == model.state_sum


class Machine(RuleBasedStateMachine):
    """Any history of a table; after each step it is the model, and its increments are the recomputation."""

    @initialize(page_size=st.sampled_from(PAGE_SIZES))
    def begin(self, page_size: int) -> None:
        self.context = fast_directory()
        self.path = self.context.__enter__()
        self.page_size = page_size
        step = pages_per_segment(page_size)
        self.spots = [0, 1, 2, step - 1, step, step + 1, 2 * step, 3 * step - 1, 3 * step]
        self.volumes = place([("a", (3 << 24) + 7), ("b", 0), ("c", 2 << 24)], page_size)
        self.model = Model(self.volumes)
        self.sums = PageSums(self.path, self.volumes, self.model.state_sum, write=True)

    def teardown(self) -> None:
        if hasattr(self, "sums"):
            self.sums.close()
            self.context.__exit__(None, None, None)

    def pages(self, name: str, spot: int, length: int) -> range:
        """A run inside the volume, near a place where something could go wrong."""
        volumes = self.model.volumes
        volume = volumes[name]
        count = volumes.page_count(volume)
        first = min(self.spots[spot], count)
        lengths = [1, 2, 3, pages_per_segment(self.page_size), pages_per_segment(self.page_size) + 1, count]
        base = volumes.first_page(volume)
        return range(base + first, base + min(count, first + lengths[length]))

    run = {"name": st.sampled_from("abc"), "spot": st.integers(0, 8), "length": st.integers(0, 5)}  # noqa: RUF012

    @rule(values=st.lists(st.integers(0, 3), min_size=1, max_size=4), **run)
    def apply(self, name: str, spot: int, length: int, values: list[int]) -> None:
        changes = {page: values[page % len(values)] for page in self.pages(name, spot, min(length, 2))}
        self.sums.apply(changes)
        for page, value in changes.items():
            self.model.set(page, value)

    @rule(one=st.integers(0, 8), two=st.integers(0, 8))
    def apply_scattered(self, one: int, two: int) -> None:
        changes = {page: page % 5 for name in "ac" for spot in (one, two) for page in self.pages(name, spot, 1)}
        self.sums.apply(changes)
        for page, value in changes.items():
            self.model.set(page, value)

    @rule(**run)
    def zero(self, name: str, spot: int, length: int) -> None:
        pages = self.pages(name, spot, length)
        if pages:
            self.sums.zero(pages.start, len(pages))
            self.model.zero(pages.start, len(pages))

    @rule(name=st.sampled_from("abc"), spot=st.integers(0, 8), extra=st.sampled_from([0, 1, 300]))
    def resize(self, name: str, spot: int, extra: int) -> None:
        size = self.spots[spot] * self.page_size + extra
        self.sums.resize(name, size)
        self.model.resize(name, size)

    @rule(spot=st.integers(0, 8), data=st.lists(st.integers(0, 2), min_size=2, max_size=5))
    def apply_batch(self, spot: int, data: list[int]) -> None:
        """Writes, zeros and a resize in one batch."""
        volume = self.model.volumes["a"]
        count = self.model.volumes.page_count(volume)
        first = self.spots[spot]
        if first + len(data) > count:
            return
        size = (first + 1) * self.page_size + data[0]
        kinds = bytes([Kind.WRITE, Kind.ZERO, Kind.RESIZE, Kind.WRITE])
        batch = Batch(kinds, [first, first + 1, 0, first], [len(data), 1, size, 1], pack_sums([*data, 9]))
        self.sums.apply_batch(batch)
        for page, value in enumerate(data, first):
            self.model.set(page, value)
        self.model.zero(first + 1, 1)
        self.model.resize("a", size)
        self.model.set(first, 9)

    @rule()
    def rebuild(self) -> None:
        self.sums.rebuild()

    @rule()
    def reopen(self) -> None:
        self.sums.sync()
        self.sums.close()
        self.sums = PageSums(self.path, self.model.volumes, self.sums.state_sum, write=True)

    @rule(**run)
    def term(self, name: str, spot: int, length: int) -> None:
        pages = self.pages(name, spot, length)
        if pages:
            assert self.sums.term_of(pages.start, len(pages)) == self.model.term(pages)

    @invariant()
    def is_the_model(self) -> None:
        if hasattr(self, "sums"):
            check(self.sums, self.model)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)


@settings(max_examples=50)
@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=20))
def test_packed_sums_unpack_to_themselves(values: list[int]) -> None:
    assert list(unpack_sums(pack_sums(values))) == values
