"""The primary's volumes, open for writing and held against every other writer that asks: QEMU does.

Rule: whoever writes to a volume has first made sure that it is as the recorder left it. After a clean stop a file has
the very same change time (ctime); after a crash it was written no later than the newest frame allows, as no byte
reaches it before its frame is durable, and a recorder that still writes keeps journaling the time. A device has no
times: each page to be redone has the sum that it had at the checkpoint, or one that the journal gave it since. That
does not hold after a power cut, which may tear a page, nor for pages that kill -9 can tear (recovery.py): then a device
is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import groupby

from mirrortool import files
from mirrortool.checksum import page_sums, unpack_sums
from mirrortool.errors import ChangedOutsideError, UnusableVolumeError
from mirrortool.files import File
from mirrortool.journal.directory import Journal, RecorderCheckpoint, VolumeRecord
from mirrortool.record.sources import check_apart, inspect_volume
from mirrortool.store.flat import FlatStore
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import VolumeSet

STALL_NS = 10 * 10**9
"""A write-back journals the time again before its writes are this much younger than the newest frame."""
_PIECE_PAGES = 256


class HeldVolumes:
    """Every volume of a journal; `with` gives them back."""

    def __init__(self, journal: Journal) -> None:
        """Open and lock them.

        Raises:
            UnusableVolumeError: one is not there, or is no volume.
            LockedError: somebody else has one open for writing.
        """
        paths = journal.volume_paths()
        missing = [volume.name for volume in journal.volumes if volume.name not in paths]
        if missing:
            raise UnusableVolumeError(f"no path is known for volume {missing[0]}", where=journal.path)
        check_apart(journal.path, paths)
        with ExitStack() as opening:
            self._files = {volume.name: opening.enter_context(_open(paths[volume.name])) for volume in journal.volumes}
            self._opened = opening.pop_all()

    def __enter__(self) -> HeldVolumes:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give files and locks back; calling it again does nothing."""
        self._opened.close()

    def store(self, volumes: VolumeSet) -> FlatStore:
        """A store over them; closing it closes them."""
        return FlatStore(volumes, self._files)

    def records(self) -> dict[str, VolumeRecord]:
        """What to remember of each, as it is now."""
        return {name: VolumeRecord.of(file.facts()) for name, file in self._files.items()}

    def check_as_left(self, checkpoint: RecorderCheckpoint, *, was_clean: bool, newest_ns: int | None) -> None:
        """Each volume is as the recorder left it, as far as its inode tells.

        Args:
            newest_ns: the time of the newest frame; None if the volumes were written without any.
        Raises:
            ChangedOutsideError: one is not; nothing was written.
        """
        for name, file in self._files.items():
            known = checkpoint.volumes.get(name)
            problem = known and _problem(file, known, was_clean, newest_ns)
            if problem:
                raise _changed(name, file.path, problem)

    def check_sizes(self, volumes: VolumeSet) -> None:
        """Each volume has the size that the journal knows.

        Raises:
            UnusableVolumeError: one has another, which only a scan journals.
        """
        for volume in volumes:
            file = self._files[volume.name]
            facts = file.facts()
            if facts.size < volume.size or (facts.size != volume.size and not facts.identity.is_device):
                raise UnusableVolumeError(
                    f"has {facts.size} bytes, but the journal knows volume {volume.name} with {volume.size}",
                    where=file.path,
                    remedy="mirrortool record --scan without --nbd journals its new size",
                )

    def check_pages(self, volumes: VolumeSet, sums: PageSums, expected: Mapping[int, set[int]]) -> None:
        """Pages of devices have the sums that the table gives them, or one of those expected.

        Raises:
            ChangedOutsideError: one has not; nothing was written.
        """
        store = self.store(volumes)
        on_devices = {name for name, file in self._files.items() if file.facts().identity.is_device}
        for page, count in _runs(sorted(expected)):
            volume = volumes.find(page)
            assert volume is not None
            if volume.name not in on_devices:
                continue
            size = volumes.page_size
            buffer = memoryview(bytearray(count * size))
            store.read_into(page, [buffer])
            found = unpack_sums(page_sums([buffer[i : i + size] for i in range(0, len(buffer), size)], size))
            for number, known in enumerate(unpack_sums(sums.read(page, count)), page):
                if found[number - page] != known and found[number - page] not in expected[number]:
                    at = number - volumes.first_page(volume)
                    raise _changed(volume.name, self._files[volume.name].path, f"page {at} is none that was recorded")


def _open(path: str) -> File:
    is_device = inspect_volume(path).identity.is_device
    file = files.open_file(path, write=True, exclusive=is_device)
    try:
        if not is_device:
            file.lock(exclusive=True, what="the volume")
    except BaseException:
        file.close()
        raise
    return file


def _problem(file: File, known: VolumeRecord, was_clean: bool, newest_ns: int | None) -> str | None:
    now = file.facts()
    if (now.identity.inode, now.identity.is_device) != (known.identity.inode, known.identity.is_device):
        return "it is another file or device than the one recorded"
    if now.size < known.size or (now.size != known.size and not now.identity.is_device):
        return f"it has {now.size} bytes, not {known.size}"
    if now.identity.is_device:
        return None
    if was_clean and now.changed_ns != known.changed_ns:
        return "it was written since the recorder stopped"
    if not newest_ns or was_clean:  # without any frame nothing was promised yet
        return None
    if now.modified_ns > max(newest_ns, known.modified_ns) + STALL_NS:
        return "it was written after the recorder had crashed"
    return None


def _changed(name: str, path: str, problem: str) -> ChangedOutsideError:
    return ChangedOutsideError(
        f"volume {name} changed outside of mirrortool: {problem}",
        where=path,
        remedy="record --scan takes it as it is now",
    )


def _runs(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Runs of adjacent pages among ascending ones, of bounded length: they lie in one volume, as volumes are apart."""
    for _, members in groupby(enumerate(pages), lambda item: item[1] - item[0]):
        numbers = [page for _, page in members]
        for start in range(0, len(numbers), _PIECE_PAGES):
            yield numbers[start], len(numbers[start : start + _PIECE_PAGES])
