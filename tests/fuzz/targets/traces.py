"""A trace file, proved: jsonlines.py, proof.py, check.py and section.py."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from mirrortool.trace import jsonlines
from mirrortool.trace.proof import Prover
from tests.fuzz import jsontexts, sealing
from tests.fuzz.memoryfiles import MemoryFiles
from tests.trace import scenes
from tests.trace.records import unit

MODULES = (
    "mirrortool.trace.jsonlines", "mirrortool.trace.proof", "mirrortool.trace.check", "mirrortool.trace.section",
    "mirrortool.trace.lastwriters", "mirrortool.trace.summary",
)  # fmt: skip
BYTES_MAX = 4096
_NUMBER = re.compile(rb"\b\d{1,18}\b")
TOKENS = (b'{"type": "end", "sequence": 0, "at_ns": 5}\n', b'"footprint": [[0, 1]]', b'"failed": true', b"null", b"\n")


def fuzz_one(data: bytes) -> None:
    with MemoryFiles({"trace": data}):
        proof = Prover("trace").run()
    assert proof.is_proved == (not proof.violations)
    assert sum(proof.broken.values()) >= len(proof.violations)
    assert 0 <= proof.cut_off <= proof.replays


def seeds() -> Iterator[bytes]:
    failed = [unit(0, 10, 20, (0, 2), failed=True), unit(1, 30, 40, (1, 2)), unit(2, 35, 50, (8, 1), task=1)]
    for records in (
        scenes.example(), scenes.long_trace(5, tasks=2), scenes.quick_trace(5), scenes.opening(),
        [*scenes.opening(), *failed],
    ):  # fmt: skip
        lines = [jsonlines.encode(each) for each in records]
        while sum(map(len, lines)) > BYTES_MAX:
            del lines[-2]
        yield b"".join(lines)


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    """Other values in a line, and lines in another order."""
    if chance.randrange(4) == 0:
        return bytes(libfuzzer(data, bytes_max))
    if chance.randrange(6) == 0:  # one number is another wherever it is: the same page, or task, in several lines
        numbers = sorted(set(_NUMBER.findall(data)))
        old = chance.choice(numbers or [b"0"])
        new = str(chance.choice((0, 1, 7, 100, int(old) + 1, 1 << 40))).encode()
        return re.sub(rb"\b%s\b" % old, new, data)
    lines = sealing.shuffled(data.split(b"\n"), chance)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(lines)) if lines else 0
        if lines and lines[at]:
            lines[at] = jsontexts.mutate(lines[at], chance) if chance.randrange(256) else jsontexts.nested(chance)
    return b"\n".join(lines)
