"""Verify: proves, page by page, that a mirror holds what the primary had at the mirror's checkpoint.

Two proofs together. Each page read from the store has the sum that the mirror's table gives it; and the table's state
sum is the one that the primary's frame at that position carries. With a journal given, the sums come from it instead,
so that the table itself is proved.

After a replay was killed, its mirror may hold pages of operations after its checkpoint. These pages are found in the
journal and are not called bad; they are not called right either.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby, islice

from mirrortool import clock, files
from mirrortool.checksum import SUM_BYTES
from mirrortool.errors import (
    AccessError,
    CorruptJournalError,
    HostError,
    JournalError,
    MirrortoolError,
    NoSpaceError,
    NotAJournalError,
    OtherJournalError,
    PrunedJournalError,
)
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.journaledsums import sums_as_of
from mirrortool.lifecycle import Opened
from mirrortool.lsn import Lsn
from mirrortool.mirror import findings, lastseen, receipts
from mirrortool.mirror.backingvolumes import missing_backings
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.findings import Finding
from mirrortool.mirror.openvolumes import open_store
from mirrortool.mirror.receipts import BadPages
from mirrortool.operation import Kind
from mirrortool.store.pageruns import RunCollector, without
from mirrortool.store.pagesums import PageSums, Proof
from mirrortool.store.parallelread import PieceReader, Run, Work, for_each_piece, pieces

BAD_RUNS_MAX = 10_000
"""The number of runs of bad pages that are listed; after them they are only counted."""
ATTRIBUTED_PAGES_MAX = 1 << 16
"""The number of bad pages of which the last write is looked for."""


@dataclass(frozen=True, slots=True)
class LastWrite:
    """What last wrote a page, as far as the journal reaches back."""

    lsn: Lsn
    time_ns: int
    file: str


@dataclass(frozen=True, slots=True)
class BadRun:
    """Adjacent pages of a volume that are not what they must be; `first_page` counts from the volume's start.

    Attributes:
        is_missing: they lie on a backing that is not there, so that nothing is known of what they hold.
    """

    volume: str
    first_page: int
    count: int
    last_write: LastWrite | None = None
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What a verification found.

    Attributes:
        checkpoint: what the mirror was compared with.
        pages_checked: all pages of all volumes that the mirror holds, but those not judged.
        bad_pages: how many.
        bad_runs: where, the first BAD_RUNS_MAX of them.
        pages_in_flight: may hold operations past the checkpoint.
        table_is_right: whether the table's state sum is the checkpoint's; None while replay is unfinished.
        journal_agrees: whether the primary's frame carries that state sum; None if its journal was not at hand.
        is_cached: pages were accepted from the kernel's cache.
        read_through: what answered in place of a device, such as "the server's cache"; None if nothing did.
        missing: why backings could not be read: what lies on them is among the bad pages.
        wrong_sums: the files of the mirror's sums that are wrong, as far as they can be told from the right ones.
        not_held: volumes of which the mirror has the sums only; these are part of the state sum.
    """

    checkpoint: Checkpoint
    pages_checked: int
    bad_pages: int
    bad_runs: Sequence[BadRun]
    pages_in_flight: int
    table_is_right: bool | None
    journal_agrees: bool | None
    started_ns: int
    seconds: float
    is_cached: bool = False
    wrong_sums: Sequence[str] = ()
    read_through: str | None = None
    not_held: Sequence[str] = ()
    missing: Sequence[MirrortoolError] = ()

    @property
    def is_right(self) -> bool:
        """Whether nothing that could be compared was wrong; of an empty mirror that says nothing."""
        return not self.bad_pages and self.table_is_right is not False and self._do_sums_agree

    @property
    def _do_sums_agree(self) -> bool:
        return self.journal_agrees is not False and not self.wrong_sums


@dataclass(frozen=True, slots=True)
class VerifyStatistics:
    """A verification at one moment, in pages."""

    pages_total: int
    pages_done: int
    bad_pages: int


