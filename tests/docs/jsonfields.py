"""The fields of what --json prints, and those that a page has."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from tests.docs.manual import items
from tests.docs.workshop import run

NAMED_BY_DATA = {"changed"}
"""Fields whose own fields are names of volumes."""


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in NAMED_BY_DATA:
                yield from keys_of(inner)
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(keys_of, value))


def printed(*arguments: str, expected: int = 0) -> set[str]:
    lines = run(*arguments, "--json", expected=expected).splitlines()
    assert lines
    return {key for line in lines for key in keys_of(json.loads(line))}


def documented(lines: list[str]) -> set[str]:
    heads = [head for head, _ in items(lines) if head.startswith("Va ")]
    return {name for head in heads for name in head[3:].split(" , ")}
