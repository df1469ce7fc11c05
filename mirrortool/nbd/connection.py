"""A connection: one client from its first byte to its last, on a thread of its own."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from mirrortool.nbd.channel import Channel, EndOfStreamError
from mirrortool.nbd.export import Export
from mirrortool.nbd.memorybudget import Share
from mirrortool.nbd.negotiation import ExportTable, Negotiation, Security
from mirrortool.nbd.protocol import ProtocolError
from mirrortool.nbd.serverevents import Events
from mirrortool.nbd.statistics import Counters
from mirrortool.nbd.transmission import BrokenReplyError, Transmission


class Connection:
    """A client. `run` is for its thread; everything else may be called and read by others.

    Attributes:
        peer: its name in an event.
        export: the one that it reads and writes; None while it negotiates.
        counters: what it has done.
    """

    def __init__(
        self, channel: Channel, peer: str, events: Events, enter: Callable[[Connection], Share | None]
    ) -> None:
        """Prepare.

        Args:
            enter: called when the client asks for an export; gives it its share of the memory, or None if there are as
                many clients as there may be.
        """
        self.peer = peer
        self.export: Export | None = None
        self.counters = Counters()
        self._channel = channel
        self._events = events
        self._enter = enter
        self._share: Share | None = None
        self._is_aborted = False

    def run(self, exports: ExportTable, security: Security, is_stopping: Callable[[], bool]) -> None:
        """Serve the client until it leaves, is ended, or the server stops. Never raises: an error becomes an event."""
        try:
            self._serve(exports, security, is_stopping)
        except ProtocolError as error:
            self._tell("garbage", f"{error}; the connection was ended")
        except EndOfStreamError:
            if self.export:
                self._tell("gone", "went away in the middle of a request")
        except TimeoutError:
            if not self.export:
                self._tell("slow", "took too long over the handshake; the connection was ended")
        except ssl.SSLError as error:
            self._tell("tls", f"TLS failed: {error.reason or error}")
        except (OSError, BrokenReplyError):
            pass  # the client is gone, or the server stops, or the failure was told already
        except BaseException as error:
            import traceback  # loaded late: it costs 5 ms

            frame = traceback.extract_tb(error.__traceback__)[-1]
            self._tell("bug", f"unexpected {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})")
        finally:
            self._channel.close()
            if self._share:
                self._share.close()

    def finish_reading(self) -> None:
        """Receive nothing more than what has arrived."""
        self._channel.finish_reading()

    def abort(self) -> None:
        """End it at once, without an event."""
        self._is_aborted = True
        self._channel.abort()

    def _serve(self, exports: ExportTable, security: Security, is_stopping: Callable[[], bool]) -> None:
        agreement = Negotiation(self._channel, exports, security, self._has_entered).run()
        if agreement is None or self._share is None:
            return
        self.export = agreement.export
        self._channel.no_deadline()
        transmission = Transmission(self._channel, agreement, self._share, self.counters, self._tell_failure)
        if transmission.run(is_stopping):
            self._channel.say_goodbye()

    def _has_entered(self) -> bool:
        self._share = self._enter(self)
        return self._share is not None

    def _tell_failure(self, text: str) -> None:
        self._events.tell("failed", text)

    def _tell(self, kind: str, text: str) -> None:
        if self._is_aborted:
            return
        self._events.tell(kind, f"client {self.peer}: {text}")
