"""The corpora that are kept: for each target an archive of a few inputs, corpus/TARGET.zip.

An input is named `NUMBER` where it is there for what it reaches, and by a word for what it once broke.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

_CORPUS = Path(__file__).parent / "corpus"
_DATE = (2026, 1, 1, 0, 0, 0)


def path_of(name: str) -> Path:
    """The archive of a target."""
    return _CORPUS / f"{name}.zip"


def load(name: str) -> dict[str, bytes]:
    """The kept inputs of a target, by name."""
    if not path_of(name).exists():
        return {}
    with zipfile.ZipFile(path_of(name)) as archive:
        return {each: archive.read(each) for each in sorted(archive.namelist())}


def save(name: str, inputs: Mapping[str, bytes]) -> None:
    """Keep these inputs, and no others."""
    _CORPUS.mkdir(exist_ok=True)
    with zipfile.ZipFile(path_of(name), "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for each in sorted(inputs):
            archive.writestr(zipfile.ZipInfo(each, _DATE), inputs[each], zipfile.ZIP_DEFLATED, 9)
