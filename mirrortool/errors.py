"""Every error of mirrortool, with the exit code that it ends the program with.

    MirrortoolError                     70  a bug, unless a class below says otherwise
      UsageError                         2  the arguments do not fit together
      NotComparableError                 3  replay unfinished or base incomplete: ask again later
      JournalError                      10-19
        TornJournalError                10  bytes after the newest durable LSN cannot be decoded
        CorruptJournalError             11  bytes that were durable cannot be decoded, or contradict each other
        MissingFileError                12  a journal file between two others, or the first, is gone
          PrunedJournalError            12  what is asked for was removed on purpose: start over from a base
          UnfinishedArrivalError        12  a base has only begun to take the place of older files
        ForkedJournalError              13  a position that this journal does not contain
        NotAJournalError                14  not a journal, or one of a newer format
          DamagedSlotError              14  the file of a slot is not valid: the other slots can be used
        NewerJournalError               14  a newer mirrortool wrote it, in a format that is not known here
        OtherJournalError               15  a journal of another uuid than the mirror's
        UnfinishedPromotionError        16  a promotion was interrupted; run it again
      VolumeError                       20-29: a volume or a mirror
        UnusableVolumeError             20  missing, neither a file nor a block device, too small, in use
        ChangedOutsideError             21  the volume or the mirror is not as mirrortool left it
        LockedError                     22  another process holds it
        PastPointError                 23  the mirror is already past the point asked for
        NotAMirrorError                 24  not a mirror, or one of a newer format
        NewerMirrorError                24  a newer mirrortool wrote it, in a format that is not known here
        FuzzyCommitError                25  a volume changed while it was scanned
        PromotedError                   26  the mirror is a primary now
        KnownBadError                    1  what a verification found wrong with the mirror is not put right
      HostError                         30-39: the machine that we run on
        NoSpaceError                    30
        InputOutputError                31
        AccessError                     32  not permitted, or a read-only file system
        ExhaustedError                  33  no descriptors or memory left
        CommandFailedError              34  a command that the user gave failed
        ServerError                     35  the server that has a volume is gone, does not answer, or lies
      LinkError                         40
      LagError                          50  --max-lag exceeded
      BadLogError                       60  a log to be imported, or a trace, is not valid

A class stands for a decision that the caller makes. Facts are attributes; only the command line turns an
error into text. Bugs are assertions, not errors.
"""

from __future__ import annotations

import errno
import os

USE_A_LATER_ONE = "use the mirrortool that wrote it, or a later one"
"""The remedy for what is of a later format, where it does not say which version reads it."""
EXIT_CODE_MAX = 69
"""No error that is not a bug has a higher one; what another process says of an exit code is held against it."""


class MirrortoolError(Exception):
    """What went wrong, where, and the remedy; each a phrase without a full stop."""

    exit_code = 70

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else os.fsdecode(str(where))
        self.remedy = remedy

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where or repr('')}: {self.what}"
        return text if self.remedy is None else f"{text}; {self.remedy}"


class UsageError(MirrortoolError):
    """The arguments are well formed one by one, but not together."""

    exit_code = 2


class NotComparableError(MirrortoolError):
    """The mirror or journal is whole, but not yet at a commit that could be compared."""

    exit_code = 3


class JournalError(MirrortoolError):
    """Something is wrong with a journal."""

    exit_code = 19


class TornJournalError(JournalError):
    """Undecodable bytes where a write was cut short, or none: nothing that was durable is lost.

    Attributes:
        path, offset: the file, and where in it the tail begins, in bytes.
    """

    exit_code = 10

    def __init__(self, what: str, *, where: str, remedy: str, offset: int) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.path = where
        self.offset = offset


class CorruptJournalError(JournalError):
    """Bytes that were durable no longer say what was written. An unfinished write is TornJournalError."""

    exit_code = 11


class MissingFileError(JournalError):
    """A journal file that must exist does not."""

    exit_code = 12


class PrunedJournalError(MissingFileError):
    """The journal begins later than what was asked for; a base stands for what went before."""


class UnfinishedArrivalError(MissingFileError):
    """A base has only begun to take the place of a copy's older files; a command that can write there finishes it."""


class ForkedJournalError(JournalError):
    """The journal has another history than the position that was asked for."""

    exit_code = 13


class NotAJournalError(JournalError):
    """No journal here, or one in a format that this version does not know."""

    exit_code = 14


class DamagedSlotError(NotAJournalError):
    """What a slot needs is not known, as its file is not valid; its owner writes it anew."""


