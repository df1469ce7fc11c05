"""Operations, one at a time for people, and in batches of columns for everything else.

A `Batch` is the one value on the way from the client's socket to the store's pwritev. It owns no policy: whoever
makes one has checked it, and whoever decodes one from a journal checks it there (journal/codec.py).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from mirrortool.checksum import SUM_BYTES, Buffer, page_sums
from mirrortool.lsn import Lsn

MARK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


class Kind(IntEnum):
    """What an operation does. The value is the byte in the journal."""

    WRITE = 1
    ZERO = 2
    RESIZE = 3
    COMMIT = 4
    MARK = 5


class CommitKind(IntEnum):
    """Why there is a commit. The value is the `pages` column of a COMMIT or MARK.

    Two are not a state of the primary: FUZZY, as a volume changed while it was scanned, and INCOMPLETE, as a volume is
    being read into the journal for the first time while it is served. HEARTBEAT repeats the commit before it: nothing
    changed, and the recorder runs.
    """

    FLUSH = 1
    INTERVAL = 2
    SCAN = 3
    FUZZY = 4
    INCOMPLETE = 5
    HEARTBEAT = 6


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, for `log --ops` and tests; never on the hot path.

    Attributes:
        page: first page; of a RESIZE the volume's first page.
        count: pages; of a RESIZE the new size in bytes; of a commit the LSN known durable when it was written.
        data: of a WRITE, its pages.
        name: of a MARK.
    """

    lsn: Lsn
    kind: Kind
    page: int = 0
    count: int = 0
    data: Buffer = b""
    commit_kind: CommitKind | None = None
    name: str | None = None


BatchRun = tuple[int, int, int, memoryview, memoryview]
"""An operation of a batch: kind, page and count as in `Operation`, and of a WRITE its packed sums and its pages."""


@dataclass(slots=True)
class Batch:
    """Operations as columns; the data (121) of the patent's FIG. 1.

    Attributes:
        kinds: a byte for each operation.
        pages, counts: as in `Operation`; of a COMMIT or MARK `pages` is the CommitKind.
        sums: 8 bytes for each page written, in order (checksum.page_sums).
        payload: the pages written, one after another.
        name: of the MARK, which can only be the last operation.
    """

    kinds: bytes = b""
    pages: Sequence[int] = field(default_factory=lambda: array("Q"))
    counts: Sequence[int] = field(default_factory=lambda: array("Q"))
    sums: Buffer = b""
    payload: Buffer = b""
    name: str | None = None

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def page_count(self) -> int:
        """Pages written."""
        return len(self.sums) // SUM_BYTES

    @property
    def is_commit(self) -> bool:
        """Whether the last operation is a COMMIT or MARK."""
        return bool(self.kinds) and self.kinds[-1] >= Kind.COMMIT

    def runs(self) -> Iterator[BatchRun]:
        """Each operation with its own part of `sums` and `payload`; a batch that has no payload gives no data.

        Not for what replay does to every operation: coalesce.py and pagesums.py slice the columns themselves.
        """
        sums, payload = memoryview(self.sums), memoryview(self.payload)
        page_bytes = len(payload) // self.page_count if self.page_count else 0
        begin = 0
        for kind, page, count in zip(self.kinds, self.pages, self.counts, strict=True):
            end = begin + count if kind == Kind.WRITE else begin
            packed = sums[begin * SUM_BYTES : end * SUM_BYTES]
            yield kind, page, count, packed, payload[begin * page_bytes : end * page_bytes]
            begin = end

    def operations(self, first_lsn: Lsn) -> Iterator[Operation]:
        """The operations one by one, the first numbered `first_lsn`."""
        for lsn, (kind, page, count, _, data) in enumerate(self.runs(), first_lsn):
            if kind == Kind.WRITE:
                yield Operation(Lsn(lsn), Kind.WRITE, page, count, data)
            elif kind >= Kind.COMMIT:
                name = self.name if kind == Kind.MARK else None
                yield Operation(Lsn(lsn), Kind(kind), 0, count, commit_kind=CommitKind(page), name=name)
            else:
                yield Operation(Lsn(lsn), Kind(kind), page, count)


class BatchBuilder:
    """Collects operations into one batch; buffers are copied once, in `build`, and a single one not at all."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self._clear()

    def _clear(self) -> None:
        self.payload_bytes = 0
        self._kinds = bytearray()
        self._pages = array("Q")
        self._counts = array("Q")
        self._sums: list[Buffer] = []
        self._payload: list[Buffer] = []
        self._name: str | None = None

    def __len__(self) -> int:
        return len(self._kinds)

    def write(self, page: int, data: Buffer, sums: Buffer | None = None) -> None:
        """Write whole pages from `page` on; `sums` are computed unless the caller has them."""
        view = memoryview(data)
        assert len(view) and len(view) % self.page_size == 0
        count = len(view) // self.page_size
        if sums is None:
            pages = [view[i : i + self.page_size] for i in range(0, len(view), self.page_size)]
            sums = page_sums(pages, self.page_size)
        assert len(sums) == count * SUM_BYTES
        self._add(Kind.WRITE, page, count)
        self._sums.append(sums)
        self._payload.append(view)
        self.payload_bytes += len(view)

    def zero(self, page: int, count: int) -> None:
        """Make pages read as zeros and give their space back."""
        self._add(Kind.ZERO, page, count)

    def resize(self, volume_page: int, size: int) -> None:
        """Give the volume based at `volume_page` a new size in bytes."""
        self._add(Kind.RESIZE, volume_page, size)

    def commit(self, kind: CommitKind, durable_lsn: Lsn, name: str | None = None) -> None:
        """End the batch with a commit, or with a mark if it has a name."""
        self._add(Kind.COMMIT if name is None else Kind.MARK, kind, durable_lsn)
        self._name = name

    def build(self) -> Batch:
        """The batch; the builder is empty afterwards."""
        payload = self._payload[0] if len(self._payload) == 1 else b"".join(self._payload)
        sums = b"".join(self._sums)
        batch = Batch(bytes(self._kinds), self._pages, self._counts, sums, payload, self._name)
        self._clear()
        return batch

    def _add(self, kind: Kind, page: int, count: int) -> None:
        assert self._name is None and not (self._kinds and self._kinds[-1] >= Kind.COMMIT)
        self._kinds.append(kind)
        self._pages.append(page)
        self._counts.append(count)
