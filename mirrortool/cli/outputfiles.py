"""Files that a command writes beside its work, such as a trace: they replace an earlier one, and nothing else."""

from __future__ import annotations

from mirrortool import files, pathowner
from mirrortool.errors import AccessError


def check_output(path: str, what: str, begins: bytes) -> None:
    """A file may be written there.

    Args:
        what: what the file is, such as `a trace`.
        begins: what every such file begins with.
    Raises:
        AccessError: it lies inside a journal, copy or mirror, or the file there is something else, such as a volume.
    """
    pathowner.check_free(path)
    facts = files.find_facts(path)
    if facts is None:
        return
    if facts.kind != "file":
        raise AccessError(f"is a {facts.kind}, not a file for {what}", where=path, remedy="name a file")
    with files.open_file(path) as file:
        if facts.size and file.pread(len(begins), 0) != begins:
            raise AccessError(f"does not hold {what}", where=path, remedy="choose another file")
