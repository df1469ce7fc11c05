"""Labels: that a volume is a mirror's, so that it becomes no primary volume until the mirror is promoted.

A file has an extended attribute. It names its own device and inode, so that it says nothing on a copy (`cp -a`,
`rsync -X`).
Devices, and files where there are no such attributes, stand in a registry; see volumeregistry.py.

Rule: a label alone proves nothing. It counts while the mirror that it names is there, and was not promoted; where there
is no such mirror left, or its file system is not mounted, it only asks.
Rule: a label is best effort: without room or rights for it, a mirror does without.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from mirrortool import files, hostinfo, jsonfile, pathowner
from mirrortool.errors import ChangedOutsideError, HostError, NotAMirrorError, UnusableVolumeError
from mirrortool.files import Facts, Identity
from mirrortool.mirror import volumeregistry
from mirrortool.mirror.directory import Mirror, is_primarys_volume

ATTRIBUTE = "user.mirrortool.mirror"


@dataclass(frozen=True, slots=True)
class Label:
    """What a volume says of itself.

    Attributes:
        mirror: the mirror's uuid, in hexadecimal.
        path: where the mirror was, from the root.
        volume: its name there.
        device, inode: of the file that has the label.
        boot_id: of the kernel that gave the device its number.
    """

    mirror: str
    path: str
    volume: str
    device: int
    inode: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Belonging:
    """The mirror that a volume is of.

    Attributes:
        is_there: whether that mirror was found; if not, it is gone, or its file system is not mounted.
    """

    mirror: str
    path: str
    is_there: bool


def belonging(path: str) -> Belonging | None:
    """The mirror that the file or device at a path is a volume of; None if of none, or of one that was promoted."""
    facts = files.find_facts(path)
    if facts is None:
        return None
    found = [each for each in _candidates(path, facts) if each]
    return next((each for each in found if each.is_there), found[0] if found else None)


def check_targets(targets: Mapping[str, str]) -> None:
    """None of the files or devices, by volume, is another mirror's; those inside its directory are refused anyway.

    Raises:
        UnusableVolumeError: one is.
    """
    for path in targets.values():
        found, owner = belonging(path), pathowner.find_owner_of_bytes(path)
        is_refused_anyway = owner is not None and not is_primarys_volume(owner.path, path)
        if found and found.is_there and not is_refused_anyway:
            raise UnusableVolumeError(
                f"belongs to the mirror {found.path}",
                where=path,
                remedy="choose another target, or, if that mirror is not needed any more, remove its directory",
            )


def require_own(mirror: Mirror) -> None:
    """No volume of a mirror is another's.

    Raises:
        ChangedOutsideError: one is by now.
    """
    for holder in mirror.holders():
        other = belonging(holder.path)
        if other and other.is_there and other.mirror != mirror.uuid.hex():
            raise ChangedOutsideError(
                f"{holder.what} belongs to the mirror {other.path} by now",
                where=holder.path,
                remedy="replay into that one, and remove this one",
            )


def attach(mirror: Mirror) -> None:
    """Attach labels to the volumes of a mirror.

    Raises:
        ChangedOutsideError: one is another mirror's by now; no label was attached.
    """
    require_own(mirror)
    for holder in mirror.holders():
        facts = files.find_facts(holder.path)
        if facts:
            with suppress(HostError):
                _attach_one(holder.path, facts, _label_of(mirror, holder.name, facts.identity))


def remove(mirror: Mirror) -> None:
    """Remove the labels of a mirror's volumes."""
    volumeregistry.forget(mirror.uuid.hex())
    for holder in mirror.holders():
        remove_one(holder.path)


def remove_one(path: str) -> None:
    """Remove the label of a volume, whatever mirror it names."""
    facts = files.find_facts(path)
    if facts:
        volumeregistry.forget_volume(path, facts.identity)
        with suppress(HostError):
            files.remove_attribute(path, ATTRIBUTE)


def _candidates(path: str, facts: Facts) -> Iterator[Belonging | None]:
    """What the place says of a volume, what it says itself, and what the registry says."""
    owner = pathowner.find_owner_of_bytes(path)
    if owner and owner.kind == "mirror":
        yield _among_volumes(owner.path, path, facts.identity)
    for place in (path, *hostinfo.backing_files(path)):
        found = files.find_facts(place)
        label = _read(place, found) if found and not found.identity.is_device else None
        if label and found:
            yield _judge(label.mirror, label.path, label.volume, found.identity)
    for entry in volumeregistry.find(path, facts.identity):
        yield _judge(entry.mirror, entry.path, entry.volume, facts.identity)


def _judge(uuid: str, path: str, volume: str, identity: Identity) -> Belonging | None:
    """What becomes of a label when its mirror is looked for."""
    mirror = _open(path)
    if mirror is None or mirror.uuid.hex() != uuid:
        return Belonging(uuid, path, is_there=False)
    if mirror.promoted:
        return None
    holder = next((each for each in mirror.holders() if each.name == volume), None)
    theirs = files.find_facts(holder.path) if holder else None
    if theirs and theirs.identity != identity and not identity.is_device:
        return None  # the mirror has its volume, and this is another file
    return Belonging(uuid, path, is_there=True)


def _among_volumes(directory: str, path: str, identity: Identity) -> Belonging | None:
    mirror = _open(directory)
    if mirror is None or mirror.promoted:
        return None
    same = {identity, *(facts.identity for each in hostinfo.backing_files(path) if (facts := files.find_facts(each)))}
    held = (files.find_facts(holder.path) for holder in mirror.holders())
    is_kept = any(facts.identity in same for facts in held if facts)
    return Belonging(mirror.uuid.hex(), directory, is_there=True) if is_kept else None


def _open(path: str) -> Mirror | None:
    with suppress(NotAMirrorError, HostError):
        return Mirror(path)
    return None


def _label_of(mirror: Mirror, volume: str, identity: Identity) -> Label:
    path = files.absolute(mirror.path)
    return Label(mirror.uuid.hex(), path, volume, identity.device, identity.inode, hostinfo.boot_id())


def _attach_one(path: str, facts: Facts, label: Label) -> None:
    if not facts.identity.is_device:
        known = _read(path, facts)
        if known and (known.mirror, known.path, known.volume) == (label.mirror, label.path, label.volume):
            return  # setting it again would only move the file's time
        with suppress(HostError):
            files.set_attribute(path, ATTRIBUTE, json.dumps(asdict(label)).encode())
            return
    volumeregistry.note(label.mirror, label.path, label.volume, path, facts.identity)


def _parse(data: bytes, path: str) -> jsonfile.Fields:
    values = json.loads(data)
    if not isinstance(values, dict):
        raise NotAMirrorError("the label is not valid", where=path)
    fields = jsonfile.Fields(values, path, NotAMirrorError)
    fields.check_format()
    return fields


def _read(path: str, facts: Facts) -> Label | None:
    """The label on a file; None if it has none, or that of another file.

    After another boot a file system may have another number, so that only the inode tells.
    """
    data = files.get_attribute(path, ATTRIBUTE)
    if data is None:
        return None
    with suppress(ValueError, RecursionError, NotAMirrorError):
        fields = _parse(data, path)
        label = Label(
            fields.hexadecimal("mirror", 16).hex(),
            fields.text("path"),
            fields.text("volume"),
            fields.integer("device"),
            fields.integer("inode"),
            fields.text("boot_id"),
        )
        is_same = label.device == facts.identity.device or label.boot_id != hostinfo.boot_id()
        return label if is_same and label.inode == facts.identity.inode else None
    return None
