"""A destination that a journal is shipped to, as users write it.

-                                   standard output
[user@]host:path, host:~/path       another host, through ssh; relative to the user's home directory there
ssh://[user@]host[:port]/path       the same, path from the root; /~/path relative to the home directory
any other scheme://                 refused, as it would be a path on a host of that name
anything else                       a directory of this host; so is a text with a slash before its first colon
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

import xxhash

from mirrortool import files
from mirrortool.errors import UsageError

_HOST = re.compile(r"(?:[^\s@:/\x00-\x1f-][^\s@:/\x00-\x1f]*@)?(?:[^\s@:/\[\]\x00-\x1f-][^\s@:/\[\]\x00-\x1f]*)")
_ADDRESS = re.compile(r"((?:[^\s@:/-][^\s@:/]*@)?)\[([0-9A-Fa-f:.%a-z]+)\]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.*", re.DOTALL)
_URL = re.compile(r"(?i:ssh)://((?:[^/@]*@)?(?:\[[^\]/]*\]|[^/:\[\]]*))(?::(\d{1,5}))?(/.*)", re.DOTALL)
_NO_NAME_CHARACTER = re.compile(r"[^A-Za-z0-9._-]+")
_NAME_LENGTH_MAX = 40
PIPE = "-"


@dataclass(frozen=True, slots=True)
class Remote:
    """A directory of another host.

    Attributes:
        host: `host` or `user@host`, as for ssh.
        port: 0 for ssh's own choice.
        path: on that host; relative to the user's home directory if it does not begin with a slash.
    """

    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Destination:
    """A destination: `remote`, or `directory`, or, if neither, standard output.

    Attributes:
        text: as it was given; in messages.
    """

    text: str
    remote: Remote | None = None
    directory: str | None = None

    @property
    def is_pipe(self) -> bool:
        return self.text == PIPE

    def slot_name(self) -> str:
        """A name for the slot of the copy there, made of the destination."""
        where = files.absolute(self.directory) if self.directory else self.text
        name = _NO_NAME_CHARACTER.sub("-", where).strip("-")
        if not name or len(name) > _NAME_LENGTH_MAX:
            short = xxhash.xxh32_hexdigest(files.portable_path(where).encode("utf-8", "surrogateescape"))
            name = f"{name[-_NAME_LENGTH_MAX + 9 :]}-{short}".lstrip("-")
        return f"ship-{name}"


def parse_destination(text: str) -> Destination:
    """The destination that a text means.

    Raises:
        UsageError: it cannot be parsed.
    """
    if text == PIPE:
        return Destination(text)
    if scheme := scheme_of(text):
        if scheme != "ssh":
            raise UsageError(
                f"{text!r}: mirrortool does not ship to {scheme}://; a destination is a directory, HOST:PATH, "
                "ssh://HOST/PATH or -"
            )
        return Destination(text, remote=_parse_url(text))
    if not text:
        raise UsageError("a destination is empty")
    before_slash = text.partition("/")[0]
    separator = "]:" if "]:" in before_slash else ":"
    if separator not in before_slash:
        return Destination(text, directory=text)
    host, _, path = text.partition(separator)
    host += separator[:-1]
    return Destination(text, remote=_remote(text, host, 0, path))


def scheme_of(text: str) -> str | None:
    """The scheme of a URL in lower case; None for other texts. With ./ before it, a text that looks so is a path."""
    match = _SCHEME.fullmatch(text)
    return match[1].lower() if match else None


def _parse_url(text: str) -> Remote:
    match = _URL.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is not ssh://[user@]host[:port]/path")
    host, port, path = unquote(match[1]), int(match[2] or 0), unquote(match[3])
    if port > 65535:
        raise UsageError(f"{text!r}: there is no port {port}")
    return _remote(text, host, port, path.removeprefix("/") if path.startswith("/~/") else path)


def _remote(text: str, host: str, port: int, path: str) -> Remote:
    address = _ADDRESS.fullmatch(host)
    if address:
        host = f"{address[1]}{address[2]}"
    elif not _HOST.fullmatch(host):
        raise UsageError(f"{text!r} names no host")
    path = path.removeprefix("~/")
    if not path or path.startswith(("~", ":")) or "\0" in path:
        raise UsageError(f"{text!r} names no path on {host}")
    return Remote(host, port, f"./{path}" if path.startswith("-") else path)
