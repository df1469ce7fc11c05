"""The engine writes a stretch through groups and tasks, and nothing else runs beside what runs inline."""

import gc
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool import clock
from mirrortool.errors import ExhaustedError, InputOutputError, UsageError
from mirrortool.operation import BatchBuilder, Kind
from mirrortool.replay import ranges
from mirrortool.replay.coalesce import Inline, stretches
from mirrortool.replay.engine import GROUPS_MAX, TASKS_MAX, THREADS_MAX, Plan, ReplayEngine
from mirrortool.replay.ranges import RANGES
from mirrortool.replay.taskgroup import TaskGroup
from mirrortool.replay.tracing import Divided, Drained, Ended, InlineRun, UnitRun
from mirrortool.volume import place

PAGE = 512


class MemoryStore:
    """Volumes in memory; notes which threads wrote, and how many at once."""

    def __init__(self, sizes):
        self.page_size = PAGE
        self.volumes = place(list(sizes.items()), PAGE)
        self.pages = {}
        self.threads = set()
        self.busy = 0
        self.fails_at = None
        self._lock = threading.Lock()

    def write(self, runs):
        for page, buffers, length in runs:
            assert length == sum(map(len, buffers))
            self._enter(page)
            for number, data in enumerate(split(b"".join(buffers))):
                self.pages[page + number] = data
            self._leave()

    def zero(self, page, count):
        self._enter(page)
        for number in range(page, page + count):
            self.pages.pop(number, None)
        self._leave()

    def resize(self, name, size):
        assert not self.busy
        self.volumes = self.volumes.resized(self.volumes[name], size)

    def _enter(self, page):
        with self._lock:
            self.busy += 1
            self.threads.add(threading.current_thread().name)
        if page == self.fails_at:
            raise InputOutputError("boom")

    def _leave(self):
        with self._lock:
            self.busy -= 1


def split(data):
    return [data[i : i + PAGE] for i in range(0, len(data), PAGE)]


def stretch_of(*operations):
    """Of (page, data) to write and (page, count) to zero."""
    builder = BatchBuilder(PAGE)
    for page, what in operations:
        if isinstance(what, bytes):
            builder.write(page, what)
        else:
            builder.zero(page, what)
    (stretch,) = stretches([builder.build()], PAGE)
    return stretch


def page_of(number):
    return number.to_bytes(4, "little") * (PAGE // 4)


@pytest.fixture
def short_stripes(monkeypatch):
    monkeypatch.setattr(ranges, "pages_per_segment", lambda _: 4)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 30), st.integers(1, 255).map(page_of)),
        st.tuples(st.integers(0, 20), st.integers(1, 10)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    windows=st.lists(OPERATIONS, min_size=1, max_size=6),
    kind=st.sampled_from(RANGES),
    groups=st.integers(1, 4),
    tasks=st.integers(1, 4),
    unit=st.sampled_from(["batch", "op"]),
    credit=st.sampled_from([1, 5000, 1 << 30]),
)
def test_later_stretches_replace_earlier_ones(windows, kind, groups, tasks, unit, credit):
    """Without a drain between them: what conflicts keeps its order, in whatever group."""
    store, expected = MemoryStore({"a": 31 * PAGE}), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "pages_per_segment", lambda _: 4)
        with ReplayEngine(store, Plan(kind, groups, tasks, unit, credit)) as engine:
            for lsn, window in enumerate(windows, 1):
                if not window:
                    continue
                engine.delegate(stretch_of(*window), lsn)
                for page, what in window:
                    if isinstance(what, bytes):
                        expected[page] = what
                    else:
                        for each in range(page, page + what):
                            expected.pop(each, None)
            engine.wait_drained()
    assert store.pages == expected


def test_every_write_goes_through_a_task_also_with_one():
    store = MemoryStore({"a": 100 * PAGE})
    with ReplayEngine(store, Plan(groups=1, tasks=1)) as engine:
        engine.delegate(stretch_of((3, page_of(1))), 1)
        engine.wait_drained()
    assert threading.current_thread().name not in store.threads
    assert store.pages == {3: page_of(1)}


