"""mirrortool from Python: the same steps as its commands, and the errors that they raise (mirrortool.errors).

    init, NewVolume     make a journal for volumes
    Scan                journal what changed; run() returns a ScanResult
    Recorder            journal every write: write(), zero(), read(), flush(), commit()
    BaseScan            read into the journal what the volumes of a Recorder held before
    mark                give the newest commit a name
    Replay, Plan, Until bring a mirror up to a commit
    Verify              prove a mirror; run() returns a VerifyResult
    Audit               prove a journal
    Promotion           make a mirror the primary: drain(), verify(), carry_out()
    status_of           how a journal or mirror stands
    Journal, Mirror     what lies in their directories

Each is loaded when it is first asked for, so that `import mirrortool`, and a TAB in the shell, cost nothing.
"""

from __future__ import annotations

import importlib

_MODULES = {
    "Audit": "journal.audit",
    "BaseScan": "record.base",
    "Journal": "journal.directory",
    "Mirror": "mirror.directory",
    "NewVolume": "record.create",
    "Plan": "replay.engine",
    "Promotion": "promote",
    "Recorder": "record.recorder",
    "Replay": "replay.session",
    "Scan": "record.scan",
    "Until": "journal.until",
    "Verify": "verify",
    "init": "record.create",
    "mark": "record.mark",
    "status_of": "status",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'mirrortool' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mirrortool.{_MODULES[name]}"), name)
