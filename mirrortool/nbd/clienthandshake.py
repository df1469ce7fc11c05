"""The handshake of a client: greeting, TLS, what the server can do, and in the end an export.

Bounds: the time that the channel gives to all of it together; the length of each reply, and how many an option has.
Rule: under TLS nothing but STARTTLS is said before it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from mirrortool.errors import MirrortoolError, ServerError, UnusableVolumeError
from mirrortool.nbd import clientcodec as codec
from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.clientchannel import ClientChannel
from mirrortool.nbd.clientcodec import ExportFacts
from mirrortool.nbd.protocol import HandshakeFlag, Info, Option, ProtocolError, Reply
from mirrortool.nbd.uri import NbdUri

_REPLIES_MAX = 100
"""Of one option: GO has one for each Info."""
_WANTED = (Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What client and server have agreed on.

    Attributes:
        is_structured: READ is answered in chunks, and errors have texts.
        context_id: what stands for base:allocation in BLOCK_STATUS; None if that may not be asked.
    """

    facts: ExportFacts
    is_structured: bool
    context_id: int | None


class OptionRefusedError(Exception):
    """The server does not grant an option.

    Attributes:
        reply: what it answers.
        text: what it says of that, for people.
    """

    def __init__(self, reply: int, text: str) -> None:
        super().__init__(text)
        self.reply = reply
        self.text = text or codec.name_of_refusal(reply)


class ClientHandshake:
    """One handshake; for the thread that connects."""

    def __init__(self, channel: ClientChannel, uri: NbdUri, context: ssl.SSLContext | None) -> None:
        """Prepare.

        Args:
            context: of a URI under TLS, what it is done with.
        """
        self._channel = channel
        self._uri = uri
        self._context = context

    def run(self) -> Agreed:
        """Agree on everything, up to the export.

        Raises:
            UnusableVolumeError: there is no such export, or it is not granted.
            ServerError: TLS is not, or is required.
            ProtocolError, OSError, EndOfStreamError: the connection must end.
        """
        flags = codec.decode_greeting(self._channel.receive(nbd.GREETING.size))
        self._channel.send([nbd.CLIENT_FLAGS.pack(flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES))])
        if self._context:
            self._start_tls(self._context)
        is_structured = self._is_granted(Option.STRUCTURED_REPLY)
        context_id = self._ask_context() if is_structured else None
        return Agreed(self._go(), is_structured, context_id)

    def _start_tls(self, context: ssl.SSLContext) -> None:
        try:
            self._ask_for_nothing(Option.STARTTLS)
        except OptionRefusedError as error:
            raise ServerError(
                f"the server does not offer TLS: {error.text}",
                where=self._uri,
                remedy="give the server certificates, or, on a network that you trust, begin the URI with nbd",
            ) from None
        self._channel.start_tls(context, self._uri.hostname)

    def _is_granted(self, option: Option) -> bool:
        try:
            self._ask_for_nothing(option)
        except OptionRefusedError as error:
            self._check_tls(error)
            return False
        return True

    def _ask_context(self) -> int | None:
        found = None
        data = codec.encode_context_request(self._uri.export, nbd.ALLOCATION_CONTEXT)
        try:
            for reply, answer in self._ask(Option.SET_META_CONTEXT, data):
                if reply != Reply.META_CONTEXT or found is not None:
                    raise ProtocolError("it answers SET_META_CONTEXT by what was not asked for")
                found = codec.decode_context(answer, nbd.ALLOCATION_CONTEXT)
        except OptionRefusedError:
            return None  # also where there is no such export, which GO tells better
        return found

    def _go(self) -> ExportFacts:
        facts = ExportFacts(self._uri.export)
        data = codec.encode_info_request(self._uri.export, _WANTED)
        try:
            for reply, answer in self._ask(Option.GO, data):
                if reply != Reply.INFO:
                    raise ProtocolError("it answers GO by what was not asked for")
                facts = codec.decode_info(facts, answer)
        except OptionRefusedError as error:
            self._check_tls(error)
            raise self._why_no_export(error) from None
        if facts.size < 0:
            raise ProtocolError("it does not tell the size of the export")
        return facts

    def _why_no_export(self, error: OptionRefusedError) -> MirrortoolError:
        if error.reply == Reply.ERR_UNKNOWN:
            what, remedy = f"the server has no export {self._uri.export!r}", "nbdinfo --list shows those that it has"
        elif error.reply == Reply.ERR_UNSUP:
            what, remedy = "the server does not know the option GO", "use a newer server"
        elif error.reply == Reply.ERR_SHUTDOWN:
            return ServerError("the server is shutting down", where=self._uri, remedy="run the command again later")
        else:
            what, remedy = f"the server does not grant the export: {error.text}", "see the server's own log"
        return UnusableVolumeError(what, where=self._uri, remedy=remedy)

    def _check_tls(self, error: OptionRefusedError) -> None:
        if error.reply == Reply.ERR_TLS_REQD:
            raise ServerError(
                "the server requires TLS",
                where=self._uri,
                remedy="begin the URI with nbds, and name the certificates with tls-certificates=DIR",
            )

    def _ask_for_nothing(self, option: Option) -> None:
        for reply, _ in self._ask(option):
            raise ProtocolError(f"it answers the option {option.name} by {reply}")

    def _ask(self, option: Option, data: bytes = b"") -> Iterator[tuple[int, bytes]]:
        """The replies to an option up to the ACK: type and data of each.

        Raises:
            OptionRefusedError: in place of the ACK an error.
        """
        self._channel.send([codec.encode_option(option, data)])
        for _ in range(_REPLIES_MAX):
            header = self._channel.receive(nbd.OPTION_REPLY.size)
            reply, length = codec.decode_option_reply(header, option)
            answer = self._channel.receive(length)
            if reply == Reply.ACK:
                if answer:
                    raise ProtocolError("it acknowledges an option with data")
                return
            if codec.is_refusal(reply):
                raise OptionRefusedError(reply, codec.decode_text(answer))
            yield reply, answer
        raise ProtocolError(f"it answers the option {option.name} more than {_REPLIES_MAX} times")
