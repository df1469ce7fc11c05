"""The negotiation with a client: greeting, options, and in the end an export, or none.

Bounds: an option's data (protocol.OPTION_BYTES_MAX), how many options (OPTIONS_MAX), and the time that the channel
gives to all of it together.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.channel import Channel, EndOfStreamError
from mirrortool.nbd.export import Export
from mirrortool.nbd.protocol import HandshakeFlag, Info, Option, OptionError, ProtocolError, Reply, TransmissionFlag
from mirrortool.wording import byte_count

OPTIONS_MAX = 1000
OPTION_BYTES_SKIPPED_MAX = 1 << 20
"""An option with more data than allowed is skipped and refused; one with more than this ends the connection."""

_BEFORE_TLS = (Option.STARTTLS, Option.ABORT)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What client and server have agreed on.

    Attributes:
        structured: READ is answered in chunks, and errors have texts.
        allocation: BLOCK_STATUS may be asked.
    """

    export: Export
    structured: bool
    allocation: bool


@dataclass(frozen=True, slots=True)
class Security:
    """Whether an address offers TLS, and whether it requires it."""

    context: ssl.SSLContext | None = None
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class _State:
    """What the options until now have set; STARTTLS resets it, as the protocol asks."""

    structured: bool = False
    allocation_of: Export | None = None


class ExportTable:
    """Exports by name; immutable."""

    def __init__(self, exports: Iterable[Export]) -> None:
        self._by_name = {export.name: export for export in exports}

    def __iter__(self) -> Iterator[Export]:
        return iter(self._by_name.values())

    def find(self, name: str) -> Export | None:
        """The export of that name; an empty name means the only export."""
        if not name and len(self._by_name) == 1:
            return next(iter(self._by_name.values()))
        return self._by_name.get(name)


