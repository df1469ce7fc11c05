"""The bench: what it replays, that every way leaves the primary's order, the ideal scheduler, and the plot."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from mirrortool.bench import ways
from mirrortool.bench.figure import Bench, BenchCancelled, Figure, Settings, Way
from mirrortool.bench.schedule import dependencies, makespan
from mirrortool.bench.store import SleepingStore
from mirrortool.bench.svg import draw
from mirrortool.bench.workload import (
    CONFLICT_DISTANCE,
    CONFLICTS,
    INDEPENDENT,
    PAGE_BYTES,
    RANGE_PAGES,
    RANGES,
    WRITES_MAX,
    Mix,
    Workload,
    Write,
    make_workload,
)
from mirrortool.errors import UsageError
from mirrortool.files import Buffer
from mirrortool.replay.coalesce import to_single_units
from mirrortool.replay.ranges import divide
from mirrortool.replay.tracing import UnitRun
from mirrortool.store.interface import PageWriter, WriteRun
from mirrortool.volume import place
from tests.conftest import FakeClock

MIXES = pytest.mark.parametrize("mix", [INDEPENDENT, CONFLICTS, RANGES], ids=lambda mix: mix.name)
TINY = Settings(latency_seconds=0, writes=120, groups=2, tasks=3, runs=1, peers=True)


# The workload.


@MIXES
def test_workload_is_the_same_each_time(mix: Mix) -> None:
    assert make_workload(mix, 700, 4).writes == make_workload(mix, 700, 4).writes


@MIXES
def test_every_write_has_data_of_its_own_inside_the_volume(mix: Mix) -> None:
    workload = make_workload(mix, 1200, 3)
    assert len(workload.writes) == 1200
    data = [write.data for write in workload.writes if write.data is not None]
    assert len({bytes(each) for each in data}) == len(data)
    assert {len(each) for each in data} == {PAGE_BYTES}
    assert all(write.page >= 0 and write.page + write.count <= 3 * RANGE_PAGES for write in workload.writes)
    assert workload.page_count == 3 * RANGE_PAGES


def conflict_count(writes: Sequence[Write]) -> int:
    """Single writes whose page one of the few single writes before has."""
    pages = [write.page for write in writes if write.data is not None]
    return sum(page in pages[max(0, i - CONFLICT_DISTANCE) : i] for i, page in enumerate(pages))


@pytest.mark.parametrize(("mix", "share"), [(INDEPENDENT, 0), (CONFLICTS, 0.1), (RANGES, 0.1)])
def test_as_many_conflict_as_the_mix_says(mix: Mix, share: float) -> None:
    assert conflict_count(make_workload(mix, 4000, 4).writes) / 4000 == pytest.approx(share, abs=0.015)


def test_pages_of_independent_writes_differ() -> None:
    assert len({write.page for write in make_workload(INDEPENDENT, 4 * RANGE_PAGES, 4).writes}) == 4 * RANGE_PAGES


def test_each_500th_zeroes_a_whole_range_in_turn() -> None:
    writes = make_workload(RANGES, 2600, 4).writes
    found = [(i + 1, write.page, write.count) for i, write in enumerate(writes) if write.data is None]
    ranges = [(number * RANGE_PAGES, RANGE_PAGES) for number in (0, 1, 2, 3, 0)]
    assert found == [(500 * i, *each) for i, each in enumerate(ranges, 1)]


@pytest.mark.parametrize("groups", [1, 3, 4])
def test_no_write_crosses_a_border_between_groups(groups: int) -> None:
    workload = make_workload(RANGES, 2500, groups)
    ranges = divide("equal", groups, workload.volumes)
    units = [unit for stretch in workload.stretches() for unit in to_single_units(stretch, ranges, PAGE_BYTES)]
    assert len(units) == 2500


def test_windows_keep_order_and_are_as_long_as_a_replays() -> None:
    workload = make_workload(INDEPENDENT, 60_000, 32)
    stretches = list(workload.stretches())
    assert len(stretches) == 3
    assert [page for each in stretches for page in each.pieces.firsts] == [write.page for write in workload.writes]


# The store.


def test_store_sleeps_once_a_write(fake_clock: FakeClock) -> None:
    store = SleepingStore(place([("bench", 16 * PAGE_BYTES)], PAGE_BYTES), 0.25)
    one, two = bytes(PAGE_BYTES), bytes([1]) * PAGE_BYTES
    store.write([(1, [one, two], 2 * PAGE_BYTES)])
    store.zero(2, 8)
    assert (store.calls, fake_clock.elapsed) == (2, 0.5)
    assert store.pages == [None, one, *[None] * 14]
    store.stop_sleeping()
    store.zero(0, 16)
    assert (store.calls, fake_clock.elapsed) == (3, 0.5)


def test_store_is_a_place_for_pages() -> None:
    store: PageWriter = SleepingStore(place([("bench", 2 * PAGE_BYTES)], PAGE_BYTES), 0)
    store.resize("bench", 3 * PAGE_BYTES)
    assert store.volumes["bench"].size == 3 * PAGE_BYTES
    store.zero(2, 1)
    store.resize("bench", PAGE_BYTES)
    assert store.volumes.find(1) is None


# The ways to replay.


class RememberingStore(SleepingStore):
    """Notes everything that came to each page, in order; None for zeros."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload.volumes, 0)
        self.history: dict[int, list[Buffer | None]] = defaultdict(list)

    def write(self, runs: Sequence[WriteRun]) -> None:
        super().write(runs)
        for page, buffers, _ in runs:
            self.history[page] += buffers

    def zero(self, page: int, count: int) -> None:
        super().zero(page, count)
        for each in range(page, page + count):
            self.history[each].append(None)