class Verify:
    """A verification of an idle mirror; `with` releases its lock.

    Attributes:
        journal_error: why the mirror's own journal, which is at hand, could not be asked; None if it could.
        takes_journal_sums: whether the pages are compared with the journal, not with the mirror's table.
        known: what was known to be wrong with the mirror when it was opened.
        save_error: why the result could not be kept; None if it was.
    """

    def __init__(self, path: str, *, journal_path: str | None = None, cached: bool = False) -> None:
        """Lock and open the mirror.

        Args:
            journal_path: take the sums from this journal, not from the mirror's table.
            cached: accept pages from the kernel's cache; otherwise they are read from the device.
        Raises:
            LockedError: a replay is running.
            MirrortoolError: a guard refuses.
        """
        with ExitStack() as opening:
            self.mirror = Mirror(path)
            opening.enter_context(self.mirror.lock(exclusive=False))
            self._recorded = findings.recorded(self.mirror)
            self.save_error: HostError | None = None
            self._journal, self.journal_error = _journal_of(self.mirror, journal_path)
            self._missing = missing_backings(self.mirror)
            self._store = open_store(self.mirror, write=False)
            opening.callback(self._store.close)
            self._sums = self.mirror.open_sums(write=False)
            opening.callback(self._sums.close)
            self.takes_journal_sums = journal_path is not None
            self._opened = Opened(opening.pop_all(), "verification", path)
        self._cached = cached
        # _lock protects what the comparing threads find.
        self._lock = threading.Lock()
        self._bad = RunCollector()
        self._statistics = VerifyStatistics(0, 0, 0)
        self._is_cancelled = False

    def __enter__(self) -> Verify:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def run(self) -> VerifyResult:
        """Compare every page, and keep a receipt, and what was found.

        Raises:
            VerifyCancelled: after `cancel`; what was found by then is kept.
            MirrortoolError: the comparison itself failed; likewise.
        """
        self._opened.require()
        started_ns = clock.now_ns()
        if not self._cached:
            self._store.sync()
        before = lastseen.look(self.mirror)
        try:
            result = self._run(started_ns)
        except BaseException:
            with suppress(MirrortoolError):
                self._keep_partial(started_ns)
            raise
        self._keep(result)
        if result.is_right and lastseen.look(self.mirror) == before:
            lastseen.note(self.mirror, before)
        return result

    @property
    def known(self) -> Sequence[Finding]:
        return [finding for finding in self._recorded if finding.counts]

    def _run(self, started_ns: int) -> VerifyResult:
        started, checkpoint = clock.monotonic(), self.mirror.checkpoint
        journal_sum = self._ask_journal()
        with ExitStack() as scratch:
            # The table is read beside the pages: the one wants the interpreter where the other wants the device.
            pool = scratch.enter_context(ThreadPoolExecutor(max_workers=1))
            proof = pool.submit(self._sums.prove) if checkpoint.is_finished else None
            sums = self._sums
            if self.takes_journal_sums:
                sums = scratch.enter_context(self._sums_from_journal())
            self._compare(sums)
            proved = proof.result() if proof else None
        table_is_right = proved.state_sum == checkpoint.state_sum if proved else None
        bad, excused = without(self._bad.merged(), self._runs_not_judged())
        return VerifyResult(
            checkpoint,
            self._statistics.pages_total - excused,
            sum(count for _, count in bad),
            self._attribute(bad[:BAD_RUNS_MAX])[:BAD_RUNS_MAX],
            excused,
            table_is_right,
            None if journal_sum is None else journal_sum == checkpoint.state_sum,
            started_ns,
            clock.monotonic() - started,
            self._cached,
            self._wrong_files(proved, journal_sum) if proved else (),
            self.mirror.read_through,
            [kept.name for kept in self.mirror.kept if not kept.is_held],
            self._missing,
        )

    def _wrong_files(self, proved: Proof, journal_sum: int | None) -> list[str]:
        """Which files are wrong: of the segments, where the page sums are as the checkpoint or the journal says."""
        segments = [self._sums.segments_path(name) for name in proved.contradicted]
        if proved.state_sum == self.mirror.checkpoint.state_sum:
            return segments
        if proved.state_sum == journal_sum:
            return [self.mirror.checkpoint_path, *segments]
        return [self._sums.sums_path(name) for name in proved.contradicted] or [self.mirror.sums_path]

    def _keep(self, result: VerifyResult) -> None:
        """Write down what was found; a mirror on a read-only or full file system keeps nothing."""
        mirror, name = self.mirror, receipts.name_of(result.started_ns)
        try:
            if not result.is_right:
                findings.save(mirror, _finding(name, result))
            if result.checkpoint.position.lsn or not result.is_right:
                receipts.keep(mirror, name, to_json(mirror, result))
            if result.checkpoint.is_finished:  # else pages are excused that may be bad
                findings.supersede(mirror, self._recorded, is_cached=self._cached)
        except (AccessError, NoSpaceError) as error:
            self.save_error = error

    def _keep_partial(self, started_ns: int) -> None:
        """Write down what was found before the verification was stopped, or failed; it disproves nothing."""
        bad, _ = without(self._bad.merged(), self._runs_not_judged())
        if not bad:
            return
        runs = [BadPages(run.volume, run.first_page, run.count) for run in self._attribute(bad[:BAD_RUNS_MAX])]
        found, name = sum(count for _, count in bad), receipts.name_of(started_ns)
        unlisted = found - sum(run.count for run in runs)
        at = self.mirror.checkpoint.position
        findings.save(
            self.mirror, Finding(name, started_ns, at, runs, unlisted, found, "", self._cached, is_partial=True)
        )

    def cancel(self) -> None:
        """Stop soon; from any thread."""
        self._is_cancelled = True

    def statistics(self) -> VerifyStatistics:
        """How far it is; from any thread."""
        return self._statistics

    def _ask_journal(self) -> int | None:
        """The state sum that the primary's frame at the checkpoint carries; None if that cannot be asked."""
        checkpoint = self.mirror.checkpoint
        if self._journal is None or checkpoint.resync_lsn:
            return None
        with JournalReader(self._journal, checkpoint.position) as reader:
            return reader.state_sum

    def _compare(self, sums: PageSums) -> None:
        """Compare every page with its sum; what differs goes to `_bad`."""
        volumes = sums.volumes
        held = [volumes[name] for name in self.mirror.held]
        total = sum(volumes.page_count(volume) for volume in held)
        self._statistics = VerifyStatistics(total, 0, 0)
        if not self._cached:
            self._store.sync()  # only clean pages can be dropped
            self._store.drop_caches()
        done = 0
        for volume in held:
            for_each_piece(self._store, volumes.page_size, pieces(self._store, sums, volume), self._comparer(sums))
            done += volumes.page_count(volume)
            self._statistics = replace(self._statistics, pages_done=done)

    def _comparer(self, sums: PageSums) -> Work:
        def compare(reader: PieceReader, page: int, count: int) -> None:
            if self._is_cancelled:
                raise VerifyCancelled
            found, known = reader.sums(count), sums.read(page, count)
            places = [] if found == known else [place for place in range(count) if _differ(found, known, place)]
            with self._lock:
                for place in places:
                    self._bad.add((page + place, 1))
                now = self._statistics
                self._statistics = VerifyStatistics(
                    now.pages_total, now.pages_done + count, now.bad_pages + len(places)
                )

        return compare

    @contextmanager
    def _sums_from_journal(self) -> Iterator[PageSums]:
        """A table made of the journal's operations up to the checkpoint, from LSN 1 or from a base on."""
        journal, checkpoint = self._journal, self.mirror.checkpoint
        assert journal is not None
        with ExitStack() as opened:
            directory = opened.enter_context(files.temporary_directory())
            sums = opened.enter_context(closing(sums_as_of(journal, directory, checkpoint.position.lsn)))
            if sums.state_sum != checkpoint.state_sum:
                raise CorruptJournalError(
                    f"its operations up to LSN {checkpoint.position.lsn} do not give its own state sum",
                    where=journal.path,
                    remedy="mirrortool verify of the journal names the frame",
                )
            yield sums

    def _runs_not_judged(self) -> list[Run] | None:
        """Pages of operations after the checkpoint that the store may hold; None if that cannot be known."""
        checkpoint = self.mirror.checkpoint
        if checkpoint.is_finished:
            return []
        if self._journal is None or checkpoint.resync_lsn:
            return None
        runs = RunCollector()
        with JournalReader(self._journal, checkpoint.position) as reader:
            for page, count, _ in _touched(reader, self._sums, checkpoint.reached_lsn):
                runs.add((page, count))
        return runs.merged()

    def _attribute(self, bad: Sequence[Run]) -> list[BadRun]:
        """Name volume and place of bad pages, and what last wrote them, if the journal tells; a run for each writer."""
        last: dict[int, LastWrite] = {}
        bad, missing = self._cut_at_missing(bad)
        if bad and self._journal is not None:
            wanted = list(
                islice((page for first, count in bad for page in range(first, first + count)), ATTRIBUTED_PAGES_MAX)
            )
            with suppress(JournalError), JournalReader(self._journal) as reader:
                last = _last_writes(reader, self._sums, wanted, self.mirror.checkpoint.position.lsn)
        found = []
        for page, count, write in _by_writer(bad, last):
            volume = self._sums.volumes.find(page)
            assert volume is not None
            place = page - self._sums.volumes.first_page(volume)
            found.append(BadRun(volume.name, place, count, write, is_missing=_is_in(page, missing)))
        return found

    def _cut_at_missing(self, bad: Sequence[Run]) -> tuple[Sequence[Run], list[Run]]:
        """The same pages, in runs of which nothing or all is missing; and those of which all is."""
        missing = [run for page, count in bad for run in self._store.missing_runs(page, count)]
        there, _ = without(bad, missing)
        return sorted([*there, *missing]), missing


