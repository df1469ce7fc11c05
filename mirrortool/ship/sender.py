"""The sender: ships a journal to a destination through every outage, and to several at the same time.

Rule: an error that may pass by itself - a broken link, a full disk there, another process that uses the copy - ends a
shipment only if it does not follow. One that follows tries again after 1 s, 2 s, ... 30 s, each time a random part
less, so that a hundred senders do not come at once. An error that does not pass, such as a fork, ends it. So does a
program that is not a receiver, such as a login script that prints, at the first connection; later, when it may just be
being replaced, after a few attempts.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from mirrortool import files, lockholder
from mirrortool.errors import (
    ExhaustedError,
    HostError,
    InputOutputError,
    LinkError,
    LockedError,
    MirrortoolError,
    NoSpaceError,
    UnfinishedArrivalError,
    UnfinishedPromotionError,
    UsageError,
)
from mirrortool.journal.copies.basetransfer import open_finished
from mirrortool.journal.tail import Tail
from mirrortool.ship.destination import Destination, parse_destination
from mirrortool.ship.link import Link
from mirrortool.ship.local import LocalLink
from mirrortool.ship.oneway import OneWayLink
from mirrortool.ship.protocol import NoReceiverError
from mirrortool.ship.remote import PROGRAM, ProcessLink, command_for
from mirrortool.ship.session import Session
from mirrortool.ship.shipoptions import ConnectAgain, RefusedError, ShipOptions
from mirrortool.ship.shipprogress import ShipProgress, ShipStatistics
from mirrortool.wording import counted

RETRY_SECONDS_MIN = 1.0
RETRY_SECONDS_MAX = 30.0
DESTINATIONS_MAX = 64
NO_RECEIVER_ATTEMPTS = 8
"""In a row, in about two minutes."""
_PASSING = (LinkError, LockedError, NoSpaceError, UnfinishedArrivalError, UnfinishedPromotionError)
_PASSING_LATER = (HostError,)
_PASSING_CODES = {each.exit_code for each in (LinkError, LockedError, NoSpaceError, InputOutputError, ExhaustedError)}

Connect = Callable[[Callable[[], None]], Link]
"""Opens a link; its argument is called when there is a reply."""


class Shipment:
    """One destination. `run` by one thread; `stop` and `statistics` are for any other."""

    def __init__(
        self,
        journal_path: str,
        destination: Destination,
        options: ShipOptions,
        connect: Connect,
        *,
        observer: str = "auto",
    ) -> None:
        self._journal_path, self._observer = journal_path, observer
        self._destination, self._options, self._connect = destination, options, connect
        self._progress = ShipProgress(destination.text)
        if options.has_slot and not destination.is_pipe:
            self._progress.slot = options.slot or destination.slot_name()
        # Set by `stop`; ends every wait. _tail is woken with it.
        self._ending = threading.Event()
        self._tail: Tail | None = None
        self._attempts = 0  # in a row that failed
        self._slot_lock = (
            ExitStack()
        )  # says beside the slot that this process ships, between connections, too; of `run`
        self._progress.on_registered = self._claim_slot

    def stop(self) -> None:
        """Have what was sent acknowledged, and end; from any thread."""
        self._ending.set()
        tail = self._tail
        if tail:
            tail.wake()

    def statistics(self) -> ShipStatistics:
        return self._progress.statistics()

    def run(self) -> None:
        """Ship, until everything that was there at the start is acknowledged, or, to follow, until `stop`.

        Raises:
            MirrortoolError: one that does not pass, or, without `follow`, any.
        """
        self._claim_slot()
        try:
            while not self._ending.is_set():
                connections = self._progress.connections
                if self._try():
                    return
                self._attempts = 0 if self._progress.connections > connections else self._attempts + 1
                pause = retry_seconds(self._attempts)
                self._progress.retries_in(pause)
                self._ending.wait(pause)
        finally:
            self._progress.state = "ended"
            self._slot_lock.close()

    def _claim_slot(self) -> None:
        """Once there is a slot, hold a lock beside it: `status` and others see from it that this process ships."""
        slots_at = files.join(self._journal_path, "slots")
        with suppress(LockedError, HostError):
            if self._progress.slot and files.exists(files.join(slots_at, f"{self._progress.slot}.json")):
                self._slot_lock.close()
                self._slot_lock.enter_context(lockholder.hold_beside(slots_at, self._progress.slot, "ship"))

    def _try(self) -> bool:
        """Connect and ship; False if it must be tried again."""
        try:
            self._run_session()
            return True
        except ConnectAgain:
            return False
        except MirrortoolError as error:
            if isinstance(error, LinkError) and error.where is None:
                error.where = self._destination.text
            if self._ending.is_set() and isinstance(error, LinkError):
                return True
            if not self._options.follow or not self._may_pass(error):
                self._progress.problem = str(error)
                raise
            self._progress.away(str(error))
            return False

    def _run_session(self) -> None:
        journal = open_finished(self._journal_path)
        with Tail(journal, self._observer) as tail:
            self._tail = tail
            try:
                link = self._connect(tail.wake)
                try:
                    Session(
                        journal, self._destination.text, self._options, link, tail, self._progress, self._ending
                    ).run()
                finally:
                    link.close()
            finally:
                self._tail = None

    def _may_pass(self, error: MirrortoolError) -> bool:
        if self._destination.is_pipe:  # a message that was sent in part cannot be undone
            return False
        if isinstance(error, RefusedError):
            return error.exit_code in _PASSING_CODES
        if isinstance(error, NoReceiverError):
            return self._progress.connections > 0 and self._attempts < NO_RECEIVER_ATTEMPTS
        return isinstance(error, _PASSING) or (self._progress.connections > 0 and isinstance(error, _PASSING_LATER))


def retry_seconds(attempt: int) -> float:
    """How long to wait after `attempt` attempts in a row that failed."""
    longest = min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * (1 << min(attempt, 10)))
    return longest * random.uniform(0.5, 1.0)


class Shipping:
    """Several shipments of one journal (440, FIG. 4), each in a thread of its own: none waits for another."""

    def __init__(self, shipments: Sequence[Shipment]) -> None:
        if not 1 <= len(shipments) <= DESTINATIONS_MAX:
            raise UsageError(f"{counted(len(shipments), 'destination')}; 1 to {DESTINATIONS_MAX} are possible")
        self._shipments = shipments
        self._errors: list[BaseException] = []

    @classmethod
    def open(
        cls,
        journal_path: str,
        destinations: Sequence[str],
        options: ShipOptions | None = None,
        *,
        rsh: Sequence[str] | None = None,
        remote_program: str = PROGRAM,
        observer: str = "auto",
    ) -> Shipping:
        """Shipments to destinations as on the command line: directories, HOST:PATH, ssh://..., or `-`.

        Args:
            rsh: what runs a command on another host, and its arguments; by default ssh.
            remote_program: mirrortool there.
            observer: how a shipment that follows is woken; one of tail.OBSERVERS.
        Raises:
            UsageError: one is not a destination, or several share one slot.
        """
        wanted = options or ShipOptions()
        if wanted.slot is not None and len(destinations) > 1:
            raise UsageError("a slot's name is for one destination")
        found = [parse_destination(each) for each in destinations]
        return cls(
            [
                Shipment(
                    journal_path,
                    each,
                    wanted,
                    connector(each, wanted, rsh=rsh, remote_program=remote_program),
                    observer=observer,
                )
                for each in found
            ]
        )

    def run(self) -> None:
        """Run all to their ends.

        Raises:
            MirrortoolError: the error with the highest exit code.
        """
        threads = [
            threading.Thread(target=self._run, args=(each,), name="mirrortool-ship", daemon=True)
            for each in self._shipments
        ]
        try:
            for thread in threads:
                thread.start()
        except BaseException:
            self.stop()
            raise
        finally:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._errors:
            raise max(self._errors, key=_severity)

    def stop(self) -> None:
        """End them all soon, cleanly; from any thread."""
        for each in self._shipments:
            each.stop()

    def statistics(self) -> list[ShipStatistics]:
        """The statistics of each, in their order."""
        return [each.statistics() for each in self._shipments]

    @property
    def errors(self) -> Sequence[BaseException]:
        """The errors that have ended shipments."""
        return list(self._errors)

    def _run(self, shipment: Shipment) -> None:
        try:
            shipment.run()
        except BaseException as error:
            self._errors.append(error)


def connector(
    destination: Destination,
    options: ShipOptions,
    *,
    rsh: Sequence[str] | None = None,
    remote_program: str = PROGRAM,
    sink: int = 1,
) -> Connect:
    """Returns what opens the link to a destination.

    Args:
        sink: the descriptor for a pipe.
    """
    if destination.remote:
        command = command_for(destination.remote, rsh, remote_program)
        return lambda wake: ProcessLink(command, wake, silence_seconds=options.silence_seconds)
    if destination.directory is not None:
        path = destination.directory
        return lambda _: LocalLink(path)
    return lambda _: OneWayLink(sink)


def _severity(error: BaseException) -> int:
    return error.exit_code if isinstance(error, MirrortoolError) else 100
