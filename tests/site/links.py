"""Model links: connections of pipes in place of ssh, with a delay, cuts, and ends that do not learn of them.

    reset      what is on its way arrives in part, cut anywhere; then both ends learn that the other is gone
    half-open  one end learns that, the other is told nothing: it hears nothing more, and what it says is lost; or what
               was on its way to it arrives late, after a new connection was made
    stall      nothing arrives for a time, and then all of it

`Pipes` takes the place of mirrortool.pipes in messagestream.py: the streams, with all that is above them, are real.
"""

from __future__ import annotations

import errno
import os
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mirrortool.errors import HostError, LinkError, host_error
from mirrortool.files import Buffer, remainder_of
from mirrortool.ship.link import StreamLink
from mirrortool.ship.messagestream import Stream
from mirrortool.ship.protocol import Decoder, Message
from tests.site.strands import SECOND, Scheduler

PIPE_BYTES = 1 << 16


@dataclass
class Pipe:
    """One direction.

    Attributes:
        chunks: what is on its way, each with the time of its arrival.
        ended_ns: from then on the reader finds the end, once all chunks were read; None while a writer is there.
        is_broken: the writer learns that the reader is gone.
        is_lost: what is written is lost, and neither end learns anything more of the other.
    """

    chunks: deque[tuple[int, bytes]] = field(default_factory=deque)
    size: int = 0
    newest_ns: int = 0
    ended_ns: int | None = None
    is_broken: bool = False
    is_lost: bool = False

    def put(self, data: bytes, arrives_ns: int) -> None:
        self.newest_ns = max(self.newest_ns, arrives_ns)
        self.chunks.append((self.newest_ns, data))
        self.size += len(data)

    def arrived(self, now: int) -> bool:
        return bool(self.chunks) and self.chunks[0][0] <= now

    def is_at_end(self, now: int) -> bool:
        return not self.chunks and self.ended_ns is not None and self.ended_ns <= now

    def end(self, at_ns: int) -> None:
        if self.ended_ns is None and not self.is_lost:
            self.ended_ns = max(at_ns, self.newest_ns)

    def lose(self, chance: random.Random) -> None:
        """Of what is on its way only a beginning arrives."""
        data = b"".join(part for _, part in self.chunks)
        kept = data[: chance.randrange(len(data) + 1)]
        at = self.chunks[0][0] if self.chunks else 0
        self.chunks.clear()
        self.size = 0
        if kept:
            self.put(kept, at)

    def delay(self, until_ns: int) -> None:
        self.newest_ns = max(self.newest_ns, until_ns)
        self.chunks = deque((max(at, until_ns), data) for at, data in self.chunks)
        if self.ended_ns is not None:
            self.ended_ns = max(self.ended_ns, until_ns)


class Connection:
    """Two pipes; `to_far` carries what the sender says.

    Attributes:
        near, far: the descriptors of the sender's end and of the receiver's.
        hosts: the sender's and the receiver's.
    """

    def __init__(self, near: int, far: int, hosts: tuple[object, object]) -> None:
        self.near, self.far, self.hosts = near, far, hosts
        self.to_far, self.to_near = Pipe(), Pipe()
        self.is_open = True