class VerifyCancelled(Exception):
    """The verification was told to stop."""


def _journal_of(mirror: Mirror, path: str | None) -> tuple[Journal | None, JournalError | None]:
    """The journal given, or the mirror's own if it is at hand, or why that is not this mirror's any more.

    Raises:
        JournalError: the one given is none, or another's.
    """
    if path is not None:
        journal = Journal(path)
        mirror.check_is_of(journal)
        return journal, None
    try:
        journal = Journal(mirror.journal_path)
        mirror.check_is_of(journal)
        if not mirror.checkpoint.resync_lsn:
            JournalReader(journal, mirror.checkpoint.position).close()
        return journal, None
    except (HostError, NotAJournalError, OtherJournalError, PrunedJournalError):
        return None, None
    except JournalError as error:
        return None, error


def _touched(reader: JournalReader, sums: PageSums, up_to_lsn: Lsn) -> Iterator[tuple[int, int, LastWrite]]:
    """Every run of pages that an operation up to an LSN touches; a RESIZE may touch everything after its end."""
    for header in reader.up_to(up_to_lsn):
        file = files.base_name(reader.journal.file_path(reader.file_first_lsn))
        for lsn, (kind, page, count, *_) in enumerate(reader.batch(payload=False).runs(), header.first_lsn):
            if kind in (Kind.WRITE, Kind.ZERO):
                yield page, count, LastWrite(Lsn(lsn), header.time_ns, file)
            elif kind == Kind.RESIZE and (volume := sums.volumes.starting_at(page)):
                kept = count // sums.page_size
                limit = sums.volumes.limit_of(volume) // sums.page_size
                yield page + kept, limit - kept, LastWrite(Lsn(lsn), header.time_ns, file)


