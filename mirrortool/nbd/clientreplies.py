"""Replies of a server to requests, from bytes to what the requests wanted, without I/O.

`target` is where the next bytes are to be put, and `received` says how many came: small replies into one buffer, many
at once, and the data of a large READ at once where it is wanted.

Everything comes from a server that may be anything. Bounds: a chunk is no longer than what it answers asked for;
extents and pieces of one answer are counted. A reply that nobody waits for, or of another kind than was asked for, is
a ProtocolError.

One thread, the connection's, uses a reader; `unanswered` is the exception.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.protocol import ChunkType, Command, ProtocolError
from mirrortool.wording import byte_count

INBOX_BYTES = 256 << 10
EXTENTS_MAX = 1 << 20
"""Of one answer to BLOCK_STATUS; qemu-nbd and nbdkit give no more."""
_PIECES_MAX = 4096
"""Of a READ that is answered in chunks which do not follow each other."""
_TEXT_BYTES_MAX = 8 + nbd.NAME_BYTES_MAX + 8
_ERROR_BIT = 1 << 15
_NO_BUFFER = memoryview(b"")

_SIMPLE = struct.Struct(">IIQ")
_CHUNK = struct.Struct(">IHHQI")
assert (_SIMPLE.size, _CHUNK.size) == (nbd.SIMPLE_REPLY.size, nbd.CHUNK.size)


class NbdRequest:
    """A request, and what came of it.

    Attributes:
        buffer: of a READ, where its data goes.
        data: of a WRITE, its data; let go of once it is sent.
        extents: of a BLOCK_STATUS, what it found: (bytes, whether they read as zeros), equal neighbours merged.
        error: the server's number; 0 for success.
        text: what the server said of the error, or nothing.
        on_done: called by the connection's thread when it is answered; the request is its own again.
    """

    __slots__ = ("_pieces", "buffer", "command", "data", "error", "extents", "length", "offset", "on_done", "text")

    def __init__(
        self,
        command: Command,
        offset: int,
        length: int,
        on_done: Callable[[NbdRequest], None],
        *,
        data: Sequence[memoryview] = (),
        buffer: memoryview = _NO_BUFFER,
    ) -> None:
        self.command = command
        self.offset = offset
        self.length = length
        self.data = data
        self.buffer = buffer
        self.on_done = on_done
        self.extents: list[tuple[int, bool]] = []
        self.error = 0
        self.text = ""
        self._pieces: list[tuple[int, int]] = []  # (start, end) of the data that came, in the order in which it came

    def add_piece(self, start: int, end: int) -> None:
        """Data from byte `start` up to `end` of a READ has come.

        Raises:
            ProtocolError: it came in too many pieces.
        """
        if self._pieces and self._pieces[-1][1] == start:
            self._pieces[-1] = self._pieces[-1][0], end
            return
        if len(self._pieces) >= _PIECES_MAX:
            raise ProtocolError("it answers a READ in very many pieces")
        self._pieces.append((start, end))

    def is_whole(self) -> bool:
        """Whether each byte of a READ came, and came once."""
        at = 0
        for start, end in sorted(self._pieces):
            if start != at:
                return False
            at = end
        return at == self.length


class ReplyReader:
    """The replies of one connection.

    Attributes:
        unanswered: the requests by cookie. A sender adds one before it sends it; only the reader removes one.
        answered: how many requests were answered.
    """

    def __init__(self, *, is_structured: bool, context_id: int | None = None) -> None:
        """Read replies.

        Args:
            is_structured: whether structured replies were agreed on.
            context_id: what stands for base:allocation, if that was agreed on.
        """
        self._is_structured = is_structured
        self._context_id = context_id
        self.unanswered: dict[int, NbdRequest] = {}
        self.answered = 0
        self._inbox = memoryview(bytearray(INBOX_BYTES))
        self._start = self._end = 0
        # What is being received after a header: where the remainder of it goes, and what is done with it then.
        self._sink: memoryview | None = None
        self._then: Callable[[], None] = lambda: None
        self._is_discarding = False

    def target(self) -> memoryview:
        """Where the next bytes are to be put; never empty."""
        if self._sink is not None:
            return self._sink
        if self._start:
            kept = self._end - self._start
            self._inbox[:kept] = self._inbox[self._start : self._end]
            self._start, self._end = 0, kept
        return self._inbox[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes were put at the start of `target`.

        Raises:
            ProtocolError: they are not replies to these requests; nothing after them can be read.
        """
        if self._sink is not None:
            self._sink = self._sink[count:]
            if len(self._sink):
                return
            self._sink = None
            self._then()
        else:
            self._end += count
        self._read_all()

    def discard(self) -> None:
        """Nobody waits for data any more: but for a chunk that has begun, it is dropped; answers are only counted."""
        self._is_discarding = True

    def _read_all(self) -> None:
        """Read every reply that is whole; of one whose data has not come, put what has where it belongs."""
        while self._sink is None:
            left = self._end - self._start
            if left < _SIMPLE.size:
                return
            magic, first, cookie = _SIMPLE.unpack_from(self._inbox, self._start)
            if magic == nbd.SIMPLE_REPLY_MAGIC:
                self._start += _SIMPLE.size
                self._read_simple(first, cookie)
            elif magic != nbd.CHUNK_MAGIC or not self._is_structured:
                raise ProtocolError(f"a reply begins with {magic:#x}")
            elif left < _CHUNK.size:
                return
            else:
                _, flags, kind, cookie, length = _CHUNK.unpack_from(self._inbox, self._start)
                self._start += _CHUNK.size
                self._read_chunk(bool(flags & nbd.CHUNK_DONE), kind, cookie, length)

    def _read_simple(self, error: int, cookie: int) -> None:
        request = self._find(cookie)
        if request.command == Command.READ and not error:
            if self._is_structured:
                raise ProtocolError("it answers a READ by a simple reply, though structured ones were agreed on")
            self._receive_data(request, 0, request.length, is_last=True, cookie=cookie)
        elif request.command == Command.BLOCK_STATUS and not error:
            raise ProtocolError("it answers a BLOCK_STATUS by a simple reply")
        else:
            request.error = request.error or error
            self._finish(request, cookie)

    def _read_chunk(self, is_last: bool, kind: int, cookie: int, length: int) -> None:
        request = self._find(cookie)
        if kind & _ERROR_BIT:
            if not 6 <= length <= _TEXT_BYTES_MAX:
                raise ProtocolError(f"it tells an error in {byte_count(length)}")
            self._receive(length, lambda data: self._read_error(request, data), is_last, cookie)
        elif kind == ChunkType.NONE:
            if length or not is_last:
                raise ProtocolError("it sends an empty chunk that is not the last, or not empty")
            self._end_chunk(request, True, cookie)
        elif kind == ChunkType.OFFSET_DATA and request.command == Command.READ:
            if not 8 < length <= 8 + request.length:
                raise ProtocolError(f"it answers a READ of {byte_count(request.length)} by {length - 8}")
            self._receive(8, lambda data: self._begin_data(request, data, length - 8, is_last, cookie), False, cookie)
        elif kind == ChunkType.OFFSET_HOLE and request.command == Command.READ:
            if length != 12:
                raise ProtocolError(f"it tells a hole in {byte_count(length)}")
            self._receive(length, lambda data: self._read_hole(request, data), is_last, cookie)
        elif kind == ChunkType.BLOCK_STATUS and request.command == Command.BLOCK_STATUS:
            if not 12 <= length <= 4 + 8 * EXTENTS_MAX or length % 8 != 4 or request.extents:
                raise ProtocolError(f"it answers a BLOCK_STATUS by {byte_count(length)}, or twice")
            self._receive(length, lambda data: self._read_extents(request, data), is_last, cookie)
        else:
            raise ProtocolError(f"it answers {request.command.name} by a chunk of type {kind:#x}")

    def _begin_data(self, request: NbdRequest, data: memoryview, length: int, is_last: bool, cookie: int) -> None:
        start = int.from_bytes(data[:8], "big") - request.offset
        self._receive_data(request, start, length, is_last=is_last, cookie=cookie)

    def _receive_data(self, request: NbdRequest, start: int, length: int, *, is_last: bool, cookie: int) -> None:
        """Data for byte `start` of a READ on, straight to where it is wanted."""
        self._check_inside(request, start, length)
        request.add_piece(start, start + length)
        space = memoryview(bytearray(length)) if self._is_discarding else request.buffer[start : start + length]
        self._fill(space, lambda: self._end_chunk(request, is_last, cookie))

    def _read_hole(self, request: NbdRequest, data: memoryview) -> None:
        offset, length = struct.unpack(">QI", data)
        start = offset - request.offset
        self._check_inside(request, start, length)
        request.add_piece(start, start + length)
        if not self._is_discarding:
            request.buffer[start : start + length] = bytes(length)

    def _check_inside(self, request: NbdRequest, start: int, length: int) -> None:
        if start < 0 or not 0 < length <= request.length - start:
            raise ProtocolError("it answers a READ by data of another place")

    def _read_extents(self, request: NbdRequest, data: memoryview) -> None:
        if int.from_bytes(data[:4], "big") != self._context_id:
            raise ProtocolError("it answers a BLOCK_STATUS for a context that was not agreed on")
        left, found = request.length, request.extents
        for length, state in struct.iter_unpack(">II", data[4:]):
            if not length:
                raise ProtocolError("it names an extent of no bytes")
            length, is_zero = min(length, left), bool(state & nbd.STATE_ZERO)
            if found and found[-1][1] == is_zero:
                found[-1] = found[-1][0] + length, is_zero
            elif length:
                found.append((length, is_zero))
            left -= length

    def _read_error(self, request: NbdRequest, data: memoryview) -> None:
        error, length = struct.unpack_from(">IH", data)
        if not error or length > len(data) - 6:
            raise ProtocolError("it tells an error that is none")
        if not request.error:
            request.error, request.text = error, bytes(data[6 : 6 + length]).decode("utf-8", "replace")

    def _receive(self, length: int, read: Callable[[memoryview], None], is_last: bool, cookie: int) -> None:
        """Have `length` bytes read when all of them have come; that was checked against a limit."""
        request = self._find(cookie)
        data = memoryview(bytearray(length))

        def then() -> None:
            read(data)
            self._end_chunk(request, is_last, cookie)

        self._fill(data, then)

    def _fill(self, space: memoryview, then: Callable[[], None]) -> None:
        """Fill `space` with what comes next, of which some may be here, and call `then`."""
        here = min(len(space), self._end - self._start)
        space[:here] = self._inbox[self._start : self._start + here]
        self._start += here
        if here == len(space):
            then()
        else:
            self._sink, self._then = space[here:], then

    def _end_chunk(self, request: NbdRequest, is_last: bool, cookie: int) -> None:
        if not is_last:
            return
        if not request.error and request.command == Command.READ and not request.is_whole():
            raise ProtocolError("it answers a READ in part, or some of it twice")
        if not request.error and request.command == Command.BLOCK_STATUS and not request.extents:
            raise ProtocolError("it answers a BLOCK_STATUS without an extent")
        self._finish(request, cookie)

    def _find(self, cookie: int) -> NbdRequest:
        request = self.unanswered.get(cookie)
        if request is None:
            raise ProtocolError("it answers what was not asked, or twice")
        return request

    def _finish(self, request: NbdRequest, cookie: int) -> None:
        del self.unanswered[cookie]
        self.answered += 1
        request.on_done(request)