class Network:
    """All connections, and the descriptors of their ends."""

    def __init__(self, scheduler: Scheduler, chance: random.Random) -> None:
        self._scheduler, self._chance = scheduler, chance
        self.ends: dict[int, tuple[Pipe, Pipe]] = {}  # by descriptor: what is read, what is written
        self.blocking: set[int] = set()
        self.connections: list[Connection] = []
        self.delay_seconds = 0.01
        self.down_until_ns = 0
        self._descriptors = 1000
        self.on_call: Callable[[str], None] = lambda _: None
        self._listeners: dict[int, Listener] = {}  # by the descriptor of the receiver

    def connect(self, sender: object, receiver: object, on_reply: Callable[[Message], None]) -> Connection:
        """A new connection of two hosts.

        Args:
            on_reply: told what the receiver says, as it says it.

        Raises:
            LinkError: the network is down.
        """
        if self._scheduler.now < self.down_until_ns:
            self._scheduler.sleep(self._chance.choice([0.1, 5.0]))
            raise LinkError("no route to host")
        near, far = self._descriptors, self._descriptors + 1
        self._descriptors += 2
        connection = Connection(near, far, (sender, receiver))
        self.connections.append(connection)
        self.ends[near] = connection.to_near, connection.to_far
        self.ends[far] = connection.to_far, connection.to_near
        self.blocking |= {near, far}
        self._listeners[far] = Listener(on_reply)
        return connection

    def close(self, descriptor: int) -> None:
        """The process that has an end is gone, or has closed it."""
        if descriptor not in self.ends:
            return
        source, sink = self.ends.pop(descriptor)
        source.is_broken = source.is_broken or not source.is_lost
        sink.end(self._arrival())

    def _arrival(self) -> int:
        seconds = self.delay_seconds * self._chance.uniform(0.5, 2.0)
        return self._scheduler.now + int(seconds * SECOND)

    def newest(self) -> Connection | None:
        """The newest one whose ends are both there."""
        for each in reversed(self.connections):
            if each.is_open and each.near in self.ends and each.far in self.ends:
                return each
        return None

    # What can happen to a connection.

    def reset(self, connection: Connection) -> None:
        connection.is_open = False
        for pipe in (connection.to_far, connection.to_near):
            pipe.lose(self._chance)
            pipe.is_broken = True
            pipe.end(self._scheduler.now)

    def forget(self, told: Pipe, untold: Pipe) -> None:
        """The reader of `told` learns that the connection is gone, that of `untold` does not, or a long time later."""
        told.lose(self._chance)
        told.end(self._scheduler.now)
        told.is_lost = True
        untold.is_broken = True
        if self._chance.random() < 0.5:
            untold.lose(self._chance)
            untold.is_lost = True
        else:
            untold.delay(self._scheduler.now + int(self._chance.uniform(1, 40) * SECOND))

    def half_open(self, connection: Connection, *, near_is_told: bool) -> None:
        connection.is_open = False
        both = connection.to_near, connection.to_far
        self.forget(*(both if near_is_told else reversed(both)))

    def lose_end(self, connection: Connection, *, is_near: bool) -> None:
        """The host at one end has lost its power: the other is told nothing, or that the connection is gone."""
        self.ends.pop(connection.near if is_near else connection.far, None)
        connection.is_open = False
        if self._chance.random() < 0.5:
            self.reset(connection)
            return
        for pipe in (connection.to_far, connection.to_near):
            pipe.lose(self._chance)
            pipe.is_lost = True
            pipe.is_broken, pipe.ended_ns = False, None

    def stall(self, connection: Connection, seconds: float) -> None:
        for pipe in (connection.to_far, connection.to_near):
            pipe.delay(self._scheduler.now + int(seconds * SECOND))

    # Pipes.

    def pipes(self) -> Pipes:
        return Pipes(self, self._scheduler)

    def write(self, descriptor: int, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        self.on_call("send")
        data = b"".join(buffers)
        if descriptor in self._listeners:
            self._listeners[descriptor].hear(data)
        while True:
            _, sink = self._ends_of(descriptor)
            if sink.is_broken:
                raise host_error(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)), None, "send")
            if sink.is_lost:
                return []
            room = PIPE_BYTES - sink.size
            if room > 0 or descriptor not in self.blocking:
                break
            self._scheduler.wait(lambda sink=sink: sink.size < PIPE_BYTES or sink.is_broken)  # type: ignore[misc]
        if room <= 0:
            return buffers
        sink.put(data[:room], self._arrival())
        return remainder_of([memoryview(buffer) for buffer in buffers], min(room, len(data)))

    def read(self, descriptor: int, view: memoryview) -> int:
        self.on_call("receive")
        source, _ = self._ends_of(descriptor)
        now = self._scheduler.now
        if not source.arrived(now):
            assert source.is_at_end(now), "a read that waits"
            return 0
        at, data = source.chunks.popleft()
        count = min(len(view), len(data))
        view[:count] = data[:count]
        if count < len(data):
            source.chunks.appendleft((at, data[count:]))
        source.size -= count
        return count

    def _ends_of(self, descriptor: int) -> tuple[Pipe, Pipe]:
        if descriptor not in self.ends:
            raise host_error(OSError(errno.EBADF, os.strerror(errno.EBADF)), None, "use a link that was closed")
        return self.ends[descriptor]

    def wait_readable(self, descriptor: int, seconds: float) -> bool:
        def is_readable() -> bool:
            ends = self.ends.get(descriptor)
            now = self._scheduler.now
            return ends is None or ends[0].arrived(now) or ends[0].is_at_end(now)

        ends_ns = self._scheduler.now + int(max(0.0, seconds) * SECOND)
        while not is_readable():
            ends = self.ends[descriptor][0]
            comes_ns = ends.chunks[0][0] if ends.chunks else ends.ended_ns
            until = ends_ns if comes_ns is None else min(ends_ns, comes_ns)
            if self._scheduler.now >= ends_ns:
                return False
            before = len(ends.chunks), ends.ended_ns
            self._scheduler.wait(
                lambda ends=ends, before=before: (len(ends.chunks), ends.ended_ns) != before or is_readable(),  # type: ignore[misc]
                (until - self._scheduler.now) / SECOND,
            )
        return True

    def wait_writable(self, descriptor: int, seconds: float) -> bool:
        def is_writable() -> bool:
            ends = self.ends.get(descriptor)
            return ends is None or ends[1].size < PIPE_BYTES or ends[1].is_broken

        return self._scheduler.wait(is_writable, seconds)


class Pipes:
    """`pipes` in messagestream.py."""

    def __init__(self, network: Network, scheduler: Scheduler) -> None:
        self._network, self._scheduler = network, scheduler
        self.wait_readable, self.wait_writable = network.wait_readable, network.wait_writable
        self.read_pipe, self.write_pipe = network.read, network.write

    def has_writer(self, descriptor: int) -> bool:
        ends = self._network.ends.get(descriptor)
        return ends is not None and (ends[0].ended_ns is None or ends[0].ended_ns > self._scheduler.now)

    def unblock(self, descriptor: int) -> None:
        self._network.blocking.discard(descriptor)

    def widen_pipe(self, descriptor: int, length: int) -> None:
        pass


class ModelLink(StreamLink):
    """A link through a connection of the network; as ship/remote.py has one through a process."""

    def __init__(self, network: Network, descriptor: int, on_reply: Callable[[], None], silence_seconds: float) -> None:
        self._network, self._descriptor = network, descriptor
        super().__init__(Stream(descriptor, descriptor), on_reply, silence_seconds=silence_seconds)

    def abort(self) -> None:
        self._network.close(self._descriptor)


class Listener:
    """Decodes what a receiver says, as it says it."""

    def __init__(self, on_reply: Callable[[Message], None]) -> None:
        self._decoder, self._on_reply = Decoder(), on_reply

    def hear(self, data: bytes) -> None:
        with suppress(LinkError, HostError):
            while data:
                room = self._decoder.room()
                count = min(len(room), len(data))
                room[:count] = data[:count]
                data = data[count:]
                if message := self._decoder.received(count):
                    self._on_reply(message)
