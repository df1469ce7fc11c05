"""Opens a state to be shown: a mirror at rest, or a commit of a journal.

A mirror stays locked against replays while it is open; a journal can be recorded, shipped, followed and pruned, and
keeps what is read here (points/).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from mirrortool import clock, files
from mirrortool.errors import (
    ChangedOutsideError,
    FuzzyCommitError,
    MirrortoolError,
    NotComparableError,
    UsageError,
)
from mirrortool.journal.pathkind import PathKind, kind_of, neither
from mirrortool.journal.point import Until
from mirrortool.lsn import Lsn
from mirrortool.mirror import findings
from mirrortool.mirror.checkpoint import Checkpoint, describe
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.openvolumes import open_store
from mirrortool.serve.checkedreader import CheckedReader
from mirrortool.store.interface import PageReader
from mirrortool.volume import Volume
from mirrortool.wording import quoted_word


@dataclass(frozen=True, slots=True)
class ShownState:
    """A state of volumes, open; a context manager that closes it.

    Attributes:
        path: of the mirror or journal, as it was named.
        lsn, time_ns: of the commit.
        mark: its name, if it has one.
        is_fuzzy: whether a volume changed under it, so that it is not a state that the volume ever had.
        reader: its pages.
        checked: its pages, each compared with its sum.
        known_bad: what verifications found wrong with the mirror, as a phrase; empty if nothing.
        places: directories and files that it is read from.
    """

    path: str
    lsn: Lsn
    time_ns: int
    mark: str | None
    is_fuzzy: bool
    reader: PageReader
    checked: CheckedReader
    known_bad: str
    places: tuple[str, ...]
    _opened: ExitStack

    def __enter__(self) -> ShownState:
        return self

    def __exit__(self, *exc: object) -> None:
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


def open_state(path: str, until: Until | None = None, *, allow_fuzzy: bool = False) -> ShownState:
    """Open a mirror at rest, or a journal at the last commit at or before a point.

    Args:
        until: for a journal; by default the newest commit.
        allow_fuzzy: also a commit under which a volume changed.
    Raises:
        UsageError: the journal does not have the point; or one was given for a mirror.
        NotComparableError: the mirror or the commit is not a state of the primary, but a later one will be.
        FuzzyCommitError: it is fuzzy, and that is not allowed.
        LockedError: a replay writes into the mirror.
        MirrortoolError: neither is there, or it cannot be read.
    """
    kind = kind_of(path)
    if kind == PathKind.MIRROR:
        return _open_mirror(path, until, allow_fuzzy)
    raise neither(path)


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
        places = [mirror.path, *(holder.path for holder in mirror.holders())]
        return ShownState(
            path, checkpoint.position.lsn, checkpoint.time_ns, None, checkpoint.is_fuzzy, reader, reader, known,
            tuple(map(files.absolute, places)), opening.pop_all(),
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
