"""Reads the text format of metrics, as its readers do."""

from __future__ import annotations

import re

LINE = re.compile(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*)\} (\S+)')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\\n]|\\.)*)"')
ESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a reader of the format makes of it: samples; comments are skipped."""
    assert text == "" or text.endswith("\n")
    found = {}
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match, line
            labels = [
                (name, re.sub(r"\\.", lambda each: ESCAPED[each[0]], value)) for name, value in LABEL.findall(match[2])
            ]
            key = match[1], tuple(labels)
            assert key not in found, "twice the same sample"
            found[key] = int(match[3]) if match[3].isdecimal() else float(match[3])
    return found
