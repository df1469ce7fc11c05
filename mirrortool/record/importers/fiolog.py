"""fio's iologs, versions 2 and 3 (`--write_iolog`): lines of text without data.

    fio version 3 iolog                     fio version 2 iolog
    TIME FILE add|open|close                FILE add|open|close
    TIME FILE ACTION OFFSET LENGTH          FILE ACTION OFFSET LENGTH

A write becomes a WRITE of made-up data, a trim a ZERO; sync, datasync and syncfs are flushes of everything, as a flush
of a journal is one of all its volumes. read, wait and sync_file_range, which promises nothing, are ignored, times too.
FILE may hold white space, though fio cannot read that back.

The data of a write is defined, so that anybody can compute it: the write is cut from its start into pieces of 1 MiB,
and each is as many bytes as it needs of SHAKE128 over the text "SEED LINE OFFSET": decimal numbers, one space between
two; LINE is the line's number, the first being 1, and OFFSET where in FILE the piece begins.

Bound: a line of LINE_BYTES_MAX bytes, which is fio's own.
Source: fio's HOWTO, "Trace file format v2" and "v3"; its iolog.c.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

from mirrortool import files
from mirrortool.address import ADDRESS_LIMIT
from mirrortool.errors import BadLogError, UsageError
from mirrortool.files import File
from mirrortool.record.importers.logstep import PIECE_BYTES, Action, Piece, Step
from mirrortool.volume import VolumeSet

LINE_BYTES_MAX = 4096
_READ_BYTES = 1 << 20
_REMEDY = "check that the log was copied whole"
_TITLE = re.compile(rb"fio version ([23]) iolog[ \t\r]*\n")
_TITLE_BYTES_MAX = 64
_FILE_ACTIONS = (b"add", b"open", b"close")
_DIGITS_MAX = 20
_ACTIONS = {
    b"write": Action.WRITE, b"trim": Action.ZERO, b"sync": Action.FLUSH, b"datasync": Action.FLUSH,
    b"syncfs": Action.FLUSH, b"read": None, b"wait": None, b"sync_file_range": None,
}  # fmt: skip


def seeded_data(seed: int, line: int, offset: int, length: int) -> bytes:
    """The data of one piece of a write."""
    return hashlib.shake_128(b"%d %d %d" % (seed, line, offset)).digest(length)


class FileMap:
    """Which volume stands for a file of the log: the one it is mapped to, the one of its last name, or the default.

    Rule: except for files that are mapped, a volume stands for one file; two would overwrite each other.
    """

    def __init__(self, volumes: VolumeSet, mapped: Mapping[str, str], default: str | None = None) -> None:
        """Map files to names of volumes; `default` is the volume for one that nothing else stands for."""
        self._volumes = volumes
        self._known = dict(mapped)
        self._default = default
        self._file_of = {volume: file for file, volume in mapped.items()}

    def volume_of(self, file: str) -> str:
        """The volume that stands for a file, from now on.

        Raises:
            UsageError: none does.
        """
        if file not in self._known:
            volume = self._find(file)
            self._known[file], self._file_of[volume] = volume, file
        return self._known[file]

    def _find(self, file: str) -> str:
        name = files.base_name(file)
        volume = name if name in self._volumes else self._default
        if volume is not None and volume not in self._file_of:
            return volume
        why = f", as volume {volume} stands for {self._file_of[volume]}" if volume else ""
        raise UsageError(f"no volume stands for {file}{why}", remedy="give --map FILE=VOLUME")


class FioLog:
    """A log of fio's, read from its first line to the last."""

    unit = "line"

    def __init__(self, file: File, file_map: FileMap, seed: int = 0) -> None:
        """Read the first line.

        Raises:
            BadLogError: it is not a log of fio's, or has another version.
        """
        self.path = file.path
        self._file = file
        self._file_map = file_map
        self._seed = seed
        self._count = 0
        title = _TITLE.match(file.pread(_TITLE_BYTES_MAX, 0))
        if not title:
            raise BadLogError(
                "not a log of fio's, version 2 or 3", where=self.path,
                remedy="check the path; for a log of QEMU's or dm-log-writes give --format logwrites",
            )  # fmt: skip
        self._has_times = title[1] == b"3"

    def count(self) -> int:
        return self._count

    def steps(self) -> Iterator[Step]:
        number = 1
        for number, at, line in self._lines():
            if number > 1 and (step := self._step(number, at, line)):
                yield step
        self._count = number

    def pieces(self, step: Step) -> Iterator[Piece]:
        for offset in range(step.offset, step.offset + step.length, PIECE_BYTES):
            length = min(PIECE_BYTES, step.offset + step.length - offset)
            yield Piece(offset, length, seeded_data(self._seed, step.number, offset, length))

    def _step(self, number: int, at: int, line: bytes) -> Step | None:
        """What a line does; None if nothing."""
        if not line.strip():
            return None
        if self._has_times:
            time, *remainder = line.split(None, 1)
            if not _is_number(time):
                raise self._bad(number, "it does not begin with a time")
            line = remainder[0] if remainder else b""
        fields = line.rsplit(None, 3)
        if len(fields) == 4 and _is_number(fields[2]) and _is_number(fields[3]):
            return self._io(number, at, *fields)
        if len(fields) < 2 or fields[-1] not in _FILE_ACTIONS:
            raise self._bad(number, "it is not FILE ACTION OFFSET LENGTH, nor FILE add, open or close")
        return None

    def _io(self, number: int, at: int, name: bytes, act: bytes, offset: bytes, length: bytes) -> Step | None:
        if act not in _ACTIONS:
            raise self._bad(number, f"{act.decode('utf-8', 'surrogateescape')} is not an action of fio's")
        action = _ACTIONS[act]
        if action is None:
            return None
        if action == Action.FLUSH:
            return Step(action, number, at)
        first, count = int(offset), int(length)
        if first + count > ADDRESS_LIMIT:
            raise self._bad(number, f"it reaches to byte {first + count}, after the end of any volume")
        if not count:
            return None
        return Step(action, number, at, self._volume_of(number, name), first, count)

    def _volume_of(self, number: int, name: bytes) -> str:
        try:
            return self._file_map.volume_of(name.decode("utf-8", "surrogateescape"))
        except UsageError as error:
            raise UsageError(f"line {number}: {error.what}", where=self.path, remedy=error.remedy) from None

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, place and text of each line.

        Raises:
            BadLogError: a line is too long, or the last has no end.
        """
        number, at, begun = 0, 0, b""
        while more := self._file.pread(_READ_BYTES, at + len(begun)):
            *whole, begun = (begun + more).split(b"\n")
            for line in whole:
                number += 1
                self._check_length(number, line)
                yield number, at, line
                at += len(line) + 1
            self._check_length(number + 1, begun)
        if begun:
            raise self._bad(number + 1, "the last line has no end: the log was cut short")

    def _check_length(self, number: int, line: bytes) -> None:
        if len(line) > LINE_BYTES_MAX:
            raise self._bad(number, f"it has more than {LINE_BYTES_MAX} bytes")

    def _bad(self, number: int, what: str) -> BadLogError:
        return BadLogError(f"line {number}: {what}", where=self.path, remedy=_REMEDY)


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= _DIGITS_MAX