class NewerJournalError(JournalError):
    """A file of a journal is of a later format: whole, and neither damaged nor absent. Nothing was changed."""

    exit_code = 14


class OtherJournalError(JournalError):
    """A sound journal, but another one than expected."""

    exit_code = 15


class UnfinishedPromotionError(JournalError):
    """A promotion has begun to change the journal, and only promote can use it until that is complete."""

    exit_code = 16


class VolumeError(MirrortoolError):
    """Something is wrong with a volume or a mirror."""

    exit_code = 20


class UnusableVolumeError(VolumeError):
    """The path cannot serve as this volume."""


class ChangedOutsideError(VolumeError):
    """Something other than mirrortool replaced or changed it."""

    exit_code = 21


class LockedError(VolumeError):
    """Another process works on it; nothing was changed."""

    exit_code = 22


class PastPointError(VolumeError):
    """A mirror does not go back; a new one can be made up to the point."""

    exit_code = 23


class NotAMirrorError(VolumeError):
    """No mirror here, or one in a format that this version does not know."""

    exit_code = 24


class NewerMirrorError(VolumeError):
    """A file of a mirror is of a later format: whole, and neither damaged nor absent. Nothing was changed."""

    exit_code = 24


class FuzzyCommitError(VolumeError):
    """The commit is in the journal, but it is not a state that the volume ever had."""

    exit_code = 25


class PromotedError(VolumeError):
    """The mirror was promoted: its volumes are a primary's now, and no replay may touch them."""

    exit_code = 26


class KnownBadError(VolumeError):
    """A verification found something wrong with the mirror, and nothing has put it right since.

    It is what status ends with, so that no lag hides it; what a command that is to use the mirror does, it decides.
    """

    exit_code = 1


class HostError(MirrortoolError):
    """The operating system refused."""

    exit_code = 39


class NoSpaceError(HostError):
    """A file system is full, or a quota is reached."""

    exit_code = 30


class InputOutputError(HostError):
    """A device failed."""

    exit_code = 31


class AccessError(HostError):
    """Not permitted, or not there."""

    exit_code = 32


class ExhaustedError(HostError):
    """The process has no descriptors or memory left."""

    exit_code = 33


class CommandFailedError(HostError):
    """A command of the user's own, such as one that makes a snapshot, exited with an error."""

    exit_code = 34


class ServerError(HostError):
    """The NBD server that has a volume cannot be reached, ended the connection, or does not keep to the protocol.

    What was written and not made durable before may be lost; an attempt that begins anew needs another connection.
    """

    exit_code = 35


class LinkError(MirrortoolError):
    """The connection to the other side failed."""

    exit_code = 40


class LagError(MirrortoolError):
    """A mirror lags further behind than --max-lag allows."""

    exit_code = 50


class BadLogError(MirrortoolError):
    """A log of another program's, or a trace, cannot be read: not one, cut short or damaged."""

    exit_code = 60


_BY_ERRNO: dict[int, tuple[type[HostError], str | None]] = {
    errno.ENOSPC: (NoSpaceError, "free some space and run the command again"),
    errno.EDQUOT: (NoSpaceError, "raise the quota and run the command again"),
    errno.EFBIG: (
        NoSpaceError,
        "raise the limit of file sizes (ulimit -f), or use another file system",
    ),
    errno.EACCES: (AccessError, "check owner and permissions"),
    errno.EPERM: (AccessError, "check owner and permissions"),
    errno.EROFS: (AccessError, "the file system is mounted read-only"),
    errno.ENOENT: (AccessError, "check the path"),
    errno.ENOTDIR: (AccessError, "check the path"),
    errno.EISDIR: (AccessError, "check the path"),
    errno.EEXIST: (AccessError, "choose another path"),
    errno.ENAMETOOLONG: (AccessError, "choose a shorter path"),
    errno.ELOOP: (AccessError, "check the symbolic links"),
    errno.EMFILE: (ExhaustedError, "raise the limit of open files (ulimit -n)"),
    errno.ENFILE: (ExhaustedError, "raise the system's limit of open files"),
    errno.ENOMEM: (ExhaustedError, "free some memory"),
    errno.EAGAIN: (ExhaustedError, "try again, or raise the limit of processes (ulimit -u)"),
}


def host_error(error: OSError, where: object, doing: str) -> HostError:
    """The error of ours that an operating system's error means, `doing` something at `where`."""
    kind, remedy = _BY_ERRNO.get(error.errno or 0, (InputOutputError, "check the device and the kernel's log"))
    reason = os.strerror(error.errno) if error.errno else str(error)
    return kind(f"cannot {doing}: {reason}", where=where, remedy=remedy)
