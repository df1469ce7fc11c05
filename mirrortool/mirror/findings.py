"""What verifications found wrong with a mirror, until something proves or makes it right: `MIRROR/bad/TIME.json`.

One file for each verification that found something, named by when it began. A receipt says what was so then; a finding
says what is to be taken as so now.

Rule: a finding ends where its pages were written by a replay and read back from the device; and with a later
verification of an idle mirror, begun when the finding was known, which says all there is to say itself. What was read
from the device is not disproved by what is in the kernel's cache.
Rule: a verification only adds files and removes whole ones, so that several may run at once; a replay has the mirror to
itself, and may change them.
Bound: runs of pages as many as a receipt lists; others are only counted, and end with a verification.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from mirrortool import files, jsonfile
from mirrortool.errors import HostError, MirrortoolError, NotAMirrorError
from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields
from mirrortool.lsn import NO_LSN
from mirrortool.mirror import receipts
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.receipts import BadPages
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import VolumeSet


@dataclass(frozen=True, slots=True)
class Finding:
    """What one verification found wrong, as far as it is not put right.

    Attributes:
        name: of its file.
        time_ns: when the verification began.
        position: of the mirror then.
        runs: of bad pages that are left.
        unlisted: bad pages beside these.
        found: bad pages that there were at first.
        sums: what is wrong with the mirror's sums, as a phrase; empty if nothing is.
        is_cached: it was not the device that was read.
        is_partial: the verification was stopped.
        is_unreadable: the file is not valid, so that nothing but its name is known.
    """

    name: str
    time_ns: int
    position: Position
    runs: Sequence[BadPages] = ()
    unlisted: int = 0
    found: int = 0
    sums: str = ""
    is_cached: bool = False
    is_partial: bool = False
    is_unreadable: bool = False

    @property
    def pages(self) -> int:
        """Bad pages that are left."""
        return sum(run.count for run in self.runs) + self.unlisted

    @property
    def counts(self) -> bool:
        """Whether anything is left of it."""
        return bool(self.pages or self.sums or self.is_unreadable)

    def to_json(self) -> dict[str, object]:
        return {
            "time_ns": self.time_ns,
            "position": self.position.to_json(),
            "bad_pages": [run.to_json() for run in self.runs],
            "unlisted": self.unlisted,
            "found": self.found,
            "sums": self.sums,
            "cached": self.is_cached,
            "is_partial": self.is_partial,
        }

    @classmethod
    def from_json(cls, name: str, fields: Fields) -> Finding:
        return cls(
            name,
            fields.integer("time_ns"),
            Position.from_json(fields.object("position")),
            tuple(map(BadPages.from_json, fields.objects("bad_pages"))),
            fields.integer("unlisted"),
            fields.integer("found"),
            fields.text("sums"),
            fields.flag("cached"),
            fields.flag("is_partial"),
        )


def findings(mirror: Mirror) -> list[Finding]:
    """What is known to be wrong, oldest first; one that cannot be read counts as well."""
    return [finding for finding in recorded(mirror) if finding.counts]


def recorded(mirror: Mirror) -> list[Finding]:
    """All that there is, also that of which nothing is left."""
    names = [name for name in files.list_directory(_directory(mirror)) if receipts.time_of(name) is not None]
    found = [_load(mirror, name) for name in names]
    newest = receipts.newest(mirror)
    if newest and newest.is_of_0_1 and not newest.is_right and newest.name not in names:
        found.append(_of_receipt(newest))
    return sorted((finding for finding in found if finding), key=lambda finding: finding.name)


def save(mirror: Mirror, finding: Finding) -> None:
    """Keep a finding durably.

    Raises:
        HostError: the mirror cannot be written.
    """
    files.make_directory(_directory(mirror), exist_ok=True)
    jsonfile.save(_path(mirror, finding.name), finding.to_json())


def supersede(mirror: Mirror, known: Iterable[Finding], *, is_cached: bool) -> None:
    """A later verification has said what there is to say: what was known when it began ends.

    Args:
        is_cached: it read from the kernel's cache, so that what the device was found to hold is as it was.
    """
    for finding in known:
        if is_cached and not finding.is_cached:
            if not finding.is_unreadable and not files.exists(_path(mirror, finding.name)):
                save(mirror, finding)  # it was known by an older version's receipt alone
        else:
            files.remove(_path(mirror, finding.name))


def describe(mirror: Mirror, known: Sequence[Finding], now_ns: int) -> str:
    """What is known to be wrong, and since when, as a phrase; empty if nothing is."""
    if not known:
        return ""
    newest = known[-1]
    what = " and ".join(_wrong(mirror, known))
    begun = "a verification that was stopped, begun" if newest.is_partial else "verified"
    return f"{begun} {receipts.age(now_ns - newest.time_ns)} ago: {what}"


def _wrong(mirror: Mirror, known: Sequence[Finding]) -> Iterator[str]:
    pages, found = count_pages(known), max(finding.found for finding in known)
    if pages:
        of = f" of {found} left" if pages < found else ""
        yield f"{pages} bad page{'s' * (pages != 1)}{of}"
    yield from dict.fromkeys(finding.sums for finding in known if finding.sums)
    for finding in known:
        if finding.is_unreadable:
            yield f"what it found cannot be read from {_path(mirror, finding.name)}"


def count_pages(known: Sequence[Finding]) -> int:
    """How many pages are known to be bad; one that several verifications found counts once."""
    unlisted = max((finding.unlisted for finding in known), default=0)
    return sum(end - start for _, start, end in union(known)) + unlisted


def union(known: Iterable[Finding]) -> list[tuple[str, int, int]]:
    """The bad pages that are listed, as disjoint runs: the volume, the first page and the one after the last."""
    merged: list[tuple[str, int, int]] = []
    runs = ((run.volume, run.first_page, run.first_page + run.count) for each in known for run in each.runs)
    for volume, start, end in sorted(runs):
        if merged and merged[-1][0] == volume and start <= merged[-1][2]:
            merged[-1] = volume, merged[-1][1], max(end, merged[-1][2])
        else:
            merged.append((volume, start, end))
    return merged


class Repairs:
    """What a replay puts right; with the mirror's lock held. Used by one thread at a time."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._left = findings(mirror)

    @property
    def left(self) -> Sequence[Finding]:
        """What is still known to be wrong."""
        return self._left

    def runs(self, volumes: VolumeSet) -> list[tuple[int, int]]:
        """The bad pages that are listed, as runs in the address space."""
        return [
            (volumes.first_page(volumes[name]) + first, end - first)
            for name, first, end in union(self._left)
            if name in volumes
        ]

    def mend_sums(self, sums: PageSums, checkpoint: Checkpoint) -> None:
        """Where the sums contradict each other, but those of the pages are right, the others are made of them anew."""
        wrong = [finding for finding in self._left if finding.sums]
        if not wrong or not checkpoint.is_finished or sums.compute_state_sum() != checkpoint.state_sum:
            return
        sums.rebuild()
        sums.sync()
        with suppress(HostError):
            for finding in wrong:
                self._replace(finding, replace(finding, sums=""))

    def written(self, volumes: VolumeSet, pages: Iterable[int], gone: Sequence[tuple[int, int]]) -> None:
        """These pages were written and read back; those in the runs of `gone` were made zeros, or cut off.

        A mirror that cannot be written meanwhile keeps the finding; the next verification ends it.
        """
        if not any(finding.runs for finding in self._left):
            return
        right = sorted(pages)
        with suppress(HostError):
            for finding in self._left:
                runs = [left for run in finding.runs for left in _without(run, volumes, right, gone)]
                if runs != list(finding.runs):
                    self._replace(finding, replace(finding, runs=tuple(runs)))

    def _replace(self, finding: Finding, changed: Finding) -> None:
        save(self._mirror, changed)  # also an empty one, which says more than an older version's receipt
        places = [changed if each is finding else each for each in self._left]
        self._left = [each for each in places if each.counts]


