"""How a replay left the volumes of a mirror, or a verification found them: `seen.json`, so that the next replay knows
whether another program wrote to them.

    a file      by its change time (ctime)
    a device    by the sectors that the kernel counts, in the same boot

Rule: it counts for the very checkpoint that it names, while nothing past that can be in the volumes; and only for the
files, in the directory, that it was noted of. A copy of a mirror begins without.
Rule: it is best effort: without room for it, the next replay knows less.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from mirrortool import files, hostinfo, jsonfile
from mirrortool.errors import ChangedOutsideError, HostError, NotAMirrorError
from mirrortool.files import Facts, Identity
from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.keptvolume import Holder
from mirrortool.wording import quoted_word

State = dict[str, dict[str, object]]
"""By holder: what tells whether it was written since."""


def look(mirror: Mirror) -> State:
    """How the volumes are now, with everything that was written to them durable."""
    state: State = {}
    for holder in mirror.holders():
        facts = files.find_facts(holder.path)
        if facts:
            attached = hostinfo.disk_ids(facts.identity).diskseq
            state[holder.name] = {**_identity_to_json(facts.identity), "written": _written(facts), "diskseq": attached}
    return state


def note(mirror: Mirror, state: State) -> None:
    """The volumes hold what the mirror's checkpoint says, as of `state`."""
    checkpoint, place = mirror.checkpoint, files.find_facts(mirror.path)
    if not checkpoint.is_finished or checkpoint.resync_lsn or place is None:
        return
    values = {
        "boot_id": hostinfo.boot_id(),
        "position": checkpoint.position.to_json(),
        "directory": _identity_to_json(place.identity),
        "volumes": state,
    }
    with suppress(HostError):
        jsonfile.save(_path(mirror), values)


def carry_over(mirror: Mirror) -> None:
    """What another program wrote is under a newer checkpoint now, and is found until a verification has proved it."""
    with suppress(NotAMirrorError, HostError):
        if fields := jsonfile.load(_path(mirror), NotAMirrorError, newer=NotAMirrorError):
            jsonfile.save(_path(mirror), fields.changed(position=mirror.checkpoint.position.to_json()))


def forget(mirror: Mirror) -> None:
    """The volumes are about to be written: durably, else a power cut may bring it back beside what they are by then."""
    if files.exists(_path(mirror)):
        files.remove_durably(_path(mirror))


def is_noted(mirror: Mirror) -> bool:
    """Whether there is a note; what it says may not count."""
    return files.exists(_path(mirror))


def forget_some(mirror: Mirror, names: Collection[str]) -> None:
    """These holders were put elsewhere by the owner: what was noted of them counts no more."""
    with suppress(NotAMirrorError, HostError):
        if fields := jsonfile.load(_path(mirror), NotAMirrorError, newer=NotAMirrorError):
            left = {
                name: each.changed() for name, each in fields.object("volumes").named_objects() if name not in names
            }
            jsonfile.save(_path(mirror), fields.changed(volumes=left))


def find_problem(mirror: Mirror) -> ChangedOutsideError | None:
    """That another program wrote to the volumes since, or changed what the file system says of them, if known."""
    with suppress(NotAMirrorError):  # torn, or of another version: nothing is known
        fields = jsonfile.load(_path(mirror), NotAMirrorError, newer=NotAMirrorError)
        in_this_boot = fields is not None and bool(hostinfo.boot_id()) and fields.text("boot_id") == hostinfo.boot_id()
        if fields is None or not _is_of(mirror, fields, in_this_boot):
            return None
        noted = dict(fields.object("volumes").named_objects())
        for holder in mirror.holders():
            if holder.name in noted and (problem := _problem(holder, noted[holder.name], in_this_boot)):
                return ChangedOutsideError(
                    f"{holder.what} changed outside of mirrortool: {problem}",
                    where=holder.path,
                    remedy=f"if mirrortool verify {quoted_word(mirror.path)} finds it right, replay continues",
                )
    return None


def _is_of(mirror: Mirror, fields: Fields, in_this_boot: bool) -> bool:
    """Whether it was noted of this checkpoint, in this directory.

    After another boot a file system may have another number, so that only the inode tells.
    """
    checkpoint, place = mirror.checkpoint, files.find_facts(mirror.path)
    noted = fields.object("directory")
    if place is None or noted.integer("inode") != place.identity.inode:
        return False
    if in_this_boot and noted.integer("device") != place.identity.device:
        return False
    return checkpoint.is_finished and Position.from_json(fields.object("position")) == checkpoint.position


def _problem(holder: Holder, noted: Fields, in_this_boot: bool) -> str | None:
    facts = files.find_facts(holder.path)
    if facts is None or facts.identity.is_device != noted.flag("is_device"):
        return None  # which is found where it is opened
    if facts.identity.is_device:
        if not in_this_boot or facts.identity.inode != noted.integer("inode") or "written" not in noted:
            return None
        if hostinfo.disk_ids(facts.identity).diskseq != noted.integer("diskseq"):
            return None  # it was taken away, and the kernel began to count anew
        is_same = _written(facts) == noted.integer("written")
        return None if is_same else "the device was written since the last replay"
    if noted.integer("inode") != facts.identity.inode:
        return "another file is in its place"
    if "written" not in noted or _written(facts) == noted.signed("written"):
        return None
    return "the file was written since the last replay"


def _written(facts: Facts) -> int | None:
    """What changes with each write."""
    return hostinfo.sectors_written(facts.identity) if facts.identity.is_device else facts.changed_ns


def _identity_to_json(identity: Identity) -> dict[str, object]:
    return {"device": identity.device, "inode": identity.inode, "is_device": identity.is_device}


def _path(mirror: Mirror) -> str:
    return files.join(mirror.path, "seen.json")
