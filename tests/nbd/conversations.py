"""What a client that lies says: conversations at random, sound or nearly so, and a client that has them."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading

from mirrortool.nbd import protocol as nbd
from mirrortool.nbd.protocol import Command, Option
from tests.nbd.wire import (
    SIZE,
    TIMEOUT_SECONDS,
    encode_info_request,
    encode_meta_request,
    encode_option,
    encode_request,
)

EXTREMES = [0, 1, 2, 28, 511, 4096, SIZE - 1, SIZE, SIZE + 1, 1 << 31, (1 << 32) - 1]


def extreme(rng: random.Random, bits: int) -> int:
    return rng.choice([rng.choice(EXTREMES), rng.getrandbits(bits), (1 << bits) - 1]) & ((1 << bits) - 1)


def some_option(rng: random.Random) -> bytes:
    """An option, sound or nearly so."""
    option = rng.choice([*Option, *Option, rng.getrandbits(32)])
    name = rng.choice(["", "disk", "other", "a\nb", "n" * 5000])
    queries = [rng.choice(["base:", "base:allocation", "x"]) for _ in range(rng.randrange(3))]
    data = rng.choice(
        [
            b"",
            rng.randbytes(rng.randrange(40)),
            encode_info_request(name, [rng.getrandbits(16) for _ in range(rng.randrange(100))]),
            encode_meta_request(name, queries),
        ]
    )
    if rng.random() < 0.05:
        return nbd.OPTION.pack(nbd.OPTION_MAGIC, option, extreme(rng, 32)) + data
    return encode_option(option, data)


def some_request(rng: random.Random) -> bytes:
    """A request, sound or nearly so; a WRITE mostly with its data."""
    command = rng.choice([*Command, *Command, Command.WRITE, rng.getrandbits(16)])
    length = rng.choice([rng.randrange(10_000), extreme(rng, 32)])
    offset = rng.choice([rng.randrange(SIZE), extreme(rng, 64)])
    flags = rng.choice([0, 0, 0, rng.getrandbits(5), rng.getrandbits(16)])
    data = rng.randbytes(min(length, 10_000)) if command == Command.WRITE else b""
    return encode_request(command, rng.getrandbits(64), offset, length, flags=flags, data=data)


def spoiled(rng: random.Random, data: bytes) -> bytes:
    """Sometimes cut, sometimes with a changed byte."""
    if data and rng.random() < 0.2:
        return data[: rng.randrange(len(data))]
    if data and rng.random() < 0.2:
        changed = bytearray(data)
        changed[rng.randrange(len(changed))] = rng.getrandbits(8)
        return bytes(changed)
    return data


def some_conversation(rng: random.Random) -> bytes:
    """All that a client says, without listening."""
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(200))
    options = b"".join(some_option(rng) for _ in range(rng.randrange(4)))
    structured = encode_option(Option.STRUCTURED_REPLY) if rng.random() < 0.5 else b""
    context = encode_option(Option.SET_META_CONTEXT, encode_meta_request("", ["base:allocation"]))
    go = encode_option(Option.GO, encode_info_request("", [3]))
    requests = b"".join(some_request(rng) for _ in range(rng.randrange(8)))
    start = struct.pack(">I", rng.choice([1, 3, 3, 3, rng.getrandbits(32)]))
    if kind < 0.4:
        return spoiled(rng, start + options + go + requests)
    return start + structured + context + go + spoiled(rng, requests)


def converse(path: str, said: bytes) -> None:
    """Say it all, then hear whatever comes until the server ends it."""
    with contextlib.suppress(ConnectionError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_SECONDS)
        client.connect(path)
        listener = threading.Thread(target=hear, args=(client,))
        if len(said) > 20_000:
            listener.start()
        with contextlib.suppress(ConnectionError):
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
        if listener.ident:
            listener.join(TIMEOUT_SECONDS)
            assert not listener.is_alive()
        else:
            hear(client)


def hear(client: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        while client.recv(1 << 20):
            pass