def serial_history(workload: Workload) -> dict[int, list[Buffer | None]]:
    history: dict[int, list[Buffer | None]] = defaultdict(list)
    for write in workload.writes:
        for page in range(write.page, write.page + write.count):
            history[page].append(write.data)
    return history


WAYS = {
    "in order": ways.replay_in_order,
    "one task": lambda workload, store: ways.replay_by_engine(workload, store, 1, 1),
    "groups of one": lambda workload, store: ways.replay_by_engine(workload, store, 3, 1),
    "groups of four": lambda workload, store: ways.replay_by_engine(workload, store, 3, 4),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@MIXES
def test_each_page_is_written_in_the_primarys_order(way: Way, mix: Mix) -> None:
    workload = make_workload(mix, 1100, 3)
    store = RememberingStore(workload)
    way(workload, store)
    ways.check(workload, store)
    assert store.history == serial_history(workload)


def test_engine_tells_how_units_came_to_their_tasks() -> None:
    workload = make_workload(RANGES, 1000, 2)
    timing = ways.replay_by_engine(workload, SleepingStore(workload.volumes, 0.00001), 2, 4)
    assert timing.direct + timing.mini_queue + timing.counter_waits - timing.given_back == 1000


def test_bare_threads_write_everything_once() -> None:
    workload = make_workload(INDEPENDENT, 100, 2)
    store = RememberingStore(workload)
    ways.replay_by_bare_threads(workload, store, 7)
    ways.check(workload, store)
    assert store.history == serial_history(workload)


def test_wrong_result_is_noticed() -> None:
    workload = make_workload(CONFLICTS, 100, 1)
    store = SleepingStore(workload.volumes, 0)
    backwards = replace(workload, writes=workload.writes[::-1])
    ways.replay_in_order(backwards, store)
    with pytest.raises(ways.WrongResultError, match="another write"):
        ways.check(workload, store)
    store.zero(0, 1)
    with pytest.raises(ways.WrongResultError, match="101 writes instead of 100"):
        ways.check(workload, store)


# The ideal scheduler.


def every_dependency(writes: Sequence[Write]) -> list[set[int]]:
    """All earlier writes that share a page, not only the newest."""
    pages = [set(range(write.page, write.page + write.count)) for write in writes]
    return [{j for j in range(i) if pages[i] & pages[j]} for i in range(len(writes))]


def closure(waits_for: Sequence[set[int]]) -> list[set[int]]:
    found: list[set[int]] = []
    for each in waits_for:
        found.append(each.union(*(found[number] for number in each)))
    return found


@MIXES
def test_dependencies_are_those_of_all_overlaps(mix: Mix) -> None:
    workload = make_workload(replace(mix, range_every=mix.range_every // 20), 150, 1)
    assert closure(dependencies(workload)) == closure(every_dependency(workload.writes))


def least_steps(waits_for: Sequence[set[int]], workers: int) -> int:
    """The optimum, by trying every choice of what to run in each step."""
    states, steps = {frozenset[int]()}, 0
    while not any(len(done) == len(waits_for) for done in states):
        following = set()
        for done in states:
            ready = [i for i, each in enumerate(waits_for) if i not in done and each <= done]
            chosen = itertools.combinations(ready, min(workers, len(ready)))
            following |= {done.union(each) for each in chosen}
        states, steps = following, steps + 1
    return steps


@pytest.mark.parametrize("seed", range(60))
def test_schedule_is_near_the_optimum_of_small_graphs(seed: int) -> None:
    source = random.Random(seed)
    workers = source.randint(1, 3)
    waits_for = [{j for j in range(i) if source.random() < 0.25} for i in range(9)]
    best = least_steps(waits_for, workers)
    assert best <= makespan(waits_for, workers) <= best * (2 - 1 / workers)


@pytest.mark.parametrize(
    ("waits_for", "workers", "steps"),
    [
        ([set() for _ in range(10)], 4, 3),
        ([set(), {0}, {1}, {2}], 4, 4),
        ([set(), set(), set(), {2}, {3}], 2, 3),
        ([set(), set(), {0, 1}, {2}, {2}], 2, 3),
        ([], 2, 0),
    ],
    ids=["independent", "a chain", "the longest chain first", "a whole range between", "nothing"],
)
def test_schedule_of_known_graphs(waits_for: list[set[int]], workers: int, steps: int) -> None:
    assert makespan(waits_for, workers) == steps


# What is measured, and the plot.


def test_figure_has_four_ways_and_three_comparisons() -> None:
    figure = Bench(TINY).run()
    shapes = [(bar.name, bar.groups, bar.tasks) for bar in figure.bars]
    assert shapes == [("order", 0, 0), ("task", 1, 1), ("groups", 2, 1), ("groups-tasks", 2, 3)]
    assert figure.bars[0].speedup == 1
    assert all(bar.writes_per_second == pytest.approx(120 / bar.timing.seconds) for bar in figure.bars)
    assert [each.peer for each in figure.comparisons] == ["bare threads", "ideal scheduler", "ideal scheduler"]
    assert all(each.ratio == pytest.approx(each.peer_seconds / each.seconds) for each in figure.comparisons)


def test_only_a_traced_bench_has_a_trace_of_which_each_write_is_a_unit() -> None:
    figure = Bench(replace(TINY, peers=False, traced=True)).run()
    units = [each for each in figure.trace if isinstance(each, UnitRun)]
    assert sorted(unit.lsn for unit in units) == list(range(1, 121))
    assert {(unit.group, unit.task) for unit in units} <= {(group, task) for group in range(2) for task in range(3)}
    assert Bench(replace(TINY, peers=False)).run().trace == ()


def test_median_of_the_runs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([5.0, 1.0, 3.0])

    def replay(workload: Workload, store: SleepingStore) -> ways.Timing:
        ways_in_order(workload, store)
        return ways.Timing(next(seconds), 0.5)

    ways_in_order = ways.replay_in_order
    monkeypatch.setattr(ways, "replay_in_order", replay)
    figure = Bench(replace(TINY, runs=3, peers=False)).run()
    assert figure.bars[0].timing == ways.Timing(3.0, 0.5)
    assert (figure.write_seconds, figure.comparisons) == (0.5, ())


def test_progress_counts_the_runs_of_all_ways() -> None:
    for peers, runs in ((False, 4), (True, 8)):
        bench = Bench(replace(TINY, peers=peers))
        assert bench.progress() == (0, runs)
        bench.run()
        assert bench.progress() == (runs, runs)


def test_cancelled_bench_measures_nothing() -> None:
    bench = Bench(replace(TINY, latency_seconds=1))
    bench.cancel()
    with pytest.raises(BenchCancelled):
        bench.run()


def test_cancelling_wakes_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(replace(TINY, latency_seconds=0.001))
    way = ways.replay_in_order

    def replay(workload: Workload, store: SleepingStore) -> ways.Timing:
        bench.cancel()
        assert store._latency_seconds == 0
        return way(workload, store)

    monkeypatch.setattr(ways, "replay_in_order", replay)
    with pytest.raises(BenchCancelled):
        bench.run()


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency_seconds": 1.1}, {"writes": 0}, {"writes": WRITES_MAX + 1}, {"runs": 0}, {"runs": 101},
        {"groups": 0}, {"tasks": 0}, {"groups": 256, "tasks": 1024},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Bench(replace(TINY, **wrong))


@pytest.fixture(scope="module")
def measured() -> Figure:
    return Bench(TINY).run()


SVG = "{http://www.w3.org/2000/svg}"


def test_plot_has_the_measured_numbers(measured: Figure) -> None:
    texts = [element.text or "" for element in ElementTree.fromstring(draw(measured)).iter(f"{SVG}text")]
    for bar in measured.bars:
        assert bar.title in texts
        assert f"{bar.writes_per_second:,.0f}  ({bar.speedup:.1f} ×)" in texts
    assert any("a store that sleeps 0 ms for each write" in text for text in texts)
    assert "mirrortool bench --latency 0ms --writes 120 --groups 2 --tasks 3 --runs 1" in texts


def test_bars_are_as_long_as_the_numbers(measured: Figure) -> None:
    bars = ElementTree.fromstring(draw(measured)).findall(f"{SVG}rect")
    widths = [float(bar.attrib["width"]) for bar in bars]
    rates = [bar.writes_per_second for bar in measured.bars]
    for width, rate in zip(widths, rates, strict=True):
        assert width / max(widths) == pytest.approx(rate / max(rates), abs=0.01)


def test_plot_is_readable_on_dark_ground_and_loads_nothing(measured: Figure) -> None:
    text = draw(measured)
    assert "prefers-color-scheme: dark" in text
    assert "href" not in text and "<script" not in text and "url(" not in text
