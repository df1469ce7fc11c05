"""The targets. Each module has

MODULES          names of the modules that it is meant to reach; lines are counted of these
fuzz_one(data)   parses; ends well, or with a MirrortoolError; what it asserts is a promise of the parser
seeds()          inputs that the real writers made
mutate(...)      optional: one mutation, of an input and a random generator; see sealing.py
BYTES_MAX        optional: how long an input may be
TOKENS           optional: words that a mutation may put in
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = (
    "frames", "journalfiles", "bases", "smallfiles", "logwrites", "fiologs", "nbdserver", "nbdclient", "messages",
    "receiving", "sending", "controlsocket", "texts", "traces", "pagesums", "images", "indexes",
)  # fmt: skip
BYTES_MAX_DEFAULT = 4096


def load(name: str) -> ModuleType:
    """The module of a target."""
    return importlib.import_module(f"tests.fuzz.targets.{name}")
