"""Each small file beside a journal's or a mirror's, through the functions that load it.

The first byte says which file, the rest is what it holds; all others are as a recorder, a replay and a verification
left them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mirrortool import clock, files, hostinfo, jsonfile, lockholder
from mirrortool.errors import NotAJournalError
from mirrortool.journal import slots, unfinished
from mirrortool.journal.copies import directory as copies
from mirrortool.journal.description import Description
from mirrortool.journal.directory import Journal
from mirrortool.journal.durablemark import load_mark
from mirrortool.journal.lineage import Epoch
from mirrortool.journal.pathkind import kind_of
from mirrortool.journal.position import FrameEnd
from mirrortool.journal.slots import Slot
from mirrortool.mirror import findings, lastreplay, lastseen, receipts, volumelabels, volumeregistry
from mirrortool.mirror.directory import Mirror
from mirrortool.openfile import File
from mirrortool.record.heldvolumes import _Seen
from mirrortool.record.missingsegments import load_noted
from tests.fakes.journals import PAGE, Commit, Write, replay_all, verified
from tests.fuzz import jsontexts, sealing
from tests.fuzz.memoryfiles import MemoryFiles
from tests.fuzz.place import journal_maker, known_numbers, scratch

MODULES = (
    "mirrortool.jsonfile", "mirrortool.journal.description", "mirrortool.journal.recordercheckpoint",
    "mirrortool.journal.lineage", "mirrortool.journal.slots",
    "mirrortool.mirror.checkpoint", "mirrortool.mirror.findings", "mirrortool.mirror.receipts",
    "mirrortool.mirror.lastseen", "mirrortool.mirror.lastreplay", "mirrortool.record.missingsegments",
    "mirrortool.lockholder",
)  # fmt: skip
BYTES_MAX = 3000
TOKENS = (b"null", b"true", b"-1", b"1e400", b"18446744073709551615", b'"\\ud800"', b'"\\u0000"', b"NaN", b"[]", b"{}")
BOOT = "a boot"


def _journal(path: Path) -> None:
    journal = Journal(str(path / "J"))
    assert journal.history.current.number == journal.epoch
    assert Description.from_json(_fields(journal.description.to_json()), "again") == journal.description
    assert Description.from_json(_fields(journal.description.identity()), "again").history == journal.history
    assert journal.start.lsn == 0 and journal.first_state_sum >= 0


def _fields(values: object) -> jsonfile.Fields:
    return jsonfile.Fields(json.loads(json.dumps(values)), "described", NotAJournalError)


def _local(path: Path) -> None:
    paths = Journal(str(path / "J")).volume_paths()
    assert all(isinstance(each, str) and "\0" not in each for each in paths.values())


def _recorder(path: Path) -> None:
    checkpoint = Journal(str(path / "J")).recorder_checkpoint()
    if checkpoint:
        assert type(checkpoint).from_json(_fields(checkpoint.to_json())) == checkpoint


def _slots(path: Path) -> None:
    journal = Journal(str(path / "J"))
    for slot in slots.slots(journal):
        assert Slot.from_json(slot.name, _fields(slot.to_json())) == slot
    slots.damaged_slots(journal)


def _mirror(path: Path) -> None:
    mirror = Mirror(str(path / "M"))
    assert len(mirror.volumes) == len(mirror.kept)
    assert type(mirror.checkpoint).from_json(_fields(mirror.checkpoint.to_json())) == mirror.checkpoint


def _verified(path: Path) -> None:
    mirror = Mirror(str(path / "M"))
    receipt = receipts.newest(mirror)
    if receipt:
        assert receipts.describe(receipt, clock.now_ns())
    assert all(each.pages >= 0 and each.name for each in findings.findings(mirror))


def _label(path: Path) -> None:
    volumelabels.belonging(str(path / "disk"))


def _registry(path: Path) -> None:
    volumeregistry.find(str(path / "J/journal.json"), files.Identity(7, 0, False))
    volumeregistry.find(str(path / "J/journal.json"), files.Identity(7, 0, True))


def _lock(path: Path) -> None:
    worker = lockholder.find_worker(str(path / "J/lock"))
    assert worker is not None


def _seen(path: Path) -> None:
    seen = _Seen(files.open_file(str(path / "J/seen.json")))
    assert all(type(each) is int for each in seen.changed_ns.values())


LOADERS: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("J/journal.json", _journal),
    ("J/local.json", _local),
    ("J/recorder.json", _recorder),
    ("J/slots/m.json", _slots),
    ("J/detached.json", lambda path: load_noted(Journal(str(path / "J")))),
    ("J/detached.log", lambda path: load_noted(Journal(str(path / "J")))),
    ("J/seen.json", _seen),
    ("J/promoting.json", lambda path: unfinished.load_note(str(path / "J"))),
    ("J/lock", _lock),
    ("J/copy.json", lambda path: copies.load_id(str(path / "J"))),
    ("M/mirror.json", _mirror),
    ("M/checkpoint.json", _mirror),
    ("M/mirror.json", lambda path: kind_of(str(path / "M/volumes"))),
    ("M/last-replay.json", lambda path: lastreplay.load(str(path / "M"))),
    ("M/seen.json", lambda path: lastseen.find_problem(Mirror(str(path / "M")))),
    ("M/receipts/00000001700000000000.json", _verified),
    ("M/bad/00000001700000000000.json", _verified),
    ("registry/volumes/x.json", _registry),
    ("label", _label),
    ("J/received.json", lambda path: load_mark(str(path / "J"))),
)
PRESENT = {
    "J/journal.json",
    "M/mirror.json",
    "M/checkpoint.json",
    "M/volumes/a.img",
    "J/detached.json",
    "disk",
    "J/files/x",
}
"""Beside the one that is fuzzed; more of them would only cost time."""


class LockedFiles(MemoryFiles):
    """Some process holds every lock."""

    def open_file(self, path: str, **options: Any) -> File:
        found = super().open_file(path, **options)
        found.is_locked = lambda: True  # type: ignore[method-assign]
        return found


@functools.cache
def _made() -> dict[str, bytes]:
    """Every small file, by its name below the scratch directory, as the real writers left it."""
    place = scratch() / "small"
    maker = journal_maker("small/J", {"a": 8 * PAGE})
    maker.frame(Write("a", 1, b"x" * PAGE), Commit())
    journal = maker.close()
    with known_numbers():
        replay_all(journal, place / "M")
        verified(place / "M")
    mirror = Mirror(str(place / "M"))
    position, volume = mirror.checkpoint.position, mirror.kept[0]
    with slots.locked(journal):
        slots.save(journal, Slot("m", mirror.uuid.hex(), "mirror", "M", position, 10**18, 10**18))
    journal.save_volume_paths({"a": "/dev/disk"})
    found = {
        str(each.relative_to(place)): each.read_bytes()
        for each in place.rglob("*")
        if each.suffix == ".json" or each.name == "a.img"
    }
    receipt = next(data for name, data in found.items() if name.startswith("M/receipts"))
    note = unfinished.PromotionNote("M", mirror.uuid, FrameEnd(position, 1, 700), Epoch(1, b"l" * 16, position), 5)
    bad = findings.Finding("x", 5, position, [receipts.BadPages("a", 1, 2)], 1, 3, "the sums", True, True)
    label = volumelabels.Label(mirror.uuid.hex(), str(place / "M"), volume.name, 7, 0, BOOT)
    worker = {"doing": "record", "pid": 1, "since_ns": 5, "started": 1, "boot_id": BOOT, "namespace": 1}
    seen = {"boot_id": BOOT, "changed_ns": {"a": 10**18}, "sectors": {"a": None}}
    registered = {
        "mirror": mirror.uuid.hex(), "path": "M", "volume": "a",
        **volumeregistry.Known(files.Identity(7, 0, False), BOOT, hostinfo.NO_IDS, (), 5).to_json(),
    }  # fmt: skip
    given = {
        "J/detached.json": {"segments": [1, 5]}, "J/seen.json": seen, "J/promoting.json": note.to_json(),
        "J/lock": worker, "M/bad/00000001700000000000.json": bad.to_json(), "label": asdict(label),
        "registry/volumes/x.json": registered, "J/copy.json": {"id": "11" * 16},
        "J/received.json": {"format": 1, "files": 1 << 20, "position": position.to_json(), "boot_id": BOOT},
    }  # fmt: skip
    found |= {name: json.dumps(values).encode() for name, values in given.items()}
    log = b"".join(_record(value, 16 * at) for at, value in enumerate((2, 7, 10)))
    return found | {
        "M/receipts/00000001700000000000.json": receipt,
        "J/detached.log": log,
        "disk": b"disk",
        "J/files/x": b"",
    }


def _record(value: int, at: int) -> bytes:
    data = value.to_bytes(8, "little")
    return data + sealing.digest(data, at)


@functools.cache
def _others(name: str) -> dict[str, bytes]:
    return {str(_place() / each): data for each, data in _made().items() if each in PRESENT and each != name}


@functools.cache
def _place() -> Path:
    return scratch() / "small"


def fuzz_one(data: bytes) -> None:
    if not data:
        return
    name, load = LOADERS[data[0] % len(LOADERS)]
    contents = {**_others(name), str(_place() / name): data[1:]}
    with _host(data[1:]), LockedFiles(contents):
        load(_place())


@contextlib.contextmanager
def _host(label: bytes) -> Iterator[None]:
    """Extended attributes, the registry and the kernel's numbers are as the input says, or always the same."""
    before = files.get_attribute, hostinfo.boot_id, volumeregistry.place, jsonfile.save
    files.get_attribute = lambda *_: label
    hostinfo.boot_id = lambda: BOOT
    volumeregistry.place = lambda: str(_place() / "registry")
    jsonfile.save = lambda *_: None
    try:
        yield
    finally:
        files.get_attribute, hostinfo.boot_id, volumeregistry.place, jsonfile.save = before


def seeds() -> Iterator[bytes]:
    for number, (name, _) in enumerate(LOADERS):
        yield bytes([number]) + _made()[name]
    mirror = json.loads(_made()["M/mirror.json"])
    exported = {"name": "a", "base": 0, "kind": "nbd", "uri": "nbd+unix:///x?socket=/s", "export": "x", "size": 4096}
    number = [name for name, _ in LOADERS].index("M/mirror.json")
    yield bytes([number]) + json.dumps({**mirror, "format": 2, "volumes": [exported]}).encode()


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    if not data:
        return bytes(libfuzzer(data, bytes_max))
    kind, content = data[:1], data[1:]
    if LOADERS[data[0] % len(LOADERS)][0] == "J/detached.log":
        content = bytes(libfuzzer(content, bytes_max))
        values = [int.from_bytes(content[at : at + 8], "little") for at in range(0, len(content), 16)]
        return kind + b"".join(_record(value, 16 * at) for at, value in enumerate(values))
    if chance.randrange(3) == 0:
        return kind + bytes(libfuzzer(content, bytes_max - 1))
    return kind + (jsontexts.mutate(content, chance) if chance.randrange(256) else jsontexts.nested(chance))
