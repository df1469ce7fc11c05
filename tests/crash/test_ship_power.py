"""The power fails at the recorder's host while its journal is shipped: the copy is never ahead of what is left there.

The shipper runs on the host that loses its power; it looks at the journal between any two calls of the recorder, also
after the reboot, before the recorder has cut what is torn. The copy's host keeps its power, and makes durable what it
has heard. Whatever the cut left: the copy's end is a position of the primary's journal, shipping continues from it,
and the copy becomes that journal, byte by byte.

The long run: pytest -m soak tests/crash/test_ship_power.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from mirrortool.errors import TornJournalError
from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.journal.rawframes import find_end
from mirrortool.journal.reader import JournalReader
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder
from mirrortool.ship import sender
from mirrortool.ship.destination import parse_destination
from mirrortool.ship.sender import Shipment, connector
from mirrortool.ship.shipoptions import ShipOptions
from tests.crash.machine import Machine
from tests.fakes.disk import Call, DiskOs
from tests.fakes.journals import images_of, replay_all
from tests.fakes.recorders import Model, small_scale
from tests.fakes.volumes import fast_directory, small_journal_files
from tests.ship.pairs import assert_is_prefix

CUTS = 8
"""A journal's, one after another."""


@pytest.fixture
def directory() -> Iterator[str]:
    with fast_directory() as path:
        yield path


class ScriptedTail:
    """Stands in for journal.tail.Tail in a shipper that follows: each wait does the next thing, then it is stopped."""

    def __init__(self, actions: Sequence[Callable[[], object]], stop: Callable[[], None]) -> None:
        self._actions, self._stop = list(actions), stop

    def __enter__(self) -> ScriptedTail:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def look(self) -> int:
        return len(self._actions)

    def wake(self) -> None:
        pass

    def wait(self, seen: int, seconds: float = 1.0) -> bool:
        if not self._actions:
            self._stop()
            return False
        self._actions.pop(0)()
        return True


class ShippingMachine(Machine):
    """A machine that ships its journal to another one."""

    def __init__(self, directory: str, seed: int, patch: pytest.MonkeyPatch, page_size: int) -> None:
        super().__init__(directory, seed, patch, page_size)
        self.elsewhere = os.path.join(directory, "far")
        self.copy = os.path.join(self.elsewhere, "copy")
        os.mkdir(self.elsewhere)
        self.is_shipping = False
        self.ends_checked = 0

    def fault(self, call: Call) -> None:
        super().fault(call)
        if self.working and not self.is_shipping and self.chance.random() < 0.05:
            self.ship()

    def step(
        self, recorder: Recorder, model: Model, system: DiskOs, others: Sequence[str] = ("mirror", "stop")
    ) -> None:
        kind = self.chance.random()
        if kind < 0.08:
            self.ship()
        elif kind < 0.16:
            self.ship_and_follow(recorder, model, system)
        else:
            super().step(recorder, model, system, others)

    def ship(self) -> None:
        """What there is now."""
        self.is_shipping = True
        try:
            self.shipment().run()
        finally:
            self.is_shipping = False

    def ship_and_follow(self, recorder: Recorder, model: Model, system: DiskOs) -> None:
        """For some steps of the recorder, or until the power fails."""

        def step() -> None:
            super(ShippingMachine, self).step(recorder, model, system, ())

        steps = [step] * self.chance.randrange(1, 8)
        shipment = self.shipment(follow=True)
        self.is_shipping = True
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sender, "Tail", lambda _journal, _observer: ScriptedTail(steps, shipment.stop))
                shipment.run()
        finally:
            self.is_shipping = False

    def shipment(self, **options: bool) -> Shipment:
        to, how = parse_destination(self.copy), ShipOptions(slot="copy", **options)
        return Shipment(self.primary.journal_path, to, how, connector(to, how))

    def check(self) -> None:
        """The copy is not ahead of what the cut left, nor of what recovery made of it, and becomes that."""
        self.boots += 1
        self.check_not_ahead()
        if self.chance.random() < 0.5:
            with suppress(TornJournalError):
                self.ship()
            self.check_not_ahead()
        super().check()
        self.check_not_ahead()
        self.ship()
        self.check_equal()

    def check_equal(self) -> None:
        """The copy has each frame of the primary's journal; a file that is only begun there need not be here."""
        assert_is_prefix(self.primary.journal, self.copy)
        assert find_end(Journal(self.copy)) == find_end(self.primary.journal)

    def check_not_ahead(self) -> None:
        """The primary's journal has the position at which the copy ends, and that is what was acknowledged at least."""
        if not os.path.exists(os.path.join(self.copy, "journal.json")):
            return
        end = find_end(Journal(self.copy))
        JournalReader(self.primary.journal, end).close()
        slot = slots.find_slot(self.primary.journal, "copy")
        assert slot is None or slot.position.lsn <= end.lsn
        self.ends_checked += end.lsn > 0

    def check_at_the_end(self) -> None:
        with Recorder(self.primary.journal_path) as recorder:
            InitialScan(recorder).run()
        self.ship()
        ours, theirs = self.primary.journal.clean_end, Journal(self.copy).clean_end
        assert ours and theirs and ours.position == theirs.position
        mirror = os.path.join(self.elsewhere, "mirror")
        replay_all(Journal(self.copy), mirror)
        assert images_of(mirror) == self.primary.contents() == self.model.state()


def lose_power_often(directory: str, seed: int, patch: pytest.MonkeyPatch, page_size: int = 512) -> ShippingMachine:
    small_scale(patch, page_size)
    small_journal_files(patch, 30 * page_size)
    machine = ShippingMachine(directory, seed, patch, page_size)
    for _ in range(CUTS):
        machine.run_until_cut()
        machine.check()
    machine.check_at_the_end()
    assert machine.cuts == CUTS and machine.ends_checked
    return machine


@pytest.mark.parametrize("seed", range(12))
def test_a_copy_is_never_ahead_of_what_a_power_cut_left(
    directory: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_power_often(directory, seed, monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 2000))
def test_soak_power_cuts_while_shipping(directory: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_power_often(directory, seed, monkeypatch, (512, 4096)[seed % 2])
