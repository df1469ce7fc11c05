"""The held volumes of a primary: open for writing, and locked against other programs that use locks, such as QEMU.

Rule: before anything is written to a volume, it is checked to be as the recorder left it, as far as can be told:

    a file, after a clean stop                    has the very same change time (ctime)
    after kill -9 between two write-backs         the same: each notes in JOURNAL/seen.json the times that it leaves
    after a crash within one, or a power cut      is no younger than the newest frame allows: no byte reaches it before
                                                  its frame is durable, and a long write-back keeps journaling the time
    a device, after a clean stop                  was not written, as the kernel counts it (sysfs)
    both, after a crash in the same boot          each page to be redone has the sum that it had at the checkpoint, or
                                                  one that the journal gave it since
    both, at every start                          is the same file or disk, and samples of its pages have the sums that
                                                  they had at the checkpoint, or one given since (volumeidentity.py)

The last but one is not checked after a power cut, which may tear a page, nor for pages that kill -9 can tear
(recovery.py). A device that was away meanwhile, in the same boot, is as after a power cut.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from mirrortool import files, hostinfo
from mirrortool.address import adjacent_runs, split_at
from mirrortool.checksum import page_sums, unpack_sums
from mirrortool.errors import ChangedOutsideError, HostError, UnusableVolumeError
from mirrortool.files import Facts, File
from mirrortool.journal.directory import Journal
from mirrortool.journal.recordercheckpoint import RecorderCheckpoint, VolumeRecord
from mirrortool.operation import Batch
from mirrortool.record.scansources import check_apart, inspect_volume, paths_of
from mirrortool.record.volumeidentity import find_foreign, find_other, was_reattached
from mirrortool.store.flat import FlatStore
from mirrortool.store.interface import Store
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import VolumeSet
from mirrortool.wording import exact_bytes

STALL_NS = 10 * 10**9
"""A write-back journals the time again before its writes are this much younger than the newest frame."""
_PIECE_PAGES = 256


class HeldVolumes:
    """Every volume of a journal; `with` releases them."""

    def __init__(self, journal: Journal) -> None:
        """Open and lock them.

        Raises:
            UnusableVolumeError: one does not exist, or cannot be a volume.
            LockedError: another process has one open for writing.
        """
        self._journal = journal
        paths = paths_of(journal)
        check_apart(journal.path, paths, recorded=paths)
        # _seen_lock protects the file of times and _writers, how many are in `writing`; always the last lock.
        self._seen_lock = threading.Lock()
        self._writers = 0
        with ExitStack() as opening:
            self._seen = opening.enter_context(files.open_file(journal.seen_path, write=True, create=True))
            self._files = {volume.name: opening.enter_context(_open(paths[volume.name])) for volume in journal.volumes}
            self._opened = opening.pop_all()

    def __enter__(self) -> HeldVolumes:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close files and release locks; calling it again does nothing."""
        self._opened.close()

    def store(self, volumes: VolumeSet) -> Store:
        """A store over them; closing it closes them."""
        return FlatStore(volumes, self._files)

    def device_size(self, name: str) -> int | None:
        """How large the device of a volume is, in bytes; None if the volume is a file."""
        file = self._files[name]
        return file.size() if file.facts().identity.is_device else None

    def resize_file(self, name: str, size: int) -> None:
        """Give the file of a volume another size, durably."""
        with self.writing():
            self._files[name].truncate(size)
            self._files[name].fdatasync()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The volumes are written in here, and nowhere else; unless that fails, their times are noted at the end."""
        with self._seen_lock:
            self._writers += 1
            self._seen.truncate(0)
        is_done = False
        try:
            yield
            is_done = True
        finally:
            with self._seen_lock:
                self._writers -= 1
                if is_done and not self._writers:
                    self._note(are_synced=False)

    def note_as_left(self, *, are_synced: bool) -> None:
        """Note how the volumes are, for the next start to compare; `are_synced` if nothing waits in the page cache."""
        with self._seen_lock:
            if not self._writers:
                self._note(are_synced)

    def _note(self, are_synced: bool) -> None:
        facts = self._facts()
        noted = {
            "boot_id": hostinfo.boot_id(),
            "changed_ns": {name: each.changed_ns for name, each in facts.items() if not each.identity.is_device},
            "sectors": {
                name: hostinfo.sectors_written(each.identity)
                for name, each in facts.items()
                if each.identity.is_device and are_synced
            },
        }
        with suppress(HostError):  # without room for it, the next start knows less
            self._seen.truncate(0)
            self._seen.pwrite(json.dumps(noted).encode(), 0)

    def _facts(self) -> dict[str, Facts]:
        return {name: file.facts() for name, file in self._files.items()}

    def records(self) -> dict[str, VolumeRecord]:
        """What to remember of each, as it is now."""
        return {name: VolumeRecord.of(facts) for name, facts in self._facts().items()}

    def check_as_left(
        self, checkpoint: RecorderCheckpoint, *, was_clean: bool, newest_ns: int | None, lacking: int
    ) -> None:
        """Check that each volume is as the recorder left it, as far as its inode tells.

        Args:
            lacking: how many frames the volumes may lack, which a scan that accepts them as they are gives up.
            newest_ns: the time of the newest frame; None if the volumes were written without any.
        Raises:
            ChangedOutsideError: one is not as it was; nothing was written.
        """
        seen = _Seen(self._seen)
        for name, file in self._files.items():
            known = checkpoint.volumes.get(name)
            if known is None:
                continue
            changed_ns = None if was_clean else seen.changed_ns.get(name)
            is_exact = was_clean or changed_ns is not None
            known = replace(known, changed_ns=known.changed_ns if changed_ns is None else changed_ns)
            problem = _problem(file, known, is_exact, newest_ns)
            if not problem and was_clean and seen.sectors.get(name) is not None:
                now = VolumeRecord.of(file.facts())
                is_same = was_reattached(known, now) or hostinfo.sectors_written(now.identity) == seen.sectors[name]
                problem = None if is_same else "the device was written since the recorder stopped"
            if problem:
                raise _changed(name, file.path, problem, lacking)

    def check_samples(
        self, sums: PageSums, in_flight: Iterable[Batch], *, without: Collection[str], lacking: int
    ) -> None:
        """Check that samples of pages have the sums that the table gives them, or one of what is in flight.

        Args:
            without, lacking: see check_pages.
        Raises:
            ChangedOutsideError: one has another sum; nothing was written.
        """
        names = set(self._files) - set(without)
        if foreign := find_foreign(self._journal, self.store(sums.volumes), sums, in_flight, names):
            problem = f"page {foreign.page} is not what was recorded"
            raise _changed(foreign.volume, self._files[foreign.volume].path, problem, lacking)

    def reattached(self, checkpoint: RecorderCheckpoint) -> set[str]:
        """The devices that were away since that checkpoint, which is of this boot."""
        return {
            name
            for name, record in self.records().items()
            if name in checkpoint.volumes and was_reattached(checkpoint.volumes[name], record)
        }

    def check_sizes(self, volumes: VolumeSet) -> None:
        """Check that each volume has the size that the journal knows.

        Raises:
            UnusableVolumeError: one has another, which only a scan journals.
        """
        for volume in volumes:
            file = self._files[volume.name]
            facts = file.facts()
            if facts.size < volume.size or (facts.size != volume.size and not facts.identity.is_device):
                raise UnusableVolumeError(
                    f"has {exact_bytes(facts.size)}, but the journal knows volume {volume.name} with "
                    f"{exact_bytes(volume.size)}",
                    where=file.path,
                    remedy="mirrortool record --scan without --nbd journals its new size",
                )

    def check_pages(
        self,
        volumes: VolumeSet,
        sums: PageSums,
        expected: Mapping[int, set[int]],
        *,
        without: Collection[str],
        lacking: int,
    ) -> None:
        """Check that pages have the sums that the table gives them, or one of those expected.

        Args:
            without: the volumes of which the table does not know everything, or that may have torn pages.
            lacking: see check_as_left.
        Raises:
            ChangedOutsideError: one has another sum; nothing was written.
        """
        store, size = self.store(volumes), volumes.page_size
        for page, count in _pieces(sorted(expected)):
            volume = volumes.find(page)
            assert volume is not None
            if volume.name in without:
                continue
            buffer = memoryview(bytearray(count * size))
            store.read_into(page, [buffer])
            found = unpack_sums(page_sums([buffer[i : i + size] for i in range(0, len(buffer), size)], size))
            for number, known in enumerate(unpack_sums(sums.read(page, count)), page):
                if found[number - page] != known and found[number - page] not in expected[number]:
                    at = number - volumes.first_page(volume)
                    problem = f"page {at} is not one that was recorded"
                    raise _changed(volume.name, self._files[volume.name].path, problem, lacking)


def _open(path: str) -> File:
    is_device = inspect_volume(path).identity.is_device
    file = files.open_file(path, write=True, exclusive=is_device)
    try:
        if not is_device:
            file.lock(exclusive=True, what="the volume")
        hostinfo.refuse_used(path)
    except BaseException:
        file.close()
        raise
    return file


class _Seen:
    """What seen.json notes of volumes in this boot, by name; nothing while they were being written.

    Attributes:
        changed_ns: of files.
        sectors: written to devices by then.
    """

    def __init__(self, file: File) -> None:
        self.changed_ns: dict[str, int] = {}
        self.sectors: dict[str, int | None] = {}
        with suppress(ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):  # empty, torn
            noted = json.loads(file.pread(files.SMALL_FILE_BYTES_MAX, 0))
            if noted["boot_id"] and noted["boot_id"] == hostinfo.boot_id():
                self.changed_ns = {str(name): int(value) for name, value in noted["changed_ns"].items()}
                self.sectors = {str(name): value for name, value in noted["sectors"].items()}


def _problem(file: File, known: VolumeRecord, is_exact: bool, newest_ns: int | None) -> str | None:
    now = file.facts()
    if other := find_other(known, VolumeRecord.of(now)):
        return other
    if now.size < known.size or (now.size != known.size and not now.identity.is_device):
        return f"it has {exact_bytes(now.size)}, not {exact_bytes(known.size)}"
    if now.identity.is_device:
        return None
    if is_exact:
        return "it was written since the recorder stopped" if now.changed_ns != known.changed_ns else None
    if not newest_ns:  # without any frame nothing was promised yet
        return None
    # The change time: a copy that keeps the modification time, as cp -p and rsync -t make it, is a change all the same.
    if now.changed_ns > max(newest_ns, known.modified_ns) + STALL_NS:
        return "it was written after the recorder had crashed"
    return None


def _changed(name: str, path: str, problem: str, lacking: int) -> ChangedOutsideError:
    frames = f"{lacking} frame{'s' * (lacking != 1)}"
    but = f", and does not write {frames} of the journal that volumes may lack" if lacking else ""
    return ChangedOutsideError(
        f"volume {name} changed outside of mirrortool: {problem}",
        where=path,
        remedy=f"record --scan accepts it as it is{but}",
    )


def _pieces(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Runs of adjacent pages among ascending ones, of bounded length: they lie in one volume, as volumes are apart."""
    for page, count in adjacent_runs(pages):
        yield from split_at(page, count, _PIECE_PAGES)
