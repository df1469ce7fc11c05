"""Opens a state to be shown: a mirror at rest, or a commit of a journal.

A mirror stays locked against replays while it is open; a journal can be recorded, shipped, followed and pruned, and
keeps what is read here (points/).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from mirrortool import clock, files
from mirrortool.errors import (
    ChangedOutsideError,
    FuzzyCommitError,
    MirrortoolError,
    NotComparableError,
    UsageError,
)
from mirrortool.journal.directory import Journal
from mirrortool.journal.pathkind import PathKind, kind_of, neither
from mirrortool.journal.point import Until
from mirrortool.lsn import Lsn
from mirrortool.malloc import keep_freed_memory
from mirrortool.mirror import findings
from mirrortool.mirror.checkpoint import Checkpoint, describe
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.openvolumes import open_store
from mirrortool.operation import CommitKind
from mirrortool.points.view import PointView, open_point
from mirrortool.serve.checkedreader import CheckedReader
from mirrortool.store.interface import PageReader
from mirrortool.volume import Volume
from mirrortool.wording import quoted_word

_FUZZY = "LSN {} is FUZZY: a state that the primary never had"


@dataclass(frozen=True, slots=True)
class ShownState:
    """A state of volumes, open; a context manager that closes it.

    Attributes:
        path: of the mirror or journal, as it was named.
        lsn, time_ns: of the commit.
        mark: its name, if it has one.
        is_fuzzy: whether a volume changed under it, so that it is not a state that the volume ever had.
        reader: its pages, each of which is compared with its sum when it is read.
        warnings: what is to be known of it, each a line.
        places: directories and files that it is read from.
        journal_uuid: of the journal that it is a state of.
        recorded: the volumes of the journal, as this host records them, by path; none on another host.
    """

    path: str
    lsn: Lsn
    time_ns: int
    mark: str | None
    is_fuzzy: bool
    reader: PageReader
    warnings: tuple[str, ...]
    places: tuple[str, ...]
    journal_uuid: bytes
    recorded: tuple[str, ...]
    _opened: ExitStack

    def __enter__(self) -> ShownState:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back; calling it again does nothing."""
        self._opened.close()

    def volume(self, name: str) -> Volume:
        """The volume of that name, with its size in this state.

        Raises:
            UsageError: there is none.
        """
        volumes = self.reader.volumes
        if name not in volumes:
            raise UsageError(
                f"there is no volume {name}",
                where=self.path,
                remedy=f"its volumes are {', '.join(each.name for each in volumes)}",
            )
        return volumes[name]


def open_state(
    path: str,
    until: Until | None = None,
    *,
    allow_fuzzy: bool = False,
    doing: str = "read",
    on_progress: Callable[[int, int], None] | None = None,
) -> ShownState:
    """Open a mirror at rest, or a journal at the last commit at or before a point.

    Args:
        until: for a journal; by default the newest commit.
        allow_fuzzy: also a commit under which a volume changed.
        doing: what the hold on a journal says that this process does.
        on_progress: told how many bytes of a journal were read, and how many there are at most; it may raise.
    Raises:
        UsageError: the journal does not have the point; or one was given for a mirror.
        NotComparableError: the mirror or the commit is not a state of the primary, but a later one will be.
        FuzzyCommitError: it is fuzzy, and that is not allowed.
        LockedError: a replay writes into the mirror.
        MirrortoolError: neither is there, or it cannot be read.
    """
    keep_freed_memory()  # frames are decompressed at each read
    kind = kind_of(path)
    if kind == PathKind.MIRROR:
        return _open_mirror(path, until, allow_fuzzy)
    if kind in (PathKind.JOURNAL, PathKind.COPY):
        return _open_journal(path, until, allow_fuzzy, doing, on_progress)
    raise neither(path)


def _open_journal(
    path: str, until: Until | None, allow_fuzzy: bool, doing: str, on_progress: Callable[[int, int], None] | None
) -> ShownState:
    with ExitStack() as opening:
        journal = Journal(path)
        view = open_point(journal, until, allow_fuzzy=allow_fuzzy, on_progress=on_progress, doing=doing)
        opening.callback(view.close)
        commit = view.commit
        return ShownState(
            path, commit.lsn, commit.time_ns, commit.name, commit.kind == CommitKind.FUZZY, view, warnings_of(view),
            (files.absolute(path),), journal.uuid, tuple(journal.volume_paths().values()), opening.pop_all(),
        )  # fmt: skip


def warnings_of(view: PointView) -> tuple[str, ...]:
    """What is to be known of a commit of a journal, each a line."""
    warnings = [_FUZZY.format(view.commit.lsn)] if view.commit.kind == CommitKind.FUZZY else []
    if view.why_not_held:
        warnings.append(f"prune may remove what is read here, as nothing could be noted: {view.why_not_held}")
    return tuple(warnings)


def _open_mirror(path: str, until: Until | None, allow_fuzzy: bool) -> ShownState:
    with ExitStack() as opening:
        mirror = Mirror(path)
        if until is not None:
            raise UsageError(
                "a mirror has one state, and --until is for a journal",
                where=path,
                remedy=f"name its journal, {quoted_word(mirror.journal_path)}, or leave --until out",
            )
        opening.enter_context(mirror.lock(exclusive=False))
        checkpoint = mirror.checkpoint
        _check_is_state(mirror, checkpoint, allow_fuzzy)
        store = open_store(mirror, write=False)
        opening.callback(store.close)
        sums = mirror.open_sums(write=False)
        opening.callback(sums.close)

        def wrong(volume: str, page: int) -> MirrortoolError:
            return ChangedOutsideError(
                f"page {page} of volume {volume} does not have its sum",
                where=path,
                remedy=f"mirrortool verify {quoted_word(path)} tells whether page or sum is wrong",
            )

        reader = CheckedReader(store, sums.read, wrong, sums.nonzero_runs)
        known = findings.describe(mirror, findings.findings(mirror), clock.now_ns())
        warnings = [f"{path} is known to be bad: {known}"] if known else []
        if checkpoint.is_fuzzy:
            warnings.append(_FUZZY.format(checkpoint.position.lsn))
        places = [mirror.path, *(holder.path for holder in mirror.holders())]
        return ShownState(
            path, checkpoint.position.lsn, checkpoint.time_ns, None, checkpoint.is_fuzzy, reader,
            tuple(warnings), tuple(map(files.absolute, places)), mirror.journal_uuid,
            _recorded_paths(mirror.journal_path), opening.pop_all(),
        )  # fmt: skip


def _check_is_state(mirror: Mirror, checkpoint: Checkpoint, allow_fuzzy: bool) -> None:
    """The mirror is a state of the primary.

    Raises:
        NotComparableError, FuzzyCommitError: it is not.
    """
    if not checkpoint.is_consistent or checkpoint.is_incomplete:
        replay = f"mirrortool replay {quoted_word(mirror.journal_path)} {quoted_word(mirror.path)}"
        raise NotComparableError(
            f"{describe(checkpoint, is_running=True)}, and so not a state of the primary",
            where=mirror.path,
            remedy=f"{replay} brings it to one",
        )
    if checkpoint.is_fuzzy and not allow_fuzzy:
        raise FuzzyCommitError(
            f"the commit at LSN {checkpoint.position.lsn} is fuzzy: a volume changed under the scan",
            where=mirror.path,
            remedy="give --allow-fuzzy to read it all the same",
        )


def _recorded_paths(journal_path: str) -> tuple[str, ...]:
    """Of a mirror's journal, which may be elsewhere by now."""
    with suppress(MirrortoolError):
        return tuple(Journal(journal_path).volume_paths().values())
    return ()