def _without(
    run: BadPages, volumes: VolumeSet, right: Sequence[int], gone: Sequence[tuple[int, int]]
) -> Iterable[BadPages]:
    """What is left of a run."""
    if run.volume not in volumes:
        return [run]
    first = volumes.first_page(volumes[run.volume])
    start, end = first + run.first_page, first + run.first_page + run.count
    holes = [(page, page + 1) for page in right[bisect.bisect_left(right, start) : bisect.bisect_left(right, end)]]
    holes += [(page, page + count) for page, count in gone if page < end and page + count > start]
    left, at = [], start
    for begin, stop in sorted(holes):
        if begin > at:
            left.append(BadPages(run.volume, at - first, begin - at))
        at = max(at, stop)
    if at < end:
        left.append(BadPages(run.volume, at - first, end - at))
    return left


def _load(mirror: Mirror, name: str) -> Finding | None:
    try:
        fields = jsonfile.load(_path(mirror, name), NotAMirrorError)
        return None if fields is None else Finding.from_json(name, fields)
    except MirrortoolError:
        return Finding(name, receipts.time_of(name) or 0, Position(NO_LSN, 0), is_unreadable=True)


def _of_receipt(receipt: receipts.Receipt) -> Finding:
    """Version 0.1.0 kept receipts alone; the newest one holds until there is another."""
    unlisted = receipt.bad_pages - sum(run.count for run in receipt.bad_runs)
    sums = receipts.SUMS_WRONG if not receipt.are_sums_right else ""
    return Finding(
        receipt.name, receipt.time_ns, receipt.position, receipt.bad_runs, max(0, unlisted), receipt.bad_pages, sums
    )


def _directory(mirror: Mirror) -> str:
    return files.join(mirror.path, "bad")


def _path(mirror: Mirror, name: str) -> str:
    return files.join(_directory(mirror), name)
