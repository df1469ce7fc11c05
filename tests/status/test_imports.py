"""Status looks at small files and newest frames: it needs none of what replays."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = "import sys, mirrortool.cli.status; print(*(name for name in sys.modules if name.startswith('mirrortool.')))"


def test_status_loads_no_module_of_a_replay() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    loaded = ran.stdout.split()
    assert "mirrortool.status.watch" in loaded
    assert [name for name in loaded if name.startswith("mirrortool.replay")] == []
