"""How far a destination is behind, while it is reachable and while it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortool.journal.directory import Journal
from mirrortool.ship.lag import LOOK_SECONDS, ShipLag, ShipLags
from tests.conftest import FakeClock
from tests.fakes.journals import FRAME_NS, START_NS
from tests.ship.pairs import Cable, shipment
from tests.ship.test_sender import fill, local, maker_at


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
