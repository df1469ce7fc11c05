"""Rates that fio reaches through NBD, under which load and for how long."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

SECONDS = int(os.environ.get("MIRRORTOOL_BENCH_SECONDS", "4"))
IMAGE_BYTES = 256 << 20
LOADS = {
    "4k depth 1": ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
    "4k depth 32": ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
    "256k depth 16": ["--rw=write", "--bs=256k", "--iodepth=16"],
}


def sparse(path: Path, size: int = IMAGE_BYTES) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def rate(uri: str, load: list[str], *, size: int = IMAGE_BYTES, kind: str = "write") -> float:
    """Writes, or reads, a second that fio reaches."""
    command = ["fio", "--name=load", "--ioengine=nbd", f"--uri={uri}", f"--size={size}", "--time_based"]
    command += [f"--runtime={SECONDS}", "--output-format=json", *load]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0][kind]["iops"])
