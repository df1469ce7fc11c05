"""The transmission phase of a connection, after the handshake: requests and replies.

A *run* is what one receive brought, up to the first request that must see what came before: changes in order, then
FLUSHes. It costs one `change`, at most one `flush` for all that must be durable, and usually one send. READ,
BLOCK_STATUS and CACHE end a run, as does a change after a FLUSH. Only such a run is kept here, so what waits is bounded
by the inbox and one large WRITE.

A large WRITE or READ borrows the memory that holds it whole (memorybudget.py). Where none is left it is done piece by
piece in what the client has for itself: other clients are not slower, but a WRITE of a client that leaves in the middle
may have been done in part, as on any disk, and a READ that fails in the middle ends the connection.

Replies are sent in about the order of the requests; the protocol asks for no order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from mirrortool.change import Change
from mirrortool.errors import MirrortoolError, NoSpaceError
from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.buffers import WAITED_BYTES_MAX, Inbox, Outbox
from mirrortool.nbd.channel import Channel, EndOfStreamError
from mirrortool.nbd.memorybudget import Share
from mirrortool.nbd.negotiation import Agreement
from mirrortool.nbd.protocol import Command, CommandFlag, Error, ProtocolError
from mirrortool.nbd.statistics import Counters
from mirrortool.wording import byte_count

READ_PIECE_BYTES = 1 << 20
"""A longer READ is answered in chunks of this, where the client accepts chunks; else it needs a loan, or is cut too."""
WRITE_PIECE_BYTES = 1 << 19
"""A longer WRITE needs a loan, or is done in pieces of this."""
SKIPPED_BYTES_MAX = 2 * nbd.PAYLOAD_BYTES_MAX
"""A WRITE that is too large is skipped and refused; beyond this it is an attack and ends the connection."""
EXTENTS_SEEN_MAX = 16 * nbd.EXTENTS_MAX
"""Runs that one BLOCK_STATUS asks an export for, most of which may be merged with their neighbours."""

_WRITE = int(Command.WRITE)  # compared with at every request, where a member of an enum costs twice as much
_CHANGING = frozenset((Command.WRITE, Command.TRIM, Command.WRITE_ZEROES))


class _Refusal(Exception):
    """A request whose reply is an error; the text is for people."""

    def __init__(self, error: Error, text: str) -> None:
        super().__init__(text)
        self.error = error


class _Failure(NamedTuple):
    """Why the export could not do something; the text is for people."""

    error: Error
    text: str


class BrokenReplyError(Exception):
    """A reply that was begun cannot be finished, so the connection must end. The failure was told."""


class Transmission:
    """Belongs to the connection's thread; `counters` may be read by others."""

    def __init__(
        self,
        channel: Channel,
        agreement: Agreement,
        share: Share,
        counters: Counters,
        tell: Callable[[str], None],
    ) -> None:
        self._inbox = Inbox(channel)
        self._outbox = Outbox(channel)
        self._export = agreement.export
        self._size = agreement.export.size
        self._is_structured = agreement.structured
        self._has_allocation = agreement.allocation
        self._share = share
        self._counters = counters
        self._tell = tell
        self._is_over = False
        # The run: changes; cookies of those to be answered when they are journaled, and when they are durable.
        self._changes: list[Change] = []
        self._journaled: list[bytes] = []
        self._durable: list[bytes] = []
        self._flushes: list[bytes] = []
        self._handlers: dict[int, Callable[[int, bytes, int, int], None]] = {
            Command.READ: self._read,
            Command.WRITE: self._write,
            Command.FLUSH: self._flush,
            Command.TRIM: self._zero,
            Command.CACHE: self._cache,
            Command.WRITE_ZEROES: self._zero,
            Command.BLOCK_STATUS: self._block_status,
        }

    def run(self, is_stopping: Callable[[], bool]) -> bool:
        """Serve until the client leaves or the server stops; whether the client said that it leaves.

        Args:
            is_stopping: asked after each receive has been answered.
        Raises:
            ProtocolError, OSError, EndOfStreamError, BrokenReplyError: the connection must end.
        """
        try:
            return self._serve(is_stopping)
        finally:
            self._handlers.clear()  # else this, and its memory, waits for the garbage collector

    def _serve(self, is_stopping: Callable[[], bool]) -> bool:
        inbox = self._inbox
        while inbox.receive():
            try:
                self._read_requests()
            except ProtocolError:
                self._answer()  # garbage after a request does not undo it
                raise
            self._answer()
            if self._is_over or is_stopping():
                return self._is_over
        if inbox.end > inbox.start:
            raise EndOfStreamError
        return False

    def _read_requests(self) -> None:
        """Do, or add to the run, every request that is whole in the inbox. The first half is the hot path."""
        inbox, unpack, header_bytes = self._inbox, nbd.REQUEST.unpack_from, nbd.REQUEST.size
        buffer, view, at, end = inbox.buffer, inbox.view, inbox.start, inbox.end
        limit = -1 if self._export.read_only else self._size
        while end - at >= header_bytes:
            magic, flags, command, cookie, offset, length = unpack(buffer, at)
            if magic != nbd.REQUEST_MAGIC:
                raise ProtocolError("not an NBD request")
            body = at + header_bytes
            after = body + length
            if command == _WRITE and not flags and after <= end and offset + length <= limit and length:
                if self._flushes:
                    self._do_run()
                self._changes.append(Change(offset, length, bytes(view[body:after])))
                self._journaled.append(cookie)
                inbox.start = at = after
                continue
            if command == _WRITE and after > end and length <= WAITED_BYTES_MAX:
                return
            inbox.start = body
            self._do(command, flags, cookie, offset, length)
            if self._is_over:
                return
            at, end = inbox.start, inbox.end

    def _do(self, command: int, flags: int, cookie: bytes, offset: int, length: int) -> None:
        """Do any request, or add it to the run."""
        if command == Command.DISC:
            self._is_over = True
            return
        try:
            self._check(command, flags, offset, length)
        except _Refusal as refusal:
            if command == Command.WRITE:
                self._skip(length)
            self._refuse(cookie, refusal.error, str(refusal))
            return
        self._handlers[command](flags, cookie, offset, length)

    def _check(self, command: int, flags: int, offset: int, length: int) -> None:
        """Check that the protocol allows the request; the error numbers are those that it asks for.

        Raises:
            _Refusal: it does not.
        """
        allowed = nbd.FLAGS_OF_COMMAND.get(command)
        if allowed is None:
            raise _Refusal(Error.EINVAL, f"command {command} is not known")
        if flags & ~allowed or (flags & CommandFlag.DF and not self._is_structured):
            raise _Refusal(Error.EINVAL, f"flags {flags:#x} are not allowed with this command")
        if command in _CHANGING and self._export.read_only:
            raise _Refusal(Error.EPERM, "the export is read-only")
        if command == Command.FLUSH:
            if offset or length:
                raise _Refusal(Error.EINVAL, "FLUSH has no range")
        elif offset + length > self._size:
            full = command in (Command.WRITE, Command.WRITE_ZEROES)
            raise _Refusal(Error.ENOSPC if full else Error.EINVAL, "beyond the end of the export")
        if command == Command.WRITE and length > nbd.PAYLOAD_BYTES_MAX:
            raise _Refusal(Error.EINVAL, f"at most {nbd.PAYLOAD_BYTES_MAX} bytes a request")
        if command == Command.READ and length > nbd.PAYLOAD_BYTES_MAX:
            error = Error.EOVERFLOW if self._is_structured else Error.EINVAL
            raise _Refusal(error, f"at most {nbd.PAYLOAD_BYTES_MAX} bytes a request")
        if command == Command.BLOCK_STATUS and not (self._has_allocation and length):
            raise _Refusal(Error.EINVAL, f"nothing to tell: no {nbd.ALLOCATION_CONTEXT} was selected, or no bytes")

    def _skip(self, length: int) -> None:
        """Skip the data of a WRITE that is refused."""
        if length > SKIPPED_BYTES_MAX:
            raise ProtocolError(f"a WRITE of {byte_count(length)}")
        self._before_waiting(length)
        self._inbox.skip(length)

    def _before_waiting(self, length: int) -> None:
        """Answer what is done, if the next `length` bytes have not all arrived: the client may be slow."""
        if self._inbox.start + length > self._inbox.end:
            self._answer()

    def _write(self, flags: int, cookie: bytes, offset: int, length: int) -> None:
        self._before_waiting(length)
        if length > WRITE_PIECE_BYTES and not self._share.borrow(length):
            whole = self._write_pieces(cookie, offset, length)
            if not whole:
                return
            offset, length = offset + whole, length - whole
        self._add(flags, cookie, Change(offset, length, self._inbox.read(length)))

    def _write_pieces(self, cookie: bytes, offset: int, length: int) -> int:
        """Do a WRITE without its last piece, which is added to the run; returns the length done, 0 if it failed."""
        end = (length - 1) // WRITE_PIECE_BYTES * WRITE_PIECE_BYTES
        for done in range(0, end, WRITE_PIECE_BYTES):
            piece = Change(offset + done, WRITE_PIECE_BYTES, self._inbox.read(WRITE_PIECE_BYTES))
            if failure := self._attempt(self._export.change, [piece]):
                self._inbox.skip(length - done - WRITE_PIECE_BYTES)
                self._refuse(cookie, *failure)
                return 0
            self._counters.bytes_written += WRITE_PIECE_BYTES
        return end

    def _zero(self, flags: int, cookie: bytes, offset: int, length: int) -> None:
        keep_allocated = bool(flags & CommandFlag.NO_HOLE)
        if flags & CommandFlag.FAST_ZERO and (keep_allocated or not self._export.zeroes_fast):
            self._refuse(cookie, Error.ENOTSUP, "zeros are not faster than data here")
            return
        self._add(flags, cookie, Change(offset, length, None, keep_allocated))

    def _add(self, flags: int, cookie: bytes, change: Change) -> None:
        """Add a change to the run; one of no bytes is only answered."""
        if self._flushes:
            self._do_run()
        if change.length:
            self._changes.append(change)
        (self._durable if flags & CommandFlag.FUA else self._journaled).append(cookie)

    def _flush(self, _flags: int, cookie: bytes, _offset: int, _length: int) -> None:
        self._flushes.append(cookie)

    def _answer(self) -> None:
        """Do the run, and send every reply."""
        self._do_run()
        self._outbox.send()

    def _do_run(self) -> None:
        """Do the run and answer it."""
        if self._journaled or self._durable:
            self._change()
        if self._durable or self._flushes:
            self._make_durable()

    def _change(self) -> None:
        journaled, self._journaled = self._journaled, []
        if failure := self._do_changes():
            durable, self._durable = self._durable, []
            self._refuse_all(journaled + durable, failure)
            return
        self._counters.writes += len(journaled) + len(self._durable)
        if journaled:
            self._outbox.put(nbd.encode_successes(journaled))

    def _do_changes(self) -> _Failure | None:
        """Do the changes of the run; the export keeps them, and the memory that held them is free."""
        changes, self._changes = self._changes, []
        failure = self._attempt(self._export.change, changes) if changes else None
        if not failure:
            self._counters.bytes_written += sum([change.length for change in changes if change.data is not None])
        del changes
        self._share.give_back()
        return failure

    def _make_durable(self) -> None:
        durable, self._durable = self._durable, []
        flushes, self._flushes = self._flushes, []
        self._outbox.send()  # a request without FUA does not wait for the disk
        if failure := self._attempt(self._export.flush):
            self._refuse_all(durable + flushes, failure)
            return
        self._counters.flushes += len(flushes)
        self._outbox.put(nbd.encode_successes(durable + flushes))

    def _read(self, flags: int, cookie: bytes, offset: int, length: int) -> None:
        self._do_run()
        if not self._is_structured:
            self._read_whole(cookie, offset, length, nbd.SIMPLE_REPLY.size)
        elif not length:
            self._outbox.put(nbd.encode_empty_chunk(cookie))
        elif flags & CommandFlag.DF:
            self._read_whole(cookie, offset, length, nbd.DATA_CHUNK.size)
        else:
            self._read_chunks(cookie, offset, length)

    def _read_chunks(self, cookie: bytes, offset: int, length: int) -> None:
        for start in range(0, length, READ_PIECE_BYTES):
            part = min(READ_PIECE_BYTES, length - start)
            space = self._outbox.reserve(nbd.DATA_CHUNK.size + part)
            if not self._fill(cookie, offset + start, space, nbd.DATA_CHUNK.size):
                return
            nbd.encode_data_header(space, cookie, offset + start, part, last=start + part == length)

    def _read_whole(self, cookie: bytes, offset: int, length: int, header_bytes: int) -> None:
        """Answer a READ by one reply: at once if there is memory for it, else piece by piece."""
        if length <= READ_PIECE_BYTES:
            self._begin_reply(cookie, offset, length, length, header_bytes)
            return
        self._outbox.send()
        try:
            at_once = length if self._share.borrow(length) else READ_PIECE_BYTES
            if self._begin_reply(cookie, offset, length, at_once, header_bytes):
                self._continue_reply(offset + at_once, length - at_once)
            self._outbox.send()
        finally:
            self._share.give_back()

    def _begin_reply(self, cookie: bytes, offset: int, length: int, part: int, header_bytes: int) -> bool:
        """The header of a reply of `length` bytes, and the first `part` of them."""
        space = self._outbox.reserve(header_bytes + part)
        if not self._fill(cookie, offset, space, header_bytes):
            return False
        if self._is_structured:
            nbd.encode_data_header(space, cookie, offset, length, last=True)
        else:
            nbd.SIMPLE_REPLY.pack_into(space, 0, nbd.SIMPLE_REPLY_MAGIC, 0, cookie)
        return True

    def _continue_reply(self, offset: int, length: int) -> None:
        """The remainder of a reply.

        Raises:
            BrokenReplyError: it cannot be read, and it is too late for an error.
        """
        for start in range(0, length, READ_PIECE_BYTES):
            space = self._outbox.reserve(min(READ_PIECE_BYTES, length - start))
            if self._attempt(self._export.read_into, offset + start, space):
                raise BrokenReplyError
            self._counters.bytes_read += len(space)

    def _fill(self, cookie: bytes, offset: int, space: memoryview, header_bytes: int) -> bool:
        """Read into `space` after the header; if that fails, the reply is an error in its place."""
        data = space[header_bytes:]
        if data and (failure := self._attempt(self._export.read_into, offset, data)):
            self._outbox.give_back(len(space))
            self._refuse(cookie, *failure)
            return False
        self._counters.reads += 1
        self._counters.bytes_read += len(data)
        return True

    def _cache(self, _flags: int, cookie: bytes, offset: int, length: int) -> None:
        self._do_run()
        if length and (failure := self._attempt(self._export.cache, offset, length)):
            self._refuse(cookie, *failure)
        else:
            self._outbox.put(nbd.encode_successes([cookie]))

    def _block_status(self, flags: int, cookie: bytes, offset: int, length: int) -> None:
        self._do_run()
        count_max = 1 if flags & CommandFlag.REQ_ONE else nbd.EXTENTS_MAX
        found: list[tuple[int, bool]] = []

        def find() -> None:
            found.extend(merged(self._export.extents(offset, length), length, count_max))

        if failure := self._attempt(find):
            self._refuse(cookie, *failure)
        else:
            self._outbox.put(nbd.encode_block_status(cookie, found or [(length, False)]))

    def _attempt(self, function: Callable[..., None], *arguments: object) -> _Failure | None:
        """Call the export; a failure becomes an event, and an error number and a text for the client."""
        try:
            function(*arguments)
        except MirrortoolError as error:
            self._tell(f"export {self._export.name}: a client's request failed: {error}")
            full = isinstance(error, NoSpaceError)
            return _Failure(Error.ENOSPC, "no space left") if full else _Failure(Error.EIO, "input/output error")
        return None

    def _refuse(self, cookie: bytes, error: Error, text: str) -> None:
        self._counters.errors += 1
        self._outbox.put(nbd.encode_failure(cookie, error, text, structured=self._is_structured))

    def _refuse_all(self, cookies: Iterable[bytes], failure: _Failure) -> None:
        for cookie in cookies:
            self._refuse(cookie, *failure)


def merged(extents: Iterable[tuple[int, bool]], length: int, count_max: int) -> list[tuple[int, bool]]:
    """The first `count_max` extents of a range of `length` bytes, equal neighbours merged."""
    found: list[tuple[int, bool]] = []
    for seen, (size, is_hole) in enumerate(extents):
        size = min(size, length)
        if found and found[-1][1] == is_hole:
            found[-1] = (found[-1][0] + size, is_hole)
        elif len(found) == count_max or seen >= EXTENTS_SEEN_MAX:
            break
        elif size:
            found.append((size, is_hole))
        length -= size
        if not length or seen >= EXTENTS_SEEN_MAX:
            break
    return found
