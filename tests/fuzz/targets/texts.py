"""Texts of the command line: points in time, durations, sizes, addresses, destinations, volumes.

The first byte says which, the rest is the text as a locale of UTF-8 gives it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from mirrortool import clock
from mirrortool.cli import init, options
from mirrortool.cli.text import printable, quoted
from mirrortool.errors import UsageError
from mirrortool.journal.point import Until
from mirrortool.nbd.uri import is_nbd_uri, parse_uri
from mirrortool.ship.destination import parse_destination
from mirrortool.sockets.addresses import parse_address
from mirrortool.times import Moment, format_time, parse_duration, parse_moment
from mirrortool.volume import place

MODULES = (
    "mirrortool.times", "mirrortool.journal.point", "mirrortool.cli.options", "mirrortool.sockets.addresses",
    "mirrortool.ship.destination", "mirrortool.volume", "mirrortool.cli.init", "mirrortool.nbd.uri",
)  # fmt: skip
BYTES_MAX = 120
NOW_NS = 1_764_343_696 * 10**9 + 123
TOKENS = (
    b"2026-11-23", b" 14:30:20.5", b"T", b"Z", b"+0530", b"-10m", b"today ", b"yesterday ", b"@1764343696.5", b"newest",
    b"64M", b"GiB", b"/s", b"0x3100000000000000", b"3100000000000000h", b"unix:", b"tcp:", b"[::1]:10809",
    b"user@host:", b"ssh://", b"/~/", b"%2f", b"a=", b":1G", b"@0x", b"\xd9\xa3", b"\xed\xa0\x80", b"0001-01-01",
    b"9999-12-31", b"nbd+unix:///", b"nbds://", b"?socket=/", b"&tls-certificates=/", b"tls-hostname=",
)  # fmt: skip


def _moment(text: str) -> None:
    moment = parse_moment(text)
    _printed(moment)


def _printed(moment: Moment) -> None:
    """A printed time means what was printed, to the millisecond, where this host has the time at all."""
    if 0 <= moment.time_ns < 1 << 63:
        again = parse_moment(format_time(moment.time_ns))
        assert again.time_ns == moment.time_ns // 10**6 * 10**6 and again.width_ns == 10**6


def _point(text: str) -> None:
    until = Until.parse(text)
    given = [until.lsn is not None, until.time_ns is not None, until.mark is not None, until.is_newest]
    assert sum(given) == 1


def _duration(text: str) -> None:
    assert 0 <= parse_duration(text) <= 100 * 366 * 86400


def _size(text: str) -> None:
    assert options.parse_size(text) >= 0


def _rate(text: str) -> None:
    assert options.parse_rate(text) > 0


def _mode(text: str) -> None:
    assert 0 <= options.parse_mode(text) <= 0o777


def _socket(text: str) -> None:
    address = parse_address(text)
    assert parse_address(str(address)) == address


def _destination(text: str) -> None:
    destination = parse_destination(text)
    assert (destination.remote, destination.directory, destination.is_pipe).count(None) >= 1
    assert destination.slot_name()


def _volumes(text: str) -> None:
    sizes, addresses = [], {}
    for each in text.split("\n"):
        wanted = init.parse_new_volume(each)
        sizes.append((wanted.name, wanted.size or 0))
        if wanted.address is not None:
            addresses[wanted.name] = wanted.address
    volumes = place(sizes, 4096, addresses)
    assert len(volumes) == len(sizes)


def _uri(text: str) -> None:
    uri = parse_uri(text)
    assert uri.text == text and uri.is_tls >= (uri.certificates is not None)
    assert parse_uri(text) == uri and is_nbd_uri(text)


def _shown(text: str) -> None:
    assert printable(text).isprintable() and quoted(text).isprintable()


PARSERS: tuple[Callable[[str], object], ...] = (
    _moment, _point, _duration, _size, _rate, _mode, _socket, _destination, _volumes, _shown, options.parse_address,
    options.parse_named_path, options.parse_slot_limit, _uri,
)  # fmt: skip


def fuzz_one(data: bytes) -> None:
    if not data:
        return
    text = data[1:].decode("utf-8", "surrogateescape")
    before, clock.now_ns = clock.now_ns, lambda: NOW_NS
    try:
        PARSERS[data[0] % len(PARSERS)](text)
    except (ValueError, UsageError):  # what an option's type turns into a message
        return
    finally:
        clock.now_ns = before


def seeds() -> Iterator[bytes]:
    examples = (
        ("2026-11-23 14:30:20.5", "2026-11-23T14:30+0530", "14:30", "yesterday 03:00:00Z", "@1764343696.5", "-10m"),
        ("812", "newest", "nightly", "2026-11-23", "@1764343696123456789"), ("1.5h", "30s"), ("64M", "10GiB", "512"),
        ("5M/s", "1g"), ("0660", "7"), ("unix:/run/s", "tcp:[::1]:10809", "tcp:localhost:0"),
        ("user@host:dir", "ssh://u@[::1]:22/~/x%20y", "./dir", "-", "http://x/y", "[fe80::1]:x"),
        ("a=/dev/x", "a=b:1G\nc=d@0x3100000000000000", "vm=x.img:5T@2000000000000h"), ("a \x1b[31m", "'"),
        ("0x3100000000000000", "3100000000000000h"), ("a=b",), ("100G", "2d"),
        (
            "nbd://[::1]:1/a%20b", "nbds://h/x?tls-certificates=/p&tls-hostname=n", "nbd+unix:///d?socket=/run/s",
            "nbd://u@h/", "nbd://h:99999/", "nbd+unix:///d", "nbd://h/x#y", "nbd://h/%ff",
        ),
    )  # fmt: skip
    for number, texts in enumerate(examples):
        for text in texts:
            yield bytes([number]) + text.encode()


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    """Mostly the same parser, and now and then another digit."""
    if not data:
        return bytes(libfuzzer(data, bytes_max))
    first = data[:1] if chance.randrange(8) else bytes([chance.randrange(len(PARSERS))])
    mutated = bytearray(libfuzzer(data[1:], bytes_max - 1))
    if mutated and chance.randrange(2):
        mutated[chance.randrange(len(mutated))] = chance.choice(b"0123456789:-+.TZ@ ")
    return first + bytes(mutated)
