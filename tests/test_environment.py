"""What the tests run in: an environment of their own, whoever starts them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.fakes.environment import KEPT, KEPT_PREFIXES, clean

PRINT = "import os; print(*os.environ)"


def test_programs_that_tests_start_have_what_is_needed_and_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", PRINT], capture_output=True, text=True, check=True)
    more = {name for name in done.stdout.split() if not name.startswith(KEPT_PREFIXES)} - KEPT
    # LC_CTYPE is Python's own, where no locale is set; COLUMNS and LINES are of the library for reading lines.
    assert more <= {"PYTHONPATH", "LC_CTYPE", "COLUMNS", "LINES"}


def test_no_mirrortool_is_found_but_the_one_under_test(tmp_path: Path) -> None:
    (tmp_path / "mirrortool").touch()
    assert shutil.which("mirrortool") is None
    assert clean({"PATH": f"/bin:{tmp_path}:/usr/bin"})["PATH"] == "/bin:/usr/bin"


def test_what_hides_faults_is_not_kept() -> None:
    ours = {"PATH": "/bin", "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8", "MIRRORTOOL_REPLAY_FOLLOW": "1"}
    assert sorted(clean(ours)) == ["PATH", "PYTHONPATH"]
