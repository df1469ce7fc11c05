"""How far a destination is behind, while it is reachable and while it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.journal.description import NextScan
from mirrortool.journal.directory import Journal
from mirrortool.operation import CommitKind
from mirrortool.ship.shiplag import LOOK_SECONDS, ShipLag, ShipLags
from tests.conftest import FakeClock
from tests.fakes.journals import FRAME_NS, PAGE, START_NS, Commit
from tests.fakes.volumes import Primary, make_primary, pattern
from tests.fakes.waiting import in_thread, join, wait_until
from tests.ship.pairs import Cable, shipment
from tests.ship.shipments import fill, local, maker_at

SECOND = 10**9


def test_it_grows_while_the_destination_is_away(tmp_path: Path, fake_clock: FakeClock) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 5)
    done = local(maker.journal, tmp_path / "C", has_slot=False)
    new = shipment(maker.journal, Cable(str(tmp_path / "D")))
    with ShipLags(maker.journal) as lags:
        assert lags.measure([new.statistics()]) == [ShipLag(None, None, None)]
        done.run()
        fake_clock.elapsed += LOOK_SECONDS
        fake_clock.ns = START_NS + 15 * FRAME_NS
        assert lags.measure([done.statistics()]) == [ShipLag(0, 0, 0.0)]
        size = size_of(maker.journal)
        fill(maker, 7)
        maker.writer.sync()
        assert lags.measure([done.statistics()]) == [ShipLag(0, 0, 0.0)]  # looked at only now and then
        fake_clock.elapsed += LOOK_SECONDS
        (now,) = lags.measure([done.statistics()])
        assert lags.head_lsn == 24
        assert (now.operations, now.seconds) == (14, pytest.approx(10 * FRAME_NS / 1e9))
        assert now.bytes == size_of(maker.journal) - size
    maker.close()


def size_of(journal: Journal) -> int:
    return sum(Path(journal.file_path(start)).stat().st_size for start in journal.file_starts())


def test_no_copy_of_a_silent_journal_is_up_to_date_and_heartbeats_are_no_lag(
    tmp_path: Path, fake_clock: FakeClock
) -> None:
    maker = maker_at(tmp_path / "J")
    fill(maker, 5)
    done = local(maker.journal, tmp_path / "C", has_slot=False)
    done.run()
    heard_ns = maker.writer.time_ns
    with ShipLags(maker.journal) as lags:
        fake_clock.ns = heard_ns + 10 * SECOND
        assert lags.measure([done.statistics()]) == [ShipLag(0, 0, 0.0)]
        fake_clock.ns = heard_ns + 72 * SECOND
        assert lags.measure([done.statistics()]) == [ShipLag(0, 0, 72.0)]
        maker.frame(Commit(kind=CommitKind.HEARTBEAT))
        fake_clock.elapsed += LOOK_SECONDS
        fake_clock.ns = maker.writer.time_ns + 10 * SECOND
        (now,) = lags.measure([done.statistics()])
        assert (now.operations, now.seconds) == (1, 0.0)
    maker.close()


def test_a_copy_is_told_of_the_next_scan_and_when_none_is_to_come(tmp_path: Path) -> None:
    primary = make_primary(tmp_path, {"a": pattern(1, 5 * PAGE)})
    primary.scan()
    expect_scan(primary, NextScan(100, 200))
    shipment = local(primary.journal, tmp_path / "C", has_slot=False, follow=True)
    shipper = in_thread(shipment.run)
    copy = str(tmp_path / "C")
    wait_until(lambda: files.exists(f"{copy}/journal.json") and Journal(copy).next_scan == NextScan(100, 200))
    for changed in (NextScan(300, 400), None):
        expect_scan(primary, changed)
        wait_until(lambda changed=changed: Journal(copy).next_scan == changed)
        assert Journal(copy).clean_end == primary.journal.clean_end
    shipment.stop()
    join(shipper)


def expect_scan(primary: Primary, next_scan: NextScan | None) -> None:
    journal = primary.journal
    journal.next_scan = next_scan
    journal.save_clean_end(journal.clean_end)
