"""What `mirrortool status --json` prints: an object for each path."""

from __future__ import annotations

from dataclasses import asdict

from mirrortool.cli.jsonoutput import hold_to_json, volume_to_json
from mirrortool.journal.diskspace import Room
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.findings import count_pages, union
from mirrortool.status import (
    Found,
    JournalStatus,
    MirrorStatus,
    SlotStatus,
    Unseen,
    Work,
    problems_of,
    world_readable_file,
)


def to_json(found: Found) -> dict[str, object]:
    """The object of one path."""
    problems = [{"text": str(each), "exit_code": each.exit_code} for each in problems_of(found)]
    return {**_fields(found), "problems": problems}


def _fields(found: Found) -> dict[str, object]:
    if isinstance(found, Unseen):
        return {"type": None, "path": found.path}
    return _journal_to_json(found) if isinstance(found, JournalStatus) else _mirror_to_json(found)


def _journal_to_json(status: JournalStatus) -> dict[str, object]:
    journal, commit = status.journal, status.commit
    return {
        "type": "journal",
        "path": journal.path,
        "uuid": journal.uuid.hex(),
        "epoch": journal.epoch,
        "page_size": journal.page_size,
        "volumes": [volume_to_json(volume) for volume in status.volumes],
        "head_lsn": status.head.lsn,
        "commit_lsn": commit.lsn if commit else None,
        "commit_kind": commit.kind.name.lower() if commit else None,
        "commit_time_ns": commit.time_ns if commit else None,
        "files": status.file_count,
        "bytes": status.size,
        "base_bytes": status.room.base_bytes,
        "free_bytes": status.room.free_bytes,
        "head_time_ns": status.time_ns,
        "silent_seconds": status.silent_seconds,
        "ahead_seconds": status.ahead_seconds,
        "damage": str(status.damage) if status.damage else None,
        "recorder": status.recorder,
        **_work_to_json(status.work),
        "next_scan_ns": journal.next_scan.begins_ns if journal.next_scan else None,
        "slots": [_reader_to_json(reader, status.room) for reader in status.readers],
        "holds": [hold_to_json(hold, status.room.held_bytes(hold)) for hold in status.holds],
        "is_open": world_readable_file(status) is not None,
    }


def _work_to_json(work: Work) -> dict[str, object]:
    return {"at_work": work.is_on, "worker": asdict(work.worker) if work.worker else None}


def _reader_to_json(reader: SlotStatus, room: Room) -> dict[str, object]:
    slot = reader.slot
    lag = None
    if reader.lag_operations is not None:
        lag = {"operations": reader.lag_operations, "seconds": reader.lag_seconds}
    return {
        "name": slot.name,
        "kind": slot.kind,
        "where": slot.where,
        "applied_lsn": slot.position.lsn,
        "time_ns": slot.time_ns,
        "updated_ns": slot.updated_ns,
        "is_lost": slot.is_lost,
        "via": slot.via,
        "is_contained": reader.is_contained,
        "lag": lag,
        "held_bytes": room.held_bytes(slot),
        **_work_to_json(reader.work),
    }


def _mirror_to_json(status: MirrorStatus) -> dict[str, object]:
    mirror, checkpoint = status.mirror, status.checkpoint
    lag = None
    if status.lag_operations is not None:
        lag = {"operations": status.lag_operations, "seconds": status.lag_seconds}
    return {
        "type": "mirror",
        "path": mirror.path,
        "journal": mirror.journal_path,
        "journal_uuid": mirror.journal_uuid.hex(),
        "volumes": _mirror_volumes_to_json(mirror),
        "backings": [
            {
                "uuid": backing.kept.uuid.hex(),
                "path": backing.kept.path,
                "size": backing.header.size if backing.header else None,
                "is_draining": backing.kept.is_draining,
                "problem": backing.problem.what if backing.problem else None,
            }
            for backing in status.backings
        ],
        "applied_lsn": checkpoint.position.lsn,
        "commit_lsn": checkpoint.commit_lsn,
        "reached_lsn": checkpoint.reached_lsn,
        "is_consistent": checkpoint.is_consistent,
        "is_fuzzy": checkpoint.is_fuzzy,
        "is_incomplete": checkpoint.is_incomplete,
        "state_sum": f"{checkpoint.state_sum:016x}",
        "time_ns": checkpoint.time_ns,
        "head_lsn": status.journal.head.lsn if status.journal else None,
        "head_time_ns": status.journal.time_ns if status.journal else None,
        "silent_seconds": status.journal.silent_seconds if status.journal else None,
        "ahead_seconds": status.journal.ahead_seconds if status.journal else None,
        "lag": lag,
        **_work_to_json(status.work),
        "verified": _verified_to_json(status),
        "known_bad": _known_bad_to_json(status),
        "promoted": mirror.promoted.to_json() if mirror.promoted else None,
        "last_replay": asdict(status.last_replay) if status.last_replay else None,
        "is_open": world_readable_file(status) is not None,
    }


def _mirror_volumes_to_json(mirror: Mirror) -> list[dict[str, object]]:
    return [
        {
            **volume_to_json(volume),
            "kind": kept.place.kind,
            "place": kept.place.describe(mirror.path),
            "is_guarded": kept.place.why_not_guarded() is None,
        }
        for volume, kept in zip(mirror.volumes, mirror.kept, strict=True)
    ]


def _verified_to_json(status: MirrorStatus) -> dict[str, object] | None:
    """The newest receipt; of one that cannot be read only when it was written is known."""
    receipt = status.verified
    if receipt is None:
        return None
    if receipt.is_unreadable:
        return {"time_ns": receipt.time_ns, "applied_lsn": None, "bad_page_count": None, "is_right": None}
    return {
        "time_ns": receipt.time_ns,
        "applied_lsn": receipt.position.lsn,
        "bad_page_count": receipt.bad_pages,
        "is_right": receipt.is_right,
        "cached": receipt.is_cached,
        "through_server_cache": receipt.is_through_server,
        "other_volume": receipt.changed,
    }


def _known_bad_to_json(status: MirrorStatus) -> dict[str, object] | None:
    if not status.known_bad:
        return None
    runs = [
        {"volume": volume, "first_page": first, "count": end - first} for volume, first, end in union(status.known_bad)
    ]
    return {
        "time_ns": status.known_bad[-1].time_ns,
        "bad_page_count": count_pages(status.known_bad),
        "bad_pages": runs,
        "sums": [finding.sums for finding in status.known_bad if finding.sums],
    }
