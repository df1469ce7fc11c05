"""A store of stores is one address space: each call reaches the store that has the volume, and durable is all or none.

What it promises as a store is in conformance.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mirrortool import files
from mirrortool.errors import InputOutputError, NoSpaceError, UnusableVolumeError
from mirrortool.store.flat import FlatStore
from mirrortool.store.joined import JoinedStore
from mirrortool.volume import VolumeSet, place
from tests.fakes.volumes import write_file

PAGE = 4096


class Noting(FlatStore):
    """A flat store that notes what it is called with, and fails as it is told to.

    Attributes:
        calls: the names of the calls that are not about pages.
        reserved: what was reserved.
        failing: names of calls that fail.
        waits: what `frees_wait` says.
    """

    def __init__(self, volumes: VolumeSet, opened: dict[str, files.File]) -> None:
        super().__init__(volumes, opened)
        self.calls: list[str] = []
        self.reserved: list[tuple[list[tuple[int, int]], int]] = []
        self.failing: set[str] = set()
        self.waits = False
        self.is_never_direct = False

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise InputOutputError(f"{name} fails", where="here")

    @property
    def frees_late(self) -> bool:
        return self.waits

    @property
    def frees_wait(self) -> bool:
        return self.waits

    def reserve(self, runs: Iterable[tuple[int, int]], bytes_most: int) -> None:
        self.reserved.append((list(runs), bytes_most))
        if "reserve" in self.failing:
            raise NoSpaceError("full", where="here")

    def begin_checkpoint(self) -> None:
        self._call("begin")

    def end_checkpoint(self) -> None:
        self._call("end")

    def sync(self) -> None:
        self._call("sync")

    def drop_caches(self) -> None:
        self._call("drop")

    def close(self) -> None:
        super().close()
        self._call("close")

    def find_why_not_direct(self) -> str | None:
        return "never" if self.is_never_direct else super().find_why_not_direct()

    def write_direct(self, wanted: bool) -> None:
        self._call(f"direct {wanted}")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[JoinedStore, Noting, Noting]]:
    """Volumes a, b and c, of which the first store has a and c, and the second b."""
    volumes = place([("a", 4 * PAGE), ("b", 2 * PAGE + 5), ("c", PAGE)], PAGE)

    def open_one(names: Sequence[str]) -> Noting:
        opened: dict[str, Any] = {}
        for name in names:
            write_file(f"{tmp_path}/{name}", volumes[name].size)
            opened[name] = files.open_file(f"{tmp_path}/{name}", write=True)
        return Noting(VolumeSet([volumes[name] for name in names], PAGE), opened)

    first, second = open_one("ac"), open_one("b")
    joined = JoinedStore([second, first])
    yield joined, first, second
    for each in (first, second):
        each.failing.clear()
    joined.close()


def first_page(store: JoinedStore, name: str) -> int:
    return store.volumes.first_page(store.volumes[name])


def test_the_volumes_of_all_are_one_set(two: tuple[JoinedStore, Noting, Noting]) -> None:
    joined, first, second = two
    assert joined.volumes == place([("a", 4 * PAGE), ("b", 2 * PAGE + 5), ("c", PAGE)], PAGE)
    joined.resize("b", 7 * PAGE)
    assert joined.volumes["b"].size == second.volumes["b"].size == 7 * PAGE
    joined.resize("c", 0)
    assert joined.volumes["c"].size == first.volumes["c"].size == 0


def test_what_is_reserved_is_asked_of_each_with_its_own_part(two: tuple[JoinedStore, Noting, Noting]) -> None:
    joined, first, second = two
    a, b, c = (first_page(joined, name) for name in "abc")
    joined.reserve(iter([(a, 2), (b, 1), (c, 1)]), 3 * PAGE)
    assert first.reserved == [([(a, 2), (c, 1)], 3 * PAGE)]
    assert second.reserved == [([(b, 1)], PAGE)]
    joined.reserve([(a, 1)], PAGE)
    assert len(second.reserved) == 1
    second.failing.add("reserve")
    with pytest.raises(NoSpaceError):
        joined.reserve([(b, 1)], PAGE)


@pytest.mark.parametrize("failing", ["first", "second"])
def test_it_is_durable_when_all_are_and_after_a_failure_never(
    two: tuple[JoinedStore, Noting, Noting], failing: str
) -> None:
    joined, first, second = two
    joined.sync()
    assert first.calls == second.calls == ["sync"]
    bad = first if failing == "first" else second
    bad.failing.add("sync")
    with pytest.raises(InputOutputError, match="sync fails"):
        joined.sync()
    bad.failing.clear()
    before = len(first.calls) + len(second.calls)
    with pytest.raises(InputOutputError, match="sync fails"):
        joined.sync()
    assert len(first.calls) + len(second.calls) == before, "it is not tried again"


def test_all_hear_of_a_checkpoint_and_space_waits_where_it_does_in_one(
    two: tuple[JoinedStore, Noting, Noting],
) -> None:
    joined, first, second = two
    joined.begin_checkpoint()
    joined.end_checkpoint()
    joined.drop_caches()
    assert first.calls == second.calls == ["begin", "end", "drop"]
    assert not joined.frees_wait
    second.waits = True
    assert joined.frees_wait


def test_all_are_written_directly_or_none(two: tuple[JoinedStore, Noting, Noting]) -> None:
    joined, first, second = two
    first.is_never_direct = True
    assert joined.find_why_not_direct() == "never"
    with pytest.raises(UnusableVolumeError, match="never; use --io buffered"):
        joined.write_direct(True)
    assert not first.calls
    assert not second.calls
    joined.write_direct(False)
    assert first.calls == second.calls == ["direct False"]


def test_all_are_closed_even_if_one_fails(two: tuple[JoinedStore, Noting, Noting]) -> None:
    joined, first, second = two
    second.failing.add("close")
    with pytest.raises(InputOutputError, match="close fails"):
        joined.close()
    assert first.calls == second.calls == ["close"]