@pytest.mark.usefixtures("short_stripes")
def test_pages_of_several_ranges_reach_several_groups():
    store = MemoryStore({"a": 100 * PAGE})
    with ReplayEngine(store, Plan(groups=4, tasks=1)) as engine:
        engine.delegate(stretch_of((0, page_of(1) * 40)), 1)
        engine.wait_drained()
        groups, in_flight = engine.statistics()
        assert [group.units for group in groups] == [3, 3, 2, 2]
        assert sum(group.payload_bytes for group in groups) == 40 * PAGE
        assert in_flight.pending_units == 0
        assert all(not rows for rows in engine.tables())
    assert len(store.pages) == 40


def test_closing_drains():
    store = MemoryStore({"a": 5000 * PAGE})
    with ReplayEngine(store, Plan(groups=2, tasks=2)) as engine:
        engine.delegate(stretch_of((0, page_of(1) * 4000)), 1)
    assert len(store.pages) == 4000


def test_the_first_error_of_a_task_reaches_the_receiver_and_nothing_is_left():
    store = MemoryStore({"a": 100 * PAGE})
    store.fails_at = 7
    engine = ReplayEngine(store, Plan(groups=2, tasks=2))

    def replay():
        engine.delegate(stretch_of((7, page_of(1)), (8, bytes(80 * PAGE))), 1)
        engine.wait_drained()

    with engine, pytest.raises(InputOutputError, match="boom"):
        replay()
    assert engine.statistics()[1].pending_units == 0
    assert 7 not in store.pages


def test_after_an_error_nothing_on_the_same_pages_is_applied():
    store = MemoryStore({"a": 100 * PAGE})
    store.fails_at = 7
    with ReplayEngine(store, Plan(groups=1, tasks=3)) as engine:
        for lsn in range(1, 5):
            try:
                engine.delegate(stretch_of((7, page_of(lsn))), lsn)
            except InputOutputError:
                break
            store.fails_at = 7 if lsn == 1 else None
    assert 7 not in store.pages


def test_a_resize_waits_for_what_runs_and_moves_the_ranges():
    store = MemoryStore({"a": 4 * PAGE})
    with ReplayEngine(store, Plan("equal", groups=2, tasks=1)) as engine:
        engine.delegate(stretch_of((0, page_of(1) * 4)), 1)
        engine.run_inline(Inline(Kind.RESIZE, 0, 100 * PAGE))
        assert len(store.pages) == 4
        engine.delegate(stretch_of((40, page_of(2)), (60, page_of(3))), 2)
        engine.wait_drained()
        assert [group.units for group in engine.statistics()[0]] == [2, 2]


def test_a_large_zero_waits_for_what_runs():
    store = MemoryStore({"a": 100 * PAGE})
    with ReplayEngine(store, Plan(groups=2, tasks=2)) as engine:
        engine.delegate(stretch_of((0, page_of(1) * 50)), 1)
        engine.run_inline(Inline(Kind.ZERO, 0, 100))
        assert not store.pages


def test_the_interpreter_is_left_as_it_was():
    before = sys.getswitchinterval(), gc.get_threshold()
    with ReplayEngine(MemoryStore({"a": PAGE}), Plan()):
        assert sys.getswitchinterval() < before[0]
    assert (sys.getswitchinterval(), gc.get_threshold()) == before


def test_the_interpreter_is_left_as_it_was_when_there_are_no_threads(monkeypatch):
    def start(_):
        raise ExhaustedError("cannot start a thread")

    monkeypatch.setattr(TaskGroup, "start", start)
    before = sys.getswitchinterval(), gc.get_threshold()
    with pytest.raises(ExhaustedError), ReplayEngine(MemoryStore({"a": PAGE}), Plan()):
        pass
    assert (sys.getswitchinterval(), gc.get_threshold()) == before


