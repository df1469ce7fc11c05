"""A trace file, proved: jsonlines.py, proof.py, check.py and section.py."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from mirrortool.trace import jsonlines
from mirrortool.trace.proof import Prover
from tests.fuzz import jsontexts, sealing
from tests.fuzz.memoryfiles import MemoryFiles
from tests.trace import scenes

MODULES = (
    "mirrortool.trace.jsonlines", "mirrortool.trace.proof", "mirrortool.trace.check", "mirrortool.trace.section",
    "mirrortool.trace.lastwriters", "mirrortool.trace.summary",
)  # fmt: skip
BYTES_MAX = 4096
TOKENS = (b'{"type": "end", "sequence": 0, "at_ns": 5}\n', b'"footprint": [[0, 1]]', b'"failed": true', b"null", b"\n")


def fuzz_one(data: bytes) -> None:
    with MemoryFiles({"trace": data}):
        proof = Prover("trace").run()
    assert proof.is_proved == (not proof.violations)
    assert sum(proof.broken.values()) >= len(proof.violations)
    assert 0 <= proof.cut_off <= proof.replays


def seeds() -> Iterator[bytes]:
    for records in (scenes.example(), scenes.long_trace(5, tasks=2), scenes.quick_trace(5), scenes.opening()):
        lines = [jsonlines.encode(each) for each in records]
        while sum(map(len, lines)) > BYTES_MAX:
            del lines[-2]
        yield b"".join(lines)


def mutate(data: bytes, bytes_max: int, chance: random.Random, libfuzzer: Callable[[bytes, int], bytes]) -> bytes:
    """Other values in a line, and lines in another order."""
    if chance.randrange(4) == 0:
        return bytes(libfuzzer(data, bytes_max))
    lines = sealing.shuffled(data.split(b"\n"), chance)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(lines)) if lines else 0
        if lines and lines[at]:
            lines[at] = jsontexts.mutate(lines[at], chance) if chance.randrange(256) else jsontexts.nested(chance)
    return b"\n".join(lines)
