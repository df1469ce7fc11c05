"""Metrics of a recorder for `--metrics-file`: statistics to samples (mirrortool-metrics(5))."""

from __future__ import annotations

from collections.abc import Sequence

from mirrortool import clock, files
from mirrortool.errors import HostError, JournalError, NoSpaceError
from mirrortool.journal.directory import Journal
from mirrortool.journal.diskspace import room_of
from mirrortool.journal.slots import slots
from mirrortool.metrics import Sample, samples_of, seconds_of
from mirrortool.nbd.statistics import ExportStatistics, ServerStatistics
from mirrortool.operation import CommitKind
from mirrortool.record.initialscan import InitialScanProgress
from mirrortool.record.recorder import RecorderStatistics
from mirrortool.record.scan import ScanResult


def live_samples(
    journal: str, recorder: RecorderStatistics, server: ServerStatistics, scan: InitialScanProgress, *, serving: bool
) -> list[Sample]:
    """Of a live recording; `scan` is the progress of its initial scan."""
    values: dict[str, float | None] = {
        "serving": serving,
        "problem": bool(recorder.problem),
        "full": recorder.problem_exit_code == NoSpaceError.exit_code,
        "connections": server.connections,
        "connections_refused_total": server.connections_refused,
        "client_memory_bytes": server.memory_bytes,
        "client_memory_max_bytes": server.memory_bytes_max,
        "piecemeal_requests_total": server.requests_in_pieces,
        "operations_total": recorder.operations,
        "journaled_bytes_total": recorder.bytes_journaled,
        "waiting_bytes": recorder.bytes_waiting,
        "head_lsn": recorder.head_lsn,
        "durable_lsn": recorder.durable_lsn,
        "checkpoint_lsn": recorder.checkpoint_lsn,
        "commit_lsn": recorder.commit_lsn,
        "commit_timestamp_seconds": seconds_of(recorder.commit_time_ns),
        "sync_seconds": recorder.sync_seconds,
        "incomplete_volumes": len(recorder.incomplete),
        "base_read_pages": scan.pages_done,
        "base_pages": scan.pages_total,
    }
    found = samples_of("record", {"journal": journal}, values)
    for export in server.exports:
        found += _export_samples(journal, export)
    return found


def room_samples(path: str) -> list[Sample]:
    """Of a journal's size, its slots and its file system; nothing while it cannot be read."""
    try:
        journal = Journal(path)
        room, listed = room_of(journal), slots(journal)
    except (HostError, JournalError):
        return []
    labels = {"journal": files.absolute(path)}
    values = {
        "journal_bytes": sum(size for _, size in room.file_bytes),
        "bases_bytes": room.base_bytes,
        "free_bytes": room.free_bytes,
    }
    held = [Sample("record_slot_held_bytes", {**labels, "slot": slot.name}, room.held_bytes(slot)) for slot in listed]
    return [*samples_of("record", labels, values), *held]


def _export_samples(journal: str, export: ExportStatistics) -> list[Sample]:
    values = {
        "clients": export.clients,
        "reads_total": export.reads,
        "writes_total": export.writes,
        "flushes_total": export.flushes,
        "errors_total": export.errors,
        "read_bytes_total": export.bytes_read,
        "written_bytes_total": export.bytes_written,
    }
    return samples_of("record", {"journal": journal, "volume": export.name}, values)


class ScanCount:
    """Counts the scans of one command. Used by one thread."""

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._scans = self._fuzzy = self._failed = self._bytes_journaled = 0
        self._begun_at: float | None = None
        self._seconds: float | None = None
        self._newest: ScanResult | None = None

    def begin(self) -> None:
        """A scan begins."""
        self._begun_at = clock.monotonic()

    def end(self, result: ScanResult) -> None:
        """It ended with a commit."""
        self._scans += 1
        self._fuzzy += result.kind == CommitKind.FUZZY
        self._bytes_journaled += result.statistics.bytes_journaled
        if self._begun_at is not None:
            self._seconds = clock.monotonic() - self._begun_at
        self._begun_at = None
        self._newest = result

    def fail(self) -> None:
        """Something ended with an error: the scan, unless it had ended already."""
        self._failed += self._begun_at is not None
        self._begun_at = None

    def samples(self) -> Sequence[Sample]:
        """Of the scans until now."""
        newest = self._newest
        values = {
            "scans_total": self._scans,
            "fuzzy_scans_total": self._fuzzy,
            "failed_scans_total": self._failed,
            "scan_seconds": self._seconds,
            "journaled_bytes_total": self._bytes_journaled,
            "commit_lsn": newest.commit.lsn if newest else None,
            "commit_timestamp_seconds": seconds_of(newest.time_ns) if newest else None,
        }
        return samples_of("record", {"journal": self._journal}, values)
