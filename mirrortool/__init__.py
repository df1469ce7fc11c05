"""mirrortool from Python: the same steps as its commands. mirrortool(3) tells more, with an example.

A journal
    init, NewVolume             make one for volumes
    Journal, Volume, VolumeSet  what lies in its directory, and what it is of
    commits, commits_from, newest_commits, require_commit, marks
                                its commits, each a Commit with a CommitKind, at a Position
    Until                       a point in it; Until.parse() takes what the commands take
    mark                        give the newest commit a name
    Audit                       prove it; run() returns an AuditResult, or raises AuditCancelled
Recording
    Scan                        journal what changed; run() returns a ScanResult, or raises ScanCancelled;
                                ScanStatistics on the way
    Recorder, WhenFull          journal every write: write(), zero(), read(), flush(), commit(); RecorderStatistics
    InitialScan                    read into the journal what the volumes of a Recorder held before
    import_log, LogFormat       write and journal what another program logged; returns an ImportResult
Replaying
    Replay, ReplayOptions       bring a mirror up to a commit, which it has as a Checkpoint; ReplayStatistics
    Plan, Wanted                how many groups and tasks, or what of that is given
    Mirror                      what lies in its directory
    Verify                      prove one; run() returns a VerifyResult, with a BadRun and its LastWrite for what is
                                wrong, or raises VerifyCancelled; VerifyStatistics on the way
    Promotion, PromotionPlan    make a mirror the primary: drain(), verify(), carry_out(), which returns a Promoted
Shipping and keeping
    Shipping, ShipOptions       send a journal to other places; ShipStatistics
    MakeBase                    write down a whole state; run() may raise BaseCancelled; BaseProgress on the way
    prune, Keep, Pruned         remove what nobody needs
    slots, Slot, drop_slot      the readers of a journal
    status_of                   how a journal or mirror stands: a JournalStatus or MirrorStatus
Other work
    OrderedCalls                calls in parallel, in order where their Keys or Addresses meet; GroupStatistics
    trace_line                  a line of a trace of them, for `mirrortool trace`
MirrortoolError                 what all of them raise: what, where, remedy, exit_code; its kinds are in
                                mirrortool.errors

Each is loaded when it is first asked for, so that `import mirrortool`, and a TAB in the shell, cost nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # the one of `typing`, whose import takes 8 ms: see __main__.py
if TYPE_CHECKING:
    from mirrortool.errors import MirrortoolError
    from mirrortool.journal.audit import Audit, AuditCancelled, AuditResult
    from mirrortool.journal.commits import Commit, commits, marks, newest_commits
    from mirrortool.journal.directory import Journal
    from mirrortool.journal.point import Until
    from mirrortool.journal.pointlookup import commits_from, require_commit
    from mirrortool.journal.position import Position
    from mirrortool.journal.retention.prune import Keep, Pruned, prune
    from mirrortool.journal.slots import Slot, slots
    from mirrortool.journal.slots import drop as drop_slot
    from mirrortool.mirror.checkpoint import Checkpoint
    from mirrortool.mirror.directory import Mirror, Promoted
    from mirrortool.operation import CommitKind
    from mirrortool.promote import Promotion, PromotionPlan
    from mirrortool.record.createjournal import NewVolume, init
    from mirrortool.record.detach import WhenFull
    from mirrortool.record.importers.importloop import ImportResult
    from mirrortool.record.importers.openlog import LogFormat, import_log
    from mirrortool.record.initialscan import InitialScan
    from mirrortool.record.mark import mark
    from mirrortool.record.recorder import Recorder, RecorderStatistics
    from mirrortool.record.scan import Scan, ScanCancelled, ScanResult, ScanStatistics
    from mirrortool.replay.engine import Plan
    from mirrortool.replay.makebase import BaseCancelled, BaseProgress, MakeBase
    from mirrortool.replay.orderedcalls import Addresses, Keys, OrderedCalls
    from mirrortool.replay.planner import Wanted
    from mirrortool.replay.replayoptions import ReplayOptions
    from mirrortool.replay.session import Replay, ReplayStatistics
    from mirrortool.replay.taskgroup import GroupStatistics
    from mirrortool.ship.sender import Shipping
    from mirrortool.ship.shipoptions import ShipOptions
    from mirrortool.ship.shipprogress import ShipStatistics
    from mirrortool.status import JournalStatus, MirrorStatus, status_of
    from mirrortool.trace.jsonlines import encode as trace_line
    from mirrortool.verify import BadRun, LastWrite, Verify, VerifyCancelled, VerifyResult, VerifyStatistics
    from mirrortool.volume import Volume, VolumeSet

__all__ = [
    "Addresses",
    "Audit",
    "AuditCancelled",
    "AuditResult",
    "BadRun",
    "BaseCancelled",
    "BaseProgress",
    "Checkpoint",
    "Commit",
    "CommitKind",
    "GroupStatistics",
    "ImportResult",
    "InitialScan",
    "Journal",
    "JournalStatus",
    "Keep",
    "Keys",
    "LastWrite",
    "LogFormat",
    "MakeBase",
    "Mirror",
    "MirrorStatus",
    "MirrortoolError",
    "NewVolume",
    "OrderedCalls",
    "Plan",
    "Position",
    "Promoted",
    "Promotion",
    "PromotionPlan",
    "Pruned",
    "Recorder",
    "RecorderStatistics",
    "Replay",
    "ReplayOptions",
    "ReplayStatistics",
    "Scan",
    "ScanCancelled",
    "ScanResult",
    "ScanStatistics",
    "ShipOptions",
    "ShipStatistics",
    "Shipping",
    "Slot",
    "Until",
    "Verify",
    "VerifyCancelled",
    "VerifyResult",
    "VerifyStatistics",
    "Volume",
    "VolumeSet",
    "Wanted",
    "WhenFull",
    "commits",
    "commits_from",
    "drop_slot",
    "import_log",
    "init",
    "mark",
    "marks",
    "newest_commits",
    "prune",
    "require_commit",
    "slots",
    "status_of",
    "trace_line",
]

_MODULES = {
    "errors": "MirrortoolError",
    "journal.audit": "Audit AuditCancelled AuditResult",
    "journal.commits": "Commit commits marks newest_commits",
    "journal.directory": "Journal",
    "journal.pointlookup": "commits_from require_commit",
    "journal.position": "Position",
    "journal.retention.prune": "Keep Pruned prune",
    "journal.slots": "Slot drop_slot=drop slots",
    "journal.point": "Until",
    "mirror.checkpoint": "Checkpoint",
    "mirror.directory": "Mirror Promoted",
    "operation": "CommitKind",
    "promote": "Promotion PromotionPlan",
    "record.initialscan": "InitialScan",
    "record.createjournal": "NewVolume init",
    "record.detach": "WhenFull",
    "record.importers.importloop": "ImportResult",
    "record.importers.openlog": "LogFormat import_log",
    "record.mark": "mark",
    "record.recorder": "Recorder RecorderStatistics",
    "record.scan": "Scan ScanCancelled ScanResult ScanStatistics",
    "replay.planner": "Wanted",
    "replay.engine": "Plan",
    "replay.makebase": "BaseCancelled BaseProgress MakeBase",
    "replay.orderedcalls": "Addresses Keys OrderedCalls",
    "replay.replayoptions": "ReplayOptions",
    "replay.session": "Replay ReplayStatistics",
    "replay.taskgroup": "GroupStatistics",
    "ship.shipoptions": "ShipOptions",
    "ship.shipprogress": "ShipStatistics",
    "ship.sender": "Shipping",
    "status": "JournalStatus MirrorStatus status_of",
    "trace.jsonlines": "trace_line=encode",
    "verify": "BadRun LastWrite Verify VerifyCancelled VerifyResult VerifyStatistics",
    "volume": "Volume VolumeSet",
}
"""What each module gives; after = it has another name there."""
_PLACES = {
    name: (module, there or name)
    for module, names in _MODULES.items()
    for name, _, there in (each.partition("=") for each in names.split())
}


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})


if not TYPE_CHECKING:  # else a name that is not there would have a type, too

    def __getattr__(name):
        if name not in _PLACES:
            raise AttributeError(f"module 'mirrortool' has no attribute {name!r}")
        module, there = _PLACES[name]
        return getattr(importlib.import_module(f"mirrortool.{module}"), there)
