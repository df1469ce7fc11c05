"""Drives a SpannedStore as a replay does, beside a plain model, and lets it crash.

Model: each volume is a bytearray; a checkpoint is a copy of them. After a crash redo does again what followed the
newest durable checkpoint. Before it, what no such operation touches is as the checkpoint has it; after it, everything
is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mirrortool.errors import NoSpaceError
from mirrortool.store.spanned import SpannedStore
from mirrortool.volume import VolumeSet, place
from tests.fakes.backings import Backings, address_in
from tests.fakes.disk import Disk, PowerCut, cut_at, faulty, no_fault

PAGE = 512
NAMES = ("a", "b")

Step = tuple[str, int, int]
"""What, where, and how much: of "write" and "zero" a page of all volumes together, and how many; of "resize" a volume
and its pages; of "begin", "end", "sync" and "reopen" nothing."""
Contents = dict[str, bytearray]


@dataclass
class Driver:
    """A store over backings, and what it must hold."""

    backings: Backings
    sizes: dict[str, int]
    now: Contents = field(init=False)
    saved: Contents = field(init=False)  # at the newest durable checkpoint
    begun: tuple[Contents, int] | None = field(default=None, init=False)  # what it will hold, and its place in `log`
    log: list[tuple[Step, int]] = field(default_factory=list, init=False)  # since `saved`, each with a number
    skipped: int = field(default=0, init=False)  # for which there was no room
    waited: int = field(default=0, init=False)  # for which there was room after a checkpoint
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.now = {name: bytearray(size) for name, size in self.sizes.items()}
        self.saved = _copy(self.now)

    def volumes(self, contents: Contents) -> VolumeSet:
        return place([(name, len(content)) for name, content in contents.items()], PAGE)

    def open(self, *, write: bool = True) -> SpannedStore:
        """As of the newest durable checkpoint."""
        return self.backings.open(self.volumes(self.saved), write=write)

    def play(self, store: SpannedStore, steps: Sequence[Step]) -> None:
        """Do these steps; an operation that finds no room is done after a checkpoint, or not at all."""
        for step in steps:
            what, at, count = step
            if what == "sync":
                store.sync()
            elif what == "begin":
                if self.begun is None:
                    store.begin_checkpoint()
                    self.begun = _copy(self.now), len(self.log)
            elif what == "end":
                self.end(store)
            elif self._find_room(store, what, at, count):
                self._count += 1
                self.log.append((step, self._count))
                self.do(store, step, self._count, self.now)

    def end(self, store: SpannedStore) -> None:
        """The checkpoint that was begun becomes durable."""
        if self.begun is None:
            return
        store.sync()
        contents, place_in_log = self.begun
        self.saved, self.log, self.begun = contents, self.log[place_in_log:], None
        store.end_checkpoint()

    def _find_room(self, store: SpannedStore, what: str, at: int, count: int) -> bool:
        if what != "write":
            return True
        name, page, number = self._where(at, count, self.now)
        if not number:
            return False
        first = store.volumes.first_page(store.volumes[name]) + page
        try:
            store.reserve([(first, number)], number * PAGE)
            return True
        except NoSpaceError:
            if not store.frees_wait:
                self.skipped += 1
                return False
        self.end(store)
        self.play(store, [("begin", 0, 0), ("end", 0, 0)])
        try:
            store.reserve([(first, number)], number * PAGE)
            self.waited += 1
            return True
        except NoSpaceError:
            self.skipped += 1
            return False

    def do(self, store: SpannedStore, step: Step, version: int, contents: Contents) -> None:
        """Do an operation in the store and in the model; what is written is of this version, and no other."""
        what, at, count = step
        if what == "resize":
            name, size = NAMES[at % len(contents)], count * PAGE // 2
            kept = size - size % PAGE if size < len(contents[name]) else len(contents[name])
            contents[name] = contents[name][:kept].ljust(size, b"\0")
            store.resize(name, size)
            return
        name, page, number = self._where(at, count, contents)
        if not number:
            return
        first = store.volumes.first_page(store.volumes[name]) + page
        data = b"".join(_pattern(version, each) for each in range(number)) if what == "write" else bytes(number * PAGE)
        if what == "write":
            half = number // 2 * PAGE
            buffers = [memoryview(part) for part in (data[:half], data[half:]) if part]
            store.write([(first, buffers, len(data))])
        else:
            store.zero(first, number)
        place_of = slice(page * PAGE, min(len(contents[name]), (page + number) * PAGE))
        contents[name][place_of] = data[: place_of.stop - place_of.start]

    def touched(self, contents: Contents) -> dict[str, set[int]]:
        """The pages that redo goes over, by volume."""
        found: dict[str, set[int]] = {name: set() for name in contents}
        sizes = {name: bytearray(len(content)) for name, content in contents.items()}
        for (what, at, count), _ in self.log:
            if what == "resize":
                name = NAMES[at % len(sizes)]
                found[name] |= set(range(min(len(sizes[name]), count * PAGE // 2) // PAGE, 1 << 10))
                sizes[name] = bytearray(count * PAGE // 2)
            else:
                name, page, number = self._where(at, count, sizes)
                found[name] |= set(range(page, page + number))
        return found

    def check(self, store: SpannedStore, contents: Contents, but: dict[str, set[int]] | None = None) -> None:
        """Each page is what it must be, also where `data_runs` leaves it out."""
        for name, content in contents.items():
            first, count = store.volumes.first_page(store.volumes[name]), store.volumes.page_count(store.volumes[name])
            found = bytearray(count * PAGE)
            if count:
                store.read_into(first, [memoryview(found)])
            wanted = bytes(content).ljust(count * PAGE, b"\0")
            left_out = but[name] if but else set()
            runs = list(store.data_runs(first, count)) if count else []
            with_data = {page - first for run, number in runs for page in range(run, run + number)}
            for page in range(count):
                part = slice(page * PAGE, page * PAGE + PAGE)
                if page not in left_out:
                    assert found[part] == wanted[part], (name, page)
                    assert page in with_data or not any(wanted[part]), (name, page)

    def crash_and_check(self, *, spoils: bool) -> None:
        """What a crash left is the checkpoint but for what redo touches, to a reader and to a writer."""
        self.begun = None
        if spoils:
            self.backings.spoil_claimed()
        self.backings.assert_free_is_zero()
        touched = self.touched(self.saved)
        for write in (False, True):
            store = self.open(write=write)
            try:
                self.check(store, self.saved, touched)
            finally:
                store.close()
        self.backings.assert_free_is_zero()

    def check_at_rest(self) -> None:
        """When redo has made the next checkpoint, no claim is left, and no extent has two cells."""
        store = self.open()
        self.redo(store)
        self.play(store, [("begin", 0, 0), ("end", 0, 0)])
        self.check(store, self.now)
        store.close()
        store = self.open(write=False)
        self.check(store, self.now)
        store.close()
        self.backings.assert_free_is_zero()
        records = [record for cells in self.backings.cells() for record, _ in cells if any(record)]
        addresses = list(map(address_in, records))
        assert None not in addresses, "a claim is left"
        assert len(set(addresses)) == len(addresses), "two cells have one extent"

    def redo(self, store: SpannedStore) -> None:
        """Do again what followed the checkpoint."""
        self.now = _copy(self.saved)
        for step, version in self.log:
            self.do(store, step, version, self.now)
        self.check(store, self.now)

    def _where(self, at: int, count: int, contents: Contents) -> tuple[str, int, int]:
        """Volume, page and number of pages of an operation."""
        name = NAMES[at % len(contents)]
        pages = -(-len(contents[name]) // PAGE)
        page = at // len(contents) % max(1, pages)
        return name, page, min(count, pages - page)


def run_up_to(
    driver: Driver, steps: Sequence[Step], cut: int, lose: Callable[[Disk], object] | None, spoils: bool
) -> int:
    """Open, redo and do these steps, or as many as the power lasts; then crash and check. Returns the calls made."""
    with faulty(cut_at(cut) if cut else no_fault) as system:
        store = None
        try:
            store = driver.open()
            driver.redo(store)
            driver.play(store, steps)
            driver.check(store, driver.now)
            store.close()
        except PowerCut:
            pass
        calls = len(system.calls)
        if lose:
            lose(system.disk)
        if store:  # as a process that is killed
            store._backings.close()
    driver.crash_and_check(spoils=spoils)
    return calls


def _copy(contents: Contents) -> Contents:
    return {name: bytearray(content) for name, content in contents.items()}


def _pattern(version: int, page: int) -> bytes:
    return b"%09d %05d." % (version, page) * (PAGE // 16)
