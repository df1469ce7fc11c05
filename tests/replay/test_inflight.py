"""Credits, quiescence, the first error and cancellation."""

from __future__ import annotations

import pytest

from mirrortool.replay.inflight import Cancelled, InFlight, InFlightStatistics
from mirrortool.replay.writeunit import RUN_COST_BYTES, UNIT_COST_BYTES, Footprint, WriteUnit
from tests.fakes.scheduler import DeadlockError, Scheduler, Walk

COST = 4096 + UNIT_COST_BYTES


def _units(*payloads: int) -> list[WriteUnit]:
    return [WriteUnit(each, Footprint(each, each + 1), payload_bytes=payload) for each, payload in enumerate(payloads)]


EACH_WAIT = pytest.mark.parametrize(
    "wait", [lambda in_flight: in_flight.admit(_units(4096)), InFlight.wait_drained], ids=["admit", "drain"]
)


@pytest.mark.parametrize(
    ("bytes_max", "payloads", "admitted"),
    [
        (COST * 3, [4096] * 3, 3),
        (COST * 3 - 1, [4096] * 3, 2),
        (COST, [4096] * 3, 1),
        (1, [4096] * 3, 1),  # nothing is pending, so even a unit larger than the bound goes
        (COST * 2, [1 << 20, 0], 1),
        (UNIT_COST_BYTES * 2, [0, 0, 0], 2),  # units without payload are not free
    ],
)
def test_admits_as_many_units_as_there_is_credit_for(bytes_max, payloads, admitted):
    units = _units(*payloads)
    in_flight = InFlight(bytes_max)
    assert in_flight.admit(units) == admitted
    pending = sum(unit.payload_bytes + UNIT_COST_BYTES for unit in units[:admitted])
    assert in_flight.statistics() == InFlightStatistics(admitted, pending, bytes_max, 0)


def test_runs_and_zeros_cost_something_without_payload():
    unit = WriteUnit(0, Footprint.of_runs([(0, 2), (4, 2)]), zeros=[(0, 2), (4, 2)])
    in_flight = InFlight(1)
    in_flight.admit([unit])
    assert in_flight.statistics().pending_bytes == UNIT_COST_BYTES + 2 * RUN_COST_BYTES
    in_flight.finished(unit)
    assert in_flight.statistics().pending_bytes == 0


def test_admits_from_the_start_given():
    in_flight = InFlight(COST * 10)
    assert in_flight.admit(_units(4096, 4096, 4096), 2) == 3
    assert in_flight.statistics().pending_units == 1


def test_is_drained_when_all_that_was_admitted_is_finished():
    units = _units(4096, 0)
    in_flight = InFlight(COST * 10)
    in_flight.admit(units)
    in_flight.finished(units[1])
    assert not in_flight.is_drained()
    in_flight.finished(units[0])
    assert in_flight.is_drained()
    in_flight.wait_drained()
    assert in_flight.statistics().pending_bytes == 0


def test_the_receiver_gets_credit_back_in_every_order():
    """Any walk admits all; with half of the window as the mark, hardly ever one at a time."""
    for seed in range(200):
        scheduler = Scheduler(Walk(seed))
        in_flight = InFlight(COST * 4, scheduler)
        scheduler.run(lambda scheduler=scheduler, in_flight=in_flight: _pass_through(scheduler, in_flight, 20))


def _pass_through(scheduler: Scheduler, in_flight: InFlight, count: int) -> None:
    units, queue, gates = _units(*[4096] * count), [], [scheduler.gate() for _ in range(count)]

    def finish(first: int) -> None:
        for each in range(first, count, 2):
            gates[each].wait()
            assert in_flight.statistics().pending_bytes <= COST * 4
            in_flight.finished(queue[each])

    workers = [scheduler.spawn("finisher", lambda first=first: finish(first)) for first in (0, 1)]
    start = 0
    while start < count:
        end = in_flight.admit(units, start)
        queue.extend(units[start:end])
        for each in range(start, end):
            gates[each].open()
        start = end
    in_flight.wait_drained()
    assert in_flight.is_drained()
    for worker in workers:
        worker.join()


def test_is_woken_for_half_a_window_not_for_each_unit():
    scheduler = Scheduler(Walk(0))
    in_flight = InFlight(COST * 8, scheduler)
    units = _units(*[4096] * 12)

    def main():
        in_flight.admit(units[:8])
        worker = scheduler.spawn("finisher", lambda: [in_flight.finished(unit) for unit in units[:8]])
        assert in_flight.admit(units[8:]) == 4
        worker.join()
        assert in_flight.statistics().waits == 1

    scheduler.run(main)


@EACH_WAIT
def test_cancel_ends_any_wait_now_and_later(wait):
    for seed in range(50):
        scheduler = Scheduler(Walk(seed))
        in_flight = InFlight(1, scheduler)

        def main(scheduler=scheduler, in_flight=in_flight):
            in_flight.admit(_units(4096))
            scheduler.spawn("canceller", in_flight.cancel)
            for _ in range(2):
                with pytest.raises(Cancelled):
                    wait(in_flight)

        scheduler.run(main)


@EACH_WAIT
def test_the_first_error_ends_any_wait_and_beats_cancellation(wait):
    for seed in range(50):
        scheduler = Scheduler(Walk(seed))
        in_flight = InFlight(1, scheduler)

        def main(scheduler=scheduler, in_flight=in_flight):
            in_flight.admit(_units(4096))
            scheduler.spawn("failing", lambda: in_flight.fail(7, OSError("first")))
            with pytest.raises(OSError, match="first"):
                wait(in_flight)
            in_flight.fail(8, OSError("second"))
            in_flight.cancel()
            with pytest.raises(OSError, match="first"):
                wait(in_flight)
            assert in_flight.failure.sequence == 7

        scheduler.run(main)


def test_a_unit_that_is_never_finished_is_waited_for():
    scheduler = Scheduler(Walk(0))
    in_flight = InFlight(1, scheduler)

    def main():
        in_flight.admit(_units(1))
        in_flight.wait_drained()

    with pytest.raises(DeadlockError):
        scheduler.run(main)