def _last_writes(reader: JournalReader, sums: PageSums, wanted: Sequence[int], up_to_lsn: Lsn) -> dict[int, LastWrite]:
    """For ascending pages, the last operation that touched each."""
    last: dict[int, LastWrite] = {}
    for page, count, write in _touched(reader, sums, up_to_lsn):
        begin, end = bisect.bisect_left(wanted, page), bisect.bisect_left(wanted, page + count)
        last.update(dict.fromkeys(wanted[begin:end], write))
    return last


def _by_writer(runs: Sequence[Run], last: Mapping[int, LastWrite]) -> Iterator[tuple[int, int, LastWrite | None]]:
    """The runs (first page, count), cut where the last writer changes."""
    budget = ATTRIBUTED_PAGES_MAX
    for first, count in runs:
        asked = min(count, budget)
        budget -= asked
        for write, pages in groupby(range(first, first + asked), last.get):
            members = list(pages)
            yield members[0], len(members), write
        if asked < count:
            yield first + asked, count - asked, None


def _is_in(page: int, runs: Sequence[Run]) -> bool:
    """Whether a page is in one of ascending runs."""
    place = bisect.bisect_right(runs, page, key=lambda run: run[0]) - 1
    return place >= 0 and page < runs[place][0] + runs[place][1]


