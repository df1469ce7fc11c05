"""Shipments for tests: a journal to ship, a way to ship it, and the slot that is kept of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.journal.slots import Slot
from mirrortool.ship.destination import parse_destination
from mirrortool.ship.sender import Shipment, connector
from mirrortool.ship.shipoptions import ShipOptions
from tests.fakes.journals import Commit, JournalMaker, Write
from tests.journal.sample import append, commit_batch, open_writer
from tests.ship.pairs import Cable, shipment


def maker_at(path: Path, *, file_bytes: int = 2000) -> JournalMaker:
    return JournalMaker(path, {"disk": 640 * 512}, file_bytes=file_bytes)


def fill(maker: JournalMaker, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        maker.frame(Write("disk", number % 640, os.urandom(512)), Commit())


def local(journal: Journal | Path, path: Path, **options: Any) -> Shipment:
    given = ShipOptions(**options)
    destination = parse_destination(str(path))
    where = journal.path if isinstance(journal, Journal) else str(journal)
    return Shipment(where, destination, given, connector(destination, given))


def copy_shipment(kind: str, journal: Journal, path: Path, **options: Any) -> Shipment:
    return local(journal, path, **options) if kind == "local" else shipment(journal, Cable(str(path)), **options)


EACH_KIND = pytest.mark.parametrize("kind", ["local", "stream"])


def only_slot(journal: Journal) -> Slot:
    (found,) = slots.slots(journal)
    return found


def append_mark(journal: Journal, name: str) -> None:
    writer = open_writer(journal)
    append(writer, commit_batch(0, name))
    writer.close()
