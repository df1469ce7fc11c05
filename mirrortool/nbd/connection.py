"""One client from its first byte to its last, on a thread of its own."""

from __future__ import annotations

import ssl
import traceback
from collections.abc import Callable

from mirrortool.nbd.channel import Channel, EndOfStreamError
from mirrortool.nbd.events import Events
from mirrortool.nbd.export import Export
from mirrortool.nbd.negotiation import ExportTable, Negotiation, Security
from mirrortool.nbd.protocol import ProtocolError
from mirrortool.nbd.statistics import Counters
from mirrortool.nbd.transmission import Transmission


class Connection:
    """A client. `run` is for its thread; everything else may be called and read by others.

    Attributes:
        peer: what to call it in an event.
        export: what it reads and writes; None while it negotiates.
        counters: what it has done.
    """

    def __init__(self, channel: Channel, peer: str, events: Events) -> None:
        self.peer = peer
        self.export: Export | None = None
        self.counters = Counters()
        self._channel = channel
        self._events = events

    def run(self, exports: ExportTable, security: Security, is_stopping: Callable[[], bool]) -> None:
        """Serve the client until it leaves, must go, or the server stops. Never raises: what is wrong is an event."""
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
        except OSError:
            pass  # the client is gone, or the server stops: nothing to tell, as it was told so
        except BaseException as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            self._tell("bug", f"unexpected {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})")
        finally:
            self._channel.close()

    def finish_reading(self) -> None:
        """Take nothing more than what has arrived."""
        self._channel.finish_reading()

    def abort(self) -> None:
        """End it, whatever it does."""
        self._channel.abort()

    def _serve(self, exports: ExportTable, security: Security, is_stopping: Callable[[], bool]) -> None:
        agreement = Negotiation(self._channel, exports, security).run()
        if agreement is None:
            return
        self.export = agreement.export
        self._channel.no_deadline()
        transmission = Transmission(self._channel, agreement, self.counters, self._tell_failure)
        if transmission.run(is_stopping):
            self._channel.say_goodbye()

    def _tell_failure(self, text: str) -> None:
        self._events.tell("failed", text)

    def _tell(self, kind: str, text: str) -> None:
        self._events.tell(kind, f"client {self.peer}: {text}")