def _differ(found: bytes, known: bytes, place: int) -> bool:
    part = slice(place * SUM_BYTES, (place + 1) * SUM_BYTES)
    return found[part] != known[part]


def _finding(name: str, result: VerifyResult) -> Finding:
    """What is to be taken as wrong from now on."""
    runs = [BadPages(run.volume, run.first_page, run.count) for run in result.bad_runs]
    return Finding(
        name,
        result.started_ns,
        result.checkpoint.position,
        runs,
        result.bad_pages - sum(run.count for run in runs),
        result.bad_pages,
        _what_is_wrong_with_sums(result),
        result.is_cached,
    )


def _what_is_wrong_with_sums(result: VerifyResult) -> str:
    if result.wrong_sums:
        return f"its sums are wrong: {', '.join(map(files.base_name, result.wrong_sums))}"
    return "" if result.journal_agrees is not False else "the journal has another state sum there"


def to_json(mirror: Mirror, result: VerifyResult) -> dict[str, object]:
    """A result as `verify --json` prints it and as a receipt keeps it."""
    checkpoint = result.checkpoint
    return {
        "mirror": mirror.path,
        "mirror_uuid": mirror.uuid.hex(),
        "journal_uuid": mirror.journal_uuid.hex(),
        "applied_lsn": checkpoint.position.lsn,
        "chain": f"{checkpoint.position.chain:016x}",
        "state_sum": f"{checkpoint.state_sum:016x}",
        "is_commit": checkpoint.is_commit and checkpoint.position.lsn > 0,
        "is_fuzzy": checkpoint.is_fuzzy,
        "is_incomplete": checkpoint.is_incomplete,
        "replay_finished": checkpoint.is_finished,
        "pages_checked": result.pages_checked,
        "pages_in_flight": result.pages_in_flight,
        "bad_page_count": result.bad_pages,
        "bad_pages": [_run_to_json(run) for run in result.bad_runs],
        "table_is_right": result.table_is_right,
        "journal_agrees": result.journal_agrees,
        "wrong_sums": list(result.wrong_sums),
        "volumes_not_held": list(result.not_held),
        "missing_backings": [{"path": str(each.where), "problem": each.what} for each in result.missing],
        "cached": result.is_cached,
        "through_server_cache": result.read_through is not None,
        "volumes": receipts.identities(mirror),
        "time_ns": result.started_ns,
        "seconds": round(result.seconds, 3),
    }


def _run_to_json(run: BadRun) -> dict[str, object]:
    last = run.last_write
    return {
        "volume": run.volume,
        "first_page": run.first_page,
        "count": run.count,
        "lsn": last.lsn if last else None,
        "time_ns": last.time_ns if last else None,
        "file": last.file if last else None,
        "is_missing": run.is_missing,
    }
