"""Writes a base: streams pages, in order of their addresses, into the file that basefile.py describes.

Rule: a base is written beside, made durable, read back from the device, and only then given its name. So whatever has
the name can be relied upon, and journal files before it may go.
Bound: one frame in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

from mirrortool import files
from mirrortool.checksum import Buffer
from mirrortool.files import File
from mirrortool.journal import format as layout
from mirrortool.journal.bases import basefile
from mirrortool.journal.bases.basefile import BaseFile, BaseHeader
from mirrortool.journal.bases.listing import link_elsewhere, remove_elsewhere
from mirrortool.journal.codec import compress, encode_frame
from mirrortool.journal.description import empty_state_sum
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.lsn import NO_LSN
from mirrortool.operation import BatchBuilder

FRAME_BYTES = 1 << 20
"""Pages of a frame, uncompressed."""
RUNS_MAX = 4096
"""Runs of pages in a frame."""


class BaseWriter:
    """A base in the making; `with` removes what was not finished."""

    def __init__(self, journal: Journal, path: str, header: BaseHeader, *, elsewhere: str | None = None) -> None:
        """Begin the file beside `path`; one that an earlier call left there is begun anew.

        Args:
            elsewhere: where the file is to lie; `path` becomes a link to it.
        """
        self._journal, self._path, self._header = journal, path, header
        self._temporary, self._elsewhere = f"{path}.new", elsewhere
        self._builder = BatchBuilder(header.page_size)
        self._file: File | None = self._make_file()
        self._digest = xxhash.xxh3_64()
        self._offset = self._frames = self._pages = 0
        self._state_sum = empty_state_sum(header.volumes)
        head = basefile.encode_header(header)
        chain = int.from_bytes(head[basefile.HEADER.size - layout.CHECKSUM_BYTES : basefile.HEADER.size], "little")
        self._position = Position(NO_LSN, chain)
        self._append([head])

    def __enter__(self) -> BaseWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file:
            self._file.close()
            self._file = None
            self._remove()

    def add(self, page: int, data: Buffer, sums: Buffer) -> None:
        """Take in a run of pages, none of them zero, all of them after those of the calls before."""
        self._builder.write(page, data, sums)
        if self._builder.payload_bytes >= FRAME_BYTES or len(self._builder) >= RUNS_MAX:
            self._append_frame()

    def finish(self) -> int:
        """Make it durable, read it back, and give it its name; returns its bytes.

        Raises:
            CorruptJournalError: the pages do not give the state sum of the commit.
            HostError: it cannot be written; there is no base then.
        """
        if len(self._builder):
            self._append_frame()
        self._append([basefile.encode_end(self._frames, self._pages, self._digest.intdigest())])
        file, self._file = self._file, None
        assert file is not None
        try:
            with file:
                file.fdatasync()
            with BaseFile(self._journal, self._temporary, self._header.position.lsn) as written:
                written.drop_cache()
                for _ in written.frames():
                    pass
            files.rename(self._temporary, self._path)
        except BaseException:
            self._remove()
            raise
        return self._offset

    def _make_file(self) -> File:
        if self._elsewhere is None:
            return files.make_file(self._temporary)
        link_elsewhere(self._elsewhere, self._temporary)
        try:  # the other directory may be anybody's
            file = files.open_file(self._elsewhere, write=True, create=True, exclusive=True, mode=0o600)
            files.sync_name(self._elsewhere)
            return file
        except BaseException:
            self._remove()
            raise

    def _remove(self) -> None:
        if self._elsewhere and files.link_target(self._temporary) is not None:  # else it has its name already
            remove_elsewhere(self._elsewhere)
        files.remove(self._temporary)

    def _append_frame(self) -> None:
        batch = self._builder.build()
        self._state_sum ^= basefile.term_of(batch)
        buffers, self._position = encode_frame(
            batch,
            compress(batch.payload),
            after=self._position,
            time_ns=self._header.time_ns,
            state_sum=self._state_sum,
            captured=True,
            seed=basefile.frame_seed(self._header.uuid, self._header.position.lsn, self._offset),
        )
        self._append(buffers)
        self._frames, self._pages = self._frames + 1, self._pages + batch.page_count

    def _append(self, buffers: Sequence[Buffer]) -> None:
        assert self._file is not None
        self._file.pwritev(buffers, self._offset)
        for buffer in buffers:
            self._digest.update(buffer)
            self._offset += len(buffer)