class Negotiation:
    """One client's handshake; belongs to the connection's thread."""

    def __init__(self, channel: Channel, exports: ExportTable, security: Security, enter: Callable[[], bool]) -> None:
        """Prepare.

        Args:
            enter: called when the client asks for an export, after its certificate was checked; False if there are as
                many clients as there may be.
        """
        self._channel = channel
        self._enter = enter
        self._exports = exports
        self._security = security
        self._flags = HandshakeFlag(0)
        self._state = _State()
        self._agreement: Agreement | None = None
        self._is_over = False
        self._handlers: dict[int, Callable[[int, bytes], None]] = {
            Option.EXPORT_NAME: self._export_name,
            Option.ABORT: self._abort,
            Option.LIST: self._list,
            Option.STARTTLS: self._start_tls,
            Option.INFO: self._info,
            Option.GO: self._info,
            Option.STRUCTURED_REPLY: self._structured_reply,
            Option.LIST_META_CONTEXT: self._list_contexts,
            Option.SET_META_CONTEXT: self._set_context,
        }

    def run(self) -> Agreement | None:
        """Answer options until the client has an export, or leaves.

        Raises:
            ProtocolError, OSError, EndOfStreamError: the connection must end.
        """
        self._channel.send(nbd.encode_greeting())
        self._flags = nbd.decode_client_flags(self._channel.receive(nbd.CLIENT_FLAGS.size))
        if not self._flags & HandshakeFlag.FIXED_NEWSTYLE and self._security.is_required:
            raise ProtocolError("a client that does not know TLS")
        for _ in range(OPTIONS_MAX):
            self._answer_option()
            if self._is_over:
                return self._agreement
        raise ProtocolError(f"more than {OPTIONS_MAX} options")

    def _answer_option(self) -> None:
        option, length = nbd.decode_option(self._channel.receive(nbd.OPTION.size))
        try:
            data = self._receive_data(length)  # first, so that the next option is found even if this one fails
            self._check_tls(option)
            if option not in self._handlers:
                raise OptionError(Reply.ERR_UNSUP, "this server does not know the option")
            self._handlers[option](option, data)
        except OptionError as error:
            if option == Option.EXPORT_NAME:  # its reply has no room for an error
                raise ProtocolError(str(error)) from None
            self._channel.send(nbd.encode_option_error(option, error))

    def _receive_data(self, length: int) -> bytes:
        if length <= nbd.OPTION_BYTES_MAX:
            return self._channel.receive(length)
        if length > OPTION_BYTES_SKIPPED_MAX:
            raise ProtocolError(f"an option with {byte_count(length)} of data")
        self._channel.skip(length)
        raise OptionError(Reply.ERR_TOO_BIG, f"an option has at most {nbd.OPTION_BYTES_MAX} bytes of data")

    def _check_tls(self, option: int) -> None:
        if self._security.is_required and not self._channel.is_encrypted and option not in _BEFORE_TLS:
            raise OptionError(Reply.ERR_TLS_REQD, "begin with STARTTLS")

    def _export_name(self, _option: int, data: bytes) -> None:
        name = nbd.decode_name(data)
        export = self._find(name)
        if not self._enter():
            raise EndOfStreamError  # the server has told the event, and this option's reply has no room for an error
        zeroes = not self._flags & HandshakeFlag.NO_ZEROES
        self._channel.send(nbd.encode_export_name_reply(export.size, self._flags_of(export), zeroes=zeroes))
        self._agree(export)

    def _abort(self, option: int, _data: bytes) -> None:
        self._is_over = True
        try:
            self._ack(option)
        except OSError:  # a client need not wait for it
            return
        self._channel.say_goodbye()

    def _list(self, option: int, data: bytes) -> None:
        _refuse_data(data)
        for export in self._exports:
            self._reply(option, Reply.SERVER, nbd.encode_server(export.name, export.description))
        self._ack(option)

    def _start_tls(self, option: int, data: bytes) -> None:
        _refuse_data(data)
        if not self._security.context:
            raise OptionError(Reply.ERR_POLICY, "this server has no certificate")
        if self._channel.is_encrypted or not self._flags & HandshakeFlag.FIXED_NEWSTYLE:
            raise OptionError(Reply.ERR_INVALID, "not now")
        self._ack(option)
        self._channel.start_tls(self._security.context)
        self._state = _State()

    def _info(self, option: int, data: bytes) -> None:
        name, wanted = nbd.decode_info_request(data)
        export = self._find(name)
        if option == Option.GO and not self._enter():
            raise OptionError(Reply.ERR_POLICY, "as many clients as this server allows are connected already")
        self._reply(option, Reply.INFO, nbd.encode_info_export(export.size, self._flags_of(export)))
        if Info.NAME in wanted:
            self._reply(option, Reply.INFO, nbd.encode_info_text(Info.NAME, export.name))
        if Info.DESCRIPTION in wanted:
            self._reply(option, Reply.INFO, nbd.encode_info_text(Info.DESCRIPTION, export.description))
        if Info.BLOCK_SIZE in wanted:
            self._reply(option, Reply.INFO, nbd.encode_info_block_size(export.page_size))
        self._ack(option)
        if option == Option.GO:
            self._agree(export)

    def _structured_reply(self, option: int, data: bytes) -> None:
        _refuse_data(data)
        self._state = replace(self._state, structured=True)
        self._ack(option)

    def _list_contexts(self, option: int, data: bytes) -> None:
        _, queries = self._meta_request(data)
        if not queries or {"base:", nbd.ALLOCATION_CONTEXT} & set(queries):
            self._reply(option, Reply.META_CONTEXT, nbd.encode_meta_context(0, nbd.ALLOCATION_CONTEXT))
        self._ack(option)

    def _set_context(self, option: int, data: bytes) -> None:
        self._state = replace(self._state, allocation_of=None)  # also when this one fails
        export, queries = self._meta_request(data)
        if nbd.ALLOCATION_CONTEXT in queries:
            self._state = replace(self._state, allocation_of=export)
            context = nbd.encode_meta_context(nbd.ALLOCATION_CONTEXT_ID, nbd.ALLOCATION_CONTEXT)
            self._reply(option, Reply.META_CONTEXT, context)
        self._ack(option)

    def _meta_request(self, data: bytes) -> tuple[Export, list[str]]:
        if not self._state.structured:
            raise OptionError(Reply.ERR_INVALID, "ask for structured replies first")
        name, queries = nbd.decode_meta_request(data)
        return self._find(name), queries

    def _find(self, name: str) -> Export:
        export = self._exports.find(name)
        if export is None:
            raise OptionError(Reply.ERR_UNKNOWN, f"there is no export {name!r}")
        return export

    def _flags_of(self, export: Export) -> TransmissionFlag:
        can = TransmissionFlag
        flags = can.HAS_FLAGS | can.SEND_FLUSH | can.SEND_FUA | can.CAN_MULTI_CONN | can.SEND_CACHE
        if self._state.structured:
            flags |= can.SEND_DF
        if export.read_only:
            return flags | can.READ_ONLY
        return flags | can.SEND_TRIM | can.SEND_WRITE_ZEROES | can.SEND_FAST_ZERO

    def _agree(self, export: Export) -> None:
        allocation = self._state.allocation_of is export
        self._agreement = Agreement(export, self._state.structured, allocation)
        self._is_over = True

    def _reply(self, option: int, reply: Reply, data: bytes) -> None:
        self._channel.send(nbd.encode_option_reply(option, reply, data))

    def _ack(self, option: int) -> None:
        self._reply(option, Reply.ACK, b"")


def _refuse_data(data: bytes) -> None:
    if data:
        raise OptionError(Reply.ERR_INVALID, "this option has no data")