def test_first_units_are_handed_out_while_the_others_are_still_being_made(monkeypatch):
    """Or tasks idle until a whole window is cut."""
    store, seen = MemoryStore({"a": 1000 * PAGE}), []
    real = TaskGroup.submit

    def submit(self, units):
        seen.append(len(units))
        real(self, units)

    monkeypatch.setattr(TaskGroup, "submit", submit)
    with ReplayEngine(store, Plan(groups=1, tasks=2, unit="op")) as engine:
        engine.delegate(stretch_of(*((page, page_of(1)) for page in range(300))), 1)
        engine.wait_drained()
    assert sum(seen) == 300 and max(seen) <= 64


@pytest.mark.parametrize(("tasks", "most"), [(1, 512), (8, 40), (32, 10)])
def test_batches_are_cut_so_that_every_task_gets_several(tasks, most):
    store = MemoryStore({"a": 4000 * PAGE})
    sizes = []

    def note(record):
        if isinstance(record, UnitRun):
            sizes.append(sum(count for _, count in record.footprint))

    with ReplayEngine(store, Plan(groups=1, tasks=tasks), tracer=note) as engine:
        engine.delegate(stretch_of(*((page, page_of(1)) for page in range(0, 2560, 2))), 1)
        engine.wait_drained()
    assert sum(sizes) == 1280 and max(sizes) <= most


@pytest.mark.parametrize(
    "plan",
    [
        Plan(ranges="some"),
        Plan(unit="segment"),
        Plan(io="mapped"),
        Plan(groups=0),
        Plan(groups=GROUPS_MAX + 1),
        Plan(tasks=0),
        Plan(tasks=TASKS_MAX + 1),
        Plan(groups=GROUPS_MAX, tasks=THREADS_MAX // GROUPS_MAX + 1),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(plan):
    with pytest.raises(UsageError):
        ReplayEngine(MemoryStore({"a": PAGE}), plan)


def test_a_trace_has_the_plans_the_units_what_ran_inline_and_the_drains_in_order():
    store, records = MemoryStore({"a": 100 * PAGE}), []
    with ReplayEngine(store, Plan(groups=1, tasks=1, unit="op"), tracer=records.append) as engine:
        engine.delegate(stretch_of((0, page_of(1)), (7, page_of(2))), 5)
        engine.run_inline(Inline(Kind.ZERO, 0, 100, 6))
        engine.wait_drained()
        engine.change(Plan(groups=2, tasks=1, unit="op"), timed=False)
        engine.delegate(stretch_of((3, page_of(3))), 8)
    found = [(type(record), getattr(record, "sequence", None)) for record in records]
    first = [(Divided, None), (UnitRun, 0), (UnitRun, 1), (Drained, 2), (InlineRun, 2), (Drained, 3)]
    assert found == [*first, (Divided, None), (UnitRun, 3), (Drained, 4), (Ended, 4)]
    times = [record.at_ns if hasattr(record, "at_ns") else record.start_ns for record in records]
    assert times == sorted(times)
    assert records[4].lsn == 6


def test_a_trace_names_the_unit_that_failed():
    class Failing(MemoryStore):
        def write(self, _runs):
            raise OSError("store")

    records = []
    with ReplayEngine(Failing({"a": 9 * PAGE}), Plan(groups=1), tracer=records.append) as engine:
        engine.delegate(stretch_of((0, bytes(range(256)) * PAGE)), 1)
        with pytest.raises(OSError, match="store"):
            engine.wait_drained()
    assert [(record.sequence, record.failed) for record in records if isinstance(record, UnitRun)] == [(0, True)]


def test_nothing_is_traced_without_a_tracer(monkeypatch):
    monkeypatch.setattr(clock, "monotonic_ns", None)
    with ReplayEngine(MemoryStore({"a": 9 * PAGE}), Plan(groups=1, tasks=2, unit="op")) as engine:
        engine.delegate(stretch_of((0, page_of(1)), (0, page_of(2))), 1)
        engine.wait_drained()
