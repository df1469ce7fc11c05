"""Mutations of a JSON text: another value in a field, a field too many, one that is gone, or deep nesting."""

from __future__ import annotations

import json
import random
from typing import Any

_NUMBERS = (
    0, 1, -1, 2, 255, 512, 4096, 65536, 65537, (1 << 31) - 1, 1 << 32, 1 << 48, (1 << 62) - 512, 1 << 62, (1 << 63) - 1,
    1 << 63, (1 << 64) - 1, 1 << 64, 10**16 - 1, 10**30, -(1 << 63), 0.5, -0.0, 1e300, float("inf"), float("nan"),
)  # fmt: skip
_TEXTS = (
    "", "\0", "\ud800", "\udc80", "..", "/", "a/b", "0" * 16, "f" * 16, "0" * 32, "f" * 32, " " * 16, "x" * 300,
    "flush", "disk", "a", "-", "\x1b[31m", "\n", "٣", "newest", "1e9",
)  # fmt: skip
_DEEP = 3000


def mutate(data: bytes, chance: random.Random) -> bytes:
    """The text with one to three things changed; bytes that are not JSON come back as they are."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        value = _changed(value, chance)
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return data


def _changed(value: Any, chance: random.Random) -> Any:
    places = list(_places(value))
    if not places and isinstance(value, dict) and chance.randrange(8):
        return {chance.choice(_TEXTS): _new(None, chance)}
    if not places:
        return _new(None, chance)
    holder, key = chance.choice(places)
    choice = chance.randrange(12)
    if choice == 0:
        del holder[key]
    elif choice == 1:
        other, at = chance.choice(places)
        try:
            holder[key] = json.loads(json.dumps(other[at]))
        except (LookupError, ValueError, RecursionError):
            return value
    elif choice == 3:  # what names the same thing in several places stays the same
        old, new = holder[key], _new(holder[key], chance)
        for each, at in places:
            if isinstance(old, int | str) and each[at] == old:
                each[at] = new
    elif choice == 2 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif choice == 2:
        holder[chance.choice(_TEXTS)] = holder[key]
    else:
        holder[key] = _new(holder[key], chance)
    return value


def _places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Every container and key in it."""
    found: list[tuple[Any, Any]] = []
    if depth < 8 and isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            found += _places(value[key], depth + 1)
    return found


def _new(value: Any, chance: random.Random) -> Any:
    kind = chance.randrange(10)
    if type(value) is int and kind < 5:
        return value + chance.choice((-1, 1, 8, -8, 1 << 32)) if kind < 2 else chance.choice(_NUMBERS)
    if isinstance(value, str) and value and kind < 5:
        at = chance.randrange(len(value))
        return value[:at] + chance.choice((*"0af\0\ud800 -/.", "")) + value[at + 1 :]
    if kind < 7:
        return chance.choice(_NUMBERS)
    if kind < 9:
        return chance.choice(_TEXTS)
    return chance.choice((None, True, False, [], {}, [[]], [{}], [0, 1], {"a": {}}, [value], {"a": value}))


def nested(chance: random.Random) -> bytes:
    """Brackets, more than a parser may follow."""
    return chance.choice((b"[", b'{"a":')) * chance.choice((10, 1000, _DEEP, 10 * _DEEP))
