"""A thousand random histories of the real engine, on real threads with real time: the trace of none is found wrong."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import pytest

from mirrortool.errors import InputOutputError
from mirrortool.operation import BatchBuilder, Kind
from mirrortool.replay import ranges
from mirrortool.replay.coalesce import Inline, stretches
from mirrortool.replay.engine import Plan, ReplayEngine
from mirrortool.replay.ranges import RANGES
from mirrortool.replay.tracing import Started, UnitRun
from mirrortool.replay.writeunit import How
from mirrortool.volume import place
from tests.trace.traced import violations_of

PAGE = 512
PAGES = 16
BLOCKS = 5
LATENCY_SECONDS = 1e-4


class YieldingStore:
    """Keeps nothing. Each write lets the other threads run, so that units meet."""

    page_size = PAGE

    def __init__(self, fails_after: int | None) -> None:
        self.volumes = place([("a", PAGES * PAGE), ("b", PAGES * PAGE)], PAGE)
        self._left = fails_after

    def write(self, _runs) -> None:
        time.sleep(LATENCY_SECONDS)
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise InputOutputError("boom")

    def zero(self, _page, _count) -> None:
        time.sleep(LATENCY_SECONDS)

    def resize(self, name, size) -> None:
        self.volumes = self.volumes.resized(self.volumes[name], size)


def random_plan(draw: random.Random) -> Plan:
    return Plan(
        draw.choice(RANGES),
        groups=draw.choice((1, 1, 2, 3, 4)),
        tasks=draw.choice((1, 2, 3, 4, 5, 5)),
        unit=draw.choice(("batch", "op", "op")),
        in_flight_bytes=draw.choice((1, 30_000, 100_000, 1 << 30, 1 << 30)),
    )


def random_stretch(draw: random.Random, store: YieldingStore):
    builder = BatchBuilder(PAGE)
    for _ in range(draw.randint(4, 16)):
        volume = draw.choice(list(store.volumes))
        first, pages = store.volumes.first_page(volume), store.volumes.page_count(volume)
        page = draw.randrange(min(pages, draw.choice((6, pages))))
        count = draw.randint(1, draw.choice((1, 1, 2, 8)))
        count = min(count, pages - page)
        if draw.random() < 0.7:
            builder.write(first + page, bytes(count * PAGE))
        else:
            builder.zero(first + page, count)
    (stretch,) = stretches([builder.build()], PAGE, [draw.randrange(1, 99)])
    return stretch


def trace_of(seed: int):
    """The trace of a history: stretches, drains, operations that are done by themselves, other plans, an error."""
    draw, records = random.Random(seed), []
    store = YieldingStore(draw.randrange(20) if draw.random() < 0.1 else None)
    records.append(Started("journal", "mirror", PAGE, 0))
    with (
        suppress(InputOutputError),
        ReplayEngine(store, random_plan(draw), tracer=records.append, timed=draw.random() < 0.2) as engine,
    ):
        for _ in range(draw.randint(1, 4)):
            engine.delegate(random_stretch(draw, store), 99)
            what = draw.random()
            if what < 0.1:
                engine.wait_drained()
            elif what < 0.15:
                engine.change(random_plan(draw), timed=False)
            elif what < 0.2:
                engine.run_inline(Inline(Kind.ZERO, 0, PAGES, 99))
            elif what < 0.3:
                volume = draw.choice(list(store.volumes))
                size = draw.randint(1, PAGES) * PAGE
                engine.run_inline(Inline(Kind.RESIZE, store.volumes.first_page(volume), size, 99))
        if draw.random() < 0.7:
            engine.wait_drained()
    return records


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_history_of_the_real_engine_is_found_wrong(block, monkeypatch):
    monkeypatch.setattr(ranges, "pages_per_segment", lambda _: 4)
    ways = set()
    for seed in range(block * 1000 // BLOCKS, (block + 1) * 1000 // BLOCKS):
        records = trace_of(seed)
        assert not violations_of(records), seed
        ways |= {record.how for record in records if isinstance(record, UnitRun)}
    assert ways == set(How), "these histories do not lead everywhere"
