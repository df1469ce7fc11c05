"""Makes a new mirror: its directory, its volumes, and its small files.

mirror.json is the last of them: without it there is no mirror, and the call can be repeated.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence

from mirrortool import files, jsonfile, pathowner
from mirrortool.errors import UsageError
from mirrortool.journal.directory import Journal
from mirrortool.journal.pathkind import PathKind, in_the_way, kind_of, names_where_ours_is_made, not_a_mirror
from mirrortool.mirror import newvolumes
from mirrortool.mirror.directory import Mirror, empty_checkpoint, epoch_fields
from mirrortool.mirror.keptbacking import BackTarget
from mirrortool.mirror.keptvolume import KeptVolume, format_fields
from mirrortool.mirror.newvolumes import WantedPlaces
from mirrortool.store.backingformat import EXTENT_DEFAULT
from mirrortool.store.pagesums import PageSums


def create(
    path: str,
    journal: Journal,
    targets: Mapping[str, str] | None = None,
    *,
    backings: Sequence[BackTarget] = (),
    extent_bytes: int | None = None,
    only: Collection[str] | None = None,
    overwrite: bool = False,
    raw: bool = False,
    is_scratch: bool = False,
    group: int | None = None,
) -> Mirror:
    """Make an empty mirror of a journal (420, FIG. 4), all zeros at LSN 0.

    An interrupted call leaves no mirror.json and can be repeated.

    Args:
        targets: paths or addresses of volumes that are not to be on backings, nor images in the mirror's directory.
        backings: on which the others are to lie.
        extent_bytes: of an extent there; by default EXTENT_DEFAULT.
        only: the names of the volumes that it is to hold; of the others it keeps the sums. By default all.
        overwrite: whether data in targets and backings that is not ours may be lost.
        raw: also where it is an image in a container format.
        is_scratch: a mirror for the occasion, which lies in the journal.
        group: the number of one whose members may read what is made; by default only the owner may.
    Raises:
        AccessError: something else is at `path`, or that lies inside a journal, copy or mirror.
        UsageError: `targets` names a volume that the journal does not have; or an extent cannot have that size.
        UnusableVolumeError: a target cannot be one.
    """
    targets = dict(targets or {})
    check_names(journal, targets, only)
    wanted = WantedPlaces(targets, backings, extent_bytes or EXTENT_DEFAULT, only, overwrite=overwrite, raw=raw)
    uuid = secrets.token_bytes(16)
    volumes = newvolumes.plan(path, uuid, journal.volumes, journal.uuid, wanted)
    if not is_scratch:
        pathowner.check_free(path)
    _check_is_free(path)
    files.claim_directory(path, group)
    for name in ("sums", "volumes"):
        files.make_directory(files.join(path, name), exist_ok=True)
    with files.open_locked(files.join(path, "lock"), "the mirror"):
        _check_is_free(path)  # another call may have finished meanwhile
        for name in ("receipts", "bad"):  # of the mirror that was here; what was proved or found was about that
            files.remove_tree(files.join(path, name))
            files.make_directory(files.join(path, name))
        primaries = [] if is_scratch else list(journal.volume_paths().values())
        for kind in volumes:
            kind.check(primaries)
        for kind in volumes:
            kind.prepare(group)
        kept = [each for kind in volumes for each in kind.kept()]
        PageSums(files.join(path, "sums"), journal.volumes, 0, write=True).close()
        beside = {name: value for kind in volumes for name, value in kind.beside().items()}
        _save_new(path, uuid, journal, sorted(kept, key=lambda volume: volume.start), beside)
    return Mirror(path)


def check_names(journal: Journal, targets: Collection[str], only: Collection[str] | None) -> None:
    """What is named for a new mirror are volumes of the journal, and those that it is to hold.

    Raises:
        UsageError: they are not.
    """
    known = ", ".join(volume.name for volume in journal.volumes)
    for name in [*targets, *(only or ())]:
        if name not in journal.volumes:
            raise UsageError(f"the journal has no volume {name}", where=journal.path, remedy=f"its volumes: {known}")
    if only is not None and not only:
        raise UsageError("a mirror holds at least one volume", where=journal.path)
    for name in targets:
        if only is not None and name not in only:
            raise UsageError(f"volume {name} is not held, and so kept nowhere: --only leaves it out")


def is_to_be_made(path: str) -> bool:
    """Whether no mirror is at `path` yet, and one could be made there.

    Raises:
        NotAMirrorError: neither: it is not a directory.
        AccessError: something else is in the directory.
    """
    kind = kind_of(path)
    if kind == PathKind.MIRROR:
        return False
    if kind != PathKind.MISSING and not files.is_directory(path):
        raise not_a_mirror(path)
    if kind != PathKind.MISSING:
        _check_is_free(path)
    return True


def _save_new(path: str, uuid: bytes, journal: Journal, kept: list[KeptVolume], beside: Mapping[str, object]) -> None:
    jsonfile.save(files.join(path, "checkpoint.json"), empty_checkpoint(journal).to_json())
    values = {
        **format_fields(kept),
        "uuid": uuid.hex(),
        "journal_uuid": journal.uuid.hex(),
        **epoch_fields(journal),
        "journal_path": files.absolute(journal.path),
        "page_size": journal.page_size,
        "volumes": [volume.to_json() for volume in kept],
        **beside,
    }
    jsonfile.save(files.join(path, "mirror.json"), values)


def _check_is_free(path: str) -> None:
    ours = {"sums", "volumes", "receipts", "bad", "lock", "checkpoint.json", "checkpoint.json.new", "mirror.json.new"}
    if names_where_ours_is_made(path) - ours:
        raise in_the_way(path)
